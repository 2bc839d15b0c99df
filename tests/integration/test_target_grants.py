"""Who may do what in the target: nobody but the mirror writes, nobody but the service role speaks for it, and the API's
roles may ask one question. On hosted Supabase as it is, as it was, and on a PostgreSQL without any of its roles."""

import json
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from tests.bed.backends import Pair
from tests.bed.databases import template
from tests.bed.target_side import (
    SOURCE,
    Connection,
    Row,
    Writer,
    an_id,
    as_role,
    membership,
    position,
    put_in_place,
    scope,
    trip,
    user,
)

pytestmark = pytest.mark.sql

TABLES = ("users", "trips", "trip_memberships")
DAEMONS = ("mirror_claim(jsonb)", "mirror_apply(jsonb)", "mirror_status()")
# A project from before 2026-10-30: whatever is made in public is everybody's.
GENEROUS = """
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
"""


@pytest.fixture(params=["today", "generous"])
async def installed(request: pytest.FixtureRequest, target_url: str, target: Connection) -> Connection:
    """Installed as a customer can: hosted_postgres owns the database and is no superuser."""
    if request.param == "generous":
        await target.execute("set role hosted_postgres; " + GENEROUS + "; reset role")
    put_in_place(as_role(target_url, "hosted_postgres"))
    return target


@pytest.fixture
async def postgrest(target_url: str) -> AsyncIterator[Connection]:
    """PostgREST's own connection; its login role brings limits of 8 seconds along."""
    url = as_role(target_url, "authenticator")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


class Api(Writer):
    """One RPC = one transaction, in the role of the token and with its claims."""

    def __init__(self, connection: Connection, role: str, sub: str = "") -> None:
        super().__init__(connection)
        self.role = role
        self.sub = sub

    async def rows(self, query: str, *arguments: object) -> list[tuple[object, ...]]:
        async with self.connection.transaction():
            await self._become()
            return await super().rows(query, *arguments)

    async def _call(self, function: str, argument: Row | None = None) -> Row:
        async with self.connection.transaction():
            await self._become()
            return await super()._call(function, argument)

    async def _become(self) -> None:
        await self.connection.execute(f"set local role {self.role}")
        claims = json.dumps({"sub": self.sub, "role": self.role})
        await self.connection.execute("select set_config('request.jwt.claims', %s, true)", [claims])


async def value(connection: Connection, query: str, *arguments: object) -> object:
    row = await (await connection.execute(query, arguments)).fetchone()
    assert row is not None
    return row[0]


async def test_the_service_role_applies_through_postgrest(installed: Connection, postgrest: Connection) -> None:
    service = Api(postgrest, "service_role")
    assert await service.one("show statement_timeout") == "8s"
    assert (await service.claim())["epoch"] == 1
    reply = await service.apply(
        scope("users", [user(an_id(1), "ann")]),
        scope("trips", [trip(an_id(1), "Rome")]),
        scope("trip_memberships", [membership(an_id(1), an_id(1))]),
        position=position("3:3:"),
    )
    assert reply["counts"] == {"users": {"upsert": 1}, "trips": {"upsert": 1}, "trip_memberships": {"upsert": 1}}
    assert (await service.status())["snapshot"] == "3:3:"
    assert await service.one("select username from public.users") == "ann", "it sees everything"
    assert await value(installed, "select not rolsuper from pg_roles where rolname = 'hosted_postgres'")
    owner = "select proowner::regrole::text from pg_proc where oid = 'public.mirror_apply(jsonb)'::regprocedure"
    assert await value(installed, owner) == "hosted_postgres"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("role", ["anon", "authenticated"])
@pytest.mark.parametrize("function", DAEMONS)
async def test_the_apis_roles_do_not_speak_for_the_mirror(postgrest: Connection, role: str, function: str) -> None:
    argument = {"mirror_claim(jsonb)": SOURCE, "mirror_apply(jsonb)": {}, "mirror_status()": None}[function]
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function"):
        await Api(postgrest, role)._call(function.partition("(")[0], argument)


async def test_nobody_gets_in_through_public(installed: Connection) -> None:
    for function in (*DAEMONS, "is_trip_member(text)"):
        allowed = "select has_function_privilege('supabase_read_only_user', %s, 'execute')"
        assert not await value(installed, allowed, f"public.{function}")
    # "public" as a role: whatever everybody may do, nobody in particular being meant.
    granted = """select string_agg(p.oid::regprocedure::text, ', ') from pg_proc as p, aclexplode(p.proacl) as a
                 where a.grantee = 0 and p.pronamespace in ('mirror'::regnamespace, 'public'::regnamespace)"""
    assert await value(installed, granted) is None
    bare = "select count(*) from pg_proc where proacl is null and pronamespace = 'mirror'::regnamespace"
    assert await value(installed, bare) == 0, "without a list of grants a function is everybody's"


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
async def test_the_schema_mirror_is_closed_to_the_api(installed: Connection, postgrest: Connection, role: str) -> None:
    for privilege in ("usage", "create"):
        assert not await value(installed, "select has_schema_privilege(%s, 'mirror', %s)", role, privilege)
    open_functions = """select string_agg(oid::regprocedure::text, ', ') from pg_proc
                        where pronamespace = 'mirror'::regnamespace and has_function_privilege(%s, oid, 'execute')"""
    assert await value(installed, open_functions, role) is None
    api = Api(postgrest, role)
    for query in ("select mirror.make_durable()", "select * from mirror.state", "select mirror.revoke('[]')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await api.rows(query)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
async def test_nobody_writes_the_tables_directly(postgrest: Connection, role: str, table: str) -> None:
    key = "trip_id" if table == "trip_memberships" else "id"
    for query in (
        f"insert into public.{table} ({key}) values (gen_random_uuid())",
        f"update public.{table} set {key} = {key}",
        f"delete from public.{table}",
        f"truncate public.{table}",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table"):
            await Api(postgrest, role).rows(query)


async def test_who_reads_the_tables(installed: Connection, postgrest: Connection) -> None:
    await installed.execute("insert into public.users (id) values (%s), (%s)", [an_id(1), an_id(2)])
    count = "select count(*) from public.users"
    assert await Api(postgrest, "service_role").one(count) == 2
    assert await Api(postgrest, "authenticated", an_id(1)).one(count) == 1, "oneself"
    assert await Api(postgrest, "authenticated", an_id(3)).one(count) == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await Api(postgrest, "anon").one(count)
    await installed.execute("create policy own on public.users for select to authenticated using (true)")
    assert await Api(postgrest, "authenticated", an_id(3)).one(count) == 2, (
        "whoever owns the tables may open them wider"
    )


async def test_row_level_security_is_on(installed: Connection) -> None:
    secured = "select count(*) from pg_class where relnamespace = 'public'::regnamespace and relrowsecurity"
    assert await value(installed, secured) == len(TABLES)


@pytest.mark.parametrize("role", ["authenticated", "service_role"])
async def test_who_is_signed_in_may_ask_the_question(installed: Connection, postgrest: Connection, role: str) -> None:
    await installed.execute("insert into public.users (id) values (%s)", [an_id(2)])
    await installed.execute(
        "insert into public.trip_memberships (trip_id, user_id, status) values (%s, %s, 'ACTIVE')", [an_id(1), an_id(2)]
    )
    for sub, answer in ((an_id(2), True), (an_id(3), False)):
        assert await Api(postgrest, role, sub).one("select public.is_trip_member(%s)", an_id(1)) is answer


async def test_installing_again_keeps_the_operators_policies(installed: Connection, target_url: str) -> None:
    await installed.execute("create policy own on public.users for select to authenticated using (id = auth.uid())")
    await installed.execute("create policy members on public.trips using ((select public.is_trip_member(id::text)))")
    await installed.execute("drop function mirror.revoke(jsonb)")
    policies = "select string_agg(polname || pg_get_expr(polqual, polrelid), ';' order by polname) from pg_policy"
    before = await value(installed, policies)
    assert put_in_place(as_role(target_url, "hosted_postgres")) == ["target: tables, state and functions are in place."]
    assert await value(installed, policies) == before


@pytest.fixture
def plain_url(servers: Pair) -> Iterator[str]:
    """A database on a PostgreSQL that has never heard of Supabase: the source's server."""

    async def nothing(_: psycopg.AsyncConnection) -> None:
        return None

    with psycopg.connect(servers.source.admin_url) as admin:
        if admin.execute("select from pg_roles where rolname = 'service_role'").fetchone() is not None:
            pytest.skip("both sides are one server, and it has Supabase's roles")
    with template(servers.source, "plain", nothing) as made, made.clone() as url:
        yield url


async def test_it_runs_on_a_postgres_without_supabases_roles(plain_url: str) -> None:
    put_in_place(plain_url)
    assert put_in_place(plain_url) == ["target: everything is in place already."]
    async with await psycopg.AsyncConnection.connect(plain_url, autocommit=True) as connection:
        writer = Writer(connection)
        await writer.claim()
        await writer.apply(scope("users", [user(an_id(1))]), position=position("1:1:"))
        assert (await writer.status())["snapshot"] == "1:1:"
        open_to_all = "select has_function_privilege('public', 'public.mirror_apply(jsonb)', 'execute')"
        assert not await writer.one(open_to_all)


async def test_roles_that_come_later_get_their_grants_at_the_next_install(plain_url: str) -> None:
    """A Postgres that becomes a Supabase, as when a backup is restored into a new project."""
    put_in_place(plain_url)
    async with await psycopg.AsyncConnection.connect(plain_url, autocommit=True) as connection:
        await connection.execute("create role service_role")
        try:
            assert put_in_place(plain_url) == ["target: tables, state and functions are in place."]
            allowed = "select has_function_privilege('service_role', 'public.mirror_apply(jsonb)', 'execute')"
            assert await value(connection, allowed)
        finally:
            await connection.execute("drop owned by service_role")
            await connection.execute("drop role service_role")
