"""The commands against two real databases: what they do, what they say, and their exit codes."""

import contextlib
import json
import re
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from mirror.cli import main, status
from mirror.cli.sides import Sides
from mirror.config import load_settings
from tests.bed import daemons
from tests.bed.eventually import eventually
from tests.bed.target_side import RESEAL

CLOSED = "postgresql://postgres@127.0.0.1:1/postgres"
Mirror = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mirror(
    source_url: str,
    target_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Mirror:
    """The command with these two databases: its exit code, its answer, and what else it said."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, **environ: str) -> tuple[int, str, str]:
        with monkeypatch.context() as changed:
            for name, value in (daemons.environ(source_url, target_url) | environ).items():
                changed.setenv(name, value)
            code = main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@contextlib.contextmanager
def a_stranger(url: str) -> Iterator[str]:
    """A role without any right, and the URL to log in as it."""
    name = f"stranger_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
        try:
            yield make_conninfo(url, user=name)
        finally:
            conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def report(answer: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = answer
    found: dict[str, Any] = json.loads(out)
    assert err == ""
    assert code == status.EXIT_CODES[found["verdict"]]
    return found


async def test_a_whole_life(mirror: Mirror, source_url: str, target_url: str) -> None:
    code, out, _ = mirror("status")
    assert (code, out.splitlines()[0]) == (1, "NOT INSTALLED: run `mirror install`.")

    code, out, err = mirror("install")
    assert (code, out) == (0, "")
    assert "source: installed; the daemon will load users, trips, trip_memberships." in err
    assert "target: tables, state and functions are in place." in err
    assert mirror("install") == (
        0,
        "",
        "source: everything is in place already.\ntarget: everything is in place already.\n",
    )

    code, out, _ = mirror("status")
    assert (code, out.splitlines()[0]) == (1, "NOT PRIMED: the first load is not complete.")
    assert "source: NO daemon leads;" in out

    async with daemons.running(source_url, target_url) as daemon:
        await daemons.leading(daemon)
        await eventually(lambda: daemon.known.primed)
        code, out, err = mirror("status")
        assert (code, err) == (0, "")
        assert out.startswith("FRESH: the target equals the source as of ")
        assert "source: a daemon leads; 0 entries wait" in out
        found = report(mirror("status", "--json"))
        assert found["verdict"] == "fresh"
        assert found["errors"] == []
        size = found["source"].pop("outbox_bytes")
        assert size > 0
        assert found["source"].pop("lead")["name"].startswith("mirror run on ")
        expected = {
            "installed": True,
            "outbox_entries": 0,
            "lag_seconds": 0.0,
            "leader": True,
            "strangers": [],
            "faults": [],
            "resync": None,
        }
        assert found["source"] == expected
        assert found["target"]["staleness_seconds"] < 60

    with psycopg.connect(target_url, autocommit=True) as conn:
        conn.execute("update mirror.state set fresh_at = fresh_at - interval '2 minutes'")
        conn.execute(RESEAL)
    code, out, _ = mirror("status")
    assert (code, out[:6]) == (1, "STALE:")
    found = report(mirror("status", "--json", MIRROR_HEARTBEAT_INTERVAL="10m"))  # then two minutes are not long
    assert found["verdict"] == "fresh"

    code, _, err = mirror("uninstall")
    assert code == 0
    assert err.splitlines()[0] == "source: uninstalled."
    assert report(mirror("status", "--json"))["verdict"] == "not installed"
    assert mirror("uninstall")[0] == 0


def test_one_side_at_a_time(mirror: Mirror) -> None:
    assert mirror("install", "source")[0] == 0
    found = report(mirror("status", "--json"))
    assert (found["source"]["installed"], found["target"]["installed"]) == (True, False)
    assert mirror("install", "target", "--user-id", "uuid", "--trip-id", "uuid", MIRROR_SOURCE_URL=CLOSED)[0] == 0
    assert mirror("install", "target")[2] == "target: everything is in place already.\n"  # the same types
    assert mirror("uninstall", "target", MIRROR_SOURCE_URL=CLOSED)[0] == 0
    assert mirror("uninstall", "source", MIRROR_TARGET_URL=CLOSED)[0] == 0


def test_what_is_printed_is_what_would_be_done(mirror: Mirror, source_url: str, target_url: str) -> None:
    code, out, err = mirror("install", "--print", MIRROR_TARGET_URL="")
    assert (code, err) == (0, "")
    assert report(mirror("status", "--json"))["verdict"] == "not installed"  # it has touched nothing
    source, mark, target = out.partition("-- The target: run this in Supabase.\n")
    assert mark
    for url, script in ((source_url, source), (target_url, target)):
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(script)
    said = mirror("install")[2]
    assert "source: everything is in place already." in said
    assert "target: everything is in place already." in said


def test_the_source_is_not_taken_for_the_target(mirror: Mirror, source_url: str) -> None:
    """However its URL is written."""
    assert mirror("install", "source")[0] == 0
    again = make_conninfo(source_url, application_name="other")
    code, _, err = mirror("install", "target", MIRROR_TARGET_URL=again)
    assert code == 2
    assert err.startswith("mirror: MIRROR_TARGET_URL is the database that the mirror is installed in as the source.")
    with psycopg.connect(source_url) as conn:
        assert conn.execute("select relrowsecurity from pg_class where oid = 'public.users'::regclass").fetchone() == (
            False,
        )


@pytest.mark.parametrize("side", ["source", "target"])
def test_with_one_side_down_the_other_is_told(mirror: Mirror, side: str) -> None:
    mirror("install")
    found = report(mirror("status", "--json", **{f"MIRROR_{side.upper()}_URL": CLOSED}))
    assert found["verdict"] == "unknown"
    assert found[side] is None
    assert found["target" if side == "source" else "source"]["installed"]
    assert found["errors"] == [f'{side}: connection to server at "127.0.0.1", port 1 failed: Connection refused']
    code, out, _ = mirror("status", **{f"MIRROR_{side.upper()}_URL": CLOSED})
    assert code == 3
    assert out.startswith("UNKNOWN: one side could not be asked.\n")


def test_without_rights_it_is_said_in_one_line(mirror: Mirror, source_url: str) -> None:
    mirror("install")
    with a_stranger(source_url) as url:
        found = report(mirror("status", "--json", MIRROR_SOURCE_URL=url))
        assert found["verdict"] == "unknown"
        assert "permission denied" in found["errors"][0]
        for arguments in (["install", "--print"], ["install"], ["uninstall", "source"]):
            code, out, err = mirror(*arguments, MIRROR_SOURCE_URL=url)
            assert (code, out) in ((1, ""), (2, "")), arguments
            assert err.count("\n") == 1, err
            assert "unexpected" not in err
            assert re.search("permission denied|must be owner|does not own", err), arguments


def test_a_mapping_that_does_not_fit_is_two(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "mirror.toml").write_text('[users]\nusername = "nickname"')
    code, out, err = mirror("install")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert '[users] username: column "nickname" does not exist' in err
    assert report(mirror("status", "--json"))["verdict"] == "not installed"


def test_a_connection_that_was_lost_is_opened_again(mirror: Mirror, source_url: str, target_url: str) -> None:
    mirror("install")
    with Sides(load_settings(daemons.environ(source_url, target_url))) as sides:
        assert sides.read()["verdict"] == "not primed"
        with psycopg.connect(source_url, autocommit=True) as conn:
            conn.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
        lost = sides.read()
        assert lost["verdict"] == "unknown"
        assert lost["errors"]
        assert sides.read()["verdict"] == "not primed"


async def test_watching_ends_with_ctrl_c(mirror: Mirror, source_url: str, target_url: str) -> None:
    mirror("install")
    settings = daemons.environ(source_url, target_url)
    async with daemons.process(settings, "status", "--watch", "--json") as watching:
        await eventually(lambda: watching.output.count("\n") >= 2)
        code, took_s = await watching.stopped(signal.SIGINT)
        assert code == 0
        assert took_s < 2
        documents = [json.loads(line) for line in watching.output.splitlines()]
    assert {document["verdict"] for document in documents} == {"not primed"}


@pytest.mark.parametrize("terminal", [True, False])
def test_watching_draws_over_itself_on_a_terminal(
    source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    screen = StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: terminal, raising=False)
    turns = iter([None, None])

    def sleep(_: float) -> None:
        if next(turns, "over") == "over":
            raise KeyboardInterrupt

    with Sides(load_settings(daemons.environ(source_url, target_url))) as sides, monkeypatch.context() as changed:
        changed.setattr(time, "sleep", sleep)
        changed.setattr(sys, "stdout", screen)
        assert status._watch(sides, as_json=False) == 0
    assert screen.getvalue().count("NOT INSTALLED") == 3
    assert screen.getvalue().count("\x1b[H\x1b[J") == (3 if terminal else 0)


async def test_the_daemon_as_a_command(mirror: Mirror, source_url: str, target_url: str) -> None:
    async with daemons.process(daemons.environ(source_url, target_url)) as daemon:
        assert await daemon.ended() == 2  # nothing is installed
        assert daemon.output.splitlines()[-1].startswith("mirror: the mirror is not installed in the source. Run `")
    mirror("install")
    for number in (signal.SIGTERM, signal.SIGINT):
        async with daemons.process(daemons.environ(source_url, target_url)) as daemon:
            await daemon.says("leading")
            code, took_s = await daemon.stopped(number)
            assert code == 0
            assert took_s < 3
