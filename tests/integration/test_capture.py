"""Capture: each way to write to the three tables marks exactly the keys that it made dirty, and nothing else."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.bed.source_side import SOFT, Mark, an_id, install, marks, members, moved, ordered, trips, users, whole

pytestmark = pytest.mark.sql

Connection = psycopg.Connection[Any]
ALICE, BOB, CARL, DAVE = 1, 2, 3, 4
ROME, OSLO, LIMA = 11, 12, 13
ROWS = f"""
insert into users (id, email, username) values
  ('{an_id(ALICE)}', 'a@x', 'alice'), ('{an_id(BOB)}', 'b@x', 'bob'), ('{an_id(CARL)}', null, null);
insert into trips (id, name, created_by, deleted_at) values
  ('{an_id(ROME)}', 'Rome', '{an_id(ALICE)}', null), ('{an_id(OSLO)}', 'Oslo', null, null),
  ('{an_id(LIMA)}', 'Lima', null, now());
insert into trip_memberships (trip_id, user_id, role, status) values
  ('{an_id(ROME)}', '{an_id(ALICE)}', 'owner', 'ACTIVE'), ('{an_id(ROME)}', '{an_id(BOB)}', 'guest', 'ACTIVE'),
  ('{an_id(OSLO)}', '{an_id(BOB)}', null, 'INACTIVE');
"""


def user(n: int) -> str:
    return f"'{an_id(n)}'"


trip = user


@pytest.fixture
def app(source_url: str) -> Iterator[Connection]:
    """The application's session; soft deletes and inactive memberships are filtered out, Lima is a deleted trip."""
    install(source_url, SOFT)
    with psycopg.connect(source_url, autocommit=True) as connection:
        connection.execute(ROWS)
        marks(connection)
        yield connection


CASES: dict[str, tuple[str, list[Mark]]] = {
    # what the application does: (statement, marks)
    "insert one": (f"insert into users (id) values ({user(DAVE)})", users(DAVE)),
    "insert many": ("insert into users (id) select x::uuid from unnest(%s::text[]) x", users(21, 22, 23)),
    "insert a trip": (f"insert into trips (id, name) values ({trip(21)}, 'X')", moved(21)),
    "insert a deleted trip": (f"insert into trips (id, name, deleted_at) values ({trip(21)}, 'X', now())", []),
    "insert a membership": (
        f"insert into trip_memberships (trip_id, user_id) values ({trip(OSLO)}, {user(CARL)})",
        members((OSLO, CARL)),
    ),
    "insert an inactive membership": (
        f"insert into trip_memberships (trip_id, user_id, status) values ({trip(OSLO)}, {user(CARL)}, 'INACTIVE')",
        [],
    ),
    "insert of no rows": ("insert into users (id) select id from users where false", []),
    "update a value": (f"update users set email = 'new' where id = {user(ALICE)}", users(ALICE)),
    "update a value to null": (f"update users set email = null where id = {user(ALICE)}", users(ALICE)),
    "update a value from null": (f"update users set email = '' where id = {user(CARL)}", users(CARL)),
    "update to the same": ("update users set email = email, username = username", []),
    "update of what is not mirrored": ("update users set last_seen = now()", []),
    "update some that differ": ("update users set username = 'bob', last_seen = now()", users(ALICE, CARL)),
    "update of no rows": ("update users set username = 'x' where false", []),
    "update of case only": (f"update users set username = 'ALICE' where id = {user(ALICE)}", users(ALICE)),
    "rename a trip": (f"update trips set name = 'Roma' where id = {trip(ROME)}", trips(ROME)),
    "change a key": (f"update users set id = {user(DAVE)} where id = {user(ALICE)}", users(ALICE, DAVE)),
    "change a membership's key": (
        f"update trip_memberships set user_id = {user(CARL)} where user_id = {user(ALICE)}",
        members((ROME, ALICE), (ROME, CARL)),
    ),
    "change a membership's surrogate key": ("update trip_memberships set id = default", []),
    "change a deleted trip's key": (f"update trips set id = {trip(21)} where id = {trip(LIMA)}", []),
    "swap two keys": (
        (
            f"update users set id = case id when {user(ALICE)} then {user(30)}::uuid else {user(31)} end "
            f"where id in ({user(ALICE)}, {user(BOB)})"
        ),
        users(ALICE, BOB, 30, 31),
    ),
    "delete a trip softly": (f"update trips set deleted_at = now() where id = {trip(ROME)}", moved(ROME)),
    "restore a trip": (f"update trips set deleted_at = null where id = {trip(LIMA)}", moved(LIMA)),
    "delete again softly": (f"update trips set deleted_at = now() where id = {trip(LIMA)}", []),
    "rename a deleted trip": (f"update trips set name = 'Cuzco' where id = {trip(LIMA)}", []),
    "leave": (
        f"update trip_memberships set status = 'INACTIVE' where trip_id = {trip(ROME)} and user_id = {user(BOB)}",
        members((ROME, BOB)),
    ),
    "join again": ("update trip_memberships set status = 'ACTIVE'", members((OSLO, BOB))),
    "change an inactive membership": (f"update trip_memberships set role = 'x' where trip_id = {trip(OSLO)}", []),
    "delete one": (f"delete from users where id = {user(CARL)}", users(CARL)),
    "delete of no rows": ("delete from users where false", []),
    "delete a trip, cascading": (
        f"delete from trips where id = {trip(ROME)}",
        [*members((ROME, ALICE), (ROME, BOB)), *moved(ROME)],
    ),
    "delete a deleted trip": (f"delete from trips where id = {trip(LIMA)}", []),
    "truncate": ("truncate users", whole("users")),
    "truncate trips": ("truncate trips cascade", whole("trip_memberships", "trip_memberships", "trips")),
    "on conflict do nothing": (
        f"insert into users (id) values ({user(ALICE)}), ({user(DAVE)}) on conflict do nothing",
        users(DAVE),
    ),
    "on conflict do nothing, and nothing to do": (
        f"insert into users (id) values ({user(ALICE)}) on conflict do nothing",
        [],
    ),
    "on conflict do update": (
        (
            f"insert into users (id, email) values ({user(ALICE)}, 'new'), ({user(DAVE)}, 'd') "
            "on conflict (id) do update set email = excluded.email"
        ),
        users(ALICE, DAVE),
    ),
    "on conflict do update to the same": (
        (
            f"insert into users (id, email) values ({user(ALICE)}, 'a@x') "
            "on conflict (id) do update set email = excluded.email, last_seen = now()"
        ),
        [],
    ),
    "on conflict do update of no rows": (
        "insert into users (id) select id from users where false on conflict (id) do update set email = 'x'",
        [],
    ),
    "on conflict do update where not": (
        f"insert into users (id) values ({user(ALICE)}) on conflict (id) do update set email = 'x' where false",
        [],
    ),
    "merge": (
        (
            f"merge into users u using (values ({user(ALICE)}::uuid, 'd'), ({user(BOB)}, 'u'), ({user(CARL)}, 'n'), "
            f"({user(DAVE)}, 'i')) s(id, what) on u.id = s.id "
            "when matched and what = 'd' then delete when matched and what = 'u' then update set email = 'new' "
            "when matched then do nothing when not matched then insert (id) values (s.id)"
        ),
        users(ALICE, BOB, DAVE),
    ),
    "merge that does nothing": (
        "merge into users u using users s on u.id = s.id when matched then do nothing",
        [],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_statement_marks_exactly(app: Connection, case: str) -> None:
    statement, expected = CASES[case]
    app.execute(statement, [[an_id(n) for n in (21, 22, 23)]] if "%s" in statement else None)
    assert marks(app) == ordered(expected)


def test_a_statement_that_writes_one_table_twice_marks_both(app: Connection) -> None:
    app.execute(
        f"with first as (update users set email = 'new' where id = {user(ALICE)} returning id) "
        f"update users set email = 'new' where id = {user(BOB)}"
    )
    assert set(marks(app)) == set(users(ALICE, BOB))


def test_a_refused_statement_marks_nothing(app: Connection) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        app.execute(f"update trips set id = {trip(21)} where id = {trip(ROME)}")
    assert marks(app) == []


def test_swapping_keys_in_one_statement_marks_both(app: Connection) -> None:
    app.execute("alter table users drop constraint users_pkey; alter table users add primary key (id) deferrable")
    app.execute(
        f"update users set id = case id when {user(ALICE)} then {user(BOB)}::uuid else {user(ALICE)} end "
        f"where id in ({user(ALICE)}, {user(BOB)})"
    )
    assert marks(app) == users(ALICE, BOB)


def test_copy_marks_its_rows(app: Connection) -> None:
    with app.cursor().copy("copy users (id, username) from stdin") as copy:
        for n in (21, 22, 23):
            copy.write_row((an_id(n), "x"))
    assert marks(app) == users(21, 22, 23)


def test_a_rollback_takes_the_marks_with_it(app: Connection) -> None:
    with app.transaction(force_rollback=True):
        app.execute("delete from users")
    assert marks(app) == []


def test_savepoints_keep_what_was_kept(app: Connection) -> None:
    with app.transaction():
        app.execute(f"update users set email = '1' where id = {user(ALICE)}")
        with app.transaction(force_rollback=True):
            app.execute(f"update users set email = '2' where id = {user(BOB)}")
        with app.transaction():
            app.execute(f"update users set email = '3' where id = {user(CARL)}")
    assert marks(app) == users(ALICE, CARL)


def test_a_foreign_key_update_cascades(app: Connection) -> None:
    app.execute(
        "alter table trip_memberships drop constraint trip_memberships_trip_id_fkey, "
        "add foreign key (trip_id) references trips on update cascade on delete cascade"
    )
    app.execute(f"update trips set id = {trip(21)} where id = {trip(ROME)}")
    expected = [*members((ROME, ALICE), (ROME, BOB), (21, ALICE), (21, BOB)), *moved(ROME, 21)]
    assert marks(app) == ordered(expected)


def test_what_replication_writes_is_marked(app: Connection) -> None:
    app.execute("set session_replication_role = replica")
    app.execute(f"update users set email = 'new' where id = {user(ALICE)}")
    app.execute(f"delete from users where id = {user(BOB)}")
    app.execute("truncate trips cascade")
    assert set(marks(app)) == {*users(ALICE, BOB), *whole("trips", "trip_memberships")}


def test_all_entries_of_a_transaction_carry_it(app: Connection) -> None:
    with app.transaction():
        xid = app.execute("select pg_current_xact_id()").fetchone()
        app.execute("update users set email = 'new'")
        app.execute("update trips set name = 'new'")
        assert app.execute("select distinct xid from mirror.outbox").fetchall() == [xid]


COLLATED = "create collation no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"


def test_a_change_that_a_collation_takes_for_none_is_marked(source_url: str) -> None:
    with psycopg.connect(source_url, autocommit=True) as app:
        try:
            app.execute(COLLATED)
        except psycopg.errors.FeatureNotSupported:
            pytest.skip("a server without ICU")
        app.execute("alter table users alter column email type text collate no_case")
        install(source_url)
        app.execute(ROWS)
        marks(app)
        app.execute(f"update users set email = 'A@X' where id = {user(ALICE)}")
        assert marks(app) == users(ALICE)


PARTITIONED = f"""
drop table users;
create table users (id uuid primary key, email text, username text, last_seen timestamptz) partition by range (id);
create table users_low partition of users for values from (minvalue) to ('{an_id(20)}');
create table users_high partition of users for values from ('{an_id(20)}') to (maxvalue);
"""


@pytest.fixture
def partitioned(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as connection:
        connection.execute(PARTITIONED)
        said = install(source_url)
        assert any("names a partition" in line for line in said)
        connection.execute(ROWS)
        marks(connection)
        yield connection


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (f"insert into users (id) values ({user(DAVE)}), ({user(30)})", users(DAVE, 30)),
        ("update users set email = 'new'", users(ALICE, BOB, CARL)),
        (f"update users set id = {user(30)} where id = {user(ALICE)}", users(ALICE, 30)),
        (f"delete from users where id = {user(BOB)}", users(BOB)),
        ("truncate users", whole("users")),
        ("update users set last_seen = now()", []),
    ],
)
def test_a_partitioned_table(partitioned: Connection, statement: str, expected: list[Mark]) -> None:
    """Also when a row moves from one partition to another."""
    partitioned.execute(statement)
    assert marks(partitioned) == ordered(expected)
