"""Whatever has become of Supabase's catalog since the install: `mirror uninstall target` takes away what is ours, and
`mirror install target` puts everything right, or says in one sentence what a person must do first."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from mirror.errors import ConfigError, Incompatible, Refused
from mirror.mapping import Mapping
from mirror.postgres import connect_blocking
from mirror.target import install as target_side
from mirror.target.install import ANEW
from tests.bed.source_side import role
from tests.bed.target_side import SOURCE, put_in_place
from tests.expected import describe

pytestmark = [pytest.mark.sql, pytest.mark.slow]  # all of them together: CI tries them on one pair of majors

Connection = psycopg.Connection[Any]
IN_PLACE = ["target: everything is in place already."]
MAPPING = Mapping.model_validate(
    {"users": {"subject": "email"}, "access": {"announce": "user:{sub}", "topics": ["trip:{id}:{epoch}"]}}
)
LEFT = """
    select nspname from pg_namespace where nspname = 'mirror'
    union all select tgname from pg_trigger where tgname in ('mirror_deleted', 'mirror_updated')
      and tgfoid in (select oid from pg_proc where prosrc like ' -- permission mirror%')
    union all select polname from pg_policy where polname like 'mirror: %'
    union all select proname from pg_proc where prosrc like ' -- permission mirror%'"""
# What a project, an administrator or an accident does to a catalog. Install goes through.
PUT_RIGHT = {
    "a table is renamed": "alter table users rename to people",
    "a table is dropped and made anew": (
        "drop table trip_memberships cascade; create table trip_memberships (trip_id uuid, "
        "user_id uuid, primary key (trip_id, user_id))"
    ),
    "a column of ours is dropped": "alter table users drop column email",
    "subject is dropped": "alter table users drop column subject cascade",
    "status is dropped": "alter table trip_memberships drop column status cascade",
    "a column is renamed": "alter table users rename column username to name",
    "another column came and went": (
        "alter table users add x text; grant select (x) on users to authenticated; alter table users drop x"
    ),
    "a table is dropped": "drop table users cascade",
    "a table is moved": "create schema attic; alter table trips set schema attic",
    "partitioned": (
        "alter table users rename to flat; create table users (like flat) partition by range "
        "(id); alter table users add primary key (id); create table users_1 partition of users "
        "default"
    ),
    "a part is attached": "create table part (like trips including all); alter table part inherit trips",
    "the schema is gone": "drop schema mirror cascade",
    "the schema is renamed": "alter schema mirror rename to mirror_old",
    "state is gone": "drop table mirror.state cascade",
    "state is empty": "delete from mirror.state where true",
    "parked is gone": "drop table mirror.parked cascade",
    "epochs are gone": "drop table mirror.epochs cascade",
    "taken is gone": "drop table mirror.taken cascade",
    "functions are gone": (
        "drop function public.mirror_claim; drop function mirror.fingerprint; drop function "
        "public.is_trip_member(uuid) cascade"
    ),
    "indexes are gone": "drop index users_subject_mirror, trip_memberships_user_mirror",
    "policies are gone": 'drop policy "mirror: your trips" on trips',
    "schema: no rights": "revoke all on schema mirror from postgres, service_role",
    "tables: no rights": (
        "revoke all on all tables in schema mirror from postgres; revoke all on users from "
        "postgres, authenticated, service_role"
    ),
    "functions: no rights": (
        "revoke all on all functions in schema mirror from postgres; revoke all on all functions "
        "in schema public from service_role, postgres"
    ),
    "an owner of functions changed": "alter function public.mirror_claim owner to {stranger}",
    "an owner of a table of ours changed": "alter table mirror.parked owner to {stranger}",
    "an owner of the schema changed": "alter schema mirror owner to {stranger}",
    "another's objects": (
        "create table mirror.theirs (id int); create function mirror.theirs() returns int language sql as 'select 1'"
    ),
    "another's view on ours": "create view mirror.look as select * from mirror.state",
    "default privileges": (
        "alter default privileges grant all on tables to {stranger}; alter default privileges "
        "grant all on functions to {stranger}; alter default privileges grant all on schemas to "
        "{stranger}; drop schema mirror cascade"
    ),
    "a trigger of our name": (
        "drop trigger mirror_deleted on trip_memberships; create function public.f() returns "
        "trigger language plpgsql as 'begin return null; end'; create trigger mirror_deleted "
        "after delete on trip_memberships execute function public.f()"
    ),
    "a role that was granted to is gone": (
        "create role {name}; grant select on users to {name}; revoke select on users from {name}; drop role {name}"
    ),
    "an aggregate in schema mirror": "create aggregate mirror.mine (int) (sfunc = int4pl, stype = int)",
    "a procedure in schema mirror": "create procedure mirror.mine() language sql as 'select 1'",
    "a sequence in schema mirror": "create sequence mirror.mine",
    "a type in schema mirror": "create type mirror.mine as enum ('a')",
    "a policy that asks ours": (
        "create table public.chat (trip_id uuid); create policy p on public.chat using (public.is_trip_member(trip_id))"
    ),
}
# A person must act first, and the sentence says how.
REFUSED = {
    "parked without a column": "alter table mirror.parked drop column settled cascade",
    "state without a column": "alter table mirror.state drop column walks",
    "a constraint trigger of our name": (
        "drop trigger mirror_deleted on trip_memberships; create function public.f() returns "
        "trigger language plpgsql as 'begin return null; end'; create constraint trigger "
        "mirror_deleted after delete on trip_memberships for each row execute function public.f()"
    ),
    "a column of ours is generated": (
        "alter table users drop column email; alter table users add email text generated always as (username) stored"
    ),
    "a view for a table": "alter table users rename to people; create view users as select * from people",
    "a view for state": (
        "alter table mirror.state rename to elsewhere; create view mirror.state as select * from mirror.elsewhere"
    ),
    "a function with another result": (
        "drop function public.mirror_has; create function public.mirror_has(token text) returns "
        "text language sql as $$ select 'x' $$"
    ),
    "our function with another result": (
        "drop function mirror.messages cascade; create function mirror.messages() returns text "
        "language sql as $$ select 'x' $$"
    ),
    "a procedure for a function": (
        "drop function mirror.make_durable cascade; create procedure mirror.make_durable() language sql as 'select 1'"
    ),
}
# What others have made of ours, or put beside it, is not taken along.
IN_USE = {
    "another's objects",
    "another's view on ours",
    "a sequence in schema mirror",
    "a type in schema mirror",
    "a policy that asks ours",
    "a view for state",
}


@pytest.fixture
def admin(target_url: str) -> Iterator[Connection]:
    with psycopg.connect(target_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def names(target_url: str, admin: Connection) -> Iterator[dict[str, str]]:
    stranger, name = f"stranger_{secrets.token_hex(4)}", f"renamed_{secrets.token_hex(4)}"
    with role(target_url, stranger):
        yield {"stranger": stranger, "name": name}
        admin.execute(f"set client_min_messages = error; reset role; reassign owned by {stranger} to current_user")


def damage(admin: Connection, statements: str, names: dict[str, str]) -> None:
    for place, name in names.items():
        statements = statements.replace(f"{{{place}}}", name)
    admin.execute(f"set client_min_messages = error; {statements}")


def uninstall(url: str) -> list[str]:
    said: list[str] = []
    with connect_blocking(url, "target") as connection:
        target_side.uninstall(connection, said.append)
    return said


ADOPTED = """
create table users (id uuid primary key);
grant all on users to anon, authenticated;
grant select (id) on users to service_role;
create table trips (id uuid primary key, x text);
grant update (x) on trips to authenticated;
"""


@pytest.mark.parametrize("adopted", [False, True])
@pytest.mark.parametrize("what", [what for what in (*PUT_RIGHT, *REFUSED) if what != "the schema is renamed"])
def test_uninstall_leaves_nothing(
    target_url: str, admin: Connection, names: dict[str, str], what: str, *, adopted: bool
) -> None:
    if adopted:
        admin.execute(ADOPTED)
    put_in_place(target_url, mapping=MAPPING)
    damage(admin, (PUT_RIGHT | REFUSED)[what], names)
    if what in IN_USE:
        before = describe(admin)
        with pytest.raises(Incompatible, match=r"still in use.*Drop or change that first"):
            uninstall(target_url)
        assert describe(admin) == before
        return
    uninstall(target_url)
    assert admin.execute(LEFT).fetchall() == []
    uninstall(target_url)


@pytest.mark.parametrize("what", PUT_RIGHT)
def test_install_puts_it_right(target_url: str, admin: Connection, names: dict[str, str], what: str) -> None:
    put_in_place(target_url, mapping=MAPPING)
    damage(admin, PUT_RIGHT[what], names)
    put_in_place(target_url, mapping=MAPPING)
    assert put_in_place(target_url, mapping=MAPPING) == IN_PLACE
    assert claims(admin)


@pytest.mark.parametrize("what", REFUSED)
def test_install_says_what_to_do_first(target_url: str, admin: Connection, names: dict[str, str], what: str) -> None:
    """And changes nothing before that is done."""
    put_in_place(target_url, mapping=MAPPING)
    damage(admin, REFUSED[what], names)
    before = describe(admin)
    with pytest.raises((ConfigError, Refused)) as refused:
        put_in_place(target_url, mapping=MAPPING)
    assert refused.value.hint
    assert describe(admin) == before
    if refused.value.hint != ANEW or what in IN_USE:
        return
    uninstall(target_url)
    put_in_place(target_url, mapping=MAPPING)
    assert put_in_place(target_url, mapping=MAPPING) == IN_PLACE
    assert claims(admin)


def claims(admin: Connection) -> bool:
    row = admin.execute("select public.mirror_claim(%s::jsonb)", [json.dumps(SOURCE)]).fetchone()
    return bool(row and row[0]["epoch"])


class CutError(Exception):
    """The command was killed."""


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_killed_after_any_statement_it_can_be_run_again(
    target_url: str, admin: Connection, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The session ends after so many statements, as when the command is killed."""
    put_in_place(target_url, mapping=MAPPING)
    undisturbed = describe(admin)
    execute, counted = psycopg.Connection.execute, 0

    def cut(self: Connection, *arguments: Any, **more: Any) -> Any:
        nonlocal counted
        counted += 1
        if counted > statements:
            self.close()
            raise CutError
        return execute(self, *arguments, **more)

    for statements in range(100):  # noqa: B007 - counted against in cut()
        admin.execute("drop table users, trips, trip_memberships cascade")
        uninstall(target_url)
        if command == "uninstall":
            put_in_place(target_url, mapping=MAPPING)
        counted = 0
        monkeypatch.setattr(psycopg.Connection, "execute", cut)
        try:
            uninstall(target_url) if command == "uninstall" else put_in_place(target_url, mapping=MAPPING)
            break
        except CutError:
            pass
        finally:
            monkeypatch.undo()
        if command == "uninstall":
            uninstall(target_url)
            assert admin.execute(LEFT).fetchall() == []
            put_in_place(target_url, mapping=MAPPING)
        else:
            put_in_place(target_url, mapping=MAPPING)
            assert describe(admin) == undisturbed
        assert put_in_place(target_url, mapping=MAPPING) == IN_PLACE
    assert statements > 1
