"""The daemon: opens both sides, waits to lead, turns the loop, starts again after every failure with a new epoch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Literal

from mirror import takeover
from mirror.applier import Applier
from mirror.config import Settings
from mirror.errors import ConfigError, MirrorError, NotInstalled, Unreachable
from mirror.known import Known
from mirror.loop import Loop, Session
from mirror.mapping import Mapping
from mirror.ops.connections import connections_max
from mirror.ops.endpoints import Told, application
from mirror.ops.http import serving
from mirror.ops.knowledge import Knowledge
from mirror.ops.schedule import scheduled
from mirror.ops.wait import Waiters
from mirror.postgres import refuse_pooled_host
from mirror.producers.findings import Order
from mirror.source.doorbell import Doorbell
from mirror.source.lead import Holder
from mirror.source.primary import Primary, silence_s
from mirror.takeover import Types
from mirror.target import ways
from mirror.target.key import key_ends
from mirror.target.replies import Claimed
from mirror.target.target import Target
from mirror.watch import Watch

log = logging.getLogger(__name__)

STANDBY_INTERVAL_S = 1.0
HUNG_PAUSE_S = 4 * STANDBY_INTERVAL_S  # a daemon that hung leaves a standby the time to take the lead
PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 5.0
STOP_GRACE_S = 1.0  # for the batch under way; after that its connections are ended, which loses nothing


class _StoppedError(Exception):
    """stop() came while we were waiting to lead."""


class Daemon:
    def __init__(self, settings: Settings, mapping: Mapping) -> None:
        self._settings = settings
        self._mapping = mapping
        self._source_url = settings.source()
        refuse_pooled_host(self._source_url)
        ways.check(settings)
        self._holder = Holder("run")
        self._sleep_s = min(settings.poll_interval_s, settings.heartbeat_interval_s)  # at most
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._doorbell = Doorbell(self._source_url, self._wake)
        self._applier = Applier(
            rows=settings.batch_rows,
            heartbeat_s=settings.heartbeat_interval_s,
            brake_share=settings.brake_percent / 100,
            reconcile_rows_per_s=settings.reconcile_rows_per_s,
        )
        self.port = 0  # of the HTTP server
        self._pause_s = PAUSE_MIN_S
        self._has_led = False
        self.knowledge = Knowledge(settings.stale_after_s, settings.reconcile_cron, key_ends(ways.key(settings)))
        self._connections_max = connections_max()
        self.waiters = Waiters(self._connections_max * 5 // 6)
        self._loop = Loop(
            self._applier, self._wake, self._stopping, settings.poll_interval_s, self.knowledge,
            Watch(self.knowledge, self._applier, settings.heartbeat_interval_s), self.waiters.reached,
            lambda: self._doorbell.proven,
        )  # fmt: skip

    @property
    def known(self) -> Known:
        return self.knowledge.look()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    async def run(self) -> None:
        """Until told to stop. Raises only what a person must put right."""
        async with contextlib.AsyncExitStack() as stack:
            self.port = await stack.enter_async_context(self._serving())
            stack.callback(self.waiters.dismiss, "the daemon is stopping")
            log.info("serving metrics and health", extra={"port": self.port})
            stack.enter_context(scheduled(self._settings.reconcile_cron, self._reconcile_soon))
            working = asyncio.create_task(self._work())
            stopped = asyncio.create_task(self._stopping.wait())
            try:
                await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait((working,), timeout=STOP_GRACE_S)
                if working.done():
                    working.result()
            finally:
                await _cancelled(stopped)
                await _cancelled(working)
        log.info("stopped")

    def _serving(self) -> contextlib.AbstractAsyncContextManager[int]:
        settings = self._settings
        told = Told(
            knowledge=self.knowledge,
            waiters=self.waiters,
            source_url=self._source_url,
            open_target=lambda: ways.open_transport(settings),
            transport=ways.check(settings),
            admin_token=settings.admin_token,
            hosts=settings.http_hosts | {settings.http_host.lower()},
        )
        return serving(application(told), settings.http_host, settings.http_port, self._connections_max)

    async def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                async with self._leading() as (source, types):
                    await _first_of(self._lead(source, types), source.lease.keep(self._source_url, self._is_alive))
            except ConfigError as error:
                if not (self._has_led and isinstance(error, NotInstalled)):
                    raise
                self.knowledge.failed(error)  # uninstalled beneath us; installed anew, it is taken up again
                await self._pause(PAUSE_MAX_S)
            except _StoppedError:
                return
            except MirrorError as error:
                pause_s = self._pause_s if self._is_alive() else HUNG_PAUSE_S
                self.knowledge.failed(error)
                asked_s = error.retry_after_s if isinstance(error, Unreachable) else 0.0
                await self._pause(pause_s, asked_s)
                self._pause_s = min(PAUSE_MAX_S, self._pause_s * 2)

    def _reconcile_soon(self) -> None:
        if self.known.leader:
            self._applier.reconcile.want(Order("schedule"))
            self._wake.set()

    def _step_soon(self) -> None:
        self._applier.want_position()
        self._wake.set()

    def _worked(self) -> None:
        self._pause_s = PAUSE_MIN_S

    async def _pause(self, pause_s: float, asked_s: float = 0.0) -> None:
        """Long enough not to hammer a side that is down, and for as long as it asks for; cut short by stop()."""
        jittered_s = asked_s + pause_s * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), jittered_s)

    @contextlib.asynccontextmanager
    async def _leading(self) -> AsyncIterator[tuple[Primary, Types]]:
        """The source open, this daemon the leader; the types of the source's keys."""
        try:
            await self._doorbell.check()
            source = await Primary.open(self._source_url, self._holder, self._sleep_s)
            try:
                self.knowledge.opened("source")
                types = await takeover.check_install(source, self._mapping)
                self.knowledge.answered()
                await self._wait_to_lead(source)
                yield source, types
            finally:
                await source.close()
        finally:
            self.knowledge.ended()

    async def _lead(self, source: Primary, types: Types) -> None:
        """The target claimed, the doorbell listening: turns the loop until told to stop."""
        async with contextlib.AsyncExitStack() as stack:
            transport = await ways.open_transport(self._settings)
            stack.push_async_callback(transport.close)
            self.knowledge.opened("target")
            target = Target(transport)
            identity = await source.identity()
            asked_at = time.monotonic()
            claimed = await takeover.claim(source, target, identity, types, self._mapping)
            self._begin(claimed, identity["install"], asked_at)
            stack.push_async_callback(_cancelled, asyncio.create_task(self._doorbell.run()))
            await self._loop.lead(Session(source, target, await source.rings()), self._worked)

    def _is_alive(self) -> bool:
        """The loop turns. One that hangs does not keep the lead."""
        return self.known.turned_ago_s < silence_s(self._sleep_s)

    async def _wait_to_lead(self, source: Primary) -> None:
        waits_for: str | None = None
        while not await source.lead():
            leader = await source.leader()  # none: its lease has ended just now
            self.knowledge.stands_by(str(leader) if leader else None)
            name = leader.name if leader else ""
            if name != waits_for:
                waits_for = name
                self.waiters.dismiss("another daemon leads: ask that one")
                log.info("standing by: another daemon leads", extra={"waits_for": self.known.waits_for})
            self.knowledge.turned()
            await self._pause(STANDBY_INTERVAL_S)
            if self._stopping.is_set():
                raise _StoppedError
        self.knowledge.turned()

    def _begin(self, claimed: Claimed, install: str, asked_at: float) -> None:
        """A new epoch, for all who keep something of it."""
        self._has_led = True
        self._applier.begin(empty=claimed.empty, walks=claimed.walks, prove=not claimed.primed)
        if claimed.primed:
            self._applier.reconcile.want(Order("start"))
        self.knowledge.leads(claimed, asked_at)
        self.waiters.leads(install, claimed.life, self._step_soon)
        log.info("leading", extra={"epoch": claimed.epoch, "primed": claimed.primed})


async def _first_of(*works: Coroutine[Any, Any, None]) -> None:
    """Until the first of them ends, well or not; the others are given up."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled():
            task.result()


async def _cancelled(task: asyncio.Task[None] | asyncio.Task[Literal[True]]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def run(settings: Settings, mapping: Mapping) -> None:
    """The daemon as a process: SIGTERM and SIGINT stop it cleanly."""
    daemon = Daemon(settings, mapping)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop)
    await daemon.run()
