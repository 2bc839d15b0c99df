"""Networks that fail: whatever happens on the way to either side, nothing is lost, nothing is sent twice, and the
daemon comes back by itself."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

import mirror.source.lead
import mirror.source.primary
from mirror.daemon import Daemon
from mirror.postgres import connect
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
from tests.bed.proxy import Proxy
from tests.bed.ways import Way

pytestmark = pytest.mark.chaos
Connection = psycopg.AsyncConnection[Any]
# The way to the target matters only to what happens on it.
Away = tuple[Daemon, dict[str, Proxy]]
DIRECT = pytest.mark.parametrize("way", ["direct"], indirect=True)
ANY_SIDE = pytest.mark.parametrize(
    ("side", "way"), [("source", "direct"), ("target", "direct"), ("target", "https")], indirect=["way"]
)
INSERT = "insert into users (id, username) values (gen_random_uuid(), 'new')"


@pytest.fixture
async def away(source: Connection, source_url: str, target_url: str, way: Way) -> AsyncIterator[Away]:
    """A daemon that leads and has nothing to do, with a proxy on the way to each side."""
    install(source_url, target_url)
    async with Proxy.to(source_url) as proxy:
        proxies = {"source": proxy, "target": way.proxy}
        async with running(proxy.url(source_url), way.url, NEVER) as daemon:
            await leading(daemon)
            await eventually(lambda: daemon.known.proven_at and not daemon._applier.reconcile.busy, 30.0)
            await asleep(source)  # the proof was sent
            yield daemon, proxies


def failures(daemon: Daemon) -> float:
    return float(daemon.knowledge.metrics.batches.labels("failed")._value.get())


@ANY_SIDE
async def test_cut_while_asleep(source: Connection, target: Connection, away: Away, side: str) -> None:
    _, proxies = away
    await asleep(source)
    proxies[side].cut()
    await source.execute(INSERT)
    assert await becomes_equal(source, target) < 3.0


@DIRECT
async def test_a_lost_working_session_is_noticed_at_once(source: Connection, away: Away) -> None:
    daemon, _ = away
    await asleep(source)
    await source.execute(END_LEADER)
    await eventually(lambda: failures(daemon) == 1, 1.0)
    assert daemon._doorbell.reconnects == 0, "it was not the doorbell that told"


@ANY_SIDE
async def test_refused_for_a_while(source: Connection, target: Connection, away: Away, side: str) -> None:
    daemon, proxies = away
    await asleep(source)
    proxies[side].refuse()
    proxies[side].cut()
    await source.execute(INSERT)
    await eventually(lambda: failures(daemon) >= 3)
    assert not daemon.known.leader or side == "target"
    assert daemon.known.lag_s > 0
    assert daemon.known.why_not_ready()
    await proxies[side].accept()
    assert await becomes_equal(source, target) < 8.0
    await eventually(lambda: not daemon.known.why_not_ready())


async def test_a_silent_target_is_given_up_and_asked_anew(
    source: Connection, target: Connection, away: Away, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(way.module, "CALL_TIMEOUT_S", 0.5)
    daemon, proxies = away
    proxies["target"].stall()
    await source.execute(INSERT)
    await eventually(lambda: failures(daemon) >= 1)  # through HTTPS over a new connection, if the old one was idle
    assert "no reply to mirror_" in daemon.knowledge.record.errors[-1].message
    proxies["target"].resume()
    assert await becomes_equal(source, target) < 8.0
    await eventually(lambda: value(target, "select epoch >= 2 from mirror.state"))


@DIRECT
async def test_a_silent_source_is_given_up_and_asked_anew(
    source: Connection, target: Connection, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, proxies = away
    monkeypatch.setattr(mirror.source.primary, "ANSWER_TIMEOUT_S", 0.5)
    await asleep(source)
    proxies["source"].stall("to_client")
    daemon._wake.set()
    await eventually(lambda: failures(daemon) >= 1, 3.0)
    assert "no answer within" in daemon.knowledge.record.errors[-1].message
    await source.execute(INSERT)
    proxies["source"].resume()
    assert await becomes_equal(source, target) < 8.0


async def test_an_unknown_outcome_is_never_sent_again(source: Connection, target: Connection, away: Away) -> None:
    """The reply of mirror_apply is lost: it was done, nobody knows. A new epoch, a new snapshot, the right result."""
    daemon, proxies = away
    await target.execute(
        "create table sent (epoch bigint, batch bigint); create function note() returns trigger language plpgsql "
        "security definer set search_path = '' as $$ begin insert into public.sent values (new.epoch, new.batch); "
        "return null; end $$; create trigger note after update on mirror.state for each row execute function note()"
    )
    await asleep(source)
    before = await value(target, "select epoch from mirror.state")
    swallowed = proxies["target"].swallow_replies()
    await source.execute(INSERT)
    await asyncio.wait_for(swallowed.wait(), 5.0)
    await source.execute("update users set username = 'newer'")
    assert await becomes_equal(source, target) < 3.0
    await eventually(lambda: daemon.known.leader)
    await asleep(source)
    assert await value(target, "select epoch from mirror.state") == before + 1
    assert await value(target, "select count(*) from sent where epoch = %s", before) == 1
    assert await value(target, "select count(*) - count(distinct (epoch, batch)) from sent") == 0
    assert await value(source, "select count(*) from mirror.outbox") == 0


async def test_a_request_that_arrives_late_cannot_overwrite(
    source: Connection, target: Connection, source_url: str, target_url: str, away: Away
) -> None:
    """A batch is held up on its way; another daemon takes over and writes newer rows; then the batch arrives."""
    late, proxies = away
    await source.execute("insert into users (id, username) values (gen_random_uuid(), 'old')")
    await becomes_equal(source, target)
    await asleep(source)
    proxies["target"].stall("to_server")
    await source.execute("update users set username = 'older'")
    await eventually(lambda: late.knowledge.metrics.wakeups.labels("rung")._value.get() >= 1)
    await eventually(
        lambda: value(source, "select not exists (select from pg_locks where objid = 1 and classid = 1835627122)")
    )
    proxies["source"].refuse()  # it stays out for the time being
    await source.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'mirror' "
        "and datname = current_database()"
    )
    async with running(source_url, target_url, NEVER) as other:
        await leading(other)
        await source.execute("update users set username = 'newest'")
        assert await becomes_equal(source, target) < 2.0
        await asleep(source)  # it has nothing left to apply
        batch = await value(target, "select epoch || '/' || batch from mirror.state")
        proxies["target"].resume()
        await eventually(lambda: late.knowledge.metrics.batches.labels("superseded")._value.get() == 1)
        assert await value(target, "select epoch || '/' || batch from mirror.state") == batch
        assert await value(target, "select username from users") == "newest"
    await proxies["source"].accept()


async def test_a_slow_network_is_only_slow(source: Connection, target: Connection, away: Away) -> None:
    _, proxies = away
    for proxy in proxies.values():
        proxy.delay_s = 0.05
    await source.execute(INSERT)
    assert await becomes_equal(source, target) < 2.0


TAKE_OVER_S = 15.0  # with the default settings


@pytest.fixture
async def usual(source_url: str, target_url: str, way: Way) -> AsyncIterator[Away]:
    """The same with the default settings."""
    install(source_url, target_url)
    async with Proxy.to(source_url) as source, running(source.url(source_url), way.url) as daemon:
        yield await leading(daemon), {"source": source, "target": way.proxy}


@pytest.mark.slow
@pytest.mark.parametrize("standby", [False, True])
@ANY_SIDE
async def test_connections_that_died_without_a_word_are_given_up_soon(  # noqa: PLR0917 (fixtures)
    source: Connection, target: Connection, source_url: str, target_url: str, way: Way, usual: Away, side: str,
    *, standby: bool,
) -> None:  # fmt: skip
    """New ones work. (Behind the proxy the kernel cannot tell, so only what the daemon does itself counts.) With a
    standby, which is a process, it does not matter which of the two goes on."""
    daemon, proxies = usual
    async with contextlib.AsyncExitStack() as stack:
        if standby:
            other = await stack.enter_async_context(process(environ(source_url, target_url)))
            await other.says("standing by: another daemon leads")
        await asleep(source)
        proxies[side].strand()
        await source.execute(INSERT)
        took_s = await becomes_equal(source, target, timeout_s=TAKE_OVER_S)
        print(f"{side} half-open, {way.name}, {'with a standby' if standby else 'alone'}: {took_s:.1f} s")
        if not standby:
            await eventually(lambda: not daemon.known.why_not_ready(), TAKE_OVER_S - took_s)


@pytest.mark.slow
@ANY_SIDE
async def test_a_network_that_is_back_is_found_soon(
    source: Connection, target: Connection, usual: Away, side: str
) -> None:
    """Nothing came through for longer than all is waited for, no standby; what was under way stays lost."""
    daemon, proxies = usual
    proxies[side].stall()
    await source.execute(INSERT)
    began = time.monotonic()
    await eventually(lambda: time.monotonic() - began > 20.0 and failures(daemon) > 0, 30.0)
    proxies[side].strand()
    took_s = await becomes_equal(source, target, timeout_s=TAKE_OVER_S)
    print(f"{side} back after 20 s: {took_s:.1f} s")


async def test_what_takes_long_because_the_network_is_slow_is_no_silence(target_url: str) -> None:
    async with Proxy.to(target_url) as proxy:
        session = await connect(proxy.url(target_url), "target")
        proxy.delay_s = 0.05  # for each 64 kB
        began = time.monotonic()
        async with session.given_up_after(0.5):
            cursor = await session.execute("select repeat('x', 2000000)")
        assert time.monotonic() - began > 1.0
        assert len((await cursor.fetchall())[0][0]) == 2_000_000
        proxy.stall("to_client")
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with session.given_up_after(0.5):
                await session.execute("select repeat('x', 2000000)")
        assert time.monotonic() - began < 2.0
        await session.close()


@DIRECT
async def test_a_long_statement_is_not_taken_for_a_dead_connection(
    source: Connection, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, proxies = away
    monkeypatch.setattr(mirror.source.lead, "QUIET_S", 0.2)
    monkeypatch.setattr(mirror.source.lead, "HANDED_S", 0.1)
    monkeypatch.setattr(mirror.source.lead, "LOOK_S", 0.1)
    await source.execute(
        "create or replace function mirror.faults() returns jsonb language sql as $$ "
        "select '[]'::jsonb from pg_sleep(3) $$"
    )
    accepted = proxies["source"].accepted
    daemon._loop.watch._faults_at = float("-inf")
    daemon._wake.set()
    began = time.monotonic()
    await eventually(lambda: proxies["source"].accepted >= accepted + 5, 5.0)
    await eventually(lambda: time.monotonic() - began > 3.5)
    assert failures(daemon) == 0
    proxies["source"].strand()
    daemon._wake.set()
    await eventually(lambda: failures(daemon) == 1, 5.0)
    assert "the connection is dead" in daemon.knowledge.record.errors[-1].message


@pytest.mark.slow
async def test_a_daemon_that_is_cut_off_from_the_primary_steps_aside_and_another_one_leads(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """It knows by its own clock that its lease is over."""
    install(source_url, target_url)
    async with Proxy.to(source_url) as proxy, running(proxy.url(source_url), target_url) as alone:
        await leading(alone)
        async with running(source_url, target_url) as other:
            await eventually(lambda: other.known.standby)
            await source.execute(INSERT)
            proxy.stall()
            began = time.monotonic()
            await eventually(lambda: not alone.known.leader, TAKE_OVER_S)
            await leading(other, TAKE_OVER_S - (time.monotonic() - began))
            await becomes_equal(source, target, timeout_s=3.0)
            print(f"source silent, with a standby: {time.monotonic() - began:.1f} s")
            epoch = await value(target, "select epoch from mirror.state")
            proxy.resume()
            await eventually(lambda: alone.known.standby, 20.0)
            assert await value(target, "select epoch from mirror.state") == epoch
