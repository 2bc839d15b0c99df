"""mirror.tidy gives the outbox's space back: it blocks nobody, and nothing is lost whoever writes meanwhile."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from mirror.postgres import connect_blocking
from tests.bed.source_side import an_id, install, marks, ordered, users

pytestmark = pytest.mark.sql

Connection = psycopg.Connection[Any]
TURNS_S = 0.05


@pytest.fixture
def app(source_url: str) -> Iterator[Connection]:
    install(source_url)
    with psycopg.connect(source_url, autocommit=True) as connection:
        marks(connection)
        yield connection


@pytest.fixture
def daemon(source_url: str, app: Connection) -> Iterator[Connection]:  # noqa: ARG001 (installed first)
    with connect_blocking(source_url, "source") as connection:
        yield connection


def whose_turn(app: Connection, twin: bool | None) -> None:
    """Fixes whose turn it is; None: they take turns quickly."""
    body = (
        f"select {twin}"
        if twin is not None
        else (f"select mod(floor(date_part('epoch', pg_catalog.now()) / {TURNS_S})::bigint, 2) = 1")
    )
    app.execute(
        f"create or replace function mirror.is_twins_turn() returns boolean language sql stable as $$ {body} $$"
    )


def sizes(connection: Connection) -> list[bool]:
    """Which of the two tables (outbox, twin) has any pages."""
    row = connection.execute(
        "select pg_relation_size('mirror.outbox') > 0, pg_relation_size('mirror.outbox_twin') > 0"
    ).fetchone()
    assert row is not None
    return list(row)


def fill(app: Connection, *numbers: int) -> None:
    app.execute("insert into users (id) select unnest(%s::uuid[])", [[an_id(n) for n in numbers]])


@pytest.mark.parametrize("twin", [False, True])
def test_the_resting_table_is_truncated_when_empty(app: Connection, daemon: Connection, twin: bool) -> None:
    app.execute("truncate mirror.outbox, mirror.outbox_twin")
    whose_turn(app, twin)
    fill(app, 1)
    assert sizes(app) == [not twin, twin]
    marks(app)
    daemon.execute("select mirror.tidy(0)")
    assert sizes(app) == [not twin, twin], "it is in use"
    whose_turn(app, not twin)
    daemon.execute("select mirror.tidy(1000000)")
    assert sizes(app) == [not twin, twin], "it is small"
    daemon.execute("select mirror.tidy(0)")
    assert sizes(app) == [False, False]


@pytest.mark.parametrize("twin", [False, True])
def test_what_still_has_an_entry_stays(app: Connection, daemon: Connection, twin: bool) -> None:
    whose_turn(app, twin)
    fill(app, 1)
    whose_turn(app, not twin)
    daemon.execute("select mirror.tidy(0)")
    assert marks(app) == users(1)


def test_a_long_writer_keeps_its_table_and_nobody_waits(app: Connection, daemon: Connection, source_url: str) -> None:
    """All entries of one transaction go to the table whose turn it was when it began."""
    app.execute("truncate mirror.outbox, mirror.outbox_twin")
    whose_turn(app, False)
    with psycopg.connect(source_url) as writer:
        fill(writer, 1)
        whose_turn(app, True)
        daemon.execute("set lock_timeout = 0; set statement_timeout = '2s'")  # it must not even begin to wait
        daemon.execute("select mirror.tidy(0)")
        fill(app, 2)
        writer.commit()
    assert marks(app) == ordered(users(1, 2))


def test_a_long_reader_keeps_its_table_and_nobody_waits(app: Connection, daemon: Connection, source_url: str) -> None:
    whose_turn(app, False)
    fill(app, 1)
    with psycopg.connect(source_url) as reader:
        reader.execute("set transaction isolation level repeatable read")
        assert reader.execute("select count(*) from mirror.outbox").fetchone() == (1,)
        marks(app)
        whose_turn(app, True)
        daemon.execute("set lock_timeout = 0; set statement_timeout = '2s'")  # it must not even begin to wait
        daemon.execute("select mirror.tidy(0)")
        assert sizes(app)[0] is True
        fill(app, 2)
        assert reader.execute("select count(*) from mirror.outbox").fetchone() == (1,)
    assert marks(app) == users(2)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_it_refuses_a_snapshot_older_than_its_lock(app: Connection, daemon: Connection, level: str) -> None:
    """An entry committed in between would be truncated unseen."""
    whose_turn(app, False)
    with daemon.transaction():
        daemon.execute(f"set transaction isolation level {level}")
        daemon.execute("select 1")
        fill(app, 1)
        whose_turn(app, True)
        with pytest.raises(psycopg.errors.ActiveSqlTransaction), daemon.transaction():
            daemon.execute("select mirror.tidy(0)")
    assert marks(app) == users(1)


def test_writers_lose_nothing_while_turns_change(app: Connection, daemon: Connection, source_url: str) -> None:
    """Short and longer transactions beside a reader that forgets and a tidier that never rests."""
    whose_turn(app, None)
    failures: list[str] = []
    deadline = time.monotonic() + 3

    def write(first: int) -> None:
        n = first
        try:
            with psycopg.connect(source_url, autocommit=True) as connection:
                connection.execute("set lock_timeout = '1ms'")
                while time.monotonic() < deadline:
                    with connection.transaction():
                        for _ in range(n % 7 + 1):
                            fill(connection, n)
                            n += 1
                        connection.execute("select pg_sleep(0.02)" if n % 13 == 0 else "select 1")
        except psycopg.Error as error:
            failures.append(str(error))
        written.append(range(first, n))

    written: list[range] = []
    threads = [threading.Thread(target=write, args=[first]) for first in (1, 1_000_000, 2_000_000)]
    for thread in threads:
        thread.start()
    seen: list[Any] = []
    while any(thread.is_alive() for thread in threads):
        seen += marks(app)
        daemon.execute("select mirror.tidy(0)")
    seen += marks(app)
    assert failures == []
    assert sorted(seen) == sorted(users(*(n for numbers in written for n in numbers)))
    row = app.execute("select pg_relation_size('mirror.outbox') + pg_relation_size('mirror.outbox_twin')").fetchone()
    assert row is not None
    assert row[0] < 4_000_000
