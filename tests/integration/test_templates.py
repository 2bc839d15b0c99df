"""The two template databases: the application's tables, and a Supabase project that behaves like a hosted one."""

import json
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.bed.backends import Pair
from tests.bed.databases import template
from tests.bed.templates import prepare_target

pytestmark = pytest.mark.sql


async def one(conn: psycopg.AsyncConnection, query: str, *arguments: object) -> object:
    row = await (await conn.execute(query, arguments)).fetchone()
    assert row is not None
    return row[0]


async def test_each_test_has_the_applications_tables_to_itself(
    source: psycopg.AsyncConnection, source_url: str
) -> None:
    await source.execute("insert into users (id) values (%s)", [uuid4()])
    await source.execute("insert into trips (id, name) values (%s, 'Rome')", [uuid4()])
    await source.execute("insert into trip_memberships (trip_id, user_id) select t.id, u.id from trips t, users u")
    async with await psycopg.AsyncConnection.connect(source_url) as other:
        assert await one(other, "select status from trip_memberships") == "ACTIVE"


@pytest.mark.parametrize("_again", [1, 2])
async def test_nothing_is_left_of_the_test_before(source: psycopg.AsyncConnection, _again: int) -> None:
    assert await one(source, "select count(*) from users") == 0
    await source.execute("insert into users (id) values (gen_random_uuid())")


@pytest.mark.usefixtures("target_template")
def test_supabase_can_be_made_again_where_its_roles_are(servers: Pair) -> None:
    async def twice(conn: psycopg.AsyncConnection) -> None:
        await prepare_target(conn)
        await prepare_target(conn)

    with template(servers.target, "twice", twice) as made:
        assert made.owner == "hosted_postgres"


async def test_claims_say_who_is_asking(target: psycopg.AsyncConnection) -> None:
    user = uuid4()
    async with target.transaction():
        claims = json.dumps({"sub": str(user), "role": "authenticated"})
        await target.execute("select set_config('request.jwt.claims', %s, true)", [claims])
        await target.execute("select set_config('realtime.topic', 'trip:1', true)")
        await target.execute("set local role authenticated")
        assert await one(target, "select auth.uid()") == UUID(str(user))
        assert await one(target, "select auth.role()") == "authenticated"
        assert await one(target, "select auth.jwt() ->> 'sub'") == str(user)
        assert await one(target, "select realtime.topic()") == "trip:1"
    assert await one(target, "select auth.uid()") is None
    assert await one(target, "select realtime.topic()") is None


async def test_a_sub_that_is_no_uuid_makes_auth_uid_raise(target: psycopg.AsyncConnection) -> None:
    async with target.transaction(force_rollback=True):
        await target.execute("""select set_config('request.jwt.claims', '{"sub": "user_2x"}', true)""")
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            await target.execute("select auth.uid()")


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
async def test_new_tables_in_public_are_granted_to_nobody(target: psycopg.AsyncConnection, role: str) -> None:
    await target.execute("create table public.fresh ()")
    assert await one(target, "select has_schema_privilege(%s, 'public', 'usage')", role) is True
    assert await one(target, "select has_table_privilege(%s, 'public.fresh', 'select')", role) is False


async def test_a_policy_on_realtime_messages_decides(target: psycopg.AsyncConnection) -> None:
    async with target.transaction():
        await target.execute("insert into realtime.messages (topic, extension) values ('trip:1', 'broadcast')")
        await target.execute("set local role authenticated")
        assert await one(target, "select count(*) from realtime.messages") == 0
        await target.execute("set local role hosted_postgres")
        await target.execute(
            "create policy p on realtime.messages for select to authenticated using (topic = realtime.topic())"
        )
        await target.execute("set local role authenticated")
        await target.execute("set local realtime.topic = 'trip:1'")
        assert await one(target, "select count(*) from realtime.messages") == 1


async def test_the_customers_role_is_no_superuser(target_url: str) -> None:
    url = make_conninfo(target_url, user="hosted_postgres")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as customer:
        await customer.execute("create schema mirror")
        await customer.execute("create table public.users (id uuid primary key)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await customer.execute("create function realtime.mine() returns int language sql return 1")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await customer.execute("set session_replication_role = replica")


async def test_requests_have_little_time(target_url: str) -> None:
    url = make_conninfo(target_url, user="authenticator")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as request:
        await request.execute("set role service_role")
        assert await one(request, "show statement_timeout") == "8s"
        assert await one(request, "show lock_timeout") == "8s"


async def test_realtime_publishes_nothing_yet(target: psycopg.AsyncConnection) -> None:
    assert await one(target, "select puballtables from pg_publication where pubname = 'supabase_realtime'") is False
    assert await one(target, "select count(*) from pg_publication_tables") == 0
