"""What leaves the projection is marked as gone, read first in a backlog, and forgotten exactly."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.bed.source_side import SOFT, an_id, drain, gone_of, install, marks, rows_of

pytestmark = pytest.mark.sql

Connection = psycopg.Connection[Any]
ROWS = f"""
insert into trips (id, name) values ('{an_id(11)}', 'Rome'), ('{an_id(12)}', 'Oslo');
insert into users (id, username) select ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid, 'user ' || n
  from generate_series(1, 50) as n;
insert into trip_memberships (trip_id, user_id, status) select '{an_id(11)}', id, 'ACTIVE' from users;
"""
OF_ONE = f"user_id = '{an_id(1)}'"
OF_MANY = f"user_id in ('{an_id(1)}', '{an_id(2)}')"


@pytest.fixture
def app(source_url: str) -> Iterator[Connection]:
    install(source_url, SOFT)
    with psycopg.connect(source_url, autocommit=True) as connection:
        connection.execute(ROWS)
        marks(connection)
        yield connection


JOIN = f"insert into trip_memberships (trip_id, user_id) select '{an_id(12)}', user_id from trip_memberships where {{}}"
STATEMENTS = {
    "delete from trip_memberships where {}": [True],
    "update trip_memberships set status = 'INACTIVE' where {}": [True],
    "update trip_memberships set role = 'new' where {}": [False],
    f"update trip_memberships set trip_id = '{an_id(12)}' where {{}}": [True, None],
    JOIN: [None],
}


@pytest.mark.parametrize("who", [OF_ONE, OF_MANY], ids=["one", "many"])
@pytest.mark.parametrize(("statement", "gone"), STATEMENTS.items(), ids=["delete", "leave", "change", "move", "join"])
def test_a_key_that_leaves_is_marked_as_gone(
    app: Connection, who: str, statement: str, gone: list[bool | None]
) -> None:
    app.execute(statement.format(who))
    found = app.execute("select distinct gone from mirror.outbox order by gone").fetchall()
    assert [row[0] for row in found] == gone


def test_the_memberships_of_a_trip_that_leaves_are_gone_with_it(app: Connection) -> None:
    app.execute("update trips set deleted_at = now() where name = 'Rome'")
    assert app.execute("select tbl, gone from mirror.outbox order by tbl").fetchall() == [
        ("trip_memberships", True),
        ("trips", True),
    ]


def test_in_a_backlog_what_is_gone_is_read_first(app: Connection) -> None:
    app.execute("update trip_memberships set role = 'new'")
    app.execute("delete from trip_memberships where user_id > %s", [an_id(43)])
    app.execute("update users set username = username || '!'")
    reply, scopes = drain(app, rows=5)
    assert (reply["entries"], reply["backlog"], reply["gone_left"]) == (5, True, True)
    assert (len(gone_of(scopes, "trip_memberships")), rows_of(scopes, "trip_memberships")) == (5, [])
    reply, scopes = drain(app, rows=20, backlog=True)
    assert (reply["entries"], reply["backlog"], reply["gone_left"]) == (7, True, True)
    assert len(gone_of(scopes, "trip_memberships")) == 7


def test_a_revoked_member_who_is_back_is_one(app: Connection) -> None:
    """The mark says where to look first, not what is true."""
    app.execute("update trip_memberships set role = 'new'")
    app.execute("delete from trip_memberships where user_id = %s", [an_id(1)])
    app.execute("insert into trip_memberships (trip_id, user_id, role) values (%s, %s, 'back')", [an_id(11), an_id(1)])
    _, scopes = drain(app, rows=5)
    assert [row["role"] for row in rows_of(scopes, "trip_memberships")] == ["back"]


def take(app: Connection, **request: Any) -> tuple[str, str, int]:
    asked = {"rows": 1000, "bytes": 10_000_000, "skip": []} | request
    row = app.execute("select taken_at, taken_id, reply from mirror.look(%s)", [Jsonb(asked)]).fetchone()
    assert row is not None
    return row[0], row[1], row[2]["entries"]


def test_what_is_in_hand_is_not_read_again(app: Connection) -> None:
    app.execute("update trip_memberships set role = 'new'")
    _, first, n = take(app, rows=20)
    assert n == 20
    _, second, n = take(app, rows=20, in_hand=first)
    assert n == 20
    row = app.execute("select %s::int8multirange && %s::int8multirange", [first, second]).fetchone()
    assert row == (False,)


def test_a_trip_that_is_left_to_a_walk_is_not_counted_nor_are_its_marks_that_were_not_read(app: Connection) -> None:
    app.execute(f"update trip_memberships set role = 'new' where {OF_ONE}")
    for _ in range(3):
        mark = "select mirror.mark_keys(mirror.turn(), array['trip_memberships'], array[%s], null, null)"
        app.execute(mark, [an_id(11)])
    _, ids, n = take(app, rows=10, entries=2)
    assert n == 1
    row = app.execute("select array_agg(k2) from mirror.outbox where id <@ %s::int8multirange", [ids]).fetchone()
    assert row == ([an_id(1)],)


def test_exactly_what_was_read_is_forgotten(app: Connection) -> None:
    """Whatever happened meanwhile: a second reader, other entries in those places."""
    app.execute("update trip_memberships set role = 'new'")
    places, ids, _ = take(app, rows=50)
    app.execute("update trip_memberships set role = 'newer' where user_id <= %s", [an_id(20)])
    app.execute("delete from mirror.outbox where id in (select id from mirror.outbox order by id limit 10)")
    forget = "select mirror.forget(%s::tid[], %s::int8multirange)"
    app.execute(forget, [places, ids])
    assert len(marks(app)) == 20
    app.execute("update trip_memberships set role = 'newest'")
    for table in ("outbox", "outbox_1", "outbox_2", "outbox_3"):
        app.execute(f"vacuum full mirror.{table}")
    app.execute(forget, ['{"(0,1)","(1000,1)"}', ids])
    assert len(marks(app)) == 50


def test_a_slice_that_takes_too_long_is_an_error_of_its_own(app: Connection) -> None:
    """Live changes are read all the same, in the same look."""
    app.execute(
        "create or replace function mirror.read_digest(asked jsonb, out reply jsonb) language plpgsql as "
        "$$ begin perform pg_sleep(10); end $$"
    )
    app.execute("insert into users (id) values (gen_random_uuid())")
    app.execute("set statement_timeout = '100ms'")
    asked = {"rows": 10, "bytes": 1000, "skip": [], "slice": {"want": "digest", "table": "trips", "rows": 1}}
    row = app.execute("select reply from mirror.look(%s)", [Jsonb(asked)]).fetchone()
    assert row is not None
    assert row[0]["entries"] == 1
    assert "57014" in row[0]["slice"]["error"]
