"""The security contract: an installed mirror keeps all of it, and mirror.insecurities() names whatever breaks it later,
with a cure that is really one."""

from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from tests.bed.backends import Pair
from tests.bed.callers import Project, installed
from tests.bed.databases import Template
from tests.bed.target_side import an_id, as_role, membership, put_in_place, scope, trip, user

pytestmark = pytest.mark.sql

FOUND = "select rule, finding, cure from mirror.insecurities() order by 1, 2"
TABLES = ("users", "trips", "trip_memberships")


@pytest.fixture(scope="module")
def made(servers: Pair) -> Iterator[Template]:
    with installed(servers) as made:
        yield made


@pytest.fixture
async def project(made: Template) -> AsyncIterator[Project]:
    async with Project.of(made) as project:
        yield project


@pytest.mark.parametrize("owner", ["postgres", "hosted_postgres"])
async def test_an_installed_mirror_keeps_the_contract(
    target_url: str, target: psycopg.AsyncConnection, owner: str
) -> None:
    put_in_place(as_role(target_url, owner))
    project = Project(target)
    assert await project.rows(FOUND) == []
    forced = "select relname from pg_class where relnamespace = 'public'::regnamespace and relforcerowsecurity"
    assert {name for (name,) in await project.rows(forced)} == set(TABLES)


async def test_the_mirror_works_on_under_forced_row_level_security(
    target_url: str, target: psycopg.AsyncConnection
) -> None:
    """The functions belong to whoever installed; that role bypasses what it owns, the tables' owner need not."""
    put_in_place(as_role(target_url, "hosted_postgres"))
    project = Project(target)
    async with await psycopg.AsyncConnection.connect(
        as_role(target_url, "hosted_postgres"), autocommit=True
    ) as customer:
        service = Project(customer)
        await service.writer.claim()
        await service.mirror(
            scope("users", [user(an_id(1))]),
            scope("trips", [trip(an_id(2))]),
            scope("trip_memberships", [membership(an_id(2), an_id(1))]),
        )
        await service.mirror(scope("users", [user(an_id(1), "ann")]))
    assert await project.column(an_id(1), "select username from public.users") == {"ann"}
    assert await project.ask(an_id(1), "select public.is_trip_member(%s)", an_id(2)) is True


DAMAGES = [
    ("alter publication supabase_realtime add table public.trips", "public.trips is in the publication"),
    ("grant insert on public.users to authenticated", "authenticated may insert on public.users"),
    ("grant update (email) on public.users to authenticated", "authenticated may update on public.users(email)"),
    ("grant select on public.trips to anon", "anon may select on public.trips"),
    ("grant select (email) on public.users to anon", "anon may select on public.users(email)"),
    ("grant select on public.trip_memberships to public", "public may select on public.trip_memberships"),
    ("grant delete on public.users to service_role", "service_role may delete on public.users"),
    ("alter table public.users disable row level security", "row level security of public.users is off"),
    ("alter table public.users no force row level security", "public.users does not hold for its owner"),
    ("alter table realtime.messages disable row level security", "every channel is open to everybody"),
    ("create policy wide on public.users for select to authenticated using (true)", "wide on public.users shows"),
    ("create policy wide on public.users using (true)", "wide on public.users shows every row"),
    (
        "create view public.people as select email from public.users; grant select on public.people to anon",
        "anon may read public.people, which shows public.users past its policies",
    ),
    (
        "create materialized view public.m as select from public.users; grant select on public.m to authenticated",
        "authenticated may read public.m",
    ),
    ("grant usage on schema mirror to authenticated", "authenticated may use the schema mirror"),
    ("grant usage on schema mirror to public", "anon may use the schema mirror"),
    ("grant execute on function public.mirror_apply(jsonb) to anon", "anon may call public.mirror_apply(jsonb)"),
    ("grant execute on function mirror.make_durable() to public", "authenticated may call mirror.make_durable()"),
    ("grant execute on function public.mirror_has(text) to public", "anon may call public.mirror_has(text)"),
]


async def test_what_breaks_it_is_named_and_the_cure_cures(project: Project) -> None:
    for damage, finding in DAMAGES:
        async with project.connection.transaction(force_rollback=True):
            await project.connection.execute(damage.encode())
            found = await project.rows(FOUND)
            assert any(finding in line for _, line, _ in found), (damage, found)
            as_json = await project.one("select public.mirror_insecurities()")
            assert len(as_json["insecurities"]) == len(found)
            for _, _, cure in found:
                await project.connection.execute(cure.encode())
            assert await project.rows(FOUND) == [], damage


async def test_what_is_allowed_is_not_reported(project: Project) -> None:
    for harmless in (
        "create view public.rooms with (security_invoker = on) as select id from public.trips",
        "grant select on public.rooms to authenticated",
        "create view public.inside as select id from public.trips",
        "create policy own on public.users for select to authenticated using (id = auth.uid())",
        "create policy closed on public.users as restrictive for select to authenticated using (true)",
        "create policy all_of_it on public.users for select to service_role using (true)",
        "create table public.messages (id int); alter publication supabase_realtime add table public.messages",
        "create function public.mirror_image(text) returns text language sql as 'select $1'",
    ):
        await project.connection.execute(harmless.encode())
        assert await project.rows(FOUND) == [], harmless


@pytest.mark.parametrize("what", ["for all tables", "for tables in schema public"])
async def test_a_publication_of_everything_is_named_too(project: Project, what: str) -> None:
    await project.connection.execute("set client_min_messages = error; drop publication supabase_realtime")
    await project.connection.execute(f"create publication supabase_realtime {what}".encode())
    found = await project.rows(FOUND)
    assert [line.split(" is in the publication")[0] for _, line, _ in found] == [f"public.{t}" for t in sorted(TABLES)]
    assert {cure for _, _, cure in found} == {"Make the publication anew, for the tables that are meant."}


async def test_who_may_ask_for_it(project: Project) -> None:
    assert (await project.ask("", "select public.mirror_insecurities()", role="service_role"))["insecurities"] == []
    for role in ("anon", "authenticated"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await project.ask("", "select public.mirror_insecurities()", role=role)


async def test_every_function_is_known_and_pinned(project: Project) -> None:
    """What is not in functions.sql has no grants, is not watched and is not taken away."""
    public = "select p.oid::regprocedure::text from pg_proc as p where p.pronamespace = 'public'::regnamespace"
    ours = {name for (name,) in await project.rows(public)}
    assert ours == {name for (name,) in await project.rows("select function::text from mirror.functions()")}
    loose = """select p.oid::regprocedure::text from pg_proc as p
               where p.pronamespace in ('public'::regnamespace, 'mirror'::regnamespace)
                 and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)"""
    assert await project.rows(loose) == []
    as_caller = """select p.oid::regprocedure::text from pg_proc as p
                where p.pronamespace = 'public'::regnamespace and not p.prosecdef"""
    assert await project.rows(as_caller) == [], "all of them look at what callers may not"
