"""Whatever has become of the primary's catalog since the install: `mirror uninstall source` leaves nothing behind, and
`mirror install source` puts everything right, or says in one sentence what a person must do first."""

import re
import secrets
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from mirror.errors import ConfigError, Refused
from mirror.source.install import ANEW
from tests.bed.databases import Template
from tests.bed.source_side import an_id, drain, install, marks, role, uninstall
from tests.expected import describe

pytestmark = [pytest.mark.sql, pytest.mark.slow]  # all of them together: CI tries them on one pair of majors

Connection = psycopg.Connection[Any]
IN_PLACE = ["source: everything is in place already."]
FINGERPRINT = "select fingerprint, rendered, mapping, unsettled from mirror.install"

# What an application, an administrator or an accident does to a catalog. Install goes through.
PUT_RIGHT = {
    "the sequence is gone": "drop sequence mirror.outbox_id cascade",
    "a column that is not mapped is dropped": "alter table users drop column last_seen",
    "a granted column that is not mapped is dropped": "grant select (last_seen) on users to mirror_daemon; "
    "alter table users drop column last_seen",
    "a mapped column is dropped and made anew": "alter table users drop column email; alter table users add email text",
    "a table is dropped and made anew": "create table fresh (like users including all); drop table users; "
    "alter table fresh rename to users",
    "a table is renamed and made anew": "alter table users rename to old_users; create table users (like "
    "old_users including all)",
    "a table moves to another schema and is made anew": "create schema attic; alter table trips set schema attic; "
    "create table public.trips (like attic.trips including all)",
    "partitioned since": "alter table users rename to flat; create table users (like flat including all) "
    "partition by range (id); create table users_1 partition of users default",
    "a part is attached": "create table part (like users including all); alter table part inherit users",
    "schema: no usage": "revoke usage on schema mirror from mirror_daemon, mirror_capture, public",
    "schema: nothing for the owner": "revoke all on schema mirror from postgres",
    "tables: no rights": "revoke all on all tables in schema mirror from mirror_daemon, mirror_capture",
    "tables: none for the owner": "revoke all on all tables in schema mirror from postgres",
    "sequences: no rights": "revoke all on all sequences in schema mirror from mirror_daemon, mirror_capture, postgres",
    "functions: no rights": "revoke all on all functions in schema mirror from mirror_daemon, mirror_capture, "
    "public, postgres",
    "columns: no rights": "revoke all (id, email, username) on users from mirror_daemon",
    "the application's schema: no usage": "revoke usage on schema public from public, mirror_daemon",
    "a table's rights": "grant all on users to mirror_daemon; grant insert on trips to mirror_capture",
    "grant options": "grant select (id) on users to mirror_daemon with grant option; set role mirror_daemon; "
    "grant select (id) on users to mirror_capture; reset role",
    "an owner of functions changed": "alter function mirror.users_insert owner to postgres",
    "an owner of the outbox changed": "alter table mirror.outbox owner to mirror_capture",
    "an owner of the schema changed": "alter schema mirror owner to mirror_daemon",
    "an outbox is gone": "drop table mirror.outbox_2",
    "all outboxes are gone": "drop table mirror.outbox cascade",
    "the metadata are gone": "drop table mirror.install",
    "the metadata are empty": "delete from mirror.install",
    "reached is gone": "drop table mirror.reached",
    "reached is empty": "delete from mirror.reached",
    "the lead is gone": "drop table mirror.lead cascade",
    "held is gone": "drop table mirror.held",
    "functions are gone": "drop function mirror.users_insert cascade; drop function mirror.turn cascade; "
    "drop function mirror.token, mirror.identity",
    "the schema is gone": "drop schema mirror cascade",
    "the schema is renamed": "alter schema mirror rename to mirror_old",
    "another's objects": "create table mirror.theirs (id int); create function mirror.theirs() returns int "
    "language sql as "
    "'select 1'; create view mirror.look as select * from mirror.outbox; create type mirror.mood as enum ('a')",
    "another's function with the name of ours": "create function mirror.drain(text) returns int "
    "language sql as 'select 1'",
    "default privileges": "alter default privileges grant all on tables to {stranger}; "
    "alter default privileges grant all on functions to {stranger}; alter default privileges grant all on "
    "schemas to {stranger}; "
    "drop schema mirror cascade",
    "a trigger of our name": "drop trigger mirror_insert on users; create function public.f() returns trigger "
    "language plpgsql as 'begin return null; end'; create trigger mirror_insert after insert on users execute "
    "function public.f()",
    "a trigger of ours under another name": "alter trigger mirror_insert on users rename to theirs",
    "a role is renamed": "alter role mirror_daemon rename to {name}",
    "the triggers' role is renamed": "alter role mirror_capture rename to {name}",
    "a role is gone": "drop owned by mirror_daemon; drop role mirror_daemon",
    "the triggers' role is gone": "reassign owned by mirror_capture to postgres; drop owned by mirror_capture; "
    "drop role mirror_capture",
    "the owner of a table changed": "alter table users owner to {stranger}",
}
# After these nothing was missed: what captures is as it was. (Of a column that was dropped and made anew the reconcile
# learns.)
HARMLESS = {
    "a column that is not mapped is dropped",
    "a granted column that is not mapped is dropped",
    "a mapped column is dropped and made anew",
    "a part is attached",
    "columns: no rights",
    "the application's schema: no usage",
    "a table's rights",
    "grant options",
    "reached is empty",
    "the owner of a table changed",
}
# A person must act first: the mapping does not fit any more, or another's object has the name of one of ours.
REFUSED = {
    "a constraint trigger of our name": "drop trigger mirror_insert on users; create function public.f() "
    "returns trigger language plpgsql as 'begin return null; end'; create constraint trigger mirror_insert "
    "after insert on users "
    "for each row execute function public.f()",
    "a mapped column is dropped": "alter table users drop column email",
    "a mapped column is renamed": "alter table users rename column email to mail",
    "a table is dropped": "drop table users cascade",
    "a table is renamed": "alter table users rename to people",
    "a view for a table": "alter table users rename to people; create view users as select * from people",
    "the key is gone": "alter table users drop constraint users_pkey cascade",
    "a view for the outbox": "alter table mirror.outbox rename to elsewhere; "
    "create view mirror.outbox as select 1 as id",
    "a view for the metadata": "drop table mirror.install; create view mirror.install as select 1 as one",
    "an outbox without a column": "alter table mirror.outbox drop column gone",
    "metadata without a column": "alter table mirror.install drop column unsettled",
    "a function with another result": "drop function mirror.slot cascade; create function mirror.slot() returns text "
    "language sql as $$ select 'x' $$",
    "a procedure for a function": "drop function mirror.tidy; create procedure mirror.tidy(bigint) "
    "language sql as 'select 1'",
}


@pytest.fixture
def admin(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def other_url(source_template: Template) -> Iterator[str]:
    with source_template.clone() as url:
        yield url


@pytest.fixture
def names(source_url: str, admin: Connection) -> Iterator[dict[str, str]]:
    """Of roles that a damage makes: they belong to the server, so they must be gone afterwards."""
    stranger, name = f"stranger_{secrets.token_hex(4)}", f"renamed_{secrets.token_hex(4)}"
    with role(source_url, stranger):
        yield {"stranger": stranger, "name": name}
        admin.execute(f"set client_min_messages = error; reset role; reassign owned by {stranger} to current_user")
        if admin.execute("select to_regrole(%s) is not null", [name]).fetchone() == (True,):
            admin.execute(f"drop owned by {name} cascade; drop role {name}")


def damage(admin: Connection, statements: str, names: dict[str, str]) -> None:
    for place, name in names.items():
        statements = statements.replace(f"{{{place}}}", name)
    admin.execute(f"set client_min_messages = error; {statements}")


def left(connection: Connection) -> list[Any]:
    """Of ours, in this database and in the server."""
    return connection.execute(
        "select 'schema', nspname from pg_namespace where nspname = 'mirror' "
        "union all select 'trigger', t.tgname || ' ' || t.tgrelid::regclass "
        "  from pg_trigger t join pg_proc p on p.oid = t.tgfoid where p.prosrc ~ 'mirror[.]' and not tgisinternal "
        "union all select 'role', rolname from pg_roles where rolname in ('mirror_daemon', 'mirror_capture')"
    ).fetchall()


def captures(admin: Connection) -> None:
    """Written like the application, read like the daemon."""
    admin.execute(f"insert into users (id) values ('{an_id(1)}')")
    assert ("users", an_id(1), None) in marks(admin)
    admin.execute("set role mirror_daemon")
    reply, _ = drain(admin)
    assert reply["broken"] == {}


# (Triggers that call a schema of another name are not told from the application's own.)
@pytest.mark.parametrize("what", [what for what in (*PUT_RIGHT, *REFUSED) if what != "the schema is renamed"])
def test_uninstall_leaves_nothing(source_url: str, admin: Connection, names: dict[str, str], what: str) -> None:
    install(source_url)
    damage(admin, (PUT_RIGHT | REFUSED)[what], names)
    assert uninstall(source_url) == ["source: uninstalled."]
    assert left(admin) == []
    assert uninstall(source_url) == ["source: uninstalled."]


@pytest.mark.parametrize("what", PUT_RIGHT)
def test_install_puts_it_right(source_url: str, admin: Connection, names: dict[str, str], what: str) -> None:
    """And where something may have been missed meanwhile, all is compared."""
    install(source_url)
    marks(admin)
    damage(admin, PUT_RIGHT[what], names)
    install(source_url)
    admin.execute("reset role")
    assert bool(marks(admin)) is (what not in HARMLESS)
    assert install(source_url) == IN_PLACE
    captures(admin)


@pytest.mark.parametrize("what", REFUSED)
def test_install_says_what_to_do_first(source_url: str, admin: Connection, names: dict[str, str], what: str) -> None:
    install(source_url)
    damage(admin, REFUSED[what], names)
    with pytest.raises((ConfigError, Refused)) as refused:
        install(source_url)
    assert refused.value.hint
    if refused.value.hint != ANEW:
        return
    for command in re.findall("`mirror (install|uninstall) source`", ANEW):
        {"install": install, "uninstall": uninstall}[command](source_url)
    captures(admin)


def test_uninstall_changes_nothing_where_it_may_not_do_all(source_url: str, admin: Connection) -> None:
    """Half of it would leave a mirror that misses changes."""
    install(source_url)
    before = describe(admin)
    with role(source_url, f"owner_{secrets.token_hex(4)}") as url:
        name = psycopg.conninfo.conninfo_to_dict(url)["user"]
        admin.execute(f"alter schema mirror owner to {name}; alter table users owner to {name}")
        with pytest.raises(
            Refused, match=r"does not own table public.trip_memberships \(postgres\), table public.trips"
        ) as refused:
            uninstall(url)
        assert "as a member of postgres, or as an administrator" in refused.value.hint
        admin.execute("alter schema mirror owner to postgres; alter table users owner to postgres")
    assert describe(admin) == before


class CutError(Exception):
    """The command was killed."""


def cut_after(monkeypatch: pytest.MonkeyPatch, statements: int) -> None:
    """The session ends after so many statements, as when the command is killed; those that only ask do not count."""
    execute, done = psycopg.Connection.execute, 0

    def counted(self: Connection, query: Any, *rest: Any, **more: Any) -> Any:
        nonlocal done
        if re.match(r"\s*(select(?! mirror\.)|explain|create temporary view)", str(query)):
            return execute(self, query, *rest, **more)
        if done == statements:
            self.close()
            raise CutError
        done += 1
        return execute(self, query, *rest, **more)

    monkeypatch.setattr(psycopg.Connection, "execute", counted)


@pytest.mark.parametrize("command", [install, uninstall])
def test_killed_after_any_statement_it_can_be_run_again(
    source_url: str, other_url: str, admin: Connection, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    install(other_url)
    with psycopg.connect(other_url, autocommit=True) as other:
        undisturbed, fingerprint = describe(other), other.execute(FINGERPRINT).fetchone()
    for statements in range(100):
        uninstall(source_url)
        if command is uninstall:
            install(source_url)
        cut_after(monkeypatch, statements)
        try:
            command(source_url)
            break
        except CutError:
            pass
        finally:
            monkeypatch.undo()
        command(source_url)
        if command is install:
            assert describe(admin) == undisturbed
            assert admin.execute(FINGERPRINT).fetchone() == fingerprint
            assert install(source_url) == IN_PLACE
        else:
            assert [row for row in left(admin) if row[0] != "role"] == []
    assert statements > 8
