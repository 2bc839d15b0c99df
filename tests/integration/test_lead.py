"""Leading is not for others to take: not by a lock, not by the row of the lease, not by the doorbell."""

import asyncio
import contextlib
import itertools
import re
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

import mirror.source.lead
from mirror.batch import Request
from mirror.daemon import Daemon
from mirror.errors import Superseded
from mirror.loop import Woken
from mirror.source.lead import Holder
from mirror.source.primary import Primary
from tests.bed.clients import clients
from tests.bed.commands import Command
from tests.bed.daemons import (
    END_LEADER,
    NEVER,
    asleep,
    becomes_equal,
    environ,
    install,
    leading,
    process,
    running,
    value,
)
from tests.bed.eventually import eventually
from tests.bed.source_side import install as install_source
from tests.bed.source_side import role

pytestmark = [pytest.mark.sql, pytest.mark.slow]
Connection = psycopg.AsyncConnection[Any]
FLOOR = {"MIRROR_POLL_INTERVAL": "1s", "MIRROR_HEARTBEAT_INTERVAL": "1s"}
LOCKS = [
    f"pg_try_advisory_{kind}lock{shared}(1835627122, {number})"
    for number in (1, 2, 3)
    for kind in ("", "xact_")
    for shared in ("", "_shared")
]


@pytest.fixture
def stranger(source_url: str) -> Iterator[str]:
    """The URL of a login role that has nothing but its login."""
    with role(source_url, f"stranger_{secrets.token_hex(4)}") as url:
        yield url


Open = Callable[[Holder], Awaitable[Primary]]


@pytest.fixture
async def opened(source_url: str) -> AsyncIterator[Open]:
    """Working sessions, closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def one(holder: Holder) -> Primary:
            primary = await Primary.open(source_url, holder)
            stack.push_async_callback(primary.close)
            return primary

        yield one


@asynccontextmanager
async def holding(url: str, *locks: str) -> AsyncIterator[list[Connection]]:
    """Sessions that try to take these locks, a transaction each, until the end: whatever gets free is theirs."""

    async def grab(session: Connection, lock: str) -> None:
        while True:
            taken = await (await session.execute(f"select {lock}")).fetchone()
            if taken == (True,):
                return
            await asyncio.sleep(0.01)

    sessions = [await psycopg.AsyncConnection.connect(url, application_name="stranger") for _ in locks]
    tasks = [asyncio.create_task(grab(session, lock)) for session, lock in zip(sessions, locks, strict=True)]
    try:
        yield sessions
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for session in sessions:
            await session.close()


@pytest.mark.parametrize("lock", [*LOCKS, "pg_advisory_lock(1835627122, 2)"])
async def test_a_lock_makes_no_leader(
    source: Connection, target: Connection, source_url: str, target_url: str, stranger: str, *, lock: str
) -> None:
    install(source_url, target_url)
    async with holding(stranger, lock), running(source_url, target_url, FLOOR) as daemon:
        await leading(daemon, 5.0)
        await source.execute("insert into users (id) values (gen_random_uuid())")
        assert await becomes_equal(source, target) < 3.0


WRITES = [
    "update mirror.lead set holder = gen_random_uuid(), until = now() + interval '1 day'",
    "insert into mirror.lead (one) values (false)",
    "delete from mirror.lead",
    "truncate mirror.lead",
    "begin; lock table mirror.lead",
    "select from mirror.lead for update",
    "select mirror.lead(gen_random_uuid(), 1e9, 'me', pg_backend_pid())",
    "select mirror.unlead((select holder from mirror.lead))",
    "select mirror.unlead(gen_random_uuid())",
    "select * from mirror.leader()",
]


async def refused(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
        for statement in WRITES:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await session.execute(statement)
            await session.rollback()


async def test_a_stranger_with_all_our_locks_rules_nothing(
    source: Connection, target: Connection, source_url: str, target_url: str, stranger: str, *, command: Command
) -> None:
    """Before the daemon starts, while it leads, and while it reconnects: it leads in its usual time, what it says of
    itself stays true, and verify, resync and status work."""
    install(source_url, target_url)
    await refused(stranger)
    settings = environ(source_url, target_url, **FLOOR)
    queued = [f"pg_advisory_lock(1835627122, {number})" for number in (1, 2, 3)]
    async with (
        holding(stranger, *LOCKS, *queued) as sessions,
        running(source_url, target_url, FLOOR) as daemon,
        clients(daemon.port) as client,
    ):
        await leading(daemon, 5.0)
        await refused(stranger)
        for _ in range(3):
            epoch = await value(target, "select epoch from mirror.state")
            await source.execute(END_LEADER)
            await eventually(lambda epoch=epoch: value(target, "select epoch > %s from mirror.state", epoch), 5.0)  # type: ignore[misc]
            await source.execute("insert into users (id) values (gen_random_uuid())")
            assert await becomes_equal(source, target) < 3.0
        await leading(daemon, 5.0)
        await eventually(lambda: not daemon.known.why_not_ready())
        assert (await client.get("/readyz")).status == 200
        code, said = await command(settings, "verify")
        assert code == 0, said
        code, said = await command(settings, "resync")
        assert code == 0, said
        code, said = await command(settings, "status")
        assert code == 0, said
        assert "a daemon leads" in said
        named = {int(pid) for pid in re.findall(r"stranger: pid (\d+) \(role stranger_", said)}
        assert named, said
        assert named <= {session.info.backend_pid for session in sessions}
        assert "application 'stranger'" in said
    async with holding(stranger, *LOCKS, *queued):
        code, said = await command(settings, "verify")  # no daemon: it takes the lead itself
        assert code == 0, said
        code, said = await command(settings, "status")
        assert "NO daemon leads" in said
        code, said = await command(settings, "doctor")
        assert "holds the mirror's lock 1" in said, said
        assert "holds the mirror's lock 3" in said
        assert "pg_terminate_backend(" in said


async def test_of_those_who_may_hold_our_locks_none_is_a_stranger(
    source: Connection, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    strangers = "select count(*) from mirror.strangers()"
    async with await psycopg.AsyncConnection.connect(source_url) as writer:
        await writer.execute("insert into users (id) values (gen_random_uuid())")
        assert await value(writer, "select count(*) from pg_locks where classid = 1835627122") == 1
        await source.execute("select pg_advisory_lock(1835627122, 3)")  # an install
        assert await value(source, strangers) == 0
        await writer.rollback()
        await source.execute("select pg_advisory_unlock_all()")
    async with running(source_url, target_url, NEVER) as daemon:
        await leading(daemon)
        await asleep(source)
        assert await value(source, strangers) == 0


@pytest.mark.parametrize("lock", ["pg_advisory_lock(1835627122, 1)", "pg_advisory_lock_shared(1835627122, 1)"])
async def test_the_doorbells_lock_in_strange_hands_costs_latency_only(
    source: Connection, target: Connection, source_url: str, target_url: str, stranger: str, *, lock: str
) -> None:
    install(source_url, target_url)
    async with running(source_url, target_url, FLOOR) as daemon, holding(stranger, lock):
        await leading(daemon)
        await eventually(lambda: value(source, "select count(*) > 0 from mirror.strangers()"), 5.0)
        for _ in range(5):
            await source.execute("insert into users (id) values (gen_random_uuid())")
            assert await becomes_equal(source, target) < 2.0
        before, began = looks(daemon), time.monotonic()
        await eventually(lambda: time.monotonic() - began > 1.0)
        assert looks(daemon) - before < 30 * (time.monotonic() - began)


def looks(daemon: Daemon) -> float:
    """How often it woke up to look."""
    return float(sum(daemon.knowledge.metrics.wakeups.labels(w.value)._value.get() for w in Woken))


@pytest.mark.parametrize("awake", [False, True])
async def test_a_flood_of_rings_does_not_make_it_spin(
    source: Connection, target: Connection, source_url: str, target_url: str, stranger: str, *, awake: bool
) -> None:
    """`awake`: with a stranger who keeps it from sleeping, too."""
    install(source_url, target_url)
    async with running(source_url, target_url, NEVER) as daemon, contextlib.AsyncExitStack() as stack:
        await leading(daemon)
        await eventually(lambda: daemon._doorbell.proven)
        if awake:
            await stack.enter_async_context(holding(stranger, "pg_advisory_lock(1835627122, 1)"))
        flooding = asyncio.create_task(flood(stranger))
        await eventually(lambda: daemon._doorbell.rings > 100)
        before, rings, began = looks(daemon), daemon._doorbell.rings, time.monotonic()
        await eventually(lambda: daemon._doorbell.rings - rings > 500 and time.monotonic() - began > 1.0)
        took_s = time.monotonic() - began
        assert looks(daemon) - before < 30 * took_s, "a look is a query on the primary"
        await source.execute("insert into users (id) values (gen_random_uuid())")
        assert await becomes_equal(source, target) < 1.0
        flooding.cancel()
        await asyncio.wait((flooding,))


async def flood(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
        while True:
            await session.execute("select pg_notify('mirror', n::text) from generate_series(1, 20) as n")
            await asyncio.sleep(0)


async def test_the_lead_goes_on_at_once_when_it_is_given_back_or_its_session_ends(
    source: Connection, source_url: str, target_url: str
) -> None:
    """However long a lease lasts: with these settings for an hour and more."""
    install(source_url, target_url)
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(process(environ(source_url, target_url, **NEVER)))
        await first.says("leading")
        left_s = await value(source, "select extract(epoch from until - now())::float8 from mirror.lead")
        assert 1800 * 2 < left_s <= 1800 * 2.4 + 1
        second = await stack.enter_async_context(process(environ(source_url, target_url, **NEVER)))
        await second.says("standing by: another daemon leads")
        assert await value(source, "select name like '%% process ' || %s from mirror.leader()", str(first.pid))
        await first.stopped()
        await second.says("leading", 3.0)
        third = await stack.enter_async_context(process(environ(source_url, target_url, **NEVER)))
        await third.says("standing by: another daemon leads")
        second.send(signal.SIGKILL)
        await third.says("leading", 5.0)


async def test_a_lease_is_one_holders_until_it_ends(source_url: str, source: Connection, opened: Open) -> None:
    install_source(source_url)
    one, other = Holder("run"), Holder("run")
    first, second, again = await opened(one), await opened(other), await opened(one)
    assert await first.lead()
    assert not await second.lead()
    assert await first.lead(), "it renews"
    assert await again.lead(), "the same process in a new session need not wait"
    assert not await second.lead()
    # Its time is over by the primary's clock; or that clock was set back, and it may be over.
    for moved in ("until = now() - interval '1 second'", "renewed_at = now() + interval '1 hour', until = 'infinity'"):
        await source.execute(f"update mirror.lead set {moved}")
        assert await value(source, "select count(*) from mirror.leader()") == 0
        assert await second.lead()
        again.lease._renewed_at = float("-inf")  # time to renew, and not to be trusted any more
        with pytest.raises(Superseded):
            await again.assure_lead()
        again.lease._renewed_at = float("-inf")
        with pytest.raises(Superseded):
            await again.drain(Request(rows=1, bytes=1000))
        await second.lease.give_back()
        assert await again.lead()
    for primary in (first, second, again):
        await primary.close()
    assert await value(source, "select holder is null from mirror.lead")


async def test_of_many_who_want_it_one_leads(source_url: str, opened: Open) -> None:
    install_source(source_url)
    many = [await opened(Holder("run")) for _ in range(8)]
    for _ in range(5):
        taken = await asyncio.gather(*(primary.lead() for primary in many))
        assert sum(taken) == 1
        await many[taken.index(True)].lease.give_back()


async def test_the_drain_renews_it_now_and_then(source_url: str, source: Connection, opened: Open) -> None:
    install_source(source_url)
    now = 100.0
    primary = await opened(Holder("run"))
    primary.lease._clock = lambda: now
    assert await primary.lead()
    renewals = "select renewed_at from mirror.lead"
    seen = [await value(source, renewals)]
    for now in (101.0, 103.9, 104.1, 105.0, 108.2):  # noqa: B007 - the clock says it
        await primary.drain(Request(rows=1, bytes=1000))
        seen.append(await value(source, renewals))
    assert [earlier == later for earlier, later in itertools.pairwise(seen)] == [True, True, False, True, False]


async def test_a_batch_that_takes_longer_than_a_lease_keeps_the_lead(
    source: Connection, target: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working session may be idle or busy then: it is renewed beside it, and a standby waits."""
    monkeypatch.setattr(mirror.source.lead, "LEASE_MIN_S", 1.5)
    install(source_url, target_url)
    often = {"MIRROR_POLL_INTERVAL": "300ms"}
    async with running(source_url, target_url, often) as daemon:
        await leading(daemon)
        async with running(source_url, target_url, often) as standby:
            await eventually(lambda: standby.known.standby)
            async with await psycopg.AsyncConnection.connect(target_url) as blocker:
                await blocker.execute("select from mirror.state for update")
                await source.execute("insert into users (id) values (gen_random_uuid())")
                began = time.monotonic()
                await eventually(lambda: time.monotonic() - began > 3.0)
            assert await becomes_equal(source, target) < 3.0
            assert daemon.known.leader
            assert standby.known.standby
            assert daemon.knowledge.metrics.batches.labels("superseded")._value.get() == 0


async def test_a_source_of_an_older_release_says_what_to_do(
    source: Connection, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    await source.execute("drop table mirror.lead cascade")
    async with process(environ(source_url, target_url)) as daemon:
        assert await daemon.ended() == 2
        assert "Run `mirror install source`" in daemon.output


async def test_a_stranger_with_the_lock_of_installs_stops_no_install(source_url: str, stranger: str) -> None:
    lock = "pg_advisory_lock_shared(1835627122, 3)"
    async with holding(stranger, lock) as (session,):
        pid = session.info.backend_pid
        await eventually(lambda: session.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS)
        for _ in range(2):
            said = await asyncio.to_thread(install_source, source_url)
            assert any(f"pid {pid} (stranger_" in line and "not waited for" in line for line in said), said
