"""What reaches those who are connected already: the announcement on their own channel, and topics that move on."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest

from mirror.mapping import AccessOptions, Mapping, UsersMapping
from tests.bed.backends import Pair
from tests.bed.callers import Project, installed
from tests.bed.databases import Template
from tests.bed.target_side import TEXTS, an_id, as_role, membership, put_in_place, scope, span, trip, user

pytestmark = pytest.mark.sql

ANN, BOB, CID = an_id(1), an_id(2), an_id(3)
ROME, OSLO = an_id(11), an_id(12)
BOTH = {"broadcast", "presence"}
LIVE = AccessOptions(topics=("trip:{id}:*", "trip:{id}:e{epoch}", "chat-{id}-{epoch}"), announce="user:{sub}")
FAILING = """
create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true)
returns void language plpgsql as $$ begin raise exception 'out of order' using errcode = '40001'; end $$"""
TRIGGERS = "select count(*) from pg_trigger where not tgisinternal and tgname <> 'safeupdate'"


@pytest.fixture(scope="module")
def made(servers: Pair) -> Iterator[Template]:
    with installed(servers, mapping=Mapping(access=LIVE)) as made:
        yield made


@pytest.fixture
async def project(made: Template) -> AsyncIterator[Project]:
    async with Project.of(made) as project:
        await populate(project)
        yield project


async def populate(project: Project) -> None:
    await project.mirror(
        scope("users", [user(ANN), user(BOB), user(CID)]),
        scope("trips", [trip(ROME), trip(OSLO)]),
        scope(
            "trip_memberships",
            [
                membership(ROME, ANN),
                membership(ROME, BOB),
                membership(OSLO, BOB),
                membership(ROME, CID, None, "INVITED"),
            ],
        ),
    )


def gone(*users: str, trip_id: str = ROME) -> dict[str, Any]:
    return scope("trip_memberships", gone=[{"trip_id": trip_id, "user_id": u} for u in users])


async def announced(project: Project) -> list[tuple[Any, ...]]:
    """What was sent since the last time."""
    return await project.rows(
        "with sent as (delete from realtime.messages returning *) select event, topic, payload->>'trip_id' from sent "
        "where private and extension = 'broadcast' order by 1 desc, 2"
    )


def to_bob(epoch: int = 0) -> list[tuple[str, str, str]]:
    moved = [("moved", f"chat-{ROME}-{epoch}", ROME), ("moved", f"trip:{ROME}:e{epoch}", ROME)]
    return [("revoked", f"user:{BOB}", ROME), *moved]


@pytest.mark.parametrize(
    "revocation",
    [
        gone(BOB),
        scope("trip_memberships", [membership(ROME, BOB, "MEMBER", "INACTIVE")]),
        scope("trip_memberships", [membership(ROME, BOB, "MEMBER", None)]),
        scope("trip_memberships", [membership(ROME, ANN)], trips=[ROME]),
        span("trip_memberships", [membership(ROME, ANN)], trip=ROME),
        scope("trip_memberships", refused=[{"k1": ROME, "k2": BOB, "reason": "it cannot be read"}]),
    ],
    ids=["gone", "inactive", "no status", "whole trip", "repair", "parked"],
)
async def test_whoever_is_removed_hears_it_and_the_topic_moves_on(project: Project, revocation: dict[str, Any]) -> None:
    assert await project.receives(BOB, f"trip:{ROME}:e0") == BOTH
    await project.mirror(revocation)
    assert await announced(project) == to_bob()
    assert await project.receives(BOB, f"trip:{ROME}:e0") == set(), "not even whoever asks again"
    assert await project.receives(ANN, f"trip:{ROME}:e0") == set(), "there is nobody left to be listened to"
    assert await project.receives(ANN, f"trip:{ROME}:e1") == BOTH
    assert await project.receives(BOB, f"trip:{ROME}:e1") == set()
    assert await project.sends(ANN, f"chat-{ROME}-1") == BOTH
    assert await project.receives(BOB, f"trip:{OSLO}:e0") == BOTH, "of another trip"


@pytest.mark.parametrize(
    "change",
    [
        scope("trip_memberships", [membership(ROME, BOB, "OWNER", "accepted")]),
        scope("trip_memberships", [membership(OSLO, CID)]),
        gone(CID),
        scope("trip_memberships", [membership(ROME, CID, None, "DECLINED")]),
        scope("users", [user(BOB, "robert")]),
    ],
    ids=["promoted", "joined", "an invitation withdrawn", "an invitation declined", "renamed"],
)
async def test_what_takes_nothing_from_anybody_is_not_announced(project: Project, change: dict[str, Any]) -> None:
    await project.mirror(change)
    assert await announced(project) == []
    assert await project.one("select count(*) from mirror.epochs") == 0


async def test_a_member_asks_for_the_current_topic(project: Project) -> None:
    for epoch in range(3):
        for query in ("select public.current_topic(%s)", "select public.current_topic(%s::uuid)"):
            assert await project.ask(ANN, query, ROME) == f"trip:{ROME}:e{epoch}"
            assert await project.ask(CID, query, ROME) is None
        await project.mirror(gone(BOB))
        await project.mirror(scope("trip_memberships", [membership(ROME, BOB)]))


@pytest.mark.parametrize("epoch", ["1", "00", "0x0", "-0", " 0", "", "0:x", "9" * 30])
async def test_no_other_epoch_opens(project: Project, epoch: str) -> None:
    """trip:<id>:* would let it in; what looks like an epoch is one."""
    topic = f"trip:{ROME}:e{epoch}"
    assert await project.receives(ANN, topic) == (set() if epoch.isdigit() else BOTH)
    assert await project.receives(ANN, f"chat-{ROME}-{epoch}") == set()


async def test_a_trip_that_comes_back_does_not_open_its_old_channel(project: Project) -> None:
    await project.mirror(scope("trip_memberships", trips=[ROME]), scope("trips", gone=[{"id": ROME}]))
    await project.mirror(scope("trips", [trip(ROME)]), scope("trip_memberships", [membership(ROME, ANN)]))
    assert await project.ask(ANN, "select public.current_topic(%s)", ROME) == f"trip:{ROME}:e1"


async def test_ones_own_channel_is_for_listening_and_for_oneself(project: Project) -> None:
    assert await project.receives(BOB, f"user:{BOB}") == {"broadcast"}
    assert await project.sends(BOB, f"user:{BOB}") == set(), "nobody announces in the mirror's name"
    for who, topic in ((ANN, f"user:{BOB}"), (None, "user:"), ("", "user:"), (BOB, f"user:{BOB}:x")):
        assert await project.receives(who, topic) == set()
    await project.mirror(gone(BOB))
    assert await project.receives(BOB, f"user:{BOB}") == {"broadcast"}, "just then"


async def test_a_failure_to_announce_never_fails_the_apply(project: Project) -> None:
    for damage in (
        FAILING,
        "drop function realtime.send(jsonb, text, text, boolean)",
        "drop schema realtime cascade",
    ):
        await project.connection.execute(damage)
        await populate(project)
        reply = await project.writer.apply(gone(BOB))
        assert reply["counts"] == {"trip_memberships": {"delete": 1}}
        assert await project.one("select count(*) from mirror.parked") == 0
    assert await project.ask(ANN, "select public.current_topic(%s)", ROME) == f"trip:{ROME}:e3"


async def test_a_failing_announcement_is_tried_once_and_said(project: Project) -> None:
    await project.connection.execute(FAILING)
    said: list[str | None] = []
    project.connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
    await project.writer.apply(gone(ANN, BOB))
    assert len(said) == 1
    assert "out of order" in (said[0] or "")


async def test_a_locked_table_of_messages_holds_the_apply_up_for_a_moment_only(
    project: Project, made: Template
) -> None:
    info = project.connection.info
    url = made.side.url(info.dbname)
    async with await psycopg.AsyncConnection.connect(url) as other:
        await other.execute("lock table realtime.messages in access exclusive mode")
        await project.connection.execute("set statement_timeout = '2s'")
        reply = await project.writer.apply(gone(ANN, BOB))
        assert reply["counts"] == {"trip_memberships": {"delete": 2}}


async def test_a_first_load_announces_nothing(made: Template) -> None:
    """What an earlier mirror has left there may go in a first load: nobody was let in by this one."""
    async with Project.of(made) as project:
        await project.connection.execute(
            "insert into public.trip_memberships (trip_id, user_id, status) values (%s, %s, 'ACTIVE')", [ROME, BOB]
        )
        await project.writer.apply(span("trip_memberships", [membership(ROME, ANN)]))
        assert await project.one("select count(*) from public.trip_memberships") == 1
        assert await announced(project) == []


async def test_what_is_rolled_back_was_never_announced(project: Project) -> None:
    async with project.connection.transaction(force_rollback=True):
        await project.writer.apply(gone(BOB))
    assert await announced(project) == []
    assert await project.receives(BOB, f"trip:{ROME}:e0") == BOTH


async def test_both_are_off_unless_they_are_asked_for(target_url: str, target: psycopg.AsyncConnection) -> None:
    project = Project(target)
    for access, triggers in (
        (AccessOptions(), 0),
        (LIVE, 5),
        (LIVE.model_copy(update={"members_without_user": True}), 2),
        (AccessOptions(announce="user:{sub}"), 5),
        (AccessOptions(), 0),
    ):
        put_in_place(target_url, mapping=Mapping(access=access))
        assert await project.one(TRIGGERS) == triggers
        assert put_in_place(target_url, mapping=Mapping(access=access)) == ["target: everything is in place already."]
    await project.writer.claim()
    await populate(project)
    await project.mirror(gone(BOB))
    assert await announced(project) == []
    assert await project.one("select count(*) from mirror.epochs") == 0
    assert await project.receives(BOB, f"user:{BOB}") == set()


async def test_announcing_alone_moves_nothing(target_url: str, target: psycopg.AsyncConnection) -> None:
    """As the project's own postgres, and to somebody whose sub is not their id."""
    access = AccessOptions(announce="me-{sub}")
    mapping = Mapping(users=UsersMapping(subject="clerk_id"), access=access)
    put_in_place(as_role(target_url, "hosted_postgres"), TEXTS, mapping)
    project = Project(target)
    await project.writer.claim()
    await project.mirror(
        scope("users", [user("1", subject="user_bob"), user("2", subject=None)]),
        scope("trips", [trip("r")]),
        scope("trip_memberships", [membership("r", "1"), membership("r", "2"), membership("r", "3")]),
    )
    everybody = [{"trip_id": "r", "user_id": u} for u in ("1", "2", "3")]
    await project.mirror(scope("trip_memberships", gone=everybody), scope("users", gone=[{"id": "1"}]))
    assert await announced(project) == [("revoked", "me-user_bob", "r")]
    assert await project.one("select count(*) from mirror.epochs") == 0


BOBS_LOSSES = [("moved", f"trip:{trip}:e0", trip) for trip in ("oslo", "rome")] + [
    ("revoked", "user:user_bob", trip) for trip in ("oslo", "rome")
]


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (scope("users", gone=[{"id": "2"}]), True),
        (scope("users", [user("2", subject=None)]), True),
        (scope("users", [user("2", subject="user_bert")]), True),
        (scope("users", [user("2", "robert", subject="user_bob"), user("1", subject="user_ann")]), False),
        (scope("users", [user("3", subject="user_cid")]), False),
    ],
    ids=["deleted", "signs in no more", "signs in as another one", "renamed", "signs in for the first time"],
)
async def test_whoever_is_nobody_any_more_hears_it_though_the_memberships_stay(
    target_url: str, target: psycopg.AsyncConnection, change: dict[str, Any], lost: bool
) -> None:
    access = AccessOptions(topics=("trip:{id}:e{epoch}",), announce="user:{sub}")
    put_in_place(target_url, TEXTS, Mapping(users=UsersMapping(subject="clerk_id"), access=access))
    project = Project(target)
    await project.writer.claim()
    await project.mirror(
        scope("users", [user("1", subject="user_ann"), user("2", subject="user_bob"), user("3", subject=None)]),
        scope("trips", [trip("rome"), trip("oslo"), trip("bonn")]),
        scope(
            "trip_memberships",
            [
                membership("rome", "1"),
                membership("rome", "2"),
                membership("oslo", "2"),
                membership("oslo", "3"),
                membership("bonn", "2", None, "INVITED"),
            ],
        ),
    )
    assert await project.receives("user_bob", "trip:rome:e0") == BOTH
    await project.mirror(change)
    assert sorted(await announced(project)) == (BOBS_LOSSES if lost else [])
    assert await project.receives("user_bob", "trip:rome:e0") == (set() if lost else BOTH)
    assert await project.receives("user_ann", f"trip:rome:e{lost:d}") == BOTH
