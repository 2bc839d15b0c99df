"""What keeps the mirror from knowing what happens in the source: found in the catalog, each told from the others,
each with a cure that works. The other tables go on."""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql

from mirror.mapping import Mapping
from mirror.postgres import connect_blocking
from tests.bed.source_side import SOFT, an_id, drain, gone_of, install, marks, role

pytestmark = pytest.mark.sql

Connection = psycopg.Connection[Any]
Told = list[tuple[str, str]]
INSTALL = "Run `mirror install source`."
COLUMNS = "id uuid primary key, email text, username text"
AGAIN = f"drop table users; create table users ({COLUMNS})"
NO_TRIGGERS = "users was dropped and made anew, without the triggers of the mirror"
HIDES = "alter table users enable row level security; create policy mine on users using (email = 'mine')"


@dataclass(frozen=True)
class Attack:
    """`told`: kind and words of what is wrong with users. `mapping`: what the cure writes into mirror.toml."""

    done: str
    told: Told
    cure: str
    mapping: dict[str, Any] | None = None


ATTACKS = {
    "trigger dropped": Attack(
        "drop trigger mirror_update on users",
        [("capture", "trigger mirror_update on public.users is missing")], INSTALL,
    ),
    "triggers dropped": Attack(
        "drop trigger mirror_update on users; drop trigger mirror_truncate on users",
        [("capture", "trigger mirror_truncate, mirror_update on public.users is missing")], INSTALL,
    ),
    "trigger disabled": Attack(
        "alter table users disable trigger mirror_delete",
        [("capture", "trigger mirror_delete on public.users is not enabled always")], INSTALL,
    ),
    "fires for some rows": Attack(
        "create or replace trigger mirror_truncate after truncate on users for each statement when (false) "
        "execute function mirror.users_truncate()",
        [("capture", "trigger mirror_truncate on public.users is not ours")], INSTALL,
    ),
    "another function": Attack(
        "create or replace trigger mirror_delete after delete on users referencing old table as old_rows "
        "for each statement execute function mirror.trips_delete()",
        [("capture", "trigger mirror_delete on public.users is not ours")], INSTALL,
    ),
    "dropped and made anew": Attack(
        AGAIN, [("capture", NO_TRIGGERS), ("unreadable", "may not read public.users, which was dropped")], INSTALL
    ),
    "dropped and made anew, with rights": Attack(
        f"{AGAIN}; grant select on users to public", [("capture", NO_TRIGGERS)], INSTALL
    ),
    "dropped": Attack(
        "drop table users", [("unreadable", "public.users is missing")],
        "Make it again or name another table in mirror.toml, [users], and run `mirror install source`.",
        {"from": "public.people"},
    ),
    "renamed": Attack(
        "alter table users rename to accounts",
        [("unreadable", "public.users is missing; the table that was mapped is now public.accounts")],
        "Write from = 'public.accounts' in mirror.toml, [users], and run `mirror install source`.",
        {"from": "public.accounts"},
    ),
    "a view in its place": Attack(
        "alter table users rename to accounts; create view users as table accounts; grant select on users to public",
        [("unreadable", "public.users is not a table; the table that was mapped is now public.accounts")],
        "Write from = 'public.accounts' in mirror.toml, [users], and run `mirror install source`.",
        {"from": "public.accounts"},
    ),
    "column renamed": Attack(
        "alter table users rename username to name",
        [("unreadable", "public.users has no column username")],
        "Make it again, or map what is there in mirror.toml, [users], and run `mirror install source`.",
        {"username": "name"},
    ),
    "column dropped": Attack(
        "alter table users drop username, add handle text",
        [("unreadable", "public.users has no column username")],
        "Make it again, or map what is there in mirror.toml, [users], and run `mirror install source`.",
        {"username": "handle"},
    ),
    "rights revoked": Attack(
        "revoke select (email, username) on users from mirror_daemon",
        [("unreadable", "mirror_daemon may not read public.users")],
        "Run in the source: grant select (email, username) on public.users to mirror_daemon;",
    ),
    "row level security": Attack(
        HIDES, [("unreadable", "row level security of public.users applies to daemon_")],
        "Run in the source, as an administrator: alter role daemon_",
    ),
}  # fmt: skip
EVERYWHERE = {
    "drop table mirror.outbox_2": "mirror.outbox_2 is missing",
    "drop table mirror.outbox cascade": "mirror.outbox is missing, mirror.outbox_1 is missing",
    "drop sequence mirror.outbox_id cascade": "mirror.outbox_id is missing",
    "revoke insert on mirror.outbox_1 from mirror_capture": "mirror_capture may not write to mirror.outbox_1",
    "revoke usage on sequence mirror.outbox_id from mirror_capture": "mirror_capture may not write to mirror.outbox_id",
    "drop function mirror.turn()": "mirror.turn() is missing",
    "revoke execute on all functions in schema mirror from mirror_capture": "mirror_capture may not call mirror.slot()",
    "revoke usage on schema mirror from mirror_capture, public": "mirror_capture may not enter schema mirror",
}


@pytest.fixture
def admin(source_url: str) -> Iterator[Connection]:
    install(source_url, SOFT)
    with psycopg.connect(source_url, autocommit=True) as connection:
        connection.execute(f"create table people ({COLUMNS})")
        connection.execute(f"insert into trips (id, name) values ('{an_id(11)}', 'Rome')")
        connection.execute(f"insert into trip_memberships (trip_id, user_id) values ('{an_id(11)}', '{an_id(1)}')")
        marks(connection)
        yield connection


@pytest.fixture
def daemon(source_url: str, admin: Connection) -> Iterator[Connection]:
    """A login that is a member of mirror_daemon, in the daemon's own kind of session."""
    name = f"daemon_{secrets.token_hex(4)}"
    with role(source_url, name) as url:
        admin.execute(sql.SQL("grant mirror_daemon to {}").format(sql.Identifier(name)))
        with connect_blocking(url, "source") as connection:
            yield connection


def faults(connection: Connection) -> list[dict[str, str]]:
    row = connection.execute("select mirror.faults()").fetchone()
    assert row is not None
    found: list[dict[str, str]] = row[0]
    return found


def cured(attack: Attack, cures: set[str], url: str, admin: Connection) -> None:
    """Does what the cure says, to the letter."""
    for cure in cures:
        if run := re.fullmatch(r"Run in the source[^:]*: (.*)", cure):
            admin.execute(run[1])
        else:
            assert "`mirror install source`" in cure
            changed = SOFT.model_dump(by_alias=True) | ({"users": attack.mapping} if attack.mapping else {})
            install(url, Mapping.model_validate(changed))


def test_all_is_well(daemon: Connection) -> None:
    assert faults(daemon) == []


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_each_fault_is_named_with_a_cure_that_works(
    daemon: Connection, admin: Connection, source_url: str, attack: Attack
) -> None:
    admin.execute(attack.done)
    found = faults(daemon)
    assert {fault["table"] for fault in found} == {"users"}
    assert [fault["kind"] for fault in found] == [kind for kind, _ in attack.told]
    for fault, (_, words) in zip(found, attack.told, strict=True):
        assert words in fault["message"]
        assert fault["cure"].startswith(attack.cure)
    cured(attack, {fault["cure"] for fault in found}, source_url, admin)
    assert faults(daemon) == []
    reply, _ = drain(daemon, slice={"table": "users", "rows": 10})
    assert reply["broken"] == {}
    assert "error" not in reply["slice"]


UNREADABLE = [name for name, attack in ATTACKS.items() if attack.told[-1][0] == "unreadable" and "view" not in name]


@pytest.mark.parametrize("name", UNREADABLE)
def test_who_reads_says_the_same_and_revocations_of_other_tables_go_on(
    daemon: Connection, admin: Connection, name: str
) -> None:
    admin.execute(f"insert into users (id) values ('{an_id(1)}')")
    admin.execute(ATTACKS[name].done)
    admin.execute("delete from trip_memberships")
    fault = faults(daemon)[-1]
    said = f"{fault['message']}. {fault['cure']}"
    reply, scopes = drain(daemon, slice={"table": "users", "rows": 10})
    assert reply["broken"] == {"users": said}
    assert gone_of(scopes, "trip_memberships") == [{"trip_id": an_id(11), "user_id": an_id(1)}]
    marks(admin)
    reply, _ = drain(daemon, slice={"table": "users", "rows": 10})
    assert reply["slice"] == {"error": said}


@pytest.mark.parametrize(("done", "words"), EVERYWHERE.items(), ids=EVERYWHERE)
def test_what_all_triggers_need_is_missing_for_all_tables(
    daemon: Connection, admin: Connection, source_url: str, done: str, words: str
) -> None:
    admin.execute(done)
    found = faults(admin if "on schema" in done else daemon)
    assert [(f["table"], f["kind"], f["cure"]) for f in found] == [
        (table, "capture", INSTALL) for table in ("trip_memberships", "trips", "users")
    ]
    assert all(words in fault["message"] for fault in found)
    if "outbox_id" not in done:  # that is the one thing of ours that fails the application's writes
        admin.execute("update trips set name = 'Oslo'")
    install(source_url, SOFT)
    assert faults(daemon) == []
    admin.execute("delete from trips")
    assert ("trips", an_id(11), None) in marks(admin)


@contextmanager
def migration(url: str, statement: str) -> Iterator[None]:
    """Under way, and not committed."""
    with psycopg.connect(url) as connection:
        connection.execute(statement)
        yield
        connection.rollback()


@pytest.mark.parametrize(
    "statement", [AGAIN, "alter table users rename to accounts", "alter table users drop username"]
)
def test_a_migration_under_way_is_no_fault_and_holds_up_nobody(
    daemon: Connection, source_url: str, statement: str
) -> None:
    daemon.execute("set statement_timeout = '5s'")
    with migration(source_url, f"lock table users, trips in access exclusive mode; {statement}"):
        assert faults(daemon) == []


def test_a_helper_that_is_gone_is_a_fault_and_no_error(daemon: Connection, admin: Connection, source_url: str) -> None:
    admin.execute("drop function mirror.mapped()")
    found = faults(daemon)
    assert {(f["table"], f["kind"]) for f in found} == {(t, "capture") for t in ("users", "trips", "trip_memberships")}
    assert "mirror.mapped() does not exist" in found[0]["message"]
    install(source_url, SOFT)
    assert faults(daemon) == []


def test_an_install_of_before_learns_where_its_triggers_are(admin: Connection, source_url: str) -> None:
    admin.execute(
        "drop table mirror.origin; drop function mirror.faults(); "
        "create function mirror.faults() returns text[] language sql as $$ select '{}'::text[] $$"
    )
    install(source_url, SOFT)
    admin.execute(AGAIN)
    assert NO_TRIGGERS in faults(admin)[0]["message"]
