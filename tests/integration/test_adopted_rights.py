"""Adopting a project's own tables takes rights from others: install says which ones before it takes them, and asks for
a flag; uninstall gives back what was taken, and takes back what was given."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from mirror.cli import main
from mirror.mapping import AccessOptions, Mapping
from mirror.postgres import connect_blocking
from mirror.target import install as target_side
from tests.bed.callers import Project
from tests.bed.target_side import UUIDS, Connection, an_id, as_role, put_in_place
from tests.expected import describe

pytestmark = pytest.mark.sql

USERS = "create table public.users (id uuid primary key, subject text, email text, username text)"
TRIPS = "create table public.trips (id uuid primary key, name text, created_by uuid)"
MEMBERS = """create table public.trip_memberships (
  trip_id uuid not null, user_id uuid not null, role text, status text, primary key (trip_id, user_id))"""
# A project in use: all roles read trips, members write memberships, users may change a column and see two.
IN_USE = f"""
{USERS}; {TRIPS}; {MEMBERS};
do $$ begin create role reporting; exception when duplicate_object then null; end $$;
grant select (id, username), update (username) on public.users to authenticated;
grant all on public.users to service_role;
grant select on public.trips to public;
grant insert, select on public.trips to anon with grant option;
grant insert, update, delete, select on public.trip_memberships to authenticated;
grant select on public.users to reporting;
alter table public.users enable row level security;
create policy own on public.users for select to authenticated using (id = auth.uid());
"""
RIGHTS = """
select r.name::text, r.part, coalesce(g.grantee::regrole::text, ''), g.privilege_type, g.is_grantable from (
  select c.relname, '', c.relowner, c.relacl from pg_class as c
  where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
  union all
  select c.relname, a.attname::text, c.relowner, a.attacl
  from pg_class as c join pg_attribute as a on a.attrelid = c.oid
  where c.relnamespace = 'public'::regnamespace and c.relkind = 'r') as r(name, part, owner, acl)
cross join aclexplode(r.acl) as g where g.grantee <> r.owner
union all
select c.relname::text, 'row level security', '', c.relrowsecurity::text, c.relforcerowsecurity
from pg_class as c where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
order by 1, 2, 3, 4"""
TAKEN = [
    "authenticated loses select (id), select (username), update (username) on public.users",
    "public loses select on public.trips",
    "anon loses insert, select on public.trips",
    "authenticated loses delete, insert, update on public.trip_memberships",
    "row level security of public.trips is switched on",
    "row level security of public.trip_memberships is switched on",
]


@pytest.fixture
def admin(target_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(as_role(target_url, "hosted_postgres"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def hosted(source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """What a customer of a hosted project has set."""
    monkeypatch.chdir(tmp_path)
    url = as_role(target_url, "hosted_postgres")
    monkeypatch.setenv("MIRROR_SOURCE_URL", source_url)
    monkeypatch.setenv("MIRROR_TARGET_URL", url)
    return url


@pytest.mark.usefixtures("hosted")
def test_rights_are_not_taken_without_the_flag(admin: psycopg.Connection, capsys: pytest.CaptureFixture[str]) -> None:
    admin.execute(IN_USE)
    before = describe(admin)
    assert main(["install", "target"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mirror: target: adopting the tables that are there already takes something away: ")
    for change in TAKEN:
        assert change in said, change
    assert "If that is meant: `mirror install target --take-rights`." in said
    assert said.count("\n") == 1
    assert describe(admin) == before


@pytest.mark.usefixtures("hosted")
def test_what_is_taken_is_said_remembered_and_given_back(
    admin: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.execute(IN_USE)
    before = admin.execute(RIGHTS.encode()).fetchall()
    assert main(["install", "target", "--take-rights"]) == 0
    said = capsys.readouterr().err
    for change in (*TAKEN, "row level security of public.users holds for its owner, too", "public.trips gets a policy"):
        assert f"target: {change}" in said, change
    assert admin.execute("select * from mirror.insecurities()").fetchall() == []
    installed = admin.execute(RIGHTS.encode()).fetchall()
    assert installed != before
    admin.execute("drop function public.mirror_status()")
    assert main(["install", "target"]) == 0, "installing again takes nothing new"
    assert main(["uninstall", "target"]) == 0
    assert (
        "gives back: grant delete, insert, update on public.trip_memberships to authenticated;"
        in capsys.readouterr().err
    )
    assert admin.execute(RIGHTS.encode()).fetchall() == before
    policies = admin.execute("select polname::text from pg_policy").fetchall()
    assert policies == [("own",)]
    assert main(["install", "target"]) == 2, "and it asks again"


async def test_nothing_that_the_mirror_has_brought_lies_open_afterwards(
    hosted: str, admin: psycopg.Connection, target: Connection
) -> None:
    """The attack: row level security was off before, and is off again; what the mirror let others read they may not."""
    admin.execute(f"{USERS}; {TRIPS}; {MEMBERS}")
    put_in_place(hosted)
    admin.execute("insert into public.users (id, email) values (%s, 'ann@example.org')", [an_id(1)])
    with connect_blocking(hosted, "target") as connection:
        target_side.uninstall(connection, lambda _: None)
    project = Project(target)
    for role in ("anon", "authenticated"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await project.ask(an_id(2), "select count(*) from public.users", role=role)


def test_tables_that_the_mirror_made_need_no_flag_and_stay_closed(hosted: str, admin: psycopg.Connection) -> None:
    for _ in range(2):
        assert main(["install", "target"]) == 0
        closed = admin.execute(RIGHTS.encode()).fetchall()
        assert main(["uninstall", "target"]) == 0
        assert admin.execute(RIGHTS.encode()).fetchall() == closed
    assert put_in_place(hosted)


def test_what_cannot_be_given_back_any_more_does_not_keep_the_mirror_there(
    hosted: str, admin: psycopg.Connection
) -> None:
    admin.execute(
        f"{USERS}; {TRIPS}; grant update (username) on public.users to anon; grant insert on public.trips to anon"
    )
    put_in_place(hosted)
    admin.execute("alter table public.users drop column username; drop table public.trips")
    with connect_blocking(hosted, "target") as connection:
        target_side.uninstall(connection, lambda _: None)
    assert admin.execute("select to_regnamespace('mirror')").fetchone() == (None,)


def test_triggers_are_announced_too(hosted: str, admin: psycopg.Connection) -> None:
    admin.execute(MEMBERS)
    said = put_in_place(hosted, mapping=Mapping(access=AccessOptions(announce="user:{sub}")))
    assert "target: public.trip_memberships gets the triggers mirror_deleted and mirror_updated" in said


def test_the_printed_script_says_it_in_its_first_lines_and_remembers(hosted: str, admin: psycopg.Connection) -> None:
    script = target_side.script(UUIDS, Mapping())
    head = script.partition("\nbegin;")[0].replace("\n-- ", " ")
    assert "this adopts them, and takes something away" in head
    assert "row level security is switched on" in head
    admin.execute(IN_USE)
    before = admin.execute(RIGHTS.encode()).fetchall()
    for _ in range(2):
        admin.execute(script.encode())
    with connect_blocking(hosted, "target") as connection:
        target_side.uninstall(connection, lambda _: None)
    assert admin.execute(RIGHTS.encode()).fetchall() == before


def test_only_the_owner_writes_down_what_is_given_back(hosted: str, admin: psycopg.Connection) -> None:
    """A role that could would run commands as the role that uninstalls."""
    put_in_place(hosted)
    for role in ("anon", "authenticated", "service_role"):
        admin.execute(f"set role {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            admin.execute("insert into mirror.taken (step, undo) values (9, 'drop table public.users')")
        admin.execute("reset role")
