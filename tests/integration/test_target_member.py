"""is_trip_member(): the question that policies ask. It answers for every token and every topic, and never raises."""

import json
from typing import Any

import pytest

from mirror.mapping import Mapping, UsersMapping
from tests.bed.target_side import (
    BIGINTS,
    TEXTS,
    UUIDS,
    Connection,
    Writer,
    an_id,
    membership,
    peopled,
    put_in_place,
    scope,
    trip,
    user,
)

pytestmark = pytest.mark.sql


@pytest.fixture
async def writer(target_url: str, target: Connection) -> Writer:
    put_in_place(target_url)
    writer = Writer(target)
    await writer.claim()
    return writer


async def ask(writer: Writer, trip_id: Any, claims: str | None) -> Any:
    """As a signed-in person; `claims` is what PostgREST or Realtime has put there, if anything."""
    async with writer.connection.transaction():
        await writer.connection.execute("set local role authenticated")
        if claims is not None:
            await writer.connection.execute("select set_config('request.jwt.claims', %s, true)", [claims])
        return await writer.one("select public.is_trip_member(%s)", trip_id)


def token(sub: Any) -> str:
    return json.dumps({"sub": sub, "role": "authenticated"})


async def test_members_may_enter_their_trips_and_no_others(writer: Writer) -> None:
    await writer.apply(*peopled(membership(an_id(1), an_id(1)), membership(an_id(2), an_id(2))))
    answers = {(t, u): await ask(writer, an_id(t), token(an_id(u))) for t in (1, 2, 3) for u in (1, 2, 3)}
    assert {key for key, answer in answers.items() if answer} == {(1, 1), (2, 2)}
    assert set(answers.values()) == {True, False}


@pytest.mark.parametrize(
    ("status", "answer"),
    [("ACTIVE", True), ("active", True), ("Accepted", True), ("INACTIVE", False), ("invited", False), ("", False),
     (None, False), ("ACTIVE ", False)],
)  # fmt: skip
async def test_only_an_active_membership_counts(writer: Writer, status: str | None, answer: bool) -> None:
    await writer.apply(*peopled(membership(an_id(1), an_id(1), "OWNER", status)))
    assert await ask(writer, an_id(1), token(an_id(1))) is answer


async def test_a_status_that_is_an_enum_counts_too(target_url: str, target: Connection) -> None:
    await target.execute(
        "create type public.status as enum ('ACTIVE', 'INACTIVE'); create table public.trip_memberships "
        "(trip_id uuid, user_id uuid, status public.status, primary key (trip_id, user_id))"
    )
    put_in_place(target_url)
    writer = Writer(target)
    await writer.claim()
    await writer.apply(*peopled(membership(an_id(1), an_id(1)), membership(an_id(1), an_id(2), None, "INACTIVE")))
    assert [await ask(writer, an_id(1), token(an_id(u))) for u in (1, 2)] == [True, False]


GARBAGE = [
    "",
    "x",
    "'",
    "00000000-0000-0000-0000-00000000000g",
    "1",
    "-1",
    "null",
    "1e9",
    "9" * 40,
    "\u202e",
    "x" * 9000,
]


@pytest.mark.parametrize("types", [UUIDS, TEXTS, BIGINTS], ids=["uuid", "text", "bigint"])
async def test_no_topic_makes_it_raise(target_url: str, target: Connection, types: dict[str, str]) -> None:
    put_in_place(target_url, types)
    writer = Writer(target)
    for trip_id in (*GARBAGE, None):
        for sub in (an_id(1), "1", *GARBAGE):
            assert await ask(writer, trip_id, token(sub)) is False


@pytest.mark.parametrize(
    "claims",
    [None, "", "{}", "null", "[]", "[1]", '"sub"', "17", "{", "no json", '{"sub": null}', '{"sub": ""}',
     '{"sub": {"id": 1}}', '{"sub": ["00000000-0000-0000-0000-000000000001"]}', '{"sub": 1e400}', '{"sub": "\\u0000"}',
     '{"SUB": "00000000-0000-0000-0000-000000000001"}'],
)  # fmt: skip
async def test_no_claims_make_it_raise(writer: Writer, claims: str | None) -> None:
    await writer.apply(*peopled(membership(an_id(1), an_id(1))))
    assert await ask(writer, an_id(1), claims) is False


async def test_integers_and_text_are_ids_too(target_url: str, target: Connection) -> None:
    put_in_place(target_url, {"user_id": "text", "trip_id": "integer", "created_by": "text"})
    writer = Writer(target)
    await writer.claim()
    await writer.apply(*peopled(membership(17, "user_2x'\"")))
    assert await ask(writer, "17", token("user_2x'\"")) is True
    assert await ask(writer, "17", token("USER_2X'\"")) is False
    assert await ask(writer, "18", token("user_2x'\"")) is False


async def test_a_subject_of_its_own_is_looked_up(target_url: str, target: Connection) -> None:
    """The identity provider's name for somebody (Clerk, Firebase) is not the application's id."""
    put_in_place(target_url, BIGINTS, Mapping(users=UsersMapping(subject="auth_id")))
    writer = Writer(target)
    await writer.claim()
    await writer.apply(
        scope("users", [user(1) | {"subject": "auth0|ann"}, user(2) | {"subject": None}]),
        scope("trips", [trip(1)]),
        scope("trip_memberships", [membership(1, 1), membership(1, 2)]),
    )
    assert await ask(writer, "1", token("auth0|ann")) is True
    for sub in ("1", "2", "auth0|bob", "", None):
        assert await ask(writer, "1", token(sub)) is False
    await writer.apply(scope("users", [user(1) | {"subject": "auth0|anna"}]))
    assert await ask(writer, "1", token("auth0|ann")) is False


async def test_it_finds_one_among_many_by_the_key(writer: Writer) -> None:
    """One private channel is one question; a trip may have a hundred thousand members."""
    await writer.connection.execute(
        "insert into public.trip_memberships (trip_id, user_id, status) "
        "select %s, lpad(to_hex(i), 32, '0')::uuid, 'ACTIVE' from generate_series(1, 20000) as i",
        [an_id(1)],
    )
    async with writer.connection.transaction():
        await writer.connection.execute("select set_config('request.jwt.claims', %s, true)", [token(an_id(777))])
        plan = "explain (analyze, buffers, format json) select public.is_trip_member(%s)"
        await writer.one(plan, an_id(1))  # the session does not know the catalog yet
        (found,) = await writer.one(plan, an_id(1))
    assert found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"] < 50
