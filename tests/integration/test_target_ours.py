"""What is ours in the target, and who may use it: our own functions are known by their bodies, and only the API's roles
have rights on what is ours, whatever default privileges say. Anon has none, unless a policy needs it."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from mirror.doctor.finding import Finding
from mirror.errors import MirrorError
from mirror.mapping import AccessOptions, Mapping
from mirror.postgres import connect_blocking
from mirror.target import install as target_side
from tests.bed.findings import examined_target
from tests.bed.source_side import role
from tests.bed.target_side import as_role, put_in_place
from tests.expected import describe

pytestmark = pytest.mark.sql

Connection = psycopg.Connection[Any]
OWNER = "hosted_postgres"
# A function of an application's own, careful as ours are, with a name of ours.
THEIRS = """create function public.my_trips() returns setof uuid language sql stable security definer
            set search_path = {path} as $$ select id from public.trips $$"""
FORMER = "create function mirror.caller() returns text language sql stable as $$ select null::text $$"


@pytest.fixture
def connection(target_url: str) -> Iterator[Connection]:
    with psycopg.connect(as_role(target_url, OWNER), autocommit=True) as connection:
        yield connection


def install(url: str, mapping: Mapping | None = None) -> None:
    put_in_place(as_role(url, OWNER), mapping=mapping)


def uninstall(url: str) -> None:
    with connect_blocking(as_role(url, OWNER), "target") as there:
        target_side.uninstall(there, lambda _: None)


def earlier(url: str) -> None:
    """As the versions before wrote it: their functions only called each other, and had another search_path."""
    install(url)
    ours = """select pg_get_functiondef(p.oid) from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
              where n.nspname = 'mirror' or n.nspname = 'public'"""
    with psycopg.connect(as_role(url, OWNER), autocommit=True) as connection:
        for (now,) in connection.execute(ours).fetchall():
            then = now.replace(f" -- {target_side.OURS}\n", " -- mirror.caller()\n").replace(
                "TO 'pg_catalog', 'pg_temp'", "TO ''"
            )
            assert then != now
            connection.execute(then.encode())
        connection.execute(FORMER)


def test_an_upgrade_takes_over_what_an_earlier_version_made(target_url: str, connection: Connection) -> None:
    earlier(target_url)
    install(target_url)
    old = "select count(*) from pg_proc where proconfig && array['search_path=\"\"'] or proname = 'caller'"
    assert connection.execute(old).fetchone() == (0,)
    upgraded = describe(connection)
    uninstall(target_url)
    install(target_url)
    assert describe(connection) == upgraded


def test_uninstall_knows_what_an_earlier_version_made(target_url: str, connection: Connection) -> None:
    earlier(target_url)
    uninstall(target_url)
    left = "select count(*) from pg_proc where pronamespace = 'public'::regnamespace"
    assert connection.execute(left).fetchone() == (0,)


@pytest.mark.parametrize("path", ["''", "pg_catalog, pg_temp"])
def test_an_applications_function_is_neither_replaced_nor_dropped(
    target_url: str, connection: Connection, path: str
) -> None:
    with psycopg.connect(target_url, autocommit=True) as admin:
        admin.execute("create table public.trips (id uuid primary key)")
        admin.execute("alter table public.trips owner to hosted_postgres")
    connection.execute(THEIRS.format(path=path).encode())
    with pytest.raises((MirrorError, psycopg.Error), match="my_trips"):
        install(target_url)
    uninstall(target_url)
    assert connection.execute("select to_regprocedure('public.my_trips()') is not null").fetchone() == (True,)


def test_who_comments_on_our_functions_or_sets_something_for_them_does_no_harm(
    target_url: str, connection: Connection
) -> None:
    install(target_url)
    connection.execute("comment on function public.my_trips() is 'the trips of the caller'")
    connection.execute("alter function public.my_trips() set search_path = public, pg_temp")
    install(target_url)
    path = "select proconfig from pg_proc where oid = 'public.my_trips()'::regprocedure"
    assert connection.execute(path).fetchone() == (["search_path=pg_catalog, pg_temp"],)
    uninstall(target_url)
    assert connection.execute("select to_regprocedure('public.my_trips()')").fetchone() == (None,)


def found(url: str, check: str) -> list[Finding]:
    return [f for f in examined_target(as_role(url, OWNER)) if f.check == check and f.verdict != "ok"]


def may(connection: Connection, grantee: str, function: str = "public.is_topic_member(text)") -> bool:
    row = connection.execute("select has_function_privilege(%s, %s, 'execute')", [grantee, function]).fetchone()
    assert row is not None
    return bool(row[0])


def open_to(connection: Connection, grantee: str) -> list[str]:
    query = """select p.oid::regprocedure::text from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
               where n.nspname in ('public', 'mirror') and has_function_privilege(%s, p.oid, 'execute') order by 1"""
    return [name for (name,) in connection.execute(query, [grantee])]


def test_anon_may_call_nothing(target_url: str, connection: Connection) -> None:
    install(target_url)
    assert open_to(connection, "anon") == []
    assert may(connection, "authenticated")


@pytest.mark.parametrize("to", ["", "to anon", "to anon, authenticated"])
def test_unless_a_policy_needs_it(target_url: str, connection: Connection, to: str) -> None:
    """For as long as it does: one that raises is an error for everybody on that topic."""
    install(target_url)
    connection.execute(
        f"create policy lobby on realtime.messages for select {to} using (public.is_topic_member(topic))".encode()
    )
    assert not may(connection, "anon")
    (finding,) = found(target_url, "anonymous callers")
    assert "lobby" in finding.sentence
    install(target_url)
    assert open_to(connection, "anon") == ["is_topic_member(text)"]
    assert found(target_url, "anonymous callers") == []
    assert connection.execute("select * from mirror.insecurities()").fetchall() == []
    connection.execute(finding.cure.encode())
    install(target_url)
    assert open_to(connection, "anon") == []


GENEROUS = """
alter default privileges for role hosted_postgres grant all on tables to application;
alter default privileges for role hosted_postgres grant all on functions to application;
alter default privileges for role hosted_postgres grant all on sequences to application;
alter default privileges for role hosted_postgres grant all on schemas to application;
"""
RIGHTS = """
select n.nspname from pg_namespace as n
where n.nspname = 'mirror' and has_schema_privilege('application', n.oid, 'usage, create')
union all
select c.oid::regclass::text from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
where n.nspname in ('mirror', 'public') and c.relkind in ('r', 'v')
  and (has_table_privilege('application', c.oid, 'select, insert, update, delete, truncate, references, trigger')
       or has_any_column_privilege('application', c.oid, 'select, insert, update, references'))
union all
select p.oid::regprocedure::text from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
where n.nspname in ('mirror', 'public') and has_function_privilege('application', p.oid, 'execute')
"""


@pytest.fixture
def application(target_url: str) -> Iterator[str]:
    """A role of the project's owner, whose default privileges give it everything."""
    with role(target_url, "application", "nologin") as name, psycopg.connect(target_url, autocommit=True) as admin:
        admin.execute(GENEROUS.encode())
        yield name


@pytest.mark.usefixtures("application")
def test_default_privileges_give_no_role_what_is_ours(target_url: str, connection: Connection) -> None:
    install(target_url, Mapping(access=AccessOptions(topics=("trip:{id}:{epoch}",))))
    assert connection.execute(RIGHTS).fetchall() == []
    assert connection.execute("select count(*) from mirror.rights_of_others()").fetchone() == (0,)


@pytest.mark.usefixtures("application")
def test_what_is_given_later_is_found_and_taken_away(target_url: str, connection: Connection) -> None:
    install(target_url)
    for right in (
        "usage on schema mirror",
        "select on mirror.state",
        "update (epoch) on mirror.state",
        "execute on function mirror.make_durable()",
        "execute on function public.mirror_apply(jsonb)",
    ):
        connection.execute(f"grant {right} to application with grant option".encode())
        (finding,) = found(target_url, "rights of others")
        assert finding.sentence.startswith("application may"), finding
        if "epoch" in right:
            connection.execute(finding.cure.partition(", or: ")[2].encode())
        else:
            install(target_url)
        assert connection.execute(RIGHTS).fetchall() == [], right


def test_rights_on_dropped_columns_are_no_rights(target_url: str, connection: Connection) -> None:
    install(target_url)
    for table in ("mirror.state", "public.users"):
        connection.execute(f"alter table {table} add column later text")
        connection.execute(f"grant update (later) on {table} to authenticated")
        connection.execute(f"alter table {table} drop column later")
    assert connection.execute("select finding from mirror.rights_of_others()").fetchall() == []
    assert connection.execute("select finding from mirror.insecurities()").fetchall() == []
