"""What a role of the primary that is not the mirror's cannot do: mark, hide a change, run code as the mirror, be given
rights by default privileges. Each test attacks."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from mirror.config import Settings
from mirror.doctor import source as doctor
from mirror.mapping import Mapping
from mirror.postgres import connect_blocking
from tests.bed.backends import Pair
from tests.bed.source_side import SOFT, an_id, drain, install, marks, members, role, rows_of, uninstall, users
from tests.bed.templates import APPLICATION

pytestmark = pytest.mark.sql

Connection = psycopg.Connection[Any]
A, ROME = 1, 11
WRITES = """
grant select, insert, update, delete on users, trips, trip_memberships to {0};
grant create on schema public to {0};
"""
ROWS = f"""
insert into users (id, email, username) values ('{an_id(A)}', 'a', 'a');
insert into trips (id, name) values ('{an_id(ROME)}', 'Rome');
insert into trip_memberships (trip_id, user_id, role, status) values ('{an_id(ROME)}', '{an_id(A)}', 'owner', 'ACTIVE');
"""


@pytest.fixture
def admin(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def stranger(source_url: str, admin: Connection) -> Iterator[Connection]:
    """Any login role of the primary, one that writes to the application's tables."""
    name = f"stranger_{secrets.token_hex(4)}"
    with role(source_url, name) as url:
        install(source_url, SOFT)
        admin.execute(WRITES.format(name))
        admin.execute(ROWS)
        marks(admin)
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection


def test_a_stranger_may_call_nothing_but_token(stranger: Connection) -> None:
    """Whatever exists: a new function is covered without anybody remembering."""
    callable_ = stranger.execute(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'mirror'::regnamespace "
        "and has_function_privilege(oid, 'execute')"
    ).fetchall()
    assert callable_ == [("mirror.token()",)]
    touchable = stranger.execute(
        "select oid::regclass::text from pg_class where relnamespace = 'mirror'::regnamespace and case "
        "when relkind = 'S' then has_sequence_privilege(oid, 'usage, select, update') "
        "when relkind in ('r', 'v') then has_table_privilege(oid, 'select, insert, update, delete, truncate') end"
    ).fetchall()
    assert touchable == []


REFUSED, GONE = psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction
ATTACKS = {
    "select mirror.mark('garbage', 'x', null)": GONE,
    "select mirror.mark('trip_memberships', null, 'x')": GONE,
    "select mirror.mark_tables(array['users'])": REFUSED,
    "select mirror.mark_keys(0, array['garbage'], null, null, null)": REFUSED,
    "insert into mirror.outbox (tbl) values ('garbage')": REFUSED,
    "create trigger mine after insert on mine for each row execute function mirror.users_insert()": REFUSED,
}


@pytest.mark.parametrize(("attack", "answer"), ATTACKS.items())
def test_a_stranger_cannot_mark(
    stranger: Connection, admin: Connection, attack: str, answer: type[psycopg.Error]
) -> None:
    stranger.execute("create table public.mine (id uuid, email text, username text)")
    with pytest.raises(answer):
        stranger.execute(attack)
    assert marks(admin) == []


HIDING = """
create schema {0};
create function {0}.no(text, text) returns boolean language sql as 'select false';
create operator {0}.= (leftarg = text, rightarg = text, function = {0}.no);
set search_path = {0}, pg_catalog;
"""


def test_an_operator_of_the_writers_hides_nothing(stranger: Connection, admin: Connection) -> None:
    """The filter of the mapping says status = 'ACTIVE'; the writer's = denies it."""
    admin.execute(f"grant create on database {admin.info.dbname} to {stranger.info.user}")
    stranger.execute(HIDING.format("evil"))
    stranger.execute("update public.trip_memberships set role = 'king'")
    assert marks(admin) == members((ROME, A))
    stranger.execute("delete from public.trip_memberships")
    assert marks(admin) == members((ROME, A))


OWNED = """
alter table users owner to {0}; grant usage, create on schema public to {0};
"""
CAST = """
create type public.odd as (value text);
create function public.evil(public.odd) returns text language plpgsql as $$
  begin
    insert into public.stolen values (current_user);
    return ($1).value;
  end $$;
create table public.stolen (who text);
grant insert on public.stolen to public;
create cast (public.odd as text) with function public.evil(public.odd) as assignment;
alter table public.users alter column email type public.odd using row(email)::public.odd;
"""


def test_a_cast_of_the_tables_owner_runs_as_the_triggers_role(source_url: str, admin: Connection) -> None:
    """Types are the application's to change, and PostgreSQL calls its cast where we ask for text: not as the superuser
    who installed, but as a role that can write entries and nothing else."""
    name = f"owner_{secrets.token_hex(4)}"
    with role(source_url, name) as url:
        admin.execute(OWNED.format(name))
        install(source_url)
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute(CAST)
            owner.execute(
                f"insert into public.users (id, email) values ('{an_id(2)}', row('x')), ('{an_id(3)}', row('y'))"
            )
            owner.execute("update public.users set email = row('z')")
            ran = owner.execute("select distinct who from public.stolen").fetchall()
            owner.execute("drop table public.stolen")
            owner.execute("alter table public.users alter column email type text using (email).value")
        assert ran in ([], [("mirror_capture",)])
        assert set(users(2)) <= set(marks(admin)) or ("users", None, None) in marks(admin)


def test_the_triggers_role_can_write_entries_and_nothing_else(source_url: str, admin: Connection) -> None:
    install(source_url)
    row = admin.execute(
        "select rolsuper or rolcanlogin or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls "
        "from pg_roles where rolname = 'mirror_capture'"
    ).fetchone()
    assert row == (False,)
    admin.execute("set role mirror_capture")
    for refused in (
        "select from mirror.outbox",
        "delete from mirror.outbox",
        "select from mirror.install",
        "select from public.users",
        "create table mirror.mine ()",
        "select mirror.mark_tables(array['users'])",
        "select mirror.pass_by(0, true)",
        "call mirror.drain('{}', null, null, null, null, null, null)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            admin.execute(refused)
    admin.execute("insert into mirror.outbox (tbl, k1) values ('users', 'x')")


def test_what_is_not_mirrored_cannot_be_marked(source_url: str, admin: Connection) -> None:
    """Not even by the daemon, which may mark whole tables."""
    install(source_url)
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        admin.execute("select mirror.mark_tables(array['users', 'garbage'])")


GENEROUS = (
    "alter default privileges grant all on tables to {0}",
    "alter default privileges grant all on sequences to {0}",
    "alter default privileges grant all on routines to {0}",
    "alter default privileges grant all on schemas to {0}",
)


def given_to(admin: Connection, name: str) -> list[tuple[Any, ...]]:
    return admin.execute(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'mirror'::regnamespace "
        "  and oid <> 'mirror.token()'::regprocedure and has_function_privilege(%(r)s, oid, 'execute') "
        "union all select oid::regclass::text from pg_class where relnamespace = 'mirror'::regnamespace and case "
        "  when relkind = 'S' then has_sequence_privilege(%(r)s, oid, 'usage, select, update') "
        "  when relkind in ('r', 'v') then has_table_privilege(%(r)s, oid, 'select, insert, update, delete') end "
        "union all select 'create' where has_schema_privilege(%(r)s, 'mirror', 'create')",
        {"r": name},
    ).fetchall()


def test_default_privileges_give_nothing_of_ours(source_url: str, admin: Connection) -> None:
    """At the first install, at an upgrade, and to those they were handed on to."""
    name, friend = f"app_{secrets.token_hex(4)}", f"friend_{secrets.token_hex(4)}"
    with role(source_url, friend), role(source_url, name):
        for statement in GENEROUS:
            admin.execute(statement.format(name))
        try:
            install(source_url)
            assert given_to(admin, name) == []
            admin.execute(f"grant select, delete on mirror.outbox to {name} with grant option")
            admin.execute(f"grant usage on schema mirror to {name}; set role {name}")
            admin.execute(f"grant delete on mirror.outbox to {friend}; reset role")
            found = [f for f in examine(source_url) if f.check == "rights of others"]
            assert {f.verdict for f in found} == {"error"}
            assert f"{name} may delete, select mirror.outbox" in [f.sentence for f in found]
            install(source_url)
            assert given_to(admin, name) == given_to(admin, friend) == []
            assert {f.verdict for f in examine(source_url) if f.check == "rights of others"} <= {"ok"}
        finally:
            for statement in GENEROUS:
                admin.execute(statement.format(name).replace(" grant ", " revoke ").replace(" to ", " from "))


def examine(source_url: str, mapping: Mapping | None = None) -> list[Any]:
    settings = Settings.model_validate({"MIRROR_SOURCE_URL": source_url, "MIRROR_TARGET_URL": "postgresql:///none"})
    return list(doctor.examine(settings, mapping or Mapping(), {}))


FORMER = """
create function mirror.mark(tbl text, k1 text, k2 text, gone boolean default null, more_tbl text[] default null,
  more1 text[] default null, more2 text[] default null, more_gone boolean[] default null)
returns boolean language sql security definer as 'select true';
create function mirror.mark(text, text[], text[], text[], boolean[]) returns boolean language sql as 'select true';
grant execute on all functions in schema mirror to public;
"""


def test_what_former_versions_left_open_is_closed(source_url: str, admin: Connection) -> None:
    install(source_url)
    admin.execute(FORMER)
    install(source_url)
    assert (
        admin.execute("select from pg_proc where proname = 'mark' and pronamespace = 'mirror'::regnamespace").rowcount
        == 0
    )
    row = admin.execute(
        "select count(*) from pg_proc as p, aclexplode(p.proacl) as g "
        "where p.pronamespace = 'mirror'::regnamespace and g.grantee = 0"
    ).fetchone()
    assert row == (1,)


def test_the_daemons_role_can_give_up_an_outbox_that_grew_too_large(source_url: str, admin: Connection) -> None:
    install(source_url)
    admin.execute("insert into mirror.outbox (tbl, k1) select 'users', n::text from generate_series(1, 100) as n")
    name = f"daemon_{secrets.token_hex(4)}"
    with role(source_url, name) as url:
        admin.execute(f"grant mirror_daemon to {name}")
        with connect_blocking(url, "source") as daemon:
            assert daemon.execute("select mirror.collapse(50)").fetchone() == (True,)
    assert {mark[1] for mark in marks(admin)} == {None}


ODD = 'the "trips" of\nRome; -- $1 %s {table}'


def test_a_table_with_an_odd_name(source_url: str, admin: Connection) -> None:
    quoted = '"' + ODD.replace('"', '""') + '"'
    admin.execute(f"alter table trips rename to {quoted}")
    mapping = Mapping.model_validate({"trips": {"from": f"public.{quoted}"}})
    install(source_url, mapping)
    marks(admin)
    admin.execute(f"insert into {quoted} (id, name) values ('{an_id(ROME)}', 'Rome')")
    with connect_blocking(source_url, "source") as daemon:
        reply, scopes = drain(daemon)
    assert reply["broken"] == {}
    assert [row["name"] for row in rows_of(scopes, "trips")] == ["Rome"]
    uninstall(source_url)


@pytest.fixture
def any_bytes_url(servers: Pair) -> Iterator[str]:
    """A database that keeps whatever bytes it is given."""
    name = f"ascii_{secrets.token_hex(4)}"
    with psycopg.connect(servers.source.admin_url, autocommit=True) as admin:
        admin.execute(f"create database {name} encoding 'SQL_ASCII' template template0 lc_collate 'C' lc_ctype 'C'")
        try:
            url = servers.source.url(name)
            with psycopg.connect(url, autocommit=True, client_encoding="utf8") as connection:
                connection.execute(APPLICATION)
            yield url
        finally:
            admin.execute(f"drop database {name} with (force)")


def test_a_source_in_sql_ascii(any_bytes_url: str) -> None:
    """What is UTF-8 is mirrored; a row that no client could read is refused alone."""
    install(any_bytes_url)
    with connect_blocking(any_bytes_url, "source") as admin:
        admin.execute(f"insert into public.users (id, username) values ('{an_id(1)}', 'Ünal'), ('{an_id(2)}', null)")
        odd = "convert_from('\\xff'::bytea, 'SQL_ASCII')"
        admin.execute(f"update public.users set username = 'bad ' || {odd} where id = '{an_id(2)}'")
        reply, scopes = drain(admin)
    assert reply["broken"] == {}
    assert [row["username"] for row in rows_of(scopes, "users")] == ["Ünal"]
    refused = [r for s in json.loads(f"[{scopes}]") for r in s.get("refused", [])]
    assert [r["k1"] for r in refused] == [an_id(2)]
    assert "invalid byte sequence" in refused[0]["reason"]


def test_a_dropped_column_keeps_nothing_from_being_installed_or_taken_away(source_url: str, admin: Connection) -> None:
    """It keeps its rights in the catalog, under a name that no statement takes."""
    install(source_url)
    admin.execute("alter table users drop column email")
    mapping = Mapping.model_validate({"users": {"email": "null"}})
    install(source_url, mapping)
    assert install(source_url, mapping) == ["source: everything is in place already."]
    uninstall(source_url)
    install(source_url, mapping)
    uninstall(source_url)
    assert admin.execute("select from pg_namespace where nspname = 'mirror'").rowcount == 0


OWNER = """
alter database {1} owner to {0}; grant all on schema public to {0};
alter table users owner to {0}; alter table trips owner to {0}; alter table trip_memberships owner to {0};
"""


@pytest.mark.parametrize(("options", "runs_as"), [("login createrole", "mirror_capture"), ("login", None)])
def test_who_installs_need_not_be_a_superuser(
    source_url: str, admin: Connection, options: str, runs_as: str | None
) -> None:
    """On Neon no role is one. Without the right to make roles the triggers run as the installer, and that is said."""
    admin.execute("set client_min_messages = error; drop role if exists mirror_daemon, mirror_capture")
    name = f"owner_{secrets.token_hex(4)}"
    with role(source_url, name, options) as url:
        admin.execute(OWNER.format(name, admin.info.dbname))
        said = install(url)
        assert any("no role mirror_capture" in line for line in said) is (runs_as is None)
        owners = admin.execute(
            "select distinct proowner::regrole::text from pg_proc "
            "where pronamespace = 'mirror'::regnamespace and prorettype = 'trigger'::regtype"
        ).fetchall()
        assert owners == [(runs_as or name,)]
        warned = [f.sentence for f in examine(url) if f.check == "capture role" and f.verdict == "warning"]
        assert bool(warned) is (runs_as is None)
        marks(admin)
        with psycopg.connect(url, autocommit=True) as app:
            app.execute(ROWS)
        assert set(users(A)) <= set(marks(admin))
        assert install(url) == ["source: everything is in place already."]
        assert install(url, SOFT)[-1].startswith("source: installed")
        assert "source: uninstalled." in uninstall(url)
        admin.execute(f"alter database {admin.info.dbname} owner to {admin.info.user}")
        admin.execute(f"reassign owned by {name} to {admin.info.user}")
