"""mirror.tidy gives the outbox's space back: it blocks nobody, and nothing is lost whoever writes meanwhile."""

import contextlib
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


TABLES = ("outbox", "outbox_1", "outbox_2", "outbox_3")


def whose_slot(app: Connection, slot: int | None) -> None:
    """Fixes whose turn it would be; None: they take turns quickly."""
    body = (
        f"select {slot}"
        if slot is not None
        else f"select mod(floor(date_part('epoch', pg_catalog.now()) / {TURNS_S})::bigint, 4)::integer"
    )
    app.execute(f"create or replace function mirror.slot() returns integer language sql stable as $$ {body} $$")


def filled(connection: Connection) -> list[int]:
    """Which of the four tables have any pages."""
    sizes = ", ".join(f"pg_relation_size('mirror.{table}') > 0" for table in TABLES)
    row = connection.execute(f"select {sizes}").fetchone()
    assert row is not None
    return [n for n, is_filled in enumerate(row) if is_filled]


def held(connection: Connection) -> list[int]:
    return [turn for (turn,) in connection.execute("select turn from mirror.held order by turn")]


def fill(app: Connection, *numbers: int) -> None:
    app.execute("insert into users (id) select unnest(%s::uuid[])", [[an_id(n) for n in numbers]])


@pytest.mark.parametrize("slot", range(4))
def test_a_resting_table_is_truncated_when_empty(app: Connection, daemon: Connection, slot: int) -> None:
    app.execute("truncate mirror.outbox")
    whose_slot(app, slot)
    fill(app, 1)
    assert filled(app) == [slot]
    marks(app)
    daemon.execute("select mirror.tidy(0)")
    assert filled(app) == [slot], "it is in use"
    whose_slot(app, (slot + 1) % 4)
    daemon.execute("select mirror.tidy(1000000)")
    assert filled(app) == [slot], "it is small"
    daemon.execute("select mirror.tidy(0)")
    assert filled(app) == []


@pytest.mark.parametrize("slot", range(4))
def test_what_still_has_an_entry_stays(app: Connection, daemon: Connection, slot: int) -> None:
    whose_slot(app, slot)
    fill(app, 1)
    whose_slot(app, (slot + 1) % 4)
    daemon.execute("select mirror.tidy(0)")
    assert marks(app) == users(1)


def test_a_long_writer_keeps_its_table_and_nobody_waits(app: Connection, daemon: Connection, source_url: str) -> None:
    """All entries of one transaction go to the table whose turn it was when it began."""
    app.execute("truncate mirror.outbox")
    whose_slot(app, 0)
    with psycopg.connect(source_url) as writer:
        fill(writer, 1)
        whose_slot(app, 1)
        daemon.execute("set lock_timeout = 0; set statement_timeout = '2s'")  # it must not even begin to wait
        daemon.execute("select mirror.tidy(0)")
        fill(app, 2)
        writer.commit()
    assert marks(app) == ordered(users(1, 2))


def test_a_long_reader_keeps_its_table_and_nobody_waits(app: Connection, daemon: Connection, source_url: str) -> None:
    whose_slot(app, 0)
    fill(app, 1)
    with psycopg.connect(source_url) as reader:
        reader.execute("set transaction isolation level repeatable read")
        assert reader.execute("select count(*) from mirror.outbox").fetchone() == (1,)
        marks(app)
        whose_slot(app, 1)
        daemon.execute("set lock_timeout = 0; set statement_timeout = '2s'")  # it must not even begin to wait
        daemon.execute("select mirror.tidy(0)")
        assert 0 in filled(app)
        fill(app, 2)
        assert reader.execute("select count(*) from mirror.outbox").fetchone() == (1,)
    assert marks(app) == users(2)


def test_a_table_that_is_held_when_its_turn_comes_is_passed_by_until_it_is_free(
    app: Connection, daemon: Connection, source_url: str
) -> None:
    app.execute("truncate mirror.outbox")
    whose_slot(app, 2)
    with psycopg.connect(source_url) as writer:
        fill(writer, 1)
        for slot in (3, 0):
            whose_slot(app, slot)
            daemon.execute("select mirror.tidy(0)")
            assert held(app) == [], "it may be free before its turn comes"
        whose_slot(app, 1)
        daemon.execute("select mirror.tidy(0)")
        assert held(app) == [2]
        whose_slot(app, 2)
        marks(app)
        app.execute("truncate only mirror.outbox, only mirror.outbox_1, only mirror.outbox_3")
        fill(writer, 2)
        assert filled(app) == [2], "whoever began before stays where it is, and does not hold a second table"
        fill(app, 3)
        assert filled(app) == [2, 3]
        for slot in (3, 0, 1):
            whose_slot(app, slot)
            fill(app, 10 + slot)
        assert filled(app) == [0, 1, 2, 3]
        writer.commit()
    daemon.execute("select mirror.tidy(0)")
    assert held(app) == []
    whose_slot(app, 2)
    assert app.execute("select mirror.turn()").fetchone() == (2,), "it is used again"
    assert app.execute("select count(*) from pg_proc where proname = 'turn' and prosrc ~ 'case'").fetchone() == (0,)


def test_two_tables_are_always_used_in_turn(app: Connection, daemon: Connection, source_url: str) -> None:
    app.execute("truncate mirror.outbox")
    with contextlib.ExitStack() as stack:
        for slot in range(3):
            whose_slot(app, slot)
            fill(stack.enter_context(psycopg.connect(source_url)), slot)
        for slot in (3, 0, 1):
            whose_slot(app, slot)
            daemon.execute("select mirror.tidy(0)")
        assert held(app) == [0, 2], "table 1 was in use in the turn of 0, so nobody could tell"
        turns = []
        for slot in range(4):
            whose_slot(app, slot)
            turns += [turn for (turn,) in app.execute("select mirror.turn()")]
        assert turns == [1, 1, 3, 3]


def test_what_is_passed_by_does_not_count_as_damage(app: Connection, daemon: Connection, source_url: str) -> None:
    """It changes a function of ours, and `mirror install source` must not find anything to put right."""
    app.execute("select mirror.pass_by(1, true)")
    assert "in place already" in " ".join(install(source_url))
    assert held(daemon) == [1]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_it_refuses_a_snapshot_older_than_its_lock(app: Connection, daemon: Connection, level: str) -> None:
    """An entry committed in between would be truncated unseen."""
    whose_slot(app, 0)
    with daemon.transaction():
        daemon.execute(f"set transaction isolation level {level}")
        daemon.execute("select 1")
        fill(app, 1)
        whose_slot(app, 1)
        with pytest.raises(psycopg.errors.ActiveSqlTransaction), daemon.transaction():
            daemon.execute("select mirror.tidy(0)")
    assert marks(app) == users(1)


def test_writers_lose_nothing_while_turns_change(app: Connection, daemon: Connection, source_url: str) -> None:
    """Short and longer transactions beside a reader that forgets and a tidier that never rests."""
    whose_slot(app, None)
    failures: list[str] = []
    deadline = time.monotonic() + 3

    def write(first: int) -> None:
        n = first
        try:
            with psycopg.connect(source_url, autocommit=True) as connection:
                connection.execute("set lock_timeout = '1ms'")
                while time.monotonic() < deadline:
                    began = n
                    try:
                        with connection.transaction():
                            for _ in range(n % 7 + 1):
                                fill(connection, n)
                                n += 1
                            connection.execute("select pg_sleep(0.02)" if n % 13 == 0 else "select 1")
                    except psycopg.errors.LockNotAvailable as error:
                        if error.diag.context:
                            raise  # within a function of ours
                        n = began  # the table's own: three writers extend it at once
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
    row = app.execute("select mirror.outbox_bytes()").fetchone()
    assert row is not None
    assert row[0] < 4_000_000
