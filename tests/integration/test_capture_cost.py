"""What capture costs the application: memory stays flat, no transaction ids of its own, a ring only for a sleeper."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

from mirror.demo.servers import Server, temporary_directory
from tests.bed.backends import SETTINGS, Pair
from tests.bed.source_side import SOFT, Mark, an_id, install, marks, moved, ordered, trips, users
from tests.bed.templates import APPLICATION

pytestmark = pytest.mark.sql

Connection = psycopg.Connection[Any]
BULK = 200_000
# Three sorts or hashes of work_mem (4 MB, twice that for hashes), the arrays of a thousand keys, and some air.
GROWTH_MAX_BYTES = 48_000_000


@pytest.fixture
def app(source_url: str) -> Iterator[Connection]:
    install(source_url, SOFT)
    with psycopg.connect(source_url, autocommit=True) as connection:
        connection.execute(f"insert into users (id, username) values ('{an_id(1)}', 'a'), ('{an_id(2)}', 'b')")
        marks(connection)
        yield connection


@pytest.fixture
def admin(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("rows", [999, 1000, 1001, 2000, 2001])
def test_a_bulk_statement_marks_every_key_once(app: Connection, rows: int) -> None:
    """Around the seams between the thousands."""
    numbered = f"select lpad(to_hex(n), 32, '0')::uuid, 'x' from generate_series(1, {rows}) n"
    statements: dict[str, Callable[..., list[Mark]]] = {
        f"insert into trips (id, name) {numbered}": moved,
        "update trips set name = 'y'": trips,
        "update trips set deleted_at = now()": moved,
        "update trips set deleted_at = null": moved,
        "delete from trips": moved,
    }
    for statement, expected in statements.items():
        app.execute(statement)
        assert marks(app) == ordered(expected(*range(1, rows + 1))), statement


def test_a_bulk_statement_leaves_memory_flat(app: Connection, servers: Pair) -> None:
    """With plans that were made for a single row."""
    if servers.source.server is None:
        pytest.skip("the server's processes are not here")
    app.execute("update users set username = 'one' where username = 'a'")
    pid = app.info.backend_pid
    for statement in (
        f"insert into users (id, username) select gen_random_uuid(), n::text from generate_series(1, {BULK}) n",
        "update users set username = username || '!'",
        "delete from users",
    ):
        marks(app)
        with Peak(pid) as peak:
            done = app.execute(statement).rowcount
        assert done >= BULK
        counted = app.execute("select count(*), count(distinct k1) from mirror.outbox").fetchone()
        assert counted == (done, done)
        assert peak.growth < GROWTH_MAX_BYTES, f"{statement}: {peak.growth:,} bytes"


class Peak:
    """How much the memory of a process of its own grew meanwhile."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._before = self._highest = self._bytes()

    def _bytes(self) -> int:
        line = next(line for line in self._status.read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) * 1024

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._highest = max(self._highest, self._bytes())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        return self._highest - self._before


def test_a_thousand_statements_take_one_transaction_id(app: Connection, admin: Connection) -> None:
    """More than 64 subtransactions with an id of their own would overflow the cache that every snapshot looks into."""
    with app.transaction():
        first = _xid(app)
        for n in range(1000):
            app.execute(f"update users set username = '{n}'")
        if app.info.server_version >= 160000:
            row = admin.execute(
                "select s.subxact_count, s.subxact_overflowed from pg_stat_get_backend_idset() i, "
                "pg_stat_get_backend_subxact(i) s where pg_stat_get_backend_pid(i) = %s",
                [app.info.backend_pid],
            ).fetchone()
            assert row == (0, False)
    assert _xid(app) - first < 100
    assert len(marks(app)) == 2000


def _xid(connection: Connection) -> int:
    row = connection.execute("select pg_current_xact_id()::text::bigint").fetchone()
    assert row is not None
    return int(row[0])


def rings(app: Connection, listener: Connection) -> int:
    """How often it rang since the last call."""
    app.execute("notify mirror, 'that was all'")
    heard: list[str] = []
    for notification in listener.notifies(timeout=10):
        if notification.payload == "that was all":
            return len(heard)
        heard.append(notification.payload)
        assert heard[-1] == ""
    raise AssertionError("the listener is deaf")


@pytest.fixture
def listener(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as connection:
        connection.execute("listen mirror")
        yield connection


def test_only_a_sleeper_is_rung_for_and_once(app: Connection, admin: Connection, listener: Connection) -> None:
    app.execute("update users set username = '1'")
    assert rings(app, listener) == 0
    admin.execute("select pg_advisory_lock(1835627122, 1)")
    app.execute("update users set username = '2'")
    assert rings(app, listener) == 1
    with app.transaction():
        for n in range(5):
            app.execute(f"update users set username = 'a{n}'")
            with app.transaction():
                app.execute(f"update users set username = 'b{n}'")
        app.execute("insert into users (id) select gen_random_uuid() from generate_series(1, 3000)")
    assert rings(app, listener) == 1
    app.execute("update users set last_seen = now()")  # nothing was marked
    assert rings(app, listener) == 0
    with app.transaction(force_rollback=True):
        app.execute("delete from users")
    assert rings(app, listener) == 0
    admin.execute("select pg_advisory_unlock(1835627122, 1)")
    app.execute("update users set username = '3'")
    assert rings(app, listener) == 0


def test_nobody_goes_to_sleep_beside_a_writer_that_did_not_ring(
    app: Connection, admin: Connection, listener: Connection
) -> None:
    """It keeps the lock until its entries are visible; one that rolled back to a savepoint has none."""
    with app.transaction():
        app.execute("update users set username = '1'")
        assert _can_sleep(admin) is False
    assert _can_sleep(admin) is True
    with app.transaction():
        with app.transaction(force_rollback=True):
            app.execute("update users set username = '2'")
        assert _can_sleep(admin) is True
        admin.execute("select pg_advisory_lock(1835627122, 1)")
        app.execute("update users set username = '3'")
    assert rings(app, listener) == 1


def _can_sleep(daemon: Connection) -> bool:
    row = daemon.execute("select pg_try_advisory_lock(1835627122, 1)").fetchone()
    if row and row[0]:
        daemon.execute("select pg_advisory_unlock(1835627122, 1)")
        return True
    return False


def test_prepared_transactions_work_and_nobody_rings(servers: Pair) -> None:
    """NOTIFY would make PREPARE TRANSACTION fail; the daemon polls there."""
    major = servers.source.server.major if servers.source.server else 16
    settings = SETTINGS | {"max_prepared_transactions": "2"}
    with (
        temporary_directory("mirror-test-") as directory,
        Server.start(major, directory, settings=settings) as server,
        psycopg.connect(server.url(), autocommit=True) as app,
        psycopg.connect(server.url(), autocommit=True) as other,
    ):
        app.execute(APPLICATION)
        install(server.url())
        marks(app)
        assert app.execute("select mirror.rings()").fetchone() == (False,)
        other.execute("listen mirror; select pg_advisory_lock(1835627122, 1)")
        app.execute(f"begin; insert into users (id) values ('{an_id(1)}'); prepare transaction 'one'")
        assert marks(app) == []
        app.execute("commit prepared 'one'")
        assert marks(app) == users(1)
        assert rings(app, other) == 0
        other.execute("select pg_advisory_unlock(1835627122, 1)")
        app.execute(f"begin; insert into users (id) values ('{an_id(2)}'); prepare transaction 'two'")
        assert _can_sleep(other) is False
        app.execute("rollback prepared 'two'")
        assert _can_sleep(other) is True
        assert marks(app) == []
