"""The first load: in bounded transactions, with live changes in between, and exact whatever is killed meanwhile."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest

import mirror.source.primary
import mirror.target.direct
from mirror.demo.servers import Server
from tests.bed.backends import Pair
from tests.bed.daemons import Process, becomes_equal, environ, equal, install, leading, process, value
from tests.bed.databases import Template
from tests.bed.eventually import eventually
from tests.bed.proofs import ASKED_ONLY, an_id, counted, ended, no_drift, quiet, seed, slices_of, verified
from tests.bed.proxy import Proxy

pytestmark = pytest.mark.chaos
Connection = psycopg.AsyncConnection[Any]
PRIMED = "select primed_at is not null from mirror.state"
LOADED = "select count(*) from trip_memberships"
# Both sides, whatever their release: how many, and a number that depends on every value.
SUM = (
    "select count(*), sum(('x' || left(md5(concat_ws('/', trip_id, user_id, role, status)), 8))::bit(32)::bigint) "
    "from public.trip_memberships"
)


async def many(source: Connection, users: int, trips: int) -> None:
    await source.execute(
        f"insert into users (id, username) select {an_id('n')}, 'u' || n from generate_series(1, {users}) as n"
    )
    await source.execute(
        f"insert into trips (id, name) select {an_id('n')}, 'trip ' || n from generate_series(1, {trips}) as n"
    )
    await source.execute(
        "insert into trip_memberships (trip_id, user_id, role) select t.id, u.id, 'editor' from trips as t, users as u"
    )


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


async def sums(source_url: str, target_url: str) -> tuple[Any, Any]:
    async with connected(source_url) as source, connected(target_url) as target:
        return [await (await side.execute(SUM)).fetchone() for side in (source, target)]  # type: ignore[return-value]


async def primed_with(target: Connection) -> int:
    """How many memberships there are at the first moment that the target says it is primed."""
    while True:
        cursor = await target.execute(f"select primed_at is not null, ({LOADED}) from mirror.state")
        primed, there = (await cursor.fetchall())[0]
        if primed:
            return int(there)


def walked(daemon: Process) -> int:
    """So many slices of memberships were sent."""
    return sum(line.get("walk") == "trip_memberships" for line in daemon.said("batch"))


async def test_no_transaction_is_larger_than_a_batch_and_live_changes_come_in_between(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await many(source, 2000, 5)
    install(source_url, target_url)
    async with quiet(source_url, target_url, MIRROR_BATCH_ROWS="250"):
        await eventually(lambda: value(target, f"select ({LOADED}) > 0"), interval_s=0.001)
        await source.execute(f"delete from trip_memberships where user_id = {an_id('2000')}")
        await source.execute(f"update users set username = 'live' where id = {an_id('7')}")
        live = "select exists (select from users where username = 'live')"
        await eventually(lambda: value(target, live), interval_s=0.001)
        assert await value(target, "select primed_at is null from mirror.state"), "that was not in between"
        largest = "select max(n) from (select count(*) as n from trip_memberships group by xmin::text) as t"
        await eventually(lambda: value(target, PRIMED))
        assert await value(target, largest) <= 250
        assert await value(target, largest.replace("trip_memberships", "users")) <= 250
        assert await equal(source, target)


async def test_killed_in_the_middle_it_goes_on_where_it_was(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """120,000 rows in slices of 2,000; primed is said once, at the end, and is never true of less."""
    await many(source, 10_000, 12)
    install(source_url, target_url)
    settings = environ(source_url, target_url, MIRROR_BATCH_ROWS="2000", **ASKED_ONLY)
    async with process(settings) as first:
        await eventually(lambda: value(target, f"select ({LOADED}) >= 40000"), 30.0)
        first.send(signal.SIGKILL)
        await first.ended()
    # One look at all of it: the server may still be committing what the killed daemon had sent.
    cursor = await target.execute(f"select ({LOADED}), primed_at, (walks->0->>'rows')::integer from mirror.state")
    seen = await cursor.fetchone()
    assert seen is not None
    there = seen[0]
    assert 40_000 <= there < 120_000
    assert seen[1:] == (None, there)
    await source.execute(f"delete from trip_memberships where user_id = {an_id('1')}")  # behind it, and before it
    await source.execute(f"update trip_memberships set role = 'owner' where user_id = {an_id('2')}")
    async with process(settings) as second:
        assert await primed_with(target) == 120_000 - 12
        assert walked(second) <= (120_000 - there) // 2000 + 2
        assert await equal(source, target)
        assert await value(target, "select walks from mirror.state") == []


@pytest.mark.slow
async def test_killed_in_the_middle_of_a_million(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await many(source, 50_000, 20)
    install(source_url, target_url)
    settings = environ(source_url, target_url, **ASKED_ONLY)
    there = 0
    for upto in (200_000, 600_000):
        async with process(settings) as killed:
            await eventually(lambda: value(target, f"select ({LOADED}) >= {upto}"), 60.0, 0.1)  # noqa: B023
            killed.send(signal.SIGKILL)
            await killed.ended()
        there = await value(target, LOADED)
        assert upto <= there < 1_000_000
    async with process(settings) as last:
        await eventually(lambda: value(target, PRIMED), 60.0, 0.1)
        assert walked(last) <= (1_000_000 - there) // 5000 + 2
        here, theirs = await sums(source_url, target_url)
        assert here == theirs
        assert here[0] == 1_000_000


async def test_a_new_target_of_a_loaded_source_is_loaded_and_not_declared_equal(
    source: Connection, target: Connection, source_url: str, target_url: str, target_template: Template
) -> None:
    """The outbox is empty: nothing says that there is anything to do, except that the target was never primed."""
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await becomes_equal(source, target)
    assert await value(source, "select count(*) from mirror.outbox") == 0
    with target_template.clone() as other_url:
        async with connected(other_url) as other:
            install(source_url, other_url)
            async with quiet(source_url, other_url, MIRROR_BATCH_ROWS="7"):
                assert await primed_with(other) == 120
                assert await equal(source, other)


def restarted(server: Server) -> bool:
    """One that was killed may not let go of its memory at once; then starting it fails."""
    server.restart()
    return server.running


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("how", ["kill", "restart"])
async def test_a_server_that_dies_in_the_middle(
    servers: Pair, source_url: str, target_url: str, side: str, how: str
) -> None:
    server = getattr(servers, side).server
    if server is None:
        pytest.skip("this backend's servers cannot be stopped")
    async with connected(source_url) as source:
        await many(source, 4000, 5)
        install(source_url, target_url)
        await source.execute("checkpoint")  # the test bed's servers commit to memory only
    async with quiet(source_url, target_url, MIRROR_BATCH_ROWS="500") as daemon:
        async with connected(target_url) as target:
            await eventually(lambda: value(target, f"select ({LOADED}) > 3000"), interval_s=0.001)
        await asyncio.to_thread(server.kill if how == "kill" else lambda: server.stop("immediate"))
        await eventually(lambda: asyncio.to_thread(restarted, server), 20.0)
        async with connected(source_url) as source, connected(target_url) as target:
            assert await value(target, LOADED) < 20_000, "that was not in the middle"
            await source.execute(f"delete from trip_memberships where user_id = {an_id('3')}")
            await eventually(lambda: value(target, PRIMED), 20.0)
            await becomes_equal(source, target)
            assert daemon.known.primed


async def disturbed(
    daemon: Any, want: str, disturb: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> asyncio.Event:
    """Once, when a slice of this kind is about to be asked for."""
    happened = asyncio.Event()
    original = daemon._applier.reconcile.next_slice

    def next_slice(skip: tuple[str, ...]) -> Any:
        piece = original(skip)
        if piece is not None and piece.want == want and piece.after[0] is not None and not happened.is_set():
            happened.set()
            disturb()
        return piece

    monkeypatch.setattr(daemon._applier.reconcile, "next_slice", next_slice)
    return happened


@pytest.mark.parametrize(("side", "fault"), [
    ("source", "cut"), ("target", "cut"), ("source", "stall"), ("target", "stall"), ("target", "swallow"),
])  # fmt: skip
async def test_a_connection_that_fails_while_comparing_explaining_and_repairing(  # noqa: PLR0917 (fixtures)
    source: Connection, target: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch,
    side: str, fault: str,
) -> None:  # fmt: skip
    """Every request is done in the end, nothing is deleted by mistake, and no drift is imagined."""
    monkeypatch.setattr(mirror.source.primary, "ANSWER_TIMEOUT_S", 1.0)
    monkeypatch.setattr(mirror.target.direct, "CALL_TIMEOUT_S", 1.0)
    slices_of(monkeypatch, 20)
    await seed(source)
    install(source_url, target_url)
    async with Proxy.to(source_url) as to_source, Proxy.to(target_url) as to_target:
        proxy = to_source if side == "source" else to_target
        async with quiet(to_source.url(source_url), to_target.url(target_url), MIRROR_BATCH_ROWS="5") as daemon:
            await leading(daemon)
            for want in ("digest", "dry", "rows"):
                await target.execute(
                    "update trip_memberships set role = 'spoiled'; delete from users where username is null"
                )
                faults: dict[str, Callable[[], Any]] = {"cut": proxy.cut, "stall": proxy.stall}
                disturb = faults.get(fault, proxy.swallow_replies)
                happened = await disturbed(daemon, want, disturb, monkeypatch)
                request = await value(source, "select mirror.resync()")
                await asyncio.wait_for(happened.wait(), 10)
                if fault == "stall":
                    await eventually(lambda: not daemon.known.leader)
                    proxy.resume()
                state, _ = await ended(source, request)
                assert state == "done"
                assert await equal(source, target)
            assert counted(await verified(source)) == no_drift()
