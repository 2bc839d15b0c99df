"""The doorbell: a change wakes the daemon at once, whatever has happened to the connections in between."""

import asyncio
import random
import time
from typing import Any

import psycopg
import pytest

import mirror.postgres
import mirror.source.doorbell
from mirror.daemon import Daemon
from mirror.errors import ConfigError, Unreachable
from mirror.source.doorbell import Doorbell
from tests.bed import pgbouncer
from tests.bed.daemons import END_LEADER, asleep, becomes_equal, environ, install, leading, process, running, value
from tests.bed.eventually import eventually
from tests.bed.proxy import Proxy

Connection = psycopg.AsyncConnection[Any]
POLL_S = 30.0
FLOOR = {"MIRROR_POLL_INTERVAL": f"{POLL_S:.0f}", "MIRROR_HEARTBEAT_INTERVAL": "1h"}
ADDRESS = "select host(inet_server_addr()) || ', port ' || inet_server_port()"  # as the server sees it
END_LISTENER = (
    "select pg_terminate_backend(pid) from pg_stat_activity "
    "where application_name = 'mirror' and datname = current_database() and query ~* 'listen|notify'"
)


class Arrivals:
    """Writers write numbered users; somebody looks at the target all the time and notes when each was seen."""

    def __init__(self) -> None:
        self.committed: dict[str, float] = {}
        self.seen: dict[str, float] = {}

    async def write(self, url: str, dice: random.Random, until: float, name: str) -> None:
        n = 0
        async with await psycopg.AsyncConnection.connect(url) as connection:
            while time.monotonic() < until:
                mine = [f"{name}-{n}-{i}" for i in range(dice.randint(1, 3))]
                n += 1
                for one in mine:
                    await connection.execute("insert into users (id, username) values (gen_random_uuid(), %s)", [one])
                    await asyncio.sleep(dice.choice((0, 0, 0, 0, 0, 0.01, 0.2)))
                await connection.commit()
                self.committed |= dict.fromkeys(mine, time.monotonic())
                await asyncio.sleep(dice.choice((0, 0.003, 0.01, 0.03, 0.1, 0.3)))

    async def look(self, url: str) -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            while True:
                names = await (await connection.execute("select username from users")).fetchall()
                now = time.monotonic()
                for (name,) in names:
                    self.seen.setdefault(name, now)
                await asyncio.sleep(0.01)

    def delays_s(self) -> list[float]:
        return sorted(self.seen[name] - at for name, at in self.committed.items())


async def disturb(source: Connection, dice: random.Random) -> None:
    while True:
        await asyncio.sleep(dice.uniform(0.3, 1.5))
        await source.execute(dice.choice((END_LISTENER, END_LISTENER, END_LEADER)))


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.parametrize("lost_connections", [False, True])
async def test_no_change_waits_for_the_poll(
    source: Connection, source_url: str, target_url: str, lost_connections: bool
) -> None:
    install(source_url, target_url)
    arrivals, dice = Arrivals(), random.Random(7)
    async with running(source_url, target_url, FLOOR) as daemon:
        await leading(daemon)
        looking = asyncio.create_task(arrivals.look(target_url))
        disturbing = asyncio.create_task(disturb(source, dice)) if lost_connections else None
        until = time.monotonic() + 8.0
        await asyncio.gather(*(arrivals.write(source_url, random.Random(n), until, str(n)) for n in range(3)))
        if disturbing is not None:
            disturbing.cancel()
        await eventually(lambda: arrivals.seen.keys() >= arrivals.committed.keys(), POLL_S + 10)
        looking.cancel()
        delays_s = arrivals.delays_s()
        assert len(delays_s) > 60
        assert delays_s[-1] < POLL_S + 5.0
        late = [delay for delay in delays_s if delay > 3.0]
        assert len(late) < len(delays_s) / 100, late
        assert daemon.knowledge.metrics.wakeups.labels("poll")._value.get() == 0
        assert daemon.knowledge.metrics.wakeups.labels("rung")._value.get() > 10


async def test_a_long_writer_keeps_the_daemon_awake(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    async with running(source_url, target_url, FLOOR) as daemon:
        await leading(daemon)
        async with await psycopg.AsyncConnection.connect(source_url) as writer:
            rung = daemon.knowledge.metrics.wakeups.labels("awake")._value.get()
            # Written while the daemon is awake, so it does not ring.
            daemon._wake.set()
            await eventually(lambda: _written_while_awake(daemon, writer, source))
            await eventually(lambda: daemon.knowledge.metrics.wakeups.labels("awake")._value.get() > rung + 5)
            await source.execute("insert into users (id, username) values (gen_random_uuid(), 'meanwhile')")
            assert await becomes_equal(source, target) < 1.0
            await writer.commit()
            assert await becomes_equal(source, target) < 1.0
        await asleep(source)


async def _written_while_awake(daemon: Daemon, writer: Connection, source: Connection) -> bool:
    """Has the writer got the shared lock, which keeps the daemon from sleeping?"""
    await writer.rollback()
    daemon._wake.set()
    await writer.execute("insert into users (id) values (gen_random_uuid())")
    return bool(
        await value(
            source,
            "select exists (select from pg_locks where locktype = 'advisory' and classid = 1835627122 and objid = 1 "
            "and mode = 'ShareLock' and granted and pid = %s)",
            writer.info.backend_pid,
        )
    )


async def test_nobody_rings_for_a_daemon_that_is_awake_and_everybody_for_one_that_sleeps(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    insert = "insert into users (id) values (gen_random_uuid())"
    async with await psycopg.AsyncConnection.connect(source_url, autocommit=True) as listener:
        async with running(source_url, target_url, FLOOR) as daemon:
            await leading(daemon)
            await eventually(lambda: daemon._doorbell.proven)  # its proof is a notification, too
            await asleep(source)
            await listener.execute("listen mirror")
            await source.execute(insert)
            assert [n.payload async for n in listener.notifies(timeout=5.0, stop_after=1)] == [""]
            await becomes_equal(source, target)
        await listener.execute("unlisten mirror; listen mirror")
        await source.execute(insert)  # nobody sleeps
        assert [n.payload async for n in listener.notifies(timeout=0.3)] == []


async def test_a_lost_doorbell_is_hung_up_again(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    async with running(source_url, target_url, FLOOR) as daemon:
        await leading(daemon)
        for _ in range(3):
            await eventually(lambda: daemon._doorbell.proven)
            await asleep(source)
            lost = daemon._doorbell.reconnects
            await source.execute(END_LISTENER)
            await source.execute("insert into users (id) values (gen_random_uuid())")
            assert await becomes_equal(source, target) < 2.0
            await eventually(lambda lost=lost: daemon._doorbell.reconnects > lost)  # type: ignore[misc]
        assert daemon.knowledge.metrics.batches.labels("failed")._value.get() == 0


RING, NO_RING = "pg_notify(''mirror'', '''')", "pg_sleep(0)"
SILENCED = f"replace(pg_get_functiondef('mirror.users_insert()'::regprocedure), '{RING}', '{NO_RING}')"


async def test_with_every_ring_lost_the_poll_finds_the_change(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    await source.execute(f"do $do$ begin execute {SILENCED}; end $do$")
    settings = {"MIRROR_POLL_INTERVAL": "200ms", "MIRROR_HEARTBEAT_INTERVAL": "1h"}
    async with running(source_url, target_url, settings) as daemon:
        await leading(daemon)
        await asleep(source)
        await source.execute("insert into users (id) values (gen_random_uuid())")
        assert await becomes_equal(source, target) < 2.0
        assert daemon.knowledge.metrics.wakeups.labels("poll")._value.get() >= 1


async def test_a_deaf_listener_is_found_out(
    source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Half-open: what we say arrives, what is said to us does not."""
    install(source_url, target_url)
    monkeypatch.setattr(mirror.source.doorbell, "PROOF_INTERVAL_S", 0.3)
    monkeypatch.setattr(mirror.source.doorbell, "PROOF_TIMEOUT_S", 0.5)
    wake = asyncio.Event()
    async with Proxy.to(source_url) as proxy:
        doorbell = Doorbell(proxy.url(source_url), wake)
        running = asyncio.create_task(doorbell.run())
        await eventually(lambda: doorbell.proven)
        proxy.stall("to_client")
        await eventually(lambda: not doorbell.proven, 5.0)
        wake.clear()
        assert "doorbell lost" in caplog.text
        proxy.resume()
        await eventually(lambda: doorbell.proven, 15.0)
        assert wake.is_set(), "whatever was rung while it was deaf must be looked for"
        running.cancel()
        await asyncio.wait((running,))


@pytest.mark.slow
async def test_a_connection_that_fell_silent_is_found_out_within_15_s(source_url: str) -> None:
    """Between two proofs, too, of which each costs the source a commit."""
    async with Proxy.to(source_url) as proxy:
        doorbell = Doorbell(proxy.url(source_url), asyncio.Event())
        running = asyncio.create_task(doorbell.run())
        await eventually(lambda: doorbell.proven)
        proxy.strand()
        await eventually(lambda: doorbell.reconnects == 1 and doorbell.proven, 15.0)
        running.cancel()
        await asyncio.wait((running,))


async def test_a_network_that_fails_is_not_taken_for_a_pooler(source_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror.source.doorbell, "PROOF_TIMEOUT_S", 0.5)
    monkeypatch.setattr(mirror.postgres, "CONNECT_S", 2)
    async with Proxy.to(source_url) as proxy:
        proxy.delay_s = 0.05  # the proof takes several round trips: it is not over before the network fails
        doorbell = Doorbell(proxy.url(source_url), asyncio.Event())
        checking = asyncio.create_task(doorbell.check())
        await eventually(lambda: proxy.accepted == 2)  # the listener, and who sends it the proof
        proxy.stall("to_client")
        with pytest.raises(Unreachable):
            await checking
        proxy.resume()
        proxy.delay_s = 0.0
        await doorbell.check()


@pytest.mark.skipif(pgbouncer.PROGRAM is None, reason="pgbouncer is not installed")
async def test_a_real_pgbouncer_is_refused_by_name_and_left_clean(
    source: Connection, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    async with pgbouncer.pooled(source_url) as url:
        async with process(environ(url, target_url)) as daemon:
            assert await daemon.ended(20.0) == 2, daemon.output
            assert "connection pooler" in daemon.output
            assert await value(source, ADDRESS) in daemon.output
            assert "Traceback" not in daemon.output
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as application:
            assert await value(application, "show search_path") == '"$user", public'
            assert await value(application, "show row_security") == "on"
        assert await value(source, "select count(*) from pg_locks where locktype = 'advisory'") == 0


async def test_the_check_says_where_the_server_is(
    source: Connection, source_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(*_: object) -> bool:
        return False

    monkeypatch.setattr(Doorbell, "_hears", deaf)
    with pytest.raises(ConfigError, match=await value(source, ADDRESS)):
        await Doorbell(source_url, asyncio.Event()).check()


async def test_asleep_nothing_is_asked(source: Connection, source_url: str, target_url: str) -> None:
    """A sleeping daemon costs nothing: no query until the poll, and no transaction that holds back VACUUM."""
    install(source_url, target_url)
    async with running(source_url, target_url, FLOOR) as daemon:
        await leading(daemon)
        await asleep(source)
        sessions = "from pg_stat_activity where application_name = 'mirror' and datname = current_database()"
        await eventually(lambda: value(source, f"select bool_and(state = 'idle' and xact_start is null) {sessions}"))
        assert await value(source, f"select count(*) {sessions}") == 2
        assert await value(source, f"select bool_and(backend_xmin is null) {sessions}")
        before = await value(source, f"select max(state_change) {sessions}")
        await source.execute("update users set last_seen = now()")
        assert await value(source, f"select max(state_change) {sessions}") == before
