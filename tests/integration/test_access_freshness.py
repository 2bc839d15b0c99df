"""How fresh the mirror is, and whether it has what somebody wrote: exact, and never more hopeful than the truth."""

import math
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.mapping import AccessOptions, Mapping
from tests.bed.backends import Pair
from tests.bed.callers import Project, installed
from tests.bed.databases import Template
from tests.bed.target_side import RESEAL, SOURCE, an_id, membership, peopled, position, put_in_place, scope, trip
from tests.expected import install_source

pytestmark = pytest.mark.sql

ANN, ROME = an_id(1), an_id(11)
INSTALL = SOURCE["install"]
BOTH = {"broadcast", "presence"}


@pytest.fixture(scope="module")
def made(servers: Pair) -> Iterator[Template]:
    with installed(servers) as made:
        yield made


@pytest.fixture
async def project(made: Template) -> AsyncIterator[Project]:
    async with Project.of(made) as project:
        yield project


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


async def reached(project: Project, snapshot: str) -> None:
    await project.writer.apply(position=position(snapshot))


async def test_a_mirror_that_was_never_filled_is_not_fresh(project: Project) -> None:
    assert await project.ask(ANN, "select public.mirror_staleness()") == math.inf
    assert await project.ask(ANN, "select public.mirror_is_fresh('1000 years')") is False
    await project.writer.apply(scope("trips", [trip(ROME)]))
    assert await project.ask(ANN, "select public.mirror_staleness()") == math.inf, "in the middle of its first load"


async def test_staleness_is_the_age_of_the_proof(project: Project) -> None:
    await project.mirror(fresh_at=ago(100))
    assert 100 <= await project.ask(ANN, "select public.mirror_staleness()") < 160
    assert await project.ask(ANN, "select public.mirror_is_fresh('99 seconds')") is False
    assert await project.ask(ANN, "select public.mirror_is_fresh('170 seconds')") is True
    for nonsense in ("null", "'-1 second'", "interval '178000000 years'"):
        assert await project.ask(ANN, f"select public.mirror_is_fresh({nonsense})") is ("178" in nonsense)
    await project.mirror(fresh_at=ago(-3600))
    assert 0 <= await project.ask(ANN, "select public.mirror_staleness()") < 60, "nothing is fresher than now"


async def test_a_stale_mirror_lets_nobody_in_when_it_is_told_to(
    target_url: str, target: psycopg.AsyncConnection
) -> None:
    project = Project(target)
    put_in_place(target_url, mapping=Mapping(access=AccessOptions(max_staleness=90)))
    await project.writer.claim()
    rows = scope("trips", [trip(ROME)]), *peopled(membership(ROME, ANN))
    answers = []
    await project.writer.apply(*rows)
    for seconds in (None, 0, 100):
        if seconds is not None:
            await project.mirror(fresh_at=ago(seconds))
            await target.execute("update mirror.state set fresh_at = %s", [ago(seconds)])
            await target.execute(RESEAL)
        answers.append(
            (
                await project.ask(ANN, "select public.is_trip_member(%s)", ROME),
                await project.ask(ANN, "select public.is_trip_member(%s::uuid, array['member'])", ROME),
                await project.receives(ANN, f"trip:{ROME}") == BOTH,
                await project.column(ANN, "select id::text from public.trips") == {ROME},
            )
        )
    assert answers == [(False,) * 4, (True,) * 4, (False,) * 4], "not primed, fresh, stale"
    put_in_place(target_url)
    assert await project.ask(ANN, "select public.is_trip_member(%s)", ROME) is True, "off unless it is asked for"


async def test_who_may_ask(project: Project) -> None:
    functions = ("mirror_has('x')", "mirror_check_token('x')", "mirror_staleness()", "mirror_is_fresh('1 s')")
    for function in functions:
        for role in ("authenticated", "service_role"):
            await project.ask(ANN, f"select public.{function}", role=role)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await project.ask(ANN, f"select public.{function}", role="anon")


VERDICTS = [
    ("10:10:", "-/10:10:", None),
    ("10:10:", "-/5:9:5,7", None),
    ("10:10:", "9/9:9:", None),
    ("10:12:10", "11/11:11:", "early"),  # it saw 10 finished, and here 10 is running
    ("10:12:10", "11/10:12:10", None),
    ("10:12:10", "10/10:12:10", "early"),
    ("10:12:10", "-/10:10:", None),
    ("10:10:", "-/10:11:", "early"),
    ("10:10:", "-/10:12:10,11", None),  # later, and saw nothing more: both were running
    ("10:10:", "-/10:12:11", "early"),
    ("10:10:", "10/10:10:", "early"),
    ("10:20:12,15", "-/12:16:12,15", None),
    ("10:20:12,15", "-/12:16:12", "early"),
    ("10:20:12,15", "15/10:10:", "early"),
    ("10:20:12,15", "14/10:10:", None),
]


async def test_the_mirror_has_what_its_snapshot_sees(project: Project) -> None:
    await reached(project, "1:1:")
    for here, token, kind in VERDICTS:
        await project.connection.execute("update mirror.state set snapshot = %s", [here])
        await project.connection.execute(RESEAL)
        verdict = await project.ask(ANN, "select public.mirror_check_token(%s)", f"{INSTALL}/{token}")
        assert verdict["kind"] == kind, (here, token)
        assert verdict["has"] is (kind is None)
        assert (verdict["reason"] is None) is verdict["has"]
        assert await project.ask(ANN, "select public.mirror_has(%s)", f"{INSTALL}/{token}") is verdict["has"]


async def test_why_not(project: Project) -> None:
    async def kind(token: str | None) -> Any:
        assert await project.ask(ANN, "select public.mirror_has(%s)", token) is False
        verdict = await project.ask(ANN, "select public.mirror_check_token(%s)", token)
        assert verdict["has"] is False
        assert verdict["reason"]
        return verdict["kind"]

    good = f"{INSTALL}/-/5:5:"
    assert await kind(good) == "unprimed"
    await reached(project, "10:10:")
    assert await kind(f"another/{good.partition('/')[2]}") == "foreign"
    await project.connection.execute("update mirror.state set source = source - 'install'")
    await project.connection.execute(RESEAL)
    assert await kind(good) == "foreign"
    for garbage in (
        None, "", "/", "//", "x", f"{INSTALL}/-", f"{INSTALL}/-/", f"{INSTALL}//5:5:", f"{INSTALL}/-/5",
        f"{INSTALL}/-/9:5:", f"{INSTALL}/x/5:5:", f"{INSTALL}/-1/5:5:", f"{INSTALL}/0x5/5:5:", f"{INSTALL}/-/5:9:8,6",
        f"{INSTALL}/-/5:9:9", f"{INSTALL}/-/0:0:", f" {good}", f"{good}\n", f"{good}/",
        f"{INSTALL}/{'9' * 20}/5:5:", f"{INSTALL}/-/5:{'9' * 30}:",
        "x" * 200_000, f"{INSTALL}/-/5:5:" + "," * 150_000,
    ):  # fmt: skip
        assert await kind(garbage) == "garbage", str(garbage)[:60]


@st.composite
def snapshots(draw: st.DrawFn) -> tuple[str, frozenset[int]]:
    """A pg_snapshot, and which of the transactions 3 to 12 it sees."""
    xmax = draw(st.integers(3, 12))
    running = sorted(draw(st.sets(st.integers(3, xmax - 1), max_size=6))) if xmax > 3 else []
    text = f"{min([*running, xmax])}:{xmax}:{','.join(map(str, running))}"
    return text, frozenset(range(3, xmax)) - set(running)


@settings(max_examples=300, deadline=None, database=None)
@given(here=snapshots(), there=snapshots())
def test_a_snapshot_has_seen_another_when_it_sees_all_of_it(
    one_connection: psycopg.Connection, here: tuple[str, frozenset[int]], there: tuple[str, frozenset[int]]
) -> None:
    """Against the definition, transaction by transaction."""
    row = one_connection.execute(
        "select mirror.has_seen(%s::pg_snapshot, %s::pg_snapshot)", [here[0], there[0]]
    ).fetchone()
    assert row == (there[1] <= here[1],)


@pytest.fixture(scope="module")
def one_connection(made: Template) -> Iterator[psycopg.Connection]:
    with made.clone() as url, psycopg.connect(url, autocommit=True) as connection:
        yield connection


async def test_a_token_of_the_primary(source_url: str, source: psycopg.AsyncConnection, project: Project) -> None:
    """Of three writers that overlap: the mirror has each when it has reached a snapshot that sees it, not before."""
    install_source(source_url)
    now = "select pg_current_snapshot()::text, (mirror.identity()->>'install')"
    async with await psycopg.AsyncConnection.connect(source_url) as slow:
        await slow.execute("insert into public.trips (id, name) values (%s, 'slow')", [an_id(1)])
        slow_token = await one(slow, "select mirror.token()")
        async with source.transaction():
            await source.execute("insert into public.trips (id, name) values (%s, 'fast')", [an_id(2)])
            fast_token = await one(source, "select mirror.token()")
        after_token = await one(source, "select mirror.token()")
        snapshot, install = await (await source.execute(now)).fetchone() or ("", "")
        await project.connection.execute(
            "update mirror.state set source = jsonb_build_object('install', %s::text)", [install]
        )
        await project.connection.execute(RESEAL)
        await reached(project, snapshot)
        has = "select public.mirror_has(%s)"
        assert await project.one(has, fast_token) is True
        assert await project.one(has, after_token) is True
        assert await project.one(has, slow_token) is False, "its number is the lower one, and it is still running"
        await slow.commit()
    assert await project.one(has, slow_token) is False
    snapshot, _ = await (await source.execute(now)).fetchone() or ("", "")
    await reached(project, snapshot)
    assert await project.one(has, slow_token) is True


async def one(connection: psycopg.AsyncConnection, query: str) -> Any:
    row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return row[0]
