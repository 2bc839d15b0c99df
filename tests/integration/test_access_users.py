"""Who is not a mirrored user is a member of nothing: deleted, filtered or parked, with either mapping of `subject`.
Each helper and policy is asked as people with a token ask."""

from typing import Any

import pytest

from mirror.mapping import AccessOptions, Mapping, UsersMapping
from tests.bed.callers import Project
from tests.bed.target_side import Connection, an_id, membership, put_in_place, scope, trip, user

pytestmark = pytest.mark.sql

ANN, BOB, ROME = an_id(1), an_id(2), an_id(11)
LIVE = AccessOptions(
    topics=("trip:{id}:e{epoch}", "trip:{id}"),
    announce="user:{sub}",
    companions_see=("username", "email", "subject"),
)
CHAT = """
create table public.chat (who uuid references public.users); insert into public.chat values ('{bob}')"""
REFUSES = "alter table public.users add constraint refuses check (username <> 'bad')"
FROZEN = """
create function public.frozen() returns trigger language plpgsql as $$ begin raise 'frozen'; end $$;
create trigger frozen before update or delete on public.users for each row execute function public.frozen()"""


@pytest.fixture(params=["by id", "by subject"])
def by_id(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "by id")


@pytest.fixture
async def project(target_url: str, target: Connection, by_id: bool) -> Project:
    put_in_place(target_url, mapping=Mapping(users=UsersMapping(subject=None if by_id else "clerk_id"), access=LIVE))
    project = Project(target)
    await project.writer.claim()
    await project.mirror(
        scope("users", [who(ANN), who(BOB)]),
        scope("trips", [trip(ROME)]),
        scope("trip_memberships", [membership(ROME, ANN), membership(ROME, BOB)]),
    )
    return project


def who(key: str, name: str | None = None, **more: Any) -> dict[str, Any]:
    """One whose subject is the id, whatever the mapping: what is asked is the same for both."""
    return user(key, name or f"n{key[-1]}", email=f"{key[-1]}@example.org", **more)


QUESTIONS = {
    "member": "select public.is_trip_member('{rome}')",
    "member by uuid": "select public.is_trip_member('{rome}'::uuid)",
    "role": "select public.is_trip_member('{rome}', array['member'])",
    "topic": "select public.is_topic_member('trip:{rome}')",
    "trips": "select exists (select from public.my_trips())",
    "companions": "select exists (select from public.my_companions())",
    "profiles": "select exists (select from public.my_companion_profiles())",
    "current": "select public.current_topic('{rome}') is not null",
    "id": "select public.my_user_id() is not null",
    "users": "select exists (select from public.users)",
    "table trips": "select exists (select from public.trips)",
    "memberships": "select exists (select from public.trip_memberships)",
}


async def holds(project: Project, sub: str) -> set[str]:
    """What this one gets an answer to."""
    answers = {name: await project.ask(sub, query.format(rome=ROME)) for name, query in QUESTIONS.items()}
    assert await project.receives(sub, f"user:{sub}") == {"broadcast"}, "ones own channel is about the token alone"
    answers["receives"] = bool(await project.receives(sub, f"trip:{ROME}"))
    answers["sends"] = bool(await project.sends(sub, f"trip:{ROME}"))
    return {name for name, answer in answers.items() if answer}


async def announced(project: Project) -> set[tuple[str, str]]:
    query = "with sent as (delete from realtime.messages returning *) select event, topic from sent where private"
    return set(await project.rows(query))


TOLD = {("revoked", f"user:{BOB}"), ("moved", f"trip:{ROME}:e0")}
EVERYTHING = {*QUESTIONS, "receives", "sends"}
GONE = scope("users", gone=[{"id": BOB}])
LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "deleted": ("", GONE),
    "may not be deleted": (CHAT.format(bob=BOB), GONE),
    "may not be touched": (FROZEN, GONE),
    "refused": (REFUSES, scope("users", [who(BOB, "bad")])),
    "refused, and holds unique values": (
        f"{REFUSES}; alter table public.users alter email set not null, add unique (email)",
        scope("users", [who(BOB, "bad")]),
    ),
    "unreadable": ("", scope("users", refused=[{"k1": BOB, "reason": "it cannot be read"}])),
}


@pytest.mark.parametrize("case", LOSSES)
async def test_no_membership_of_who_is_no_user_counts(project: Project, case: str) -> None:
    before, change = LOSSES[case]
    if before:
        await project.connection.execute(before)
    assert await holds(project, BOB) == EVERYTHING
    await project.mirror(change)
    assert await holds(project, BOB) == set()
    assert await project.column(ANN, "select public.my_companions()::text") == {ANN}
    assert await project.column(ANN, "select id::text from public.my_companion_profiles()") == {ANN}
    assert await project.column(ANN, "select id::text from public.users") == {ANN}
    assert await project.one("select count(*) from public.trip_memberships") == 2, "the membership is still there"
    assert await announced(project) == TOLD
    await project.mirror(change)
    assert await announced(project) == set(), "once"
    assert await project.receives(ANN, f"trip:{ROME}:e1") == {"broadcast", "presence"}

    for cure in (
        "alter table public.users drop constraint if exists refuses",
        "drop function if exists public.frozen cascade",
    ):
        await project.connection.execute(cure)
    await project.mirror(scope("users", [who(BOB)]))
    assert await holds(project, BOB) == EVERYTHING, "a member again by itself"
    assert await project.one("select count(*) from mirror.parked") == 0
    assert await announced(project) == set()


async def test_a_membership_may_come_before_its_user(project: Project) -> None:
    cid = an_id(3)
    await project.mirror(scope("trip_memberships", [membership(ROME, cid)]))
    assert await holds(project, cid) == set()
    await project.mirror(scope("trip_memberships", gone=[{"trip_id": ROME, "user_id": cid}]))
    assert await announced(project) == set(), "it never counted"
    await project.mirror(scope("trip_memberships", [membership(ROME, cid)]))
    await project.mirror(scope("users", [who(cid)]))
    assert await holds(project, cid) == EVERYTHING


NEEDED = "alter table public.users alter email set not null"
UNIQUE = {
    "text": f"{NEEDED}, add unique (email)",
    "null is a value": "alter table public.users add unique nulls not distinct (email)",
    "varchar": "alter table public.users alter email type varchar(13), alter email set not null, add unique (email)",
    "expression": f"create unique index on public.users (lower(email)); {NEEDED}",
    "checked": f"{NEEDED}, add unique (email), add check (email ~ '^[^@ ]+@[^@]+$')",
    "domain": "create domain public.address as varchar(30) not null; "
    "alter table public.users alter email type public.address, add unique (email)",
    "enum beside it": "create type public.color as enum ('n1', 'n2'); alter table public.users alter username type "
    f"public.color using username::public.color, alter username set not null; {NEEDED}, add unique (email)",
    "citext": "create extension citext; alter table public.users alter email type citext, alter email set not null, "
    "add unique (email)",
}


@pytest.mark.parametrize("case", UNIQUE)
async def test_two_accounts_swap_unique_values_in_one_batch(project: Project, case: str) -> None:
    if case == "citext" and not await project.rows("select from pg_available_extensions where name = 'citext'"):
        pytest.skip("this PostgreSQL ships without citext")
    await project.connection.execute(UNIQUE[case])
    ann, bob = who(ANN), who(BOB)
    ann["email"], bob["email"] = bob["email"], ann["email"]
    reply = await project.writer.apply(scope("users", [ann, bob]))
    assert reply["parked"] == {}
    assert await project.rows("select email::text from public.users order by id") == [(ann["email"],), (bob["email"],)]
    assert await announced(project) == set()
    assert await holds(project, BOB) == EVERYTHING


async def test_who_is_parked_holds_no_value_of_another_one(project: Project) -> None:
    """One of the two is refused for something else: the other one gets the address all the same."""
    await project.connection.execute(f"{UNIQUE['text']}; {REFUSES}")
    ann, bob = who(ANN), who(BOB, "bad")
    ann["email"], bob["email"] = bob["email"], ann["email"]
    for rows in ([ann, bob], [bob, ann]):
        await project.mirror(scope("users", rows))
        assert await project.one("select k1 from mirror.parked") == BOB
        assert await project.rows("select email from public.users where id = %s", ANN) == [(ann["email"],)]
        assert await holds(project, ANN) == EVERYTHING
        assert await holds(project, BOB) == set()
    aside = await project.one("select email from public.users where id = %s", BOB)
    assert aside.endswith("@aside.invalid")
    await project.mirror(scope("users", [bob | {"username": "n2"}]))
    assert await holds(project, BOB) == EVERYTHING


async def test_who_is_gone_and_may_not_be_deleted_leaves_the_address_to_others(project: Project) -> None:
    await project.connection.execute(f"{UNIQUE['text']}; {CHAT.format(bob=BOB)}")
    await project.mirror(GONE)
    reply = await project.writer.apply(scope("users", [user(an_id(3), "n3", email="2@example.org")]))
    assert reply["parked"] == {"users": 1}


async def test_a_subject_that_is_unique_moves(target_url: str, target: Connection) -> None:
    access = AccessOptions(announce="user:{sub}", topics=("trip:{id}:e{epoch}",))
    put_in_place(target_url, mapping=Mapping(users=UsersMapping(subject="clerk_id"), access=access))
    await target.execute("alter table public.users alter subject set not null, add unique (subject)")
    project = Project(target)
    await project.writer.claim()
    await project.mirror(
        scope("users", [user(ANN, subject="a"), user(BOB, subject="b")]),
        scope("trips", [trip(ROME)]),
        scope("trip_memberships", [membership(ROME, BOB)]),
    )
    await project.mirror(scope("users", [user(ANN, subject="b"), user(BOB, subject="a")]))
    assert await announced(project) == {("revoked", "user:b"), ("moved", f"trip:{ROME}:e0")}
    assert await project.ask("a", "select public.is_trip_member(%s)", ROME) is True
    assert await project.ask("b", "select public.is_trip_member(%s)", ROME) is False
    assert await project.ask("b", "select public.my_user_id()::text") == ANN


@pytest.mark.parametrize("gone", ["never there", "deleted", "may not be deleted"])
async def test_an_application_may_say_that_members_need_no_user(target_url: str, target: Connection, gone: str) -> None:
    put_in_place(target_url, mapping=Mapping(access=LIVE.model_copy(update={"members_without_user": True})))
    project = Project(target)
    await project.writer.claim()
    users = [who(ANN)] if gone == "never there" else [who(ANN), who(BOB)]
    await project.mirror(
        scope("users", users),
        scope("trips", [trip(ROME)]),
        scope("trip_memberships", [membership(ROME, ANN), membership(ROME, BOB)]),
    )
    if gone == "may not be deleted":
        await target.execute(CHAT.format(bob=BOB))
    await project.mirror(GONE)
    row = {"users", "profiles"}
    assert await holds(project, BOB) - row == EVERYTHING - row
    assert await project.column(ANN, "select public.my_companions()::text") == {ANN, BOB}
    assert await announced(project) == set()
