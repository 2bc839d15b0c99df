"""The loop of the one who leads: turn, sleep until somebody rings, say what happened.

`wake` is cleared before looking and never after; whatever rings in between makes the next wait return at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from mirror.applier import Applier, Step
from mirror.batch import Reading
from mirror.ops.metrics import Metrics
from mirror.ops.record import Record
from mirror.ops.vitals import Vitals
from mirror.producers.findings import Finished
from mirror.source.primary import TIDY_BYTES, Primary
from mirror.target.target import Target
from mirror.watch import Watch

log = logging.getLogger(__name__)

WAIT_MIN_S, WAIT_MAX_S = 0.002, 0.05
TIDY_INTERVAL_S = 1.0
BREATH_ENTRIES = 8
BREATH_MIN_S, BREATH_MAX_S, BREATH_ENTRY_S = 0.005, 0.02, 60e-6
DRIFT_LINES = 10  # in the log; the request's result has more, the metrics count all
NO_RINGS_POLL_S = 0.5


def breath_s(reading: Reading) -> float:
    """How long to leave the application its processors after this batch: when many write at once, the changes of a few
    more milliseconds together cost hardly more than one of them, and the more they write, the more that saves. Whoever
    writes alone is not made to wait, nor is a backlog, which has enough to do."""
    if reading.entries < BREATH_ENTRIES or reading.backlog:
        return 0.0
    return min(BREATH_MAX_S, max(BREATH_MIN_S, reading.entries * BREATH_ENTRY_S))


class Woken(Enum):
    RUNG = "rung"
    POLL = "poll"
    CLOCK = "heartbeat"
    AWAKE = "awake"


@dataclass
class Session:
    """Both sides, open and led by us."""

    source: Primary
    target: Target
    rings: bool


@dataclass
class Loop:
    applier: Applier
    wake: asyncio.Event
    stopping: asyncio.Event
    poll_interval_s: float
    vitals: Vitals
    metrics: Metrics
    record: Record
    watch: Watch
    reached: Callable[[str, float], None]  # the target equals this snapshot, which was begun then
    is_heard: Callable[[], bool]  # the doorbell, at this moment
    _tidied_at: float = field(default=float("-inf"))
    _rings_in_vain: int = field(default=0)

    async def lead(self, session: Session, turned: Callable[[], None]) -> None:
        """Until told to stop. `turned` is called after every turn that worked out."""
        if not session.rings:
            log.warning("max_prepared_transactions is set in the source, so nobody rings: polling")
        self.watch.begin()
        try:
            await self._turn(session, turned)
        finally:
            await self.applier.rest()

    async def _turn(self, session: Session, turned: Callable[[], None]) -> None:
        may_sleep, wait_s = False, WAIT_MIN_S
        while not self.stopping.is_set():
            self.wake.clear()
            step = await self.applier.step(session.source, session.target, may_sleep=may_sleep)
            self._note(step)
            turned()
            await self._tell(session.source)
            await self.watch.look(session.source, session.target)
            if step.worked or step.outcome is not None:
                self._rings_in_vain = 0
            if step.worked:
                may_sleep, wait_s = False, WAIT_MIN_S
                await asyncio.sleep(breath_s(step.reading))
            elif step.reading.asleep:
                await self._sleep(session)
                may_sleep = False
            elif not may_sleep:
                may_sleep = True
            else:
                await self._stay_awake(wait_s)  # a writer that did not ring is still at work
                wait_s = min(WAIT_MAX_S, wait_s * 1.5)
            await self._tidy(session.source, step.reading)
        # What was applied last is forgotten now, so that the next daemon need not read it again.
        await self.applier.step(session.source, session.target, may_sleep=False)

    async def _sleep(self, session: Session) -> None:
        poll_s = self.poll_interval_s if session.rings else NO_RINGS_POLL_S
        due_s = self.applier.until_due()
        self.vitals.sleeps(min(poll_s, due_s))
        unwatch = session.source.watch(self.wake.set)
        try:
            await asyncio.wait_for(self.wake.wait(), min(poll_s, due_s))
            self._woke(Woken.RUNG)
            await self._rung()
        except TimeoutError:
            self._woke(Woken.POLL if poll_s < due_s else Woken.CLOCK)
        finally:
            unwatch()
            self.vitals.sleeps(0.0)

    async def _stay_awake(self, wait_s: float) -> None:
        self._woke(Woken.AWAKE)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wake.wait(), wait_s)
            await self._rung()

    async def _rung(self) -> None:
        """Any role may ring. Each ring in vain makes the next one wait a moment longer, so that no flood of them keeps
        the daemon and the source busy; one that meant something makes the next one heard at once."""
        if self._rings_in_vain:
            await asyncio.sleep(min(WAIT_MAX_S, WAIT_MIN_S * self._rings_in_vain))
        self._rings_in_vain += 1

    def _woke(self, woken: Woken) -> None:
        self.metrics.wakeups.labels(woken.value).inc()

    async def _tell(self, source: Primary) -> None:
        """Operators hear how their requests go."""
        for report in self.applier.requests.due():
            await source.report(report.request, report.state, report.progress, report.result)
            if report.kind == "resync" and report.state != "running":
                self.metrics.resyncs.labels(report.state).inc()

    async def _tidy(self, source: Primary, reading: Reading) -> None:
        now = asyncio.get_running_loop().time()
        if (reading.outbox_bytes or 0) > TIDY_BYTES and now - self._tidied_at > TIDY_INTERVAL_S:
            self._tidied_at = now
            await source.tidy()

    def _note(self, step: Step) -> None:
        reading, outcome, v = step.reading, step.outcome, self.vitals
        v.turned()
        v.doorbell_proven = self.is_heard()
        v.broken, v.locked = self.applier.outbox.broken, self.applier.outbox.locked
        v.walks = len(self.applier.walks)
        v.outbox_entries = _waiting(reading, v.outbox_entries)
        v.outbox_bytes = v.outbox_bytes if reading.outbox_bytes is None else reading.outbox_bytes
        if step.position:
            v.caught_up(step.began)
        else:
            v.looked(step.began, reading.lag_s, everywhere=not step.skipped)
        if outcome is not None:
            v.parked, v.clock_apart = dict(outcome.parked), outcome.clock
            v.applied_rows += outcome.rows
            if step.position:
                v.positioned(step.began)
                self.reached(reading.snapshot, step.began)
        v.braked = {t: f"{r.extra} of {r.target_rows} rows would go" for t, r in self.applier.reconcile.braked.items()}
        self.metrics.observe(step)
        self.record.observe(step, self.applier)
        for finished in step.finished:
            v.proven_at = time.time() if finished.proves else v.proven_at
            _log_finished(finished)
        for table, reason in step.newly_broken.items():
            log.error(
                "a table cannot be read; its changes wait, the others go on", extra={"table": table, "error": reason}
            )
        for table, reason in step.newly_locked.items():
            log.error(
                "a table is locked in the target; its changes wait, the others go on",
                extra={"table": table, "reason": reason},
            )
        if reading.dropped:
            self.metrics.errors.labels("UnreadableEntry").inc(reading.dropped)
            log.warning(
                "entries of the outbox that no trigger of the mirror has written were dropped",
                extra={"entries": reading.dropped},
            )
        if outcome is not None and (outcome.rows or reading.entries or step.walked):
            log.info("batch", extra=_told(step, outcome.counts, outcome.parked))


def _waiting(reading: Reading, before: int) -> int:
    """They are counted once a second; in a backlog, what one batch takes says little."""
    if reading.waiting is not None:
        return reading.waiting
    return max(before, reading.entries) if reading.backlog else reading.entries


def _log_finished(finished: Finished) -> None:
    found = {name: r.document() | {"differences": None} for name, r in finished.tables.items()}
    brief = {name: {k: v for k, v in d.items() if v} for name, d in found.items()}
    for name, report in finished.tables.items():
        for row in report.differences[:DRIFT_LINES] if not report.expected else ():
            key = "/".join(k for k in (row["k1"], row["k2"]) if k)
            log.warning("drift", extra={"table": name, "key": key, "direction": row["direction"]})
        if report.braked and finished.order.reason != "again":
            log.error(
                "the brake: a repair would delete too much of a table; look, then `mirror resync --force`",
                extra={"table": name, "rows": report.target_rows, "would_delete": report.extra},
            )
    log.info("reconcile", extra={"reason": finished.order.reason, "result": finished.state, "tables": brief})


def _told(step: Step, counts: Mapping[str, Mapping[str, int]], parked: Mapping[str, int]) -> dict[str, object]:
    reading = step.reading
    return {
        "entries": reading.entries,
        "rows": {table: "+".join(f"{n} {op}" for op, n in ops.items()) for table, ops in counts.items()},
        "read_ms": round(step.read_s * 1000, 1),
        "apply_ms": round(step.apply_s * 1000, 1),
        "lag_ms": round((reading.lag_s + step.read_s + step.apply_s) * 1000, 1),
        **({"backlog": True} if reading.backlog else {}),
        **({"walk": step.walked.table} if step.walked else {}),
        **({"parked": dict(parked)} if parked else {}),
    }
