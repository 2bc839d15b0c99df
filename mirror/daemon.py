"""The daemon: opens both sides, waits to lead, turns the loop, starts again after every failure with a new epoch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum

from mirror.applier import Applier, Step
from mirror.batch import Reading
from mirror.config import Mapping, Settings
from mirror.errors import ConfigError, Incompatible, MirrorError, Superseded, Unreachable
from mirror.ops.http import application, serving
from mirror.ops.metrics import Metrics
from mirror.ops.vitals import Vitals
from mirror.postgres import refuse_pooled_host
from mirror.source.capture import VERSION
from mirror.source.doorbell import Doorbell
from mirror.source.primary import TIDY_BYTES, Primary
from mirror.target.direct import Direct
from mirror.target.target import Target

log = logging.getLogger(__name__)

STANDBY_INTERVAL_S = 1.0
PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 15.0
WAIT_MIN_S, WAIT_MAX_S = 0.002, 0.05
TIDY_INTERVAL_S = 1.0
NO_RINGS_POLL_S = 0.5


class Woken(Enum):
    RUNG = "rung"
    POLL = "poll"
    HEARTBEAT = "heartbeat"
    AWAKE = "awake"


@dataclass
class Session:
    """Both sides, open and led by us."""

    source: Primary
    target: Target
    rings: bool


class Daemon:
    def __init__(self, settings: Settings, mapping: Mapping) -> None:
        self._settings = settings
        self._mapping = mapping
        self._source_url, self._target_url = settings.source(), settings.target()
        refuse_pooled_host(self._source_url)
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._doorbell = Doorbell(self._source_url, self._wake)
        self._applier = Applier(rows=settings.batch_rows, heartbeat_s=settings.heartbeat_interval_s)
        self._epoch = 0
        self._tidied_at = 0.0
        self.vitals = Vitals(stale_after_s=max(60.0, 3 * settings.heartbeat_interval_s))
        self.metrics = Metrics(self.vitals)

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    async def run(self) -> None:
        """Until told to stop. Raises only what a person must put right."""
        async with serving(
            application(self.vitals, self.metrics), self._settings.http_host, self._settings.http_port
        ) as port:
            log.info("serving metrics and health", extra={"port": port})
            pause_s = PAUSE_MIN_S
            while not self._stopping.is_set():
                try:
                    async with self._session() as session:
                        pause_s = PAUSE_MIN_S
                        await self._lead(session)
                except ConfigError:
                    raise
                except MirrorError as error:
                    self._note_failure(error)
                    await self._pause(pause_s)
                    pause_s = min(PAUSE_MAX_S, pause_s * 2)
        log.info("stopped")

    def _note_failure(self, error: MirrorError) -> None:
        superseded = isinstance(error, Superseded)
        self.vitals.last_error = str(error)
        self.metrics.errors.labels(type(error).__name__).inc()
        self.metrics.batches.labels("superseded" if superseded else "failed").inc()
        log.warning("stepping aside" if superseded else "starting over", extra={"error": str(error)})

    async def _pause(self, pause_s: float) -> None:
        """Long enough not to hammer a side that is down, cut short by stop()."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        """Both sides open, this daemon the leader, the target claimed, the doorbell listening."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                source = await Primary.open(self._source_url)
                stack.push_async_callback(source.close)
                self.metrics.reconnects.labels("source").inc()
                await self._check_install(source)
                self.vitals.source_up = True
                await self._wait_to_lead(source)
                transport = await Direct.open(self._target_url)
                stack.push_async_callback(transport.close)
                self.metrics.reconnects.labels("target").inc()
                target = Target(transport)
                await self._claim(source, target)
                await self._doorbell.check()
                listening = asyncio.create_task(self._doorbell.run())
                stack.push_async_callback(_cancelled, listening)
                self.vitals.target_up = self.vitals.leader = True
                yield Session(source, target, await source.rings())
            finally:
                self.vitals.source_up = self.vitals.target_up = self.vitals.leader = self.vitals.doorbell_proven = False

    async def _check_install(self, source: Primary) -> None:
        version, document = await source.installed()
        if version != VERSION:
            raise Incompatible(
                f"the source's schema is version {version}, this daemon needs {VERSION}",
                hint="Run `mirror install source`.",
            )
        if document["mapping"] != self._mapping.source_part():
            raise Incompatible(
                "mirror.toml is not the mapping that the source was installed with",
                hint="Run `mirror install source` to bring it in.",
            )
        self._types = document["types"]

    async def _wait_to_lead(self, source: Primary) -> None:
        standby = False
        while not await source.lead():
            if not standby:
                standby = True
                log.info("standing by: another daemon leads")
            self.vitals.turned()
            await self._pause(STANDBY_INTERVAL_S)
            if self._stopping.is_set():
                raise Unreachable("source", "stopped while standing by")

    async def _claim(self, source: Primary, target: Target) -> None:
        claim = await target.claim(json.dumps(await source.identity()))
        if claim.types != self._types:
            raise Incompatible(
                f"the target's keys are {claim.types}, the source's are {self._types}",
                hint="Run `mirror install target`.",
            )
        self._applier.reset(keep_walks=claim.epoch == self._epoch + 1)
        self._epoch = claim.epoch
        self.vitals.primed = claim.primed
        log.info("leading", extra={"epoch": claim.epoch, "primed": claim.primed})

    async def _lead(self, session: Session) -> None:
        """The loop. Clear the wake-up before looking, never after."""
        if not session.rings:
            log.warning("max_prepared_transactions is set in the source, so nobody rings: polling")
        may_sleep, wait_s = False, WAIT_MIN_S
        while not self._stopping.is_set():
            self._wake.clear()
            step = await self._applier.step(session.source, session.target, may_sleep=may_sleep)
            self._note(step)
            if step.worked:
                may_sleep, wait_s = False, WAIT_MIN_S
            elif step.reading.asleep:
                await self._sleep(session)
                may_sleep = False
            elif not may_sleep:
                may_sleep = True
            else:
                await self._stay_awake(wait_s)  # a writer that did not ring is still at work, or a table is broken
                wait_s = min(WAIT_MAX_S, wait_s * 1.5)
            await self._tidy(session.source, step.reading)
        await self._say_goodbye(session)

    async def _sleep(self, session: Session) -> None:
        poll_s = self._settings.poll_interval_s if session.rings else NO_RINGS_POLL_S
        beat_s = self._applier.until_beat()
        unwatch = session.source.watch(self._wake.set)
        try:
            await asyncio.wait_for(self._wake.wait(), min(poll_s, beat_s))
            self.metrics.wakeups.labels(Woken.RUNG.value).inc()
        except TimeoutError:
            woken = Woken.POLL if poll_s < beat_s else Woken.HEARTBEAT
            self.metrics.wakeups.labels(woken.value).inc()
        finally:
            unwatch()

    async def _stay_awake(self, wait_s: float) -> None:
        self.metrics.wakeups.labels(Woken.AWAKE.value).inc()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), wait_s)

    async def _tidy(self, source: Primary, reading: Reading) -> None:
        now = asyncio.get_running_loop().time()
        if (reading.outbox_bytes or 0) > TIDY_BYTES and now - self._tidied_at > TIDY_INTERVAL_S:
            self._tidied_at = now
            await source.tidy()

    async def _say_goodbye(self, session: Session) -> None:
        """What was applied last is forgotten now, so that the next daemon need not read it again."""
        await self._applier.step(session.source, session.target, may_sleep=False)

    def _note(self, step: Step) -> None:
        reading, outcome, v = step.reading, step.outcome, self.vitals
        v.turned()
        v.doorbell_proven = self._doorbell.proven
        v.broken = self._applier.outbox.broken
        v.walks = len(self._applier.walks)
        v.outbox_entries = reading.entries if reading.waiting is None else reading.waiting
        if reading.complete:
            v.caught_up()
        else:
            v.looked(step.began, reading.lag_s)
        if outcome is not None:
            v.parked = dict(outcome.parked)
            v.applied_rows += outcome.rows
            if step.position:
                v.positioned(step.began)
                v.primed = True
        self.metrics.observe(step)
        for table, reason in step.newly_broken.items():
            log.error(
                "a table cannot be read; its changes wait, the others go on", extra={"table": table, "error": reason}
            )
        if outcome is not None and (outcome.rows or reading.entries or reading.slice):
            _log_batch(step)


def _log_batch(step: Step) -> None:
    if step.outcome is None:
        return
    log.info(
        "batch",
        extra={
            "entries": step.reading.entries,
            "rows": {t: "+".join(f"{n} {op}" for op, n in ops.items()) for t, ops in step.outcome.counts.items()},
            "read_ms": round(step.read_s * 1000, 1),
            "apply_ms": round(step.apply_s * 1000, 1),
            "lag_ms": round(step.reading.lag_s * 1000 + (step.read_s + step.apply_s) * 1000, 1),
            **({"backlog": True} if step.reading.backlog else {}),
            **({"walk": step.reading.wide[0].table} if step.reading.wide and step.reading.slice else {}),
            **({"parked": dict(step.outcome.parked)} if step.outcome.parked else {}),
        },
    )


async def _cancelled(task: asyncio.Task[None]) -> None:
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
