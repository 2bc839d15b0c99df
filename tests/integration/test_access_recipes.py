"""The recipes for chat: run as they are in a project with the mirror, and executed as the people they are for."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from mirror.mapping import AccessOptions, Mapping
from mirror.render import template as sql_file
from tests.bed.backends import Pair
from tests.bed.callers import Project, installed
from tests.bed.databases import Template
from tests.bed.target_side import an_id, membership, scope, trip, user

pytestmark = pytest.mark.sql

ANN, BOB, CID = an_id(1), an_id(2), an_id(3)
ROME, OSLO = an_id(11), an_id(12)
ACCESS = AccessOptions(topics=("trip:{id}", "trip:{id}:messages", "room:{id}", "room:{id}:*"))
BOTH = {"broadcast", "presence"}
SENT = "select topic from realtime.messages where event = 'message' and private"
RECIPES = Path(__file__).parents[2] / "schema" / "target" / "recipes"


@pytest.fixture(scope="module")
def made(servers: Pair) -> Iterator[Template]:
    with installed(servers, mapping=Mapping(access=ACCESS)) as made:
        yield made


@pytest.fixture(scope="module")
def listening(servers: Pair) -> Iterator[Template]:
    with installed(servers, mapping=Mapping(access=AccessOptions(send=()))) as made:
        yield made


@asynccontextmanager
async def with_recipe(made: Template, name: str) -> AsyncIterator[Project]:
    """Ann owns Rome and Bob is in it; Cid is in Oslo."""
    async with Project.of(made) as project:
        await project.mirror(
            scope("users", [user(ANN, "ann"), user(BOB, "bob"), user(CID, "cid")]),
            scope("trips", [trip(ROME, "Rome"), trip(OSLO, "Oslo")]),
            scope("trip_memberships", [membership(ROME, ANN, "OWNER"), membership(ROME, BOB), membership(OSLO, CID)]),
        )
        await project.connection.execute(sql_file(f"target/recipes/{name}.sql").encode())
        yield project


async def refused(project: Project, sub: str, query: str, *arguments: object, role: str = "authenticated") -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with project.signed_in(sub, role=role):
            await project.connection.execute(query, arguments)


async def changed(project: Project, sub: str, query: str, *arguments: object) -> int:
    async with project.signed_in(sub):
        return (await project.connection.execute(query, arguments)).rowcount


def test_every_recipe_says_first_what_it_is_for_and_is_tried_here() -> None:
    names = sorted(path.stem for path in RECIPES.iterdir())
    assert names == ["chat_rooms", "service_role_only", "trip_chat"]
    for name in names:
        assert sql_file(f"target/recipes/{name}.sql").startswith("-- "), name


async def test_members_of_a_trip_chat_and_nobody_else(made: Template) -> None:
    async with with_recipe(made, "trip_chat") as project:
        write = "insert into public.messages (trip_id, body) values (%s, 'hello') returning id::text"
        message = await project.ask(BOB, write, ROME)
        read = "select sender::text from public.messages"
        assert await project.column(ANN, read) == {BOB}
        assert await project.column(CID, read) == set()
        await refused(project, CID, write, ROME)
        await refused(project, BOB, write, OSLO)
        await refused(
            project, BOB, "insert into public.messages (trip_id, sender, body) values (%s, %s, 'x')", ROME, ANN
        )
        await refused(project, "", read, role="anon")
        assert await project.rows(SENT) == [(f"trip:{ROME}:messages",)], "it was broadcast on a channel of the trip"
        assert await project.receives(ANN, f"trip:{ROME}:messages") == BOTH
        assert await changed(project, BOB, "update public.messages set body = 'hi' where id = %s", message) == 1
        assert await changed(project, ANN, "update public.messages set body = 'hi' where id = %s", message) == 0
        await refused(project, BOB, "update public.messages set trip_id = %s", OSLO)
        assert await changed(project, CID, "delete from public.messages") == 0
        assert await changed(project, ANN, "delete from public.messages") == 1, "Ann owns the trip"


async def test_reactions_receipts_and_presence(made: Template) -> None:
    async with with_recipe(made, "trip_chat") as project:
        message = await project.ask(
            BOB, "insert into public.messages (trip_id, body) values (%s, 'hello') returning id::text", ROME
        )
        react = "insert into public.reactions (message_id, reaction) values (%s, '+1')"
        have_read = "insert into public.read_receipts (message_id) values (%s)"
        come = "insert into public.presence (trip_id) values (%s) on conflict (trip_id, user_id) do update "
        come += "set seen_at = now()"
        for statement in (react, have_read):
            assert await changed(project, ANN, statement, message) == 1
            await refused(project, CID, statement, message)
        for _ in range(2):
            assert await changed(project, ANN, come, ROME) == 1
        await refused(project, CID, come, ROME)
        for table in ("reactions", "read_receipts", "presence"):
            await refused(project, "", f"select * from public.{table}", role="anon")
            assert await project.column(BOB, f"select user_id::text from public.{table}") == {ANN}
            assert await project.column(CID, f"select user_id::text from public.{table}") == set()
            await refused(project, BOB, f"update public.{table} set user_id = %s", ANN)
        assert await changed(project, BOB, "delete from public.reactions") == 0
        assert await changed(project, ANN, "delete from public.reactions") == 1
        assert await changed(project, ANN, "delete from public.presence") == 1


async def test_who_is_removed_has_no_chat_and_the_mirror_no_trouble(made: Template) -> None:
    async with with_recipe(made, "trip_chat") as project:
        await project.ask(BOB, "insert into public.messages (trip_id, body) values (%s, 'x') returning 1", ROME)
        await project.mirror(scope("trip_memberships", gone=[{"trip_id": ROME, "user_id": BOB}]))
        assert await project.column(BOB, "select body from public.messages") == set()
        assert await changed(project, BOB, "delete from public.messages") == 0
        await project.mirror(scope("trip_memberships", trips=[ROME]), scope("trips", gone=[{"id": ROME}]))
        assert await project.one("select count(*) from public.messages") == 1, "chat outlives what it was about"
        assert await project.one("select count(*) from mirror.parked") == 0
        assert await project.column(ANN, "select body from public.messages") == set()


async def test_rooms_are_trips(made: Template) -> None:
    async with with_recipe(made, "chat_rooms") as project:
        assert await project.column(BOB, "select name from public.rooms") == {"Rome"}
        assert await project.column(BOB, "select username || ' ' || role from public.participants") == {
            "ann owner",
            "bob member",
        }
        assert await project.column(CID, "select username from public.participants") == {"cid"}
        write = "insert into public.messages (room_id, body) values (%s, 'hello')"
        assert await changed(project, BOB, write, ROME) == 1
        await refused(project, CID, write, ROME)
        await refused(
            project, BOB, "insert into public.messages (room_id, body, sender) values (%s, 'x', %s)", ROME, ANN
        )
        assert await project.column(ANN, "select sender::text from public.messages") == {BOB}
        assert await project.column(CID, "select sender::text from public.messages") == set()
        assert await project.rows(SENT) == [(f"room:{ROME}:messages",)]
        assert await project.receives(ANN, f"room:{ROME}:typing") == {"broadcast", "presence"}
        assert await project.receives(CID, f"room:{ROME}") == set()
        await refused(project, "", "select * from public.rooms", role="anon")


async def test_a_back_end_that_decides_by_itself(listening: Template) -> None:
    async with with_recipe(listening, "service_role_only") as project:
        write = "insert into public.messages (trip_id, sender, body) values (%s, %s, 'hello')"
        for role in ("anon", "authenticated"):
            await refused(project, BOB, write, ROME, BOB, role=role)
            await refused(project, BOB, "select * from public.messages", role=role)
        async with project.signed_in("", role="service_role"):
            await project.connection.execute(write, [ROME, BOB])
            assert await project.one("select count(*) from public.messages") == 1
        assert await project.rows(SENT) == [(f"trip:{ROME}",)]
        assert await project.receives(ANN, f"trip:{ROME}") == {"broadcast", "presence"}
        assert await project.receives(CID, f"trip:{ROME}") == set()
        assert await project.sends(ANN, f"trip:{ROME}") == set(), "clients only subscribe"


@pytest.mark.parametrize(
    ("name", "word", "trip_id"), [("trip_chat", "trip", "trip_id"), ("chat_rooms", "room", "room_id")]
)
async def test_no_member_can_fake_a_message(made: Template, name: str, word: str, trip_id: str) -> None:
    """The attack: Bob, a member, broadcasts an event `message` that looks like one of Ann's. Realtime asks the INSERT
    policies, as him; what the database broadcast is heard where he cannot send."""
    async with with_recipe(made, name) as project:
        await project.ask(ANN, f"insert into public.messages ({trip_id}, body) values (%s, 'x') returning 1", ROME)
        ((heard_on,),) = await project.rows(SENT)
        for member in (ANN, BOB):
            assert await project.receives(member, heard_on) == BOTH
            assert await project.sends(member, heard_on) == set()
            assert await project.sends(member, f"{word}:{ROME}") == BOTH, "typing and presence have their place"
        assert await project.receives(CID, heard_on) == await project.sends(CID, heard_on) == set()
        await project.connection.execute(
            "create policy generous on realtime.messages for insert to authenticated with check (true)"
        )
        assert await project.sends(BOB, heard_on) == set(), "whatever else is allowed"


async def test_a_recipe_waits_for_realtimes_table(made: Template) -> None:
    async with Project.of(made) as project:
        await project.connection.execute("drop table realtime.messages")
        with pytest.raises(psycopg.errors.RaiseException, match="connect a client once, then run this again"):
            await project.connection.execute(sql_file("target/recipes/trip_chat.sql").encode())


@pytest.mark.parametrize("name", ["trip_chat", "chat_rooms", "service_role_only"])
async def test_no_recipe_opens_a_hole(made: Template, name: str) -> None:
    async with with_recipe(made, name) as project:
        assert await project.rows("select * from mirror.insecurities()") == []
