"""The daemon's role reads the mapped columns and works on the outbox, and that is all. What row level security hides
from it is an error, never a row that is gone."""

import secrets
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from mirror.postgres import connect_blocking
from tests.bed.source_side import SOFT, an_id, drain, install, marks, read_slice, role, rows_of

pytestmark = pytest.mark.sql

Connection = psycopg.Connection[Any]


@pytest.fixture
def admin(source_url: str) -> Iterator[Connection]:
    install(source_url, SOFT)
    with psycopg.connect(source_url, autocommit=True) as connection:
        marks(connection)
        connection.execute(f"insert into users (id, email, username) values ('{an_id(1)}', 'a', 'alice')")
        yield connection


@pytest.fixture
def daemon(source_url: str, admin: Connection) -> Iterator[Connection]:
    """A login that is a member of mirror_daemon, in the daemon's own kind of session."""
    name = f"daemon_{secrets.token_hex(4)}"
    with role(source_url, name) as url:
        admin.execute(f"grant mirror_daemon to {name}")
        with connect_blocking(url, "source") as connection:
            yield connection


def test_it_can_do_its_work(daemon: Connection, admin: Connection) -> None:
    reply, scopes = drain(daemon, count=True)
    assert reply["entries"] == 1
    assert reply["broken"] == {}
    assert rows_of(scopes, "users")[0]["username"] == "alice"
    taken = daemon.execute(
        "call mirror.drain(%s::jsonb, null, null, null, null, null, null)",
        ['{"rows": 10, "bytes": 1000000, "sleep": false, "asleep": false, "skip": [], "forget_wide": []}'],
    ).fetchone()
    assert taken is not None
    daemon.execute(
        "call mirror.drain(%s::jsonb, array[%s], array[%s], null, null, null, null)",
        ['{"rows": 10, "bytes": 1000000, "sleep": true, "asleep": false, "skip": [], "forget_wide": []}', *taken[2:]],
    )
    assert marks(admin) == []
    for table in ("users", "trips", "trip_memberships"):
        read_slice(daemon, table)
    daemon.execute("select mirror.tidy(0)")
    daemon.execute("select version, mapping from mirror.install")
    row = daemon.execute("select mirror.identity(), mirror.rings(), mirror.token()").fetchone()
    assert row is not None
    assert row[0]["install"] == str(row[2]).split("/")[0]
    row = daemon.execute(
        "select mirror.lead(id, 10, 'me', pg_backend_pid()), (select count(*) from mirror.leader() where name = 'me'), "
        "mirror.unlead(id) is null, (select count(*) from mirror.strangers()) from gen_random_uuid() as id"
    ).fetchone()
    assert row is not None
    assert row[0]


def test_a_schema_it_may_not_enter_is_an_error_of_its_tables(daemon: Connection, admin: Connection) -> None:
    admin.execute("revoke usage on schema public from public, mirror_daemon")
    reply, scopes = drain(daemon)
    assert list(reply["broken"]) == ["users"]
    assert reply["broken"]["users"].startswith("mirror_daemon may not read public.users. ")
    assert "grant usage on schema public to mirror_daemon;" in reply["broken"]["users"]
    assert reply["entries"] == 0
    assert not scopes
    row = daemon.execute("select array(select f->>'kind' from jsonb_array_elements(mirror.faults()) as f)").fetchone()
    assert row == (["unreadable"] * 3,)


@pytest.mark.parametrize(
    "statement",
    [
        "select id, email, username from public.users",
        "select id, name, created_by, deleted_at from public.trips",
        "select trip_id, user_id, role, status from public.trip_memberships",
    ],
)
def test_it_reads_what_is_mapped(daemon: Connection, statement: str) -> None:
    daemon.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "select last_seen from public.users",
        "select * from public.users",
        "select id from public.trip_memberships",
        "insert into public.users (id) values (gen_random_uuid())",
        "update public.users set email = 'x'",
        "delete from public.trips",
        "truncate public.trip_memberships",
        "update mirror.outbox set k1 = null",
        "insert into mirror.outbox (tbl) values ('users')",
        "update mirror.install set version = 2",
        "delete from mirror.install",
        "select setval('mirror.outbox_id', 1)",
        "drop trigger mirror_insert on public.users",
        "create table mirror.mine ()",
        "drop function mirror.mark_keys",
        "select mirror.mark_keys(0, array['users'], null, null, null)",
    ],
)
def test_it_can_do_nothing_else(daemon: Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        daemon.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "select from mirror.outbox",
        "select from mirror.install",
        "delete from mirror.outbox",
        "select mirror.tidy(0)",
        "select mirror.identity()",
        "call mirror.drain('{}', null, null, null, null, null, null)",
        "select mirror.look('{}')",
        "select * from mirror.users_keys(array['1'], array[null])",
        "create table mirror.mine ()",
    ],
)
def test_others_can_do_less(source_url: str, statement: str) -> None:
    """The application may ask for a token."""
    install(source_url)
    with role(source_url, f"app_{secrets.token_hex(4)}") as url, psycopg.connect(url, autocommit=True) as app:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(statement)
        app.execute("select mirror.token()")


@pytest.mark.parametrize("policy", ["", "create policy mine on users using (username = 'nobody')"])
def test_rows_that_are_hidden_are_an_error(daemon: Connection, admin: Connection, policy: str) -> None:
    """Unreadable is not empty. The other tables go on."""
    admin.execute("alter table users enable row level security")
    admin.execute(policy or "select")
    admin.execute(f"insert into trips (id, name) values ('{an_id(2)}', 'Rome')")
    reply, scopes = drain(daemon, slice={"table": "users", "rows": 10})
    assert list(reply["broken"]) == ["users"]
    assert "row level security" in reply["broken"]["users"]
    assert '"users"' not in str(scopes)
    assert [row["name"] for row in rows_of(scopes, "trips")] == ["Rome"]


def test_hidden_rows_are_no_revocations_of_a_backlog(daemon: Connection, admin: Connection) -> None:
    admin.execute("insert into users (id) select gen_random_uuid() from generate_series(1, 20)")
    admin.execute("alter table users enable row level security")
    reply, scopes = drain(daemon, rows=5)
    assert reply["entries"] == 0
    assert "gone" not in (scopes or "")
    assert "users" in reply["broken"]


def test_a_policy_that_lets_the_daemon_see_all_is_not_asked(daemon: Connection, admin: Connection) -> None:
    """Where the role may bypass, nothing is hidden."""
    admin.execute("alter table users enable row level security")
    name = daemon.info.user
    admin.execute(f"alter role {name} bypassrls")
    reply, scopes = drain(daemon)
    assert reply["broken"] == {}
    assert rows_of(scopes, "users")[0]["id"] == an_id(1)
