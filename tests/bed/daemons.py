"""Daemons to test: in this process (with settings and time-outs of the test's choice), or as a process of its own that
can be killed, paused and told to stop. And the one question that matters: is the target equal to the source?
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from collections.abc import Mapping as AbcMapping
from pathlib import Path
from typing import Any

import psycopg

import mirror.source.install
import mirror.target.install
from mirror.config import load_settings
from mirror.daemon import Daemon
from mirror.mapping import Mapping
from mirror.postgres import connect_blocking
from tests.bed.eventually import eventually
from tests.bed.supabase_api import SECRET_KEY

ROOT = Path(__file__).parent.parent.parent
# Neither the poll nor the heartbeat can do the work of what is being tested: nobody waits that long.
NEVER = {"MIRROR_POLL_INTERVAL": "30m", "MIRROR_HEARTBEAT_INTERVAL": "1h"}
END_LEADER = "select pg_terminate_backend(pid) from mirror.leader()"  # its working session
# The application's own soft deletes, as in the README's example.
SOFT = Mapping.model_validate(
    {
        "trips": {"where": "deleted_at is null"},
        "trip_memberships": {"where": "status = 'ACTIVE'"},
    }
)
Rows = dict[str, list[tuple[Any, ...]]]


def install(source_url: str, target_url: str, mapping: Mapping | None = None) -> None:
    """Both sides, as `mirror install` does it."""
    mapping = mapping or Mapping()
    with connect_blocking(source_url, "source") as source, connect_blocking(target_url, "target") as target:
        mirror.source.install.install(source, mapping, _quiet)
        installed = mirror.source.install.read_install(source)
        assert installed is not None
        mirror.target.install.install(target, installed["mapping"]["types"], mapping, _quiet)


def _quiet(_: str) -> None: ...


def target_environ(url: str) -> dict[str, str]:
    """A database, or the API of one (tests/bed/supabase_api.py)."""
    if url.startswith("http"):
        return {"SUPABASE_URL": url, "SUPABASE_SECRET_KEY": SECRET_KEY}
    return {"MIRROR_TARGET_URL": url}


def environ(source_url: str, target_url: str, **others: str) -> dict[str, str]:
    return {
        "MIRROR_SOURCE_URL": source_url,
        **target_environ(target_url),
        "MIRROR_HTTP_PORT": "0",
        "MIRROR_LOG_FORMAT": "json",
        **others,
    }


@contextlib.asynccontextmanager
async def running(
    source_url: str,
    target_url: str,
    settings: AbcMapping[str, str] | None = None,
    mapping: Mapping | None = None,
) -> AsyncIterator[Daemon]:
    """A daemon in this event loop. Left, it has to stop cleanly and quickly, unless it has failed by itself."""
    daemon = Daemon(load_settings(environ(source_url, target_url, **(settings or {}))), mapping or Mapping())
    task = asyncio.create_task(daemon.run())
    try:
        await eventually(lambda: task.done() or daemon.port)
        yield daemon
        began = time.monotonic()
        daemon.stop()
        async with asyncio.timeout(10):
            await task
        assert time.monotonic() - began < 2.5, "stopping took too long"
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def leading(daemon: Daemon, timeout_s: float = 10.0) -> Daemon:
    """Both sides open, and the target at a position at least once; compared, too, unless that takes its time."""
    try:
        await eventually(lambda: daemon.known.leader and daemon.known.staleness_s < float("inf"), timeout_s)
    except AssertionError as error:
        raise AssertionError(f"it does not lead: {daemon.known}") from error
    with contextlib.suppress(AssertionError):
        await eventually(lambda: not daemon._applier.reconcile.busy, 3.0)
    return daemon


async def asleep(source: psycopg.AsyncConnection[Any], timeout_s: float = 10.0) -> None:
    """Somebody holds the lock of the doorbell: the next change has to ring."""

    async def is_asleep() -> bool:
        cursor = await source.execute(
            "select exists (select from pg_locks where locktype = 'advisory' and classid = 1835627122 and objid = 1 "
            "and mode = 'ExclusiveLock' and granted "
            "and database = (select oid from pg_database where datname = current_database()))"
        )
        row = await cursor.fetchone()
        return bool(row and row[0])

    await eventually(is_asleep, timeout_s)


class Process:
    """`python -m mirror run`."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self._process = process
        self._output = output

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def ended(self, timeout_s: float = 10.0) -> int:
        """Its exit code."""
        async with asyncio.timeout(timeout_s):
            return await self._process.wait()

    async def stopped(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 10.0) -> tuple[int, float]:
        """Told to stop: the exit code, and how long that took."""
        began = time.monotonic()
        self.send(number)
        return await self.ended(timeout_s), time.monotonic() - began

    @property
    def output(self) -> str:
        return self._output.read_text()

    def said(self, message: str) -> list[dict[str, Any]]:
        """The log lines with this message (with MIRROR_LOG_FORMAT=json)."""
        lines = (json.loads(line) for line in self.output.splitlines() if line.startswith("{"))
        return [line for line in lines if line["message"] == message]

    async def says(self, message: str, timeout_s: float = 15.0) -> dict[str, Any]:
        return (await eventually(lambda: self.said(message), timeout_s))[-1]


@contextlib.asynccontextmanager
async def process(settings: AbcMapping[str, str], *arguments: str) -> AsyncIterator[Process]:
    """Left, it is killed. Its output goes to a file: a daemon that nobody reads must not stand still."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MIRROR_", "SUPABASE_"))}
    with tempfile.NamedTemporaryFile(prefix="mirror-") as output:
        started = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mirror", *(arguments or ("run",)),
            cwd=ROOT, env={**inherited, **settings}, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            yield Process(started, Path(output.name))
        finally:
            if started.returncode is None:
                started.send_signal(signal.SIGCONT)
                started.kill()
            await started.wait()


def projections(mapping: Mapping | None = None) -> dict[str, str]:
    """What the target must be, as queries of the source; for mappings that change nothing but the filters."""
    mapping = mapping or Mapping()
    users, trips = mapping.users.where, mapping.trips.where
    return {
        "users": f"select id::text, id::text, email, username from public.users where {users}",
        "trips": f"select id::text, name, created_by::text from public.trips where {trips}",
        "trip_memberships": "select trip_id::text, user_id::text, role, status from public.trip_memberships "
        f"where ({mapping.trip_memberships.where}) and trip_id in (select id from public.trips where {trips})",
    }


MIRRORED = {
    "users": "select id::text, subject, email, username from public.users",
    "trips": "select id::text, name, created_by::text from public.trips",
    "trip_memberships": "select trip_id::text, user_id::text, role, status from public.trip_memberships",
}


async def rows(connection: psycopg.AsyncConnection[Any], queries: AbcMapping[str, str]) -> Rows:
    """All of it, in one snapshot."""
    found: Rows = {}
    async with connection.transaction():
        await connection.execute("set transaction isolation level repeatable read, read only")
        for table, query in queries.items():
            found[table] = sorted(await (await connection.execute(query)).fetchall(), key=repr)
    return found


async def equal(
    source: psycopg.AsyncConnection[Any], target: psycopg.AsyncConnection[Any], mapping: Mapping | None = None
) -> bool:
    return await rows(source, projections(mapping)) == await rows(target, MIRRORED)


async def becomes_equal(
    source: psycopg.AsyncConnection[Any],
    target: psycopg.AsyncConnection[Any],
    mapping: Mapping | None = None,
    timeout_s: float = 10.0,
) -> float:
    """How long it took. The message of a failure tells the difference."""
    began = time.monotonic()
    try:
        await eventually(lambda: equal(source, target, mapping), timeout_s)
    except AssertionError as error:
        here, there = await rows(source, projections(mapping)), await rows(target, MIRRORED)
        raise AssertionError(f"not equal within {timeout_s} s: {differences(here, there)}") from error
    return time.monotonic() - began


def differences(true: Rows, found: Rows) -> dict[str, dict[str, list[tuple[Any, ...]]]]:
    """A few of the rows that are missing, and of those that should not be there."""
    return {
        table: {
            "missing": sorted(set(true[table]) - set(found[table]), key=repr)[:5],
            "surplus": sorted(set(found[table]) - set(true[table]), key=repr)[:5],
        }
        for table in true
        if true[table] != found[table]
    }


async def value(connection: psycopg.AsyncConnection[Any], query: str, *arguments: object) -> Any:
    row = await (await connection.execute(query, arguments)).fetchone()
    assert row is not None
    return row[0]
