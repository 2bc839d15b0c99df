"""The application is never harmed: whatever it does to its own tables, and whatever becomes of ours, no statement of it
fails because of the mirror and no DDL is blocked. What capture cannot express it marks coarsely, as the whole table.

What slips through, and who finds it (install = `mirror install source` puts it right and marks the table):

    case                                                                found by
    ------------------------------------------------------------------  ------------------------------------------
    triggers disabled (DISABLE TRIGGER, pg_restore --disable-triggers)  doctor, install; reconcile
    table dropped and made again, swapped by renaming                   doctor, install; reconcile
    schema mirror or a table of it dropped, renamed, rights revoked     doctor, install (the log says so); reconcile
    a partition written, truncated, attached, detached or dropped by    reconcile (install and doctor say that there
      its own name; a table that inherits, the same                       are partitions)
    a MERGE that moves rows of a partitioned table to other partitions  reconcile (PostgreSQL hands the trigger no rows)
    values rewritten by ALTER COLUMN ... TYPE ... USING                 reconcile
    rows written by a logical replication subscription                  reconcile (it fires no statement triggers)
    an UNLOGGED table that a crash emptied                              reconcile
    a column dropped, renamed or retyped: every write marks the whole   the daemon reports the table as broken;
      table, which cannot be read                                         install with a new mapping
"""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from mirror.postgres import connect_blocking
from tests.bed.source_side import SOFT, an_id, drain, install, marks, ordered, role, users, whole

pytestmark = pytest.mark.sql

Connection = psycopg.Connection[Any]
A, B, ROME = 1, 2, 11
ROWS = f"""
insert into users (id, email, username) values ('{an_id(A)}', 'a', 'a'), ('{an_id(B)}', 'b', 'b');
insert into trips (id, name, created_by) values ('{an_id(ROME)}', 'Rome', '{an_id(A)}');
insert into trip_memberships (trip_id, user_id, role) values ('{an_id(ROME)}', '{an_id(A)}', 'owner');
"""
OWNED = """
grant create, usage on schema public to {0};
alter table users owner to {0}; alter table trips owner to {0}; alter table trip_memberships owner to {0};
"""


@pytest.fixture
def app_url(source_url: str) -> Iterator[str]:
    """The application's role owns its tables and has no right on schema mirror beyond those of PUBLIC."""
    name = f"app_{secrets.token_hex(4)}"
    with role(source_url, name) as url:
        with psycopg.connect(source_url, autocommit=True) as admin:
            admin.execute(OWNED.format(name))
        install(source_url, SOFT)
        yield url


@pytest.fixture
def admin(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as connection:
        yield connection


@contextmanager
def session(url: str, setting: str = "") -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        if setting:
            connection.execute(setting)
        yield connection


@pytest.fixture
def app(app_url: str, admin: Connection) -> Iterator[Connection]:
    """A session that has written before: its functions are compiled, its plans are cached."""
    with session(app_url) as connection:
        connection.execute("set client_min_messages = error")
        connection.execute(ROWS)
        write(connection)
        marks(admin)
        yield connection


def write(app: Connection, *tables: str) -> None:
    """Every kind of statement, naming no column that a test takes away. The table is as before afterwards."""
    for table in tables or ("trips", "trip_memberships", "users"):
        app.execute(
            f"create temporary table kept as table {table}; create temporary table members as table trip_memberships"
        )
        row = app.execute(
            "select quote_ident(attname) from pg_attribute where attrelid = %s::regclass and attnum > 1 "
            "and not attisdropped order by attnum desc limit 1",
            [table],
        ).fetchone()
        assert row is not None
        app.execute(f"update {table} set {row[0]} = {row[0]}")
        app.execute(f"update {table} set {row[0]} = null" if table == "users" else f"delete from {table} where false")
        app.execute(f"delete from {table}")
        app.execute(f"insert into {table} overriding system value table kept")
        if table == "trips":
            app.execute("insert into trip_memberships overriding system value table members on conflict do nothing")
        app.execute("drop table kept, members")


COLUMNS = [
    *(("users", c) for c in ("id", "email", "username")),
    *(("trips", c) for c in ("id", "name", "created_by", "deleted_at")),
    *(("trip_memberships", c) for c in ("trip_id", "user_id", "role", "status")),
]


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_column_is_dropped(app: Connection, app_url: str, admin: Connection, table: str, column: str) -> None:
    """In a session that knew the column, and in one that never did."""
    app.execute(f"alter table {table} drop column {column} cascade")
    write(app, table)
    assert set(whole(table)) <= set(marks(admin))
    with session(app_url) as fresh:
        write(fresh, table)
    assert set(whole(table)) <= set(marks(admin))


@pytest.mark.parametrize("table", ["users", "trips", "trip_memberships"])
def test_a_column_is_renamed(app: Connection, admin: Connection, table: str) -> None:
    for column in (c for t, c in COLUMNS if t == table):
        app.execute(f"alter table {table} rename column {column} to renamed")
        write(app, table)
        assert set(whole(table)) <= set(marks(admin)), column
        app.execute(f"alter table {table} rename column renamed to {column}")
        write(app, table)
        assert not set(whole(table)) & set(marks(admin)), column


RETYPED = {
    ("users", "id"): "text",
    ("users", "email"): "int using length(email)",
    ("trips", "name"): "json using to_json(name)",
    ("trips", "created_by"): "varchar(40)",
    ("trips", "deleted_at"): "date",
    ("trip_memberships", "user_id"): "varchar(40)",
    ("trip_memberships", "role"): "bytea using role::bytea",
    ("trip_memberships", "status"): "integer using length(status)",
}


@pytest.mark.parametrize(("table", "column"), RETYPED)
def test_a_column_is_retyped(app: Connection, app_url: str, admin: Connection, table: str, column: str) -> None:
    if (table, column) == ("trip_memberships", "status"):
        app.execute("alter table trip_memberships alter status drop default")
    app.execute(f"alter table {table} alter column {column} type {RETYPED[table, column]}")
    write(app, table)
    with session(app_url) as fresh:
        write(fresh, table)
    assert {row[0] for row in marks(admin)} >= {table}


def test_a_filter_that_cannot_be_computed_marks_the_memberships_too(app: Connection, admin: Connection) -> None:
    app.execute("alter table trips drop column deleted_at")
    app.execute("update trips set name = 'x'")
    assert set(marks(admin)) == set(whole("trips", "trip_memberships"))


def test_a_table_that_cannot_be_read_is_broken_and_not_empty(app: Connection, admin: Connection) -> None:
    app.execute("alter table users rename column username to handle")
    app.execute("update users set email = 'x'")
    app.execute("update trips set name = 'y'")
    reply, _ = drain(admin, slice={"table": "users", "rows": 10})
    assert reply["broken"] == {}
    assert "username" in reply["slice"]["error"]
    assert reply["wide"] == [{"table": "users", "trip": None}]
    assert reply["entries"] == 1


def test_renaming_a_table_goes_on_marking(app: Connection, admin: Connection) -> None:
    app.execute("alter table users rename to people")
    app.execute("update people set email = 'x'")
    assert marks(admin) == users(A, B)
    reply, _ = drain(admin, slice={"table": "users", "rows": 10})
    assert "users" in reply["slice"]["error"]


@pytest.mark.parametrize("cascade", ["", "cascade"])
def test_dropping_and_making_a_table_again(app: Connection, admin: Connection, cascade: str) -> None:
    """Slips through: the triggers went with the table."""
    app.execute(f"drop table users {cascade}")
    app.execute("create table users (id uuid primary key, email text, username text)")
    app.execute(f"insert into users values ('{an_id(3)}')")
    assert marks(admin) == []


def test_swapping_tables(app: Connection, admin: Connection) -> None:
    """Slips through: the triggers stay with the former table."""
    app.execute("create table users_new (like users including all)")
    app.execute("alter table users rename to users_old; alter table users_new rename to users")
    app.execute(f"insert into users (id) values ('{an_id(3)}')")
    assert marks(admin) == []
    app.execute("drop table users_old")


def test_schema_public_goes(app: Connection, admin: Connection) -> None:
    admin.execute("set client_min_messages = error; drop schema public cascade")
    with pytest.raises(psycopg.errors.UndefinedTable):
        app.execute("select from users")


BROKEN = {
    "schema dropped": "drop schema mirror cascade",
    "schema renamed": "alter schema mirror rename to aside",
    "outbox dropped": "drop table mirror.outbox cascade",
    "the one dropped whose turn it is": "create or replace function mirror.slot() returns integer language sql stable "
    "as 'select 1'; drop table mirror.outbox_1",
    "outbox renamed": "alter table mirror.outbox rename to aside",
    "what marks many is dropped": "drop function mirror.mark_keys",
    "all functions of ours dropped": "drop schema mirror cascade; create schema mirror",
    "no usage": "revoke usage on schema mirror from mirror_capture",
    "no execute": "revoke execute on all functions in schema mirror from mirror_capture",
    "no insert": "revoke insert on all tables in schema mirror from mirror_capture",
    "the role's rights": "drop owned by mirror_capture cascade",
    "triggers disabled": "alter table users disable trigger all; alter table trips disable trigger user; "
    "alter table trip_memberships disable trigger all",
}


MARKS_SOME = ("what marks many is dropped", "no usage")  # single keys; a session that knew the schema


@pytest.mark.parametrize("case", BROKEN)
def test_what_becomes_of_us_does_not_matter(app: Connection, app_url: str, admin: Connection, case: str) -> None:
    """Slips through, all of it."""
    admin.execute("set client_min_messages = error")
    admin.execute(BROKEN[case])
    app.execute(f"update users set email = 'new' where id = '{an_id(A)}'")
    write(app)
    app.execute("truncate users")
    with session(app_url) as fresh:
        write(fresh)
    row = admin.execute("select to_regclass('mirror.outbox')").fetchone()
    if row and row[0] and case not in MARKS_SOME:
        assert marks(admin) == []


@pytest.mark.parametrize("revoked", ["usage on schema mirror", "execute on all functions in schema mirror"])
def test_the_application_needs_no_right_to_be_heard(app: Connection, admin: Connection, revoked: str) -> None:
    admin.execute(f"revoke {revoked} from public")
    app.execute("update users set email = 'x'")
    assert marks(admin) == users(A, B)


def test_default_privileges_that_give_nothing_to_public(source_url: str, admin: Connection) -> None:
    """A hardened database: what PUBLIC may do here is granted and not assumed."""
    name = f"app_{secrets.token_hex(4)}"
    with role(source_url, name) as url:
        admin.execute(OWNED.format(name))
        admin.execute("alter default privileges revoke execute on functions from public")
        try:
            install(source_url)
            with session(url) as app:
                app.execute(ROWS)
            assert set(users(A, B)) <= set(marks(admin))
        finally:
            admin.execute("alter default privileges grant execute on functions to public")


HOSTILE = """
create schema evil;
create function evil.no(anyelement, anyelement) returns boolean language plpgsql as
  $$ begin raise exception 'evil'; end $$;
create function evil.no(int, int) returns boolean language plpgsql as $$ begin raise exception 'evil'; end $$;
create function evil.no(bigint, bigint) returns boolean language plpgsql as $$ begin raise exception 'evil'; end $$;
create function evil.no(text, text) returns boolean language plpgsql as $$ begin raise exception 'evil'; end $$;
create function evil.now() returns timestamptz language plpgsql as $$ begin raise exception 'evil'; end $$;
create function evil.count(anyelement) returns bigint language plpgsql as $$ begin raise exception 'evil'; end $$;
create function evil.unnest(text[]) returns setof text language plpgsql as $$ begin raise exception 'evil'; end $$;
create function evil.pg_notify(text, text) returns void language plpgsql as $$ begin raise exception 'evil'; end $$;
create function evil.cardinality(text[]) returns int language plpgsql as $$ begin raise exception 'evil'; end $$;
create operator evil.= (leftarg = int, rightarg = int, function = evil.no);
create operator evil.= (leftarg = bigint, rightarg = bigint, function = evil.no);
create operator evil.= (leftarg = text, rightarg = text, function = evil.no);
create operator evil.<> (leftarg = text, rightarg = text, function = evil.no);
create operator evil.> (leftarg = int, rightarg = int, function = evil.no);
create domain evil.text as int check (value > 100);
create domain evil.bigint as int check (value > 100);
create table evil.outbox (); create table evil.users (); create table evil.new_rows (); create table evil.old_rows ();
"""
SESSIONS = {
    "hostile search_path": "set search_path = evil, public, pg_catalog",
    "no search_path": "set search_path = ''",
    "serializable": "set default_transaction_isolation = serializable",
    "repeatable read": "set default_transaction_isolation = 'repeatable read'",
    "checks of plpgsql": "set plpgsql.extra_errors = 'all'; set plpgsql.extra_warnings = 'all'",
    "oddities": "set array_nulls = off; set transform_null_equals = on; set standard_conforming_strings = off; "
    "set row_security = off; set client_min_messages = debug5; set work_mem = '64kB'; "
    "set plan_cache_mode = force_custom_plan",
    "planner": "set enable_hashagg = off; set enable_sort = off; set enable_seqscan = off; set plan_cache_mode = "
    "force_generic_plan",
}


@pytest.mark.parametrize("name", SESSIONS)
def test_whatever_the_session_has_set(app: Connection, app_url: str, admin: Connection, name: str) -> None:
    admin.execute(HOSTILE)
    admin.execute("grant usage, create on schema evil to public")
    with session(app_url) as fresh:
        for it in (app, fresh):
            it.execute(SESSIONS[name])
            it.execute(
                "update public.users set email = pg_catalog.gen_random_uuid()::pg_catalog.text "
                "where username operator(pg_catalog.=) 'a'"
            )
            assert marks(admin) == users(A)
            it.execute("insert into public.users (id) select gen_random_uuid() from generate_series(1, 1500)")
            assert len(marks(admin)) == 1500
            it.execute("update public.users set email = 'z' where email is null")
            assert len(marks(admin)) == 1500
            it.execute("delete from public.users where email operator(pg_catalog.=) 'z'")
            assert len(marks(admin)) == 1500


def test_read_only_transactions(app: Connection, admin: Connection) -> None:
    """After a write, too: SET TRANSACTION READ ONLY may come late."""
    with app.transaction():
        app.execute("update users set email = 'x'")
        app.execute("set transaction read only")
        app.execute("select count(*) from users")
    assert marks(admin) == users(A, B)


def test_deferred_constraints(app: Connection, admin: Connection) -> None:
    app.execute(
        "alter table trip_memberships drop constraint trip_memberships_trip_id_fkey, "
        "add foreign key (trip_id) references trips on delete cascade deferrable initially deferred"
    )
    with app.transaction():
        app.execute("delete from trips")
        app.execute("alter table trips rename column name to label")
        app.execute("alter table trips rename column label to name")
        app.execute(f"insert into trips (id, name) values ('{an_id(ROME)}', 'Rome')")
    assert {row[0] for row in marks(admin)} == {"trips", "trip_memberships"}


def test_a_short_lock_timeout_does_not_matter(app: Connection, admin: Connection, source_url: str) -> None:
    """While somebody (mirror.tidy, for some milliseconds) has the outbox to himself, a writer waits; it does not fail.
    Its own lock_timeout is as before afterwards."""
    app.execute("set lock_timeout = '1ms'")
    with psycopg.connect(source_url) as other:
        other.execute("lock table mirror.outbox, mirror.outbox_1 in access exclusive mode")
        writer = threading.Thread(target=app.execute, args=["update users set email = 'x'"])
        writer.start()
        while not _waits(admin, app.info.backend_pid):
            assert writer.is_alive(), "it did not wait"
        admin.execute("select pg_sleep(0.1)")  # a hundred times as long as it would wait by itself
        assert writer.is_alive(), "it gave up"
        other.rollback()
        writer.join(10)
    assert marks(admin) == users(A, B)
    assert app.execute("show lock_timeout").fetchone() == ("1ms",)
    with app.transaction():
        app.execute("set local lock_timeout = '7s'")
        app.execute("update users set email = 'y'")
        assert app.execute("show lock_timeout").fetchone() == ("7s",)
    assert app.execute("show lock_timeout").fetchone() == ("1ms",)


def _waits(admin: Connection, pid: int) -> bool:
    row = admin.execute("select cardinality(pg_blocking_pids(%s)) > 0", [pid]).fetchone()
    return bool(row and row[0])


@pytest.mark.usefixtures("app")
def test_our_reading_aborts_no_serializable_transaction(source_url: str, admin: Connection) -> None:
    """Were the daemon serializable, too, its scan of the outbox would be the missing half of a conflict."""
    admin.execute(f"alter database {admin.info.dbname} set default_transaction_isolation = 'serializable'")
    with connect_blocking(source_url, "source") as daemon:
        drain(daemon)
        daemon.execute("select mirror.tidy(0)")
        row = daemon.execute("show transaction_isolation").fetchone()
    assert row == ("read committed",)


def test_ddl_and_writes_at_the_same_time(app_url: str, app: Connection, admin: Connection) -> None:
    """Columns come and go under two writers that do not name them. Nobody fails, nobody waits for ever."""
    failures: list[str] = []
    done = threading.Event()

    def run(statements: list[str], times: int | None) -> None:
        try:
            with session(app_url, "set lock_timeout = '20s'") as connection:
                n = 0
                while (n < times) if times else not done.is_set():
                    for statement in statements:
                        connection.execute(statement)
                    n += 1
        except psycopg.Error as error:
            failures.append(f"{statements}: {error}")

    writers = [
        threading.Thread(target=run, args=[[f"update users set last_seen = now(), username = '{n}'"], None])
        for n in range(2)
    ]
    ddl = [
        "alter table users rename column email to other",
        "alter table users alter column other type varchar(100)",
        "alter table users drop column other",
        "alter table users add column email text",
        "alter table users alter column username type varchar(50)",
        "alter table users alter column username type text",
    ]
    for writer in writers:
        writer.start()
    run(ddl, 10)
    done.set()
    for writer in writers:
        writer.join(30)
    assert failures == []
    assert {row[:1] for row in marks(admin)} == {("users",)}
    app.execute("update users set email = 'x'")
    assert marks(admin) == ordered(users(A, B))


def test_the_application_can_drop_everything_it_owns(app: Connection) -> None:
    """Nothing of ours depends on its columns or tables."""
    for table, column in COLUMNS:
        app.execute(f"alter table {table} drop column {column} cascade")
    for table in ("trip_memberships", "trips", "users"):
        app.execute(f"drop table {table}")
