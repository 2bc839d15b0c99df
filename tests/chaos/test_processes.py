"""Servers and daemons that are killed, paused and told to stop, in every state."""

import asyncio
import contextlib
import re
import signal
import time
from typing import Any

import psycopg
import pytest

import mirror.daemon
import mirror.source.lead
import mirror.source.primary
from mirror.applier import Step
from mirror.errors import Unreachable
from tests.bed.backends import Pair, Side
from tests.bed.daemons import (
    NEVER,
    asleep,
    becomes_equal,
    environ,
    equal,
    install,
    leading,
    process,
    running,
    value,
)
from tests.bed.eventually import eventually
from tests.bed.proxy import Proxy

pytestmark = pytest.mark.chaos
Connection = psycopg.AsyncConnection[Any]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["source", "target"])
async def test_a_server_is_killed_and_comes_back(servers: Pair, source_url: str, target_url: str, name: str) -> None:
    side: Side = getattr(servers, name)
    if side.server is None:
        pytest.skip("this server is not ours to kill")
    install(source_url, target_url)
    async with running(source_url, target_url, NEVER | {"MIRROR_HEARTBEAT_INTERVAL": "300ms"}) as daemon:
        await leading(daemon)
        await change(source_url)
        await asyncio.to_thread(side.server.kill)
        try:
            await eventually(lambda: not daemon.known.leader or not daemon.known.target_up)
            assert daemon.known.why_not_ready()
        finally:
            await asyncio.to_thread(side.server.restart)
        await change(source_url)
        async with (
            await psycopg.AsyncConnection.connect(source_url, autocommit=True) as source,
            await psycopg.AsyncConnection.connect(target_url, autocommit=True) as target,
        ):
            assert await becomes_equal(source, target) < 8.0
            await eventually(lambda: not daemon.known.why_not_ready())


async def change(source_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(source_url, autocommit=True) as source:
        await source.execute("set synchronous_commit = on")  # the test servers lose their last moments otherwise
        await source.execute("insert into users (id) values (gen_random_uuid())")


@pytest.mark.slow
async def test_a_paused_daemon_loses_the_lead_and_cannot_overwrite(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    await source.execute("insert into users (id, username) values (gen_random_uuid(), '0')")
    settings = environ(source_url, target_url)
    async with process(settings) as paused:
        await paused.says("leading")
        await becomes_equal(source, target)
        async with process(settings) as other:
            standby = await other.says("standing by: another daemon leads")
            assert re.fullmatch(
                rf"the lease of mirror run on \S+, process {paused.pid}, until \d\d:\d\d:\d\d UTC", standby["waits_for"]
            )
            for n in range(1, 40):  # somewhere in here it is in the middle of a batch
                await source.execute("update users set username = %s", [str(n)])
            paused.send(signal.SIGSTOP)
            began = time.monotonic()
            await source.execute("update users set username = 'while it is paused'")
            await other.says("leading", 20.0)
            await becomes_equal(source, target)
            took_s = time.monotonic() - began
            print(f"leader stopped: {took_s:.1f} s")
            assert took_s < 15.0, "the lease"
            await source.execute("update users set username = 'after'")
            await becomes_equal(source, target)
            epoch = await value(target, "select epoch from mirror.state")
            paused.send(signal.SIGCONT)
            await paused.says("standing by: another daemon leads")
            assert await equal(source, target)
            assert await value(target, "select epoch from mirror.state") == epoch
            assert (await paused.stopped())[0] == 0
            assert (await other.stopped())[0] == 0


async def test_a_daemon_that_hangs_loses_the_lead_by_itself(
    source: Connection, target: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(source_url, target_url)
    monkeypatch.setattr(mirror.source.lead, "LEASE_MIN_S", 1.0)
    monkeypatch.setattr(mirror.source.primary, "SILENCE_MIN_S", 4.5)
    monkeypatch.setattr(mirror.daemon, "STANDBY_INTERVAL_S", 2.5)  # it looks so rarely that the other could be first
    monkeypatch.setattr(mirror.daemon, "HUNG_PAUSE_S", 10.0)
    settings = {"MIRROR_POLL_INTERVAL": "300ms"}
    async with running(source_url, target_url, settings) as hung:
        await leading(hung)
        hang = asyncio.Event()

        async def step(*_: object, **__: object) -> Step:
            await hang.wait()
            raise Unreachable("source", "woken up")

        with monkeypatch.context() as patch:
            patch.setattr(hung._applier, "step", step)
            async with running(source_url, target_url, settings) as other:
                await leading(other, 15.0)
                epoch = await value(target, "select epoch from mirror.state")
                assert epoch == 2, "the one that hung came back first, and hung again"
                await source.execute("insert into users (id) values (gen_random_uuid())")
                assert await becomes_equal(source, target) < 2.0
        hang.set()


AWAKE = (
    "select not exists (select from pg_locks where locktype = 'advisory' and classid = 1835627122 and objid = 1 "
    "and mode = 'ExclusiveLock' and database = (select oid from pg_database where datname = current_database()))"
)
STATES = (
    "asleep",
    "standing by",
    "source refused",
    "source silent",
    "target refused",
    "target silent",
    "silent at work",
)


@pytest.mark.parametrize(("state", "number"), [*((s, signal.SIGTERM) for s in STATES), ("asleep", signal.SIGINT)])
async def test_told_to_stop_it_stops_at_once_whatever_it_is_doing(
    source: Connection, source_url: str, target_url: str, state: str, number: signal.Signals
) -> None:
    install(source_url, target_url)
    async with Proxy.to(source_url) as there, Proxy.to(target_url) as over_there, contextlib.AsyncExitStack() as stack:
        proxy = there if state.startswith("source") else over_there
        if state == "standing by":
            await leading(await stack.enter_async_context(running(source_url, target_url, NEVER)))
        if state.endswith("refused"):
            proxy.refuse()
        if state in ("source silent", "target silent"):
            proxy.stall()
        settings = environ(there.url(source_url), over_there.url(target_url), **NEVER)
        daemon = await stack.enter_async_context(process(settings))
        await daemon.says("serving metrics and health")
        match state:
            case "asleep" | "silent at work":
                await daemon.says("leading")
                await asleep(source)
                if state == "silent at work":
                    over_there.stall()
                    await source.execute("insert into users (id) values (gen_random_uuid())")
                    # Perhaps it was just asking the target about channels: that ends first.
                    await eventually(lambda: value(source, AWAKE), 20.0)
            case "standing by":
                await daemon.says("standing by: another daemon leads")
            case "source refused" | "target refused":
                await daemon.says("starting over")
            case _:
                await eventually(lambda: proxy.accepted >= 1)
        code, took_s = await daemon.stopped(number)
        assert code == 0, daemon.output
        assert took_s < 2.0
        assert "Traceback" not in daemon.output
        over_there.resume()
        there.resume()
