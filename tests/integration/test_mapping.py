"""The mapping: whatever the application's tables and columns are called and typed, changes are captured and read."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from mirror.mapping import Mapping
from mirror.source.projection import look
from tests.bed.source_side import an_id, drain, gone_of, install, marks, read_slice, rows_of, uninstall

pytestmark = pytest.mark.sql

Connection = psycopg.Connection[Any]


@pytest.fixture
def app(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as connection:
        connection.execute("drop table trip_memberships, trips, users")
        yield connection


def mapped(**sections: dict[str, str]) -> Mapping:
    return Mapping.model_validate(sections)


def present(app: Connection) -> dict[str, list[dict[str, Any]]]:
    """What a drain says of everything that was marked; and the same read as slices must not differ."""
    reply, scopes = drain(app)
    assert reply["broken"] == {}
    found = {}
    for table in ("users", "trips", "trip_memberships"):
        rows = {str(row): row for row in rows_of(scopes, table)}  # a membership may come by its trip and by its key
        found[table] = [rows[key] for key in sorted(rows)]
        assert sorted(read_slice(app, table), key=str) == found[table]
    return found


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


NAMES = [
    "Order",
    "select",
    "mixed Case",
    'with "quotes"',
    "it's",
    "Ünïcödé 🚲",
    "a.b",
    "semi;colon",
    "new_rows",
    "_wanted",
    "$1",
    "%s",
]


@pytest.mark.parametrize("name", NAMES)
def test_names(app: Connection, source_url: str, name: str) -> None:
    """Of schemas, tables and columns alike."""
    q = quoted(name)
    app.execute(f"create schema {q}")  # type: ignore[arg-type, unused-ignore]
    app.execute(f'create table {q}.{q} ({q} uuid primary key, "e mail" text, "user" text, other int)')
    app.execute(f'create table {q}."t" ({q} uuid primary key, "group" text, "By" uuid)')
    app.execute(
        f'create table {q}."m" ({q} uuid not null, "to" uuid not null, role text, "table" text, unique ({q}, "to"))'
    )
    mapping = mapped(
        users={"from": f"{q}.{q}", "id": q, "email": '"e mail"', "username": '"user"', "where": f"{q} is not null"},
        trips={"from": f"{q}.t", "id": q, "name": '"group"', "created_by": '"By"'},
        trip_memberships={
            "from": f"{q}.m",
            "trip_id": q,
            "user_id": '"to"',
            "status": '"table"',
            "where": f"{q} is not null",
        },
    )
    install(source_url, mapping)
    marks(app)
    app.execute(f"insert into {q}.{q} values ('{an_id(1)}', 'e', 'u', 1)")
    app.execute(f"insert into {q}.t values ('{an_id(2)}', 'n', '{an_id(1)}')")
    app.execute(f"insert into {q}.m values ('{an_id(2)}', '{an_id(1)}', 'r', 's')")
    assert present(app) == {
        "users": [{"id": an_id(1), "subject": an_id(1), "email": "e", "username": "u"}],
        "trips": [{"id": an_id(2), "name": "n", "created_by": an_id(1)}],
        "trip_memberships": [{"trip_id": an_id(2), "user_id": an_id(1), "role": "r", "status": "s"}],
    }
    marks(app)
    app.execute(f"update {q}.{q} set other = 2")
    assert marks(app) == []
    app.execute(f"update {q}.{q} set \"user\" = 'v'")
    assert marks(app) == [("users", an_id(1), None)]
    app.execute(f"delete from {q}.m")
    _, scopes = drain(app)
    assert gone_of(scopes, "trip_memberships") == [{"trip_id": an_id(2), "user_id": an_id(1)}]
    assert install(source_url, mapping) == ["source: everything is in place already."]
    uninstall(source_url)
    assert app.execute("select count(*) from pg_trigger where not tgisinternal").fetchone() == (0,)


IDS: dict[str, tuple[str, list[Any]]] = {
    # type in the source: (type in the mirror, ids that may occur)
    "uuid": ("uuid", [an_id(1), an_id(2)]),
    "text": ("text", ["plain", 'O\'Brien \\ "x"', "žluťoučký 🐎", " ", "", "a|b,{c}", "NULL"]),
    "varchar(40)": ("text", ["user_2x", "Ünï"]),
    "char(3)": ("text", ["abc", "ab"]),
    "smallint": ("integer", [-1, 0, 32767]),
    "integer": ("integer", [-(2**31), 7]),
    "bigint": ("bigint", [2**53 + 1, -(2**63)]),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids(app: Connection, source_url: str, kind: str) -> None:
    mirrored, ids = IDS[kind]
    app.execute(f"create table users (id {kind} primary key, email text, username text)")
    app.execute(f"create table trips (id {kind} primary key, name text, created_by {kind})")
    app.execute(
        f"create table trip_memberships (trip_id {kind}, user_id {kind}, role text, status text, "
        "primary key (trip_id, user_id))"
    )
    install(source_url)
    row = app.execute("select mapping->'types' from mirror.install").fetchone()
    assert row == ({"user_id": mirrored, "trip_id": mirrored, "created_by": mirrored},)
    marks(app)
    for an in ids:
        app.execute("insert into users values (%s)", [an])
        app.execute("insert into trips values (%s, 'n', %s)", [an, an])
        app.execute("insert into trip_memberships values (%s, %s)", [an, an])
    found = present(app)
    assert {row["id"] for row in found["users"]} == {str(an) for an in ids}
    assert {row["created_by"] for row in found["trips"]} == {str(an) for an in ids}
    assert {row["user_id"] for row in found["trip_memberships"]} == {str(an) for an in ids}
    assert {row["subject"] for row in found["users"]} == {str(an) for an in ids}
    marks(app)
    app.execute("delete from trip_memberships; delete from users")
    _, scopes = drain(app)
    assert sorted(key["id"] for key in gone_of(scopes, "users")) == sorted(str(an) for an in ids)
    assert len(gone_of(scopes, "trip_memberships")) == len(ids)
    assert {type(key["user_id"]) for key in gone_of(scopes, "trip_memberships")} == {str}
    for table in ("users", "trips"):
        assert len(read_slice(app, table)) == (len(ids) if table == "trips" else 0)


def test_expressions_filters_and_enums(app: Connection, source_url: str) -> None:
    app.execute("""
        create type membership_status as enum ('ACTIVE', 'LEFT');
        create function public.slug(text) returns text language sql immutable return lower(replace($1, ' ', '-'));
        create table people (pk int primary key, meta jsonb not null, mail text, banned boolean);
        create table journeys (id uuid primary key, title text, owner int, gone timestamptz);
        create table seats (seat bigint primary key, journey uuid not null, person int not null,
                            status membership_status not null, unique (journey, person));
    """)
    mapping = mapped(
        users={
            "from": "people",
            "id": "pk::text",
            "subject": "meta->>'sub'",
            "email": "lower(mail)  -- as they log in",
            "username": "coalesce((meta->>'name'), 'nobody')",
            "where": "not banned or banned is null",
        },
        trips={"from": "journeys", "name": "public.slug(title)", "created_by": "owner::text", "where": "gone is null"},
        trip_memberships={
            "from": "seats",
            "trip_id": "journey",
            "user_id": "(person)::text",
            "role": "'guest'",
            "where": "status = 'ACTIVE'",
        },
    )
    install(source_url, mapping)
    marks(app)
    app.execute(f"""
        insert into people values (1, '{{"sub": "auth|1", "name": "Ann"}}', 'Ann@X', false), (2, '{{}}', null, true);
        insert into journeys values ('{an_id(1)}', 'To Rome', 1, null), ('{an_id(2)}', 'Gone', 1, now());
        insert into seats values (1, '{an_id(1)}', 1, 'ACTIVE'), (2, '{an_id(1)}', 2, 'LEFT'),
                                 (3, '{an_id(2)}', 1, 'ACTIVE');
    """)
    assert present(app) == {
        "users": [{"id": "1", "subject": "auth|1", "email": "ann@x", "username": "Ann"}],
        "trips": [{"id": an_id(1), "name": "to-rome", "created_by": "1"}],
        "trip_memberships": [{"trip_id": an_id(1), "user_id": "1", "role": "guest", "status": "ACTIVE"}],
    }
    marks(app)
    app.execute("update people set mail = 'ANN@x', meta = meta || '{\"seen\": 1}'")
    assert marks(app) == []
    app.execute("update people set banned = pk = 1")
    assert marks(app) == [("users", "1", None), ("users", "2", None)]
    app.execute("update people set mail = 'new' where pk = 2")
    assert marks(app) == [("users", "2", None)]
    app.execute("update seats set status = 'LEFT' where seat = 1")
    assert marks(app) == [("trip_memberships", an_id(1), "1")]


def test_a_column_there_is_none_for(app: Connection, source_url: str) -> None:
    app.execute("create table users (id uuid primary key)")
    app.execute("create table trips (id uuid primary key)")
    app.execute("create table trip_memberships (trip_id uuid, user_id uuid, primary key (trip_id, user_id))")
    install(
        source_url,
        mapped(
            users={"email": "null", "username": "null"},
            trips={"name": "'a trip'", "created_by": "null"},
            trip_memberships={"role": "null", "status": "'ACTIVE'"},
        ),
    )
    marks(app)
    app.execute(f"insert into users values ('{an_id(1)}'); insert into trips values ('{an_id(2)}')")
    app.execute(f"insert into trip_memberships values ('{an_id(2)}', '{an_id(1)}')")
    assert present(app) == {
        "users": [{"id": an_id(1), "subject": an_id(1), "email": None, "username": None}],
        "trips": [{"id": an_id(2), "name": "a trip", "created_by": None}],
        "trip_memberships": [{"trip_id": an_id(2), "user_id": an_id(1), "role": None, "status": "ACTIVE"}],
    }


@pytest.mark.parametrize("readable", [True, False])
@pytest.mark.parametrize("times", [3, 400])
def test_keys_that_changed_often_are_said_once(app: Connection, source_url: str, times: int, readable: bool) -> None:
    app.execute("create table users (id uuid primary key, email text, username text)")
    app.execute("create table trips (id uuid primary key, name text, created_by uuid)")
    app.execute("create table trip_memberships (trip_id uuid, user_id uuid, primary key (trip_id, user_id))")
    install(
        source_url,
        mapped(
            users={"username": "(100 / length(username))::text"},  # empty names cannot be read
            trip_memberships={"role": "null", "status": "'ACTIVE'"},
        ),
    )
    ann, bob, cid = an_id(1), an_id(2), an_id(3)
    insert = "insert into users values (%s, null, 'name'), (%s, null, %s)"
    app.execute(insert, [ann, bob, "bob" if readable else ""])
    marks(app)
    mark = "insert into mirror.outbox (tbl, k1) select 'users', k from unnest(%s::text[]) as k, generate_series(1, %s)"
    app.execute(mark, [[ann, bob, cid], times])
    reply, scopes = drain(app, rows=2000)
    said = json.loads(scopes or "")
    assert (reply["entries"], reply["keys"]) == (3 * times, 3)
    assert sorted(row["id"] for row in rows_of(scopes, "users")) == ([ann, bob] if readable else [ann])
    assert gone_of(scopes, "users") == [{"id": cid}]
    assert [key["k1"] for key in said.get("refused", [])] == ([] if readable else [bob])


UNIQUE = (
    "create table trip_memberships (trip_id uuid not null, user_id uuid not null, role text, status text, gone date);"
)


@pytest.mark.parametrize(
    ("index", "where"),
    [
        ("create unique index on trip_memberships (user_id, trip_id)", "true"),
        ("create unique index on trip_memberships (user_id) include (role)", "true"),
        ("create unique index on trip_memberships (trip_id, user_id) where gone is null", "gone is null"),
        (
            "create unique index on trip_memberships (trip_id, user_id) where gone is null",
            "status = 'A' and gone is null",
        ),
        ("alter table trip_memberships add unique (trip_id, user_id) deferrable initially deferred", "true"),
    ],
)
def test_what_makes_a_key_unique(app: Connection, source_url: str, index: str, where: str) -> None:
    """A partial index, too, when the row filter implies its condition."""
    app.execute("create table users (id uuid primary key, email text, username text)")
    app.execute("create table trips (id uuid primary key, name text, created_by uuid)")
    app.execute(UNIQUE + index)
    install(source_url, mapped(trip_memberships={"where": where}))


def test_looking_leaves_no_trace(app: Connection) -> None:
    app.execute("create table users (id uuid primary key, email text, username text)")
    app.execute("create table trips (id uuid primary key, name text, created_by uuid)")
    app.execute(UNIQUE + "create unique index on trip_memberships (trip_id, user_id)")
    app.execute("create temporary table warm ()")  # its schema for temporary tables is there already
    before = app.execute("select count(*) from pg_class").fetchone()
    source = look(app, Mapping())
    assert app.execute("select count(*) from pg_class").fetchone() == before
    assert source.users.columns == ("email", "id", "username")
    assert app.execute("select to_regnamespace('mirror')").fetchone() == (None,)
