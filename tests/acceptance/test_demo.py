"""`mirror demo` as people run it: the story, the traffic, and that nothing of it stays, however it ends."""

import asyncio
import os
import pty
import re
import signal
import sys
import termios
import time
from random import Random
from urllib.parse import urlsplit

import psycopg
import pytest

from mirror.demo.app import App
from mirror.demo.commands import get
from mirror.demo.gauges import scrape
from mirror.demo.realtime import Realtime
from mirror.demo.traffic import Deed, Happening, Traffic, seed
from mirror.demo.world import HERE, world
from tests.bed.demos import Demo, command_lines, demo
from tests.bed.eventually import eventually

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for what a demo leaves behind"),
    pytest.mark.slow,
]

STORY = [
    r"Jonas has no membership +Jonas +403 denied +-$",
    r"Maya invites Jonas +Jonas +200 allowed +\d+\.\d ms$",
    r"Maya removes Jonas +Jonas +403 denied +\d+\.\d ms$",
    r"Maya soft-deletes the trip +everybody +403 denied +\d+\.\d ms$",
]


async def happening(demo: Demo) -> str:
    """The next line about something that happened; the doors and the totals are passed over."""
    while not re.match(r"\d\d:\d\d:\d\d  ", line := await demo.line()):
        assert line, "it ended"
    return line


async def test_the_story_is_told_in_a_small_table_and_comes_out_right() -> None:
    began = time.monotonic()
    async with demo(
        "--once", MIRROR_TARGET_URL="postgresql://somebody@elsewhere/else", MIRROR_BATCH_ROWS="none"
    ) as run:
        code, out, err = await run.end()
    assert (code, err) == (0, "")
    assert time.monotonic() - began < 20
    lines = [line.strip() for line in out.splitlines()]
    assert len(lines) <= 12
    assert all(len(line) <= 80 for line in out.splitlines())
    told = [line for line in lines if re.search("denied|allowed", line)]
    for line, wanted in zip(told, STORY, strict=True):
        assert re.match(wanted, line)
    assert "\x1b" not in out


async def test_on_a_pipe_traffic_is_told_in_plain_lines_until_ctrl_c() -> None:
    async with demo() as run:
        doors = [await run.line() for _ in range(3)]
        told = [await happening(run) for _ in range(4)]
        for door in doors[1:]:
            with psycopg.connect(door.split()[-1]) as connection:
                assert connection.execute("select count(*) > 0 from public.trips").fetchone() == (True,)
        address = urlsplit(doors[0].split()[1])
        assert (address.scheme, address.hostname, address.path) == ("http", "127.0.0.1", "/")
        assert address.port is not None
        assert await asyncio.to_thread(scrape, address.port)
        status, page = await asyncio.to_thread(get, address.port, "/")
        assert (status, b"permission mirror" in page) == (200, True)
        traces = run.traces()
        assert len(traces.directories) == 3
        code, out, err = await run.end(signal.SIGINT)
    assert (code, err) == (0, "")
    changes, touched, removed = out.splitlines()[-3:]
    assert re.match(r"\d+ changes in \d+ s; Supabase knew after \d+\.\d ms \(p50\), \d+\.\d ms \(p99\)\.$", changes)
    assert re.match(r"Touched [1-9]\d* profiles, none of which gave the mirror work\.$", touched)
    assert removed == "Everything is stopped and removed."
    assert "\x1b" not in "".join([*doors, *told, out])
    assert not any("not known" in line for line in told)
    assert not traces.left()


async def test_on_a_terminal_there_is_a_screen_that_is_given_back() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    async with demo(stdout=theirs, TERM="xterm", NO_COLOR="1") as run:
        os.close(theirs)
        os.set_blocking(ours, False)
        seen = bytearray()

        def shows(what: bytes) -> bool:
            try:
                while piece := os.read(ours, 65536):
                    seen.extend(piece)
            except (BlockingIOError, OSError):
                pass
            return what in seen

        await eventually(lambda: shows(b"200 allowed"), timeout_s=30)
        frame = bytes(seen).decode().split("\x1b[H")[-1]
        lines = [line.rstrip("\r").replace("\x1b[K", "").replace("\x1b[J", "") for line in frame.split("\n")]
        assert "permission mirror" in lines[0]
        assert lines[-1] == " Ctrl-C stops everything and removes it"
        assert len(lines) == 24
        assert all(len(line) <= 80 and not line.endswith("…") for line in lines)
        code, _, _ = await run.end(signal.SIGINT)
        await eventually(lambda: shows(b"\x1b[?1049l"))
    os.close(ours)
    assert code == 0


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "initdb"),
        (signal.SIGTERM, "postgres -D"),
        (signal.SIGINT, "mirror install"),
        (signal.SIGINT, "mirror run"),
    ],
)
async def test_told_to_stop_during_start_up_it_cleans_up(number: signal.Signals, moment: str) -> None:
    async with demo() as run:
        await eventually(lambda: run.descendants(moment), timeout_s=30, interval_s=0.002)
        traces = run.traces()
        code, out, err = await run.end(number)
        assert (code, err) == (128 + number, "")
    assert not out
    assert not traces.left()


async def test_a_daemon_that_dies_ends_the_demo_with_what_it_said() -> None:
    async with demo() as run:
        await happening(run)
        traces = run.traces()
        (daemon,) = run.descendants("mirror run")
        os.kill(daemon, signal.SIGKILL)
        code, _, err = await run.end()
    assert code == 1
    assert "the daemon ended with exit code -9" in err
    assert "leading" in err
    assert not traces.left()


async def test_killed_with_force_it_leaves_nothing_either() -> None:
    """Not even as a script's job in the background, which ignores SIGQUIT."""
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    async with demo() as run:
        signal.signal(signal.SIGQUIT, before)
        await happening(run)
        traces = run.traces()
        run.process.kill()
        await run.process.wait()
    await eventually(lambda: not traces.left(), 30.0)  # two servers end by themselves, and take their time under load


async def test_a_reader_that_has_enough_ends_it_in_good_order() -> None:
    async with demo() as run:
        await happening(run)
        traces = run.traces()
        run.process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        async with asyncio.timeout(30):
            await run.process.wait()
        assert run.process.returncode == 0
    assert not traces.left()


async def test_whatever_the_traffic_does_supabase_comes_to_know() -> None:
    random = Random(4)
    async with (
        world(lambda _: None, lambda app: seed(app, random)) as opened,
        App.connect(opened.app_url) as app,
        Realtime.connect(opened.realtime_url) as realtime,
    ):
        traffic = Traffic(app, realtime, random)
        deeds = {"bulk": 3} | dict.fromkeys(
            ("sign_up", "create_trip", "invite", "accept", "change_role", "leave", "rename", "cancel"), 1
        )
        told = [await done(getattr(traffic, name)) for name, times in deeds.items() for _ in range(times)]
        assert {happening.kind for happening in told if happening.waited and happening.after_s is None} == set()
        assert [happening.kind for happening in told[:3]] == ["import", "import", "removal"]
        assert [happening.answer for happening in told[:3]] == ["200 allowed", "200 allowed", "403 denied"]
        (invitation,) = [happening for happening in told if happening.kind == "invitation"]
        assert invitation.answer == "403 denied"
        with psycopg.connect(opened.app_url) as primary, psycopg.connect(opened.supabase_url) as supabase:
            guests = "select count(*) from public.{} where starts_with(username, 'guest.')"
            left = primary.execute(guests.format("user_profiles")).fetchone()
            await eventually(lambda: supabase.execute(guests.format("users")).fetchone() == left)
            assert any(f"mirror-demo-{os.getpid()}-" in command for command in command_lines())
    assert not any(f"mirror-demo-{os.getpid()}-" in command for command in command_lines())


async def done(deed: Deed) -> Happening:
    """Some find nothing to do it with at first, an invitation of somebody who is a member already for one."""
    for _ in range(100):
        if happening := await deed():
            return happening
    raise AssertionError(f"{deed} never found anything to do")


async def test_names_of_users_repeat_and_their_usernames_do_not(source_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(source_url, autocommit=True) as owner:
        await owner.execute("drop table users, trips, trip_memberships cascade")
        await owner.execute((HERE / "app.sql").read_bytes())
    async with App.connect(source_url) as app:
        people = [await app.sign_up("Maya Okafor") for _ in range(12)]
    assert len({person.id for person in people}) == 12
