"""Peers that are not in the box: pglogical and Slony-I, from Debian, on PostgreSQL 15 on both sides, each beside the
mirror and native replication on the same two clusters. Left out where they are not installed.

Slony-I has no lists of columns: it carries whole tables. Both copy everything first; the clock of a backlog starts when
the one who applies is connected again (pglogical), or was started again (Slony-I)."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import psycopg

from bench import backlog, peers
from bench.changes import SINGLE, write
from bench.peers import STOP_TIMEOUT_S, TARGET_TABLES, LeftOutError, until
from bench.probes import PER_SECOND, latencies_ms
from bench.report import Result, median, percentile
from bench.stage import SOURCE_KEYS, SOURCE_TABLES, Connection, Databases, Stage, ask, connect, open_stage
from mirror.demo.servers import ServerError, binaries

MAJOR = 15
EXTENSIONS = Path("/usr/share/postgresql", str(MAJOR), "extension")
LIBRARIES = Path("/usr/lib/postgresql", str(MAJOR), "lib")
IDENTITY = "alter table public.trip_memberships replica identity using index trip_memberships_trip_id_user_id_key"
TRUSTED = "output_plugin_libraries"
ADD = "select pglogical.replication_set_add_table('default', %s, false, %s)"
COLUMNS = {
    "public.users": ["id", "email", "username"],
    "public.trips": ["id", "name", "created_by"],
    "public.trip_memberships": ["trip_id", "user_id", "role", "status"],
}
SYNCED = "select status from pglogical.show_subscription_status('bench')"
SLONY = """
cluster name = bench;
node 1 admin conninfo = '{source}';
node 2 admin conninfo = '{target}';
"""
SLONY_BEGIN = """
init cluster (id = 1, comment = 'source');
create set (id = 1, origin = 1, comment = 'tables');
set add table (set id = 1, origin = 1, id = 1, fully qualified name = 'public.users');
set add table (set id = 1, origin = 1, id = 2, fully qualified name = 'public.trips');
set add table (set id = 1, origin = 1, id = 3, fully qualified name = 'public.trip_memberships');
store node (id = 2, comment = 'target', event node = 1);
store path (server = 1, client = 2, conninfo = '{source}');
store path (server = 2, client = 1, conninfo = '{target}');
"""
SLONY_SUBSCRIBE = "subscribe set (id = 1, provider = 1, receiver = 2, forward = no);\n"

Held = Callable[[], AbstractContextManager[object]]  # while it is entered, nobody brings anything over
Other = Callable[[Databases], AbstractContextManager[Held]]


def measure(stage: Stage, *, who: str, rounds: int, rows: int, seconds: float, n: int) -> list[Result]:
    other, settings = OTHERS[who]()
    with open_stage(MAJOR, MAJOR, stage.source.directory.parent.parent, settings) as beside:
        beside.drops = False  # pglogical's supervisor does not answer the barrier that a drop waits for
        beside.fill(n)
        drained: dict[str, list[float]] = {who: [], backlog.MIRROR: [], backlog.NATIVE: []}
        for _ in range(rounds):
            for name, found in drained.items():
                with beside.databases() as databases:
                    seconds_taken = {
                        who: lambda d: _backlog(d, other, n),
                        backlog.MIRROR: lambda d: backlog.mirror(d, SINGLE, n).seconds,
                        backlog.NATIVE: lambda d: backlog.native(d, SINGLE, n).seconds,
                    }[name](databases)
                    found.append(n / seconds_taken)
        beside.fill(rows)
        with beside.databases() as databases, other(databases):
            visible = latencies_ms(databases, seconds, random.Random(0))
    ours = median(drained[backlog.MIRROR])
    figure = f"backlog, {n:,} single-row changes, PostgreSQL {MAJOR}, beside {who}"
    results = [
        Result(figure, name, "changes/s", median(speeds), None, speeds, {"mirror / it": ours / median(speeds)})
        for name, speeds in drained.items()
    ]
    p50, p99 = percentile(visible, 50), percentile(visible, 99)
    title = f"commit to visible, {PER_SECOND} tx/s, PostgreSQL {MAJOR}"
    return [*results, Result(title, who, "ms", p50, p99, [p50], {"p99 / p50": p99 / p50})]


def _backlog(databases: Databases, other: Other, n: int) -> float:
    with other(databases) as held, connect(databases.target) as target:
        with held():
            sentinel = write(databases, SINGLE, n)
        began = time.perf_counter()
        return until(lambda: sentinel.is_visible(target)) - began


def _debian() -> None:
    try:
        binaries(MAJOR)
    except ServerError as error:
        raise LeftOutError(str(error)) from None


def _pglogical() -> tuple[Other, dict[str, str]]:
    _debian()
    if not EXTENSIONS.joinpath("pglogical.control").exists():
        raise LeftOutError(f"apt-get install postgresql-{MAJOR}-pglogical")
    settings = {"wal_level": "logical", "shared_preload_libraries": "pglogical"}
    known = subprocess.run(
        [binaries(MAJOR) / "postgres", "--describe-config"], capture_output=True, text=True, check=True
    )
    if TRUSTED in known.stdout:  # since the minor releases of 2026
        settings[TRUSTED] = "pgoutput, pglogical_output"
    return pglogical, settings


def _slony() -> tuple[Other, dict[str, str]]:
    _debian()
    if not (shutil.which("slon") and shutil.which("slonik") and list(LIBRARIES.glob("slony1_funcs*"))):
        raise LeftOutError(f"apt-get install slony1-2-bin postgresql-{MAJOR}-slony1-2")
    return slony, {}


OTHERS: dict[str, Callable[[], tuple[Other, dict[str, str]]]] = {"pglogical": _pglogical, "Slony-I": _slony}


@contextmanager
def pglogical(databases: Databases) -> Iterator[Held]:
    with connect(databases.source) as source, connect(databases.target) as target:
        source.execute(IDENTITY)
        target.execute(TARGET_TABLES)
        for name, connection, url in (("source", source, databases.source), ("target", target, databases.target)):
            connection.execute("set client_min_messages = warning; create extension pglogical")
            connection.execute("select pglogical.create_node(%s, %s)", [name, url])
        for table, columns in COLUMNS.items():
            source.execute(ADD, [table, columns])
        target.execute(
            "select pglogical.create_subscription('bench', %s, synchronize_data := true)", [databases.source]
        )
        working = "select count(*) > 0 and bool_and(active) from pg_replication_slots"

        @contextmanager
        def held() -> Iterator[None]:
            target.execute("select pglogical.alter_subscription_disable('bench', true)")
            until(lambda: not ask(source, working))
            yield
            target.execute("select pglogical.alter_subscription_enable('bench', true)")
            until(lambda: ask(source, working))

        try:
            until(lambda: ask(target, SYNCED) == "replicating")
            yield held
        finally:
            target.execute("select pglogical.drop_subscription('bench')")
            until(lambda: not ask(source, "select count(*) from pg_replication_slots"))
            for connection in (target, source):
                until(partial(_dropped, connection))


def _dropped(connection: Connection) -> bool:
    """Its manager looks at those tables now and then, in another order."""
    try:
        connection.execute("drop extension pglogical cascade")
    except psycopg.errors.DeadlockDetected:
        return False
    return True


@contextmanager
def slony(databases: Databases) -> Iterator[Held]:
    """Whole tables: the target has all their columns. Two processes, one for each node."""
    preamble = SLONY.format(source=databases.source, target=databases.target)
    with ExitStack() as stack, connect(databases.source) as source, connect(databases.target) as target:
        target.execute(SOURCE_TABLES.replace("generated always as identity", "not null"))
        target.execute(SOURCE_KEYS)
        _slonik(preamble + SLONY_BEGIN.format(source=databases.source, target=databases.target))
        stack.enter_context(_slon(databases.source))
        applying = ExitStack()
        stack.callback(applying.close)
        applying.enter_context(_slon(databases.target))
        _slonik(preamble + SLONY_SUBSCRIBE)
        until(lambda: ask(target, "select bool_and(sub_active) from _bench.sl_subscribe"))
        rows = ask(source, "select count(*) from public.trip_memberships")
        until(lambda: ask(target, "select count(*) from public.trip_memberships") == rows)

        @contextmanager
        def held() -> Iterator[None]:
            applying.close()
            yield
            applying.enter_context(_slon(databases.target))

        yield held


def _slonik(script: str) -> None:
    done = subprocess.run(["slonik"], input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"slonik failed: {done.stderr.strip()}")


@contextmanager
def _slon(url: str) -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(["slon", "bench", url], stdout=log, stderr=log)
        try:
            yield
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"slon ended: {log.read()[-peers.LAST_WORDS_BYTES :].decode(errors='replace')}")
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
