"""Who is asking, and what is theirs: for every token, topic and id there is an answer, and never an error."""

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.mapping import AccessOptions, Mapping, UsersMapping
from tests.bed.backends import Pair
from tests.bed.callers import Claims, Project, installed
from tests.bed.databases import Template
from tests.bed.target_side import (
    BIGINTS,
    INTEGERS,
    TEXTS,
    UUIDS,
    an_id,
    membership,
    peopled,
    put_in_place,
    scope,
    trip,
    user,
)

pytestmark = pytest.mark.sql

ANN, BOB, CID = an_id(1), an_id(2), an_id(3)
ROME, OSLO = an_id(11), an_id(12)
OPTIONS = AccessOptions(topics=("trip:{id}:e{epoch}", "trip:{id}", "trip:{id}:*"), announce="user:{sub}")


@pytest.fixture(scope="module")
def made(servers: Pair) -> Iterator[Template]:
    with installed(servers) as made:
        yield made


@pytest.fixture
async def project(made: Template) -> AsyncIterator[Project]:
    async with Project.of(made) as project:
        await project.mirror(
            scope("users", [user(ANN, "ann"), user(BOB, "bob")]),
            scope("trips", [trip(ROME, "Rome"), trip(OSLO, "Oslo")]),
            scope(
                "trip_memberships",
                [membership(ROME, ANN, "OWNER"), membership(OSLO, ANN, None, "accepted"),
                 membership(ROME, BOB, "Member"), membership(OSLO, BOB, "OWNER", "INACTIVE")],
            ),
        )  # fmt: skip
        yield project


async def test_a_trip_may_be_given_as_uuid_text_or_literal(project: Project) -> None:
    for query in (
        f"select public.is_trip_member('{ROME}')",
        f"select public.is_trip_member('{ROME}'::uuid)",
        f"select public.is_trip_member('{ROME}'::text)",
        f"select public.is_trip_member('{ROME}'::varchar)",
        f"select public.is_trip_member(trip => '{ROME}')",
        f"select public.is_trip_member(trip_id => '{ROME}')",
        f"select public.is_trip_member('{ROME}', array['owner'])",
        f"select public.is_trip_member('{ROME}'::uuid, '{{owner}}')",
    ):
        assert await project.ask(ANN, query) is True, query
        assert await project.ask(CID, query) is False, query
    assert await project.ask(ANN, "select public.is_trip_member(null)") is False
    assert await project.ask(ANN, "select public.is_trip_member(null::uuid)") is False


@pytest.mark.parametrize(
    ("roles", "who"),
    [
        (["owner"], {ANN}),
        (["OWNER", "member"], {ANN, BOB}),
        (["admin"], set()),
        ([], set()),
        ([None, "owner"], {ANN}),
        ([None], set()),
        (None, set()),
    ],
)
async def test_roles_narrow_it_down(project: Project, roles: list[str | None] | None, who: set[str]) -> None:
    for query in ("select public.is_trip_member(%s, %s::text[])", "select public.is_trip_member(%s::uuid, %s::text[])"):
        assert {u for u in (ANN, BOB, CID) if await project.ask(u, query, ROME, roles)} == who


async def test_a_role_without_an_active_membership_is_none(project: Project) -> None:
    assert await project.ask(BOB, "select public.is_trip_member(%s, array['owner'])", OSLO) is False
    assert await project.ask(ANN, "select public.is_trip_member(%s, array['owner'])", OSLO) is False, "no role at all"


async def test_my_trips_and_my_companions(project: Project) -> None:
    assert await project.column(ANN, "select public.my_trips()::text") == {ROME, OSLO}
    assert await project.column(BOB, "select public.my_trips()::text") == {ROME}
    assert await project.column(CID, "select public.my_trips()::text") == set()
    assert await project.column(ANN, "select public.my_companions()::text") == {ANN, BOB}
    assert await project.column(CID, "select public.my_companions()::text") == set()
    assert await project.ask(ANN, "select public.my_user_id()::text") == ANN


async def test_a_parked_membership_is_none(project: Project) -> None:
    """Its row may still be there: the mirror could not take it out."""
    await project.connection.execute(
        "insert into mirror.parked (tbl, k1, k2, reason) values ('trip_memberships', %s, %s, 'x')", [ROME, BOB]
    )
    assert await project.ask(BOB, "select public.is_trip_member(%s)", ROME) is False
    assert await project.ask(BOB, "select public.is_trip_member(%s, array['member'])", ROME) is False
    assert await project.receives(BOB, f"trip:{ROME}") == set()
    assert await project.column(BOB, "select public.my_trips()::text") == set()
    assert BOB not in await project.column(ANN, "select public.my_companions()::text")


async def test_the_older_way_to_hand_over_the_claims(project: Project) -> None:
    ask = "select public.is_trip_member(%s)"
    async with project.connection.transaction():
        await project.connection.execute("select set_config('request.jwt.claim.sub', %s, true)", [ANN])
        assert await project.one(ask, ROME) is True
        await project.connection.execute("select set_config('request.jwt.claims', '', true)")
        assert await project.one(ask, ROME) is True, "an empty one is none"
        await project.connection.execute("select set_config('request.jwt.claims', '{}', true)")
        assert await project.one(ask, ROME) is False, "who has claims is who they say"


async def test_what_merely_reads_as_an_id_is_none(target_url: str, target: psycopg.AsyncConnection) -> None:
    put_in_place(target_url, INTEGERS)
    project = Project(target)
    await project.writer.claim()
    await project.mirror(scope("trips", [trip(17)]), *peopled(membership(17, 23)))
    assert await project.ask("23", "select public.is_trip_member('17')") is True
    assert await project.ask(23, "select public.is_trip_member('17')") is True, "some issuers write a number"
    for sub in (" 23", "023", "+23", "0x17", "23.0", "2_3"):
        assert await project.ask(sub, "select public.is_trip_member('17')") is False, sub
        assert await project.one("select mirror.as_user_id(%s)", sub) is None, "what `mirror why` asks"
    for given_id in (" 17", "017", "+17", "0x11", "17.0", "1_7"):
        assert await project.ask("23", "select public.is_trip_member(%s)", given_id) is False, given_id
    for kind in ("smallint", "integer", "bigint"):
        assert await project.ask("23", f"select public.is_trip_member('17'::{kind})") is True, kind
        assert await project.ask("23", f"select public.is_trip_member('17'::{kind}, array['member'])") is True
    assert await project.ask("23", "select public.is_trip_member(9223372036854775807)") is False
    assert await project.ask("23", "select public.current_topic(17)") == "trip:17"


async def test_uuids_of_text_columns_may_be_given_as_they_are(target_url: str, target: psycopg.AsyncConnection) -> None:
    put_in_place(target_url, TEXTS)
    project = Project(target)
    await project.writer.claim()
    await project.mirror(scope("trips", [trip(ROME)]), *peopled(membership(ROME, "user_2x")))
    assert await project.ask("user_2x", "select public.is_trip_member(%s::uuid)", ROME) is True
    assert await project.ask("USER_2X", "select public.is_trip_member(%s::uuid)", ROME) is False
    await project.mirror(*peopled(membership(ROME, '{"id": 1}'), membership(ROME, "true")))
    for sub in ({"id": 1}, True):
        assert await project.ask(sub, "select public.is_trip_member(%s)", ROME) is False, "that is no name"


async def test_the_statuses_that_count_are_a_setting(target_url: str, target: psycopg.AsyncConnection) -> None:
    put_in_place(target_url, mapping=Mapping(access=AccessOptions(active=("Joined", "o'k"))))
    project = Project(target)
    await project.writer.claim()
    for n, status in enumerate(("joined", "JOINED", "O'K", "active", "accepted", None, "joined ")):
        await project.mirror(*peopled(membership(an_id(n), ANN, None, status)))
    answers = [await project.ask(ANN, "select public.is_trip_member(%s)", an_id(n)) for n in range(7)]
    assert answers == [True, True, True, False, False, False, False]
    seen = await project.column(ANN, "select status from public.trip_memberships")
    assert seen == {"joined", "JOINED", "O'K"}


async def test_somebody_with_a_subject_of_their_own(target_url: str, target: psycopg.AsyncConnection) -> None:
    put_in_place(target_url, BIGINTS, Mapping(users=UsersMapping(subject="clerk_id")))
    project = Project(target)
    await project.writer.claim()
    await project.mirror(
        scope("users", [user(1) | {"subject": "user_a"}, user(2) | {"subject": None}]),
        scope("trips", [trip(7)]),
        scope("trip_memberships", [membership(7, 1), membership(7, 2)]),
    )
    assert await project.ask("user_a", "select public.my_user_id()") == 1
    assert await project.column("user_a", "select public.my_trips()") == {7}
    assert await project.column("user_a", "select public.my_companions()") == {1, 2}
    assert await project.column("user_a", "select id from public.my_companion_profiles()") == {1, 2}
    assert await project.receives("user_a", "trip:7") == {"broadcast", "presence"}
    for nobody in ("1", "2", "", None, "user_b"):
        assert await project.ask(nobody, "select public.my_user_id()") is None
        assert await project.column(nobody, "select id from public.users") == set()
        assert await project.receives(nobody, "trip:7") == set()


EVERYTHING = [
    "public.is_trip_member({text})",
    "public.is_trip_member({text}, array[{text}])",
    "public.is_topic_member({text})",
    "public.is_own_topic({text})",
    "public.current_topic({text}) is not null",
    "public.mirror_has({text})",
    "(public.mirror_check_token({text})->>'has')::boolean",
    "exists (select public.my_trips())",
    "exists (select public.my_companions())",
    "public.my_user_id() is not null",
]

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
ids = st.one_of(
    words, st.uuids().map(str), st.integers().map(str), st.sampled_from([ROME, ROME.upper(), "{" + ROME + "}"])
)
topics = st.one_of(
    ids,
    st.builds("trip:{}".format, ids),
    st.builds("trip:{}:e{}".format, ids, ids),
    st.builds("{0}/{1}/{1}:{1}:{1}".format, ids, ids),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ids,
    lambda inner: st.lists(inner) | st.dictionaries(words, inner),
)
claims = st.one_of(
    words,
    values.map(json.dumps),
    st.builds(lambda sub, more: json.dumps(more | {"sub": sub}), values, st.dictionaries(words, values)),
).filter(lambda text: "\0" not in text)


@pytest.mark.parametrize("types", [UUIDS, TEXTS, BIGINTS], ids=["uuid", "text", "bigint"])
def test_nothing_makes_it_raise(servers: Pair, types: dict[str, str]) -> None:
    """Foreign claims, topics and ids by the hundred: every helper answers no. (And nobody in there is a member.)"""
    with installed(servers, types, Mapping(access=OPTIONS)) as made, made.clone() as url:  # noqa: SIM117 (the clone is dropped after it)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("set role authenticated")
            functions = ", ".join(EVERYTHING).format(text="%(text)s::text")

            @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
            @given(claims=claims, topic=topics)
            def none_of_them(claims: str, topic: str) -> None:
                connection.execute("select set_config('request.jwt.claims', %s, false)", [claims])
                connection.execute("select set_config('realtime.topic', %s, false)", [topic])
                row = connection.execute(f"select {functions}", {"text": topic}).fetchone()
                assert row is not None
                assert not any(row[:3]), (claims, topic)
                assert not any(row[4:9]), (claims, topic)
                assert connection.execute("select count(*) from realtime.messages").fetchone() == (0,)

            none_of_them()


async def test_anybody_else_is_nobody(project: Project) -> None:
    """Signed by another issuer, for another audience, or by hand."""
    for sub in (
        str(uuid.uuid4()), ANN + " ", "x", None, "", 1, True, {"id": ANN}, [ANN], Claims(""), Claims("no json"),
        Claims("null"), Claims(f'"{ANN}"'), Claims(f'["{ANN}"]'), Claims(f'{{"SUB": "{ANN}"}}'),
        Claims('{"sub": "\\u0000"}'), Claims('{"sub": 1e400}'), Claims("[" * 5000 + "]" * 5000), Claims("[" * 100_000),
    ):  # fmt: skip
        answers: list[Any] = [
            await project.ask(sub, "select public.is_trip_member(%s)", ROME),
            await project.column(sub, "select public.my_trips()"),
            await project.column(sub, "select id from public.users"),
            await project.receives(sub, f"trip:{ROME}"),
        ]
        assert answers == [False, set(), set(), set()], str(sub)[:50]


async def test_the_question_is_planned_once(project: Project) -> None:
    """An SQL function that cannot be inlined is planned at each call: three times the price in a poll of 1,000."""
    language = """select distinct l.lanname from pg_proc as p join pg_language as l on l.oid = p.prolang
                  where p.proname in ('is_trip_member', 'is_topic_member', 'my_trips', 'my_companions')"""
    assert await project.rows(language) == [("plpgsql",)]
