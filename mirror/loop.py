"""The loop of the one who leads: turn, sleep until somebody rings, say what happened.

`wake` is cleared before looking and never after; whatever rings in between makes the next wait return at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from mirror.applier import Applier
from mirror.batch import Reading
from mirror.ops.knowledge import Knowledge
from mirror.source.primary import TIDY_BYTES, Primary
from mirror.target.target import Target
from mirror.watch import Watch

log = logging.getLogger(__name__)

WAIT_MIN_S, WAIT_MAX_S = 0.002, 0.05
TIDY_INTERVAL_S = 1.0
BREATH_ENTRIES = 8
BREATH_MIN_S, BREATH_MAX_S, BREATH_ENTRY_S = 0.005, 0.02, 60e-6
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
    knowledge: Knowledge
    watch: Watch
    reached: Callable[[str, float], None]  # the target equals this snapshot, which was begun then
    is_heard: Callable[[], bool]  # the doorbell, at this moment
    _tidied_at: float = field(default=float("-inf"))
    _rings_in_vain: int = field(default=0)
    _told: list[dict[str, Any]] | None = field(default=None)  # the doubts that the target knows of in this epoch

    async def lead(self, session: Session, turned: Callable[[], None]) -> None:
        """Until told to stop. `turned` is called after every turn that worked out."""
        if not session.rings:
            log.warning("max_prepared_transactions is set in the source, so nobody rings: polling")
        self.watch.begin()
        self._told = None
        try:
            await self._turn(session, turned)
        finally:
            await self.applier.rest()

    async def _turn(self, session: Session, turned: Callable[[], None]) -> None:
        may_sleep, wait_s = False, WAIT_MIN_S
        while not self.stopping.is_set():
            self.wake.clear()
            step = await self.applier.step(session.source, session.target, may_sleep=may_sleep)
            self.knowledge.stepped(step, self.applier, heard=self.is_heard())
            if step.position and step.outcome is not None:
                self.reached(step.reading.snapshot, step.began)
            turned()
            await self._tell(session.source)
            await self.watch.look(session.source, session.target)
            self._pass_on()
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
        self.knowledge.sleeps(min(poll_s, due_s))
        unwatch = session.source.watch(self.wake.set)
        try:
            await asyncio.wait_for(self.wake.wait(), min(poll_s, due_s))
            self._woke(Woken.RUNG)
            await self._rung()
        except TimeoutError:
            self._woke(Woken.POLL if poll_s < due_s else Woken.CLOCK)
        finally:
            unwatch()

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

    def _pass_on(self) -> None:
        """What has come into doubt, or out of it: the target is told with the next batch, and what is to be compared
        for its sake is."""
        for order in self.knowledge.to_compare():
            self.applier.reconcile.want(order)
        doubts = self.knowledge.to_tell()
        if doubts != self._told:
            weighty = [d for d in doubts if d["kind"] != "clock"]
            soon = weighty != [d for d in self._told or () if d["kind"] != "clock"]
            self._told = doubts
            self.applier.tell("doubts", doubts, soon=soon)

    def _woke(self, woken: Woken) -> None:
        self.knowledge.woke(woken.value)

    async def _tell(self, source: Primary) -> None:
        """Operators hear how their requests go."""
        for report in self.applier.requests.due():
            await source.report(report.request, report.state, report.progress, report.result)
            if report.kind == "resync" and report.state != "running":
                self.knowledge.reported(report.state)

    async def _tidy(self, source: Primary, reading: Reading) -> None:
        now = asyncio.get_running_loop().time()
        if (reading.outbox_bytes or 0) > TIDY_BYTES and now - self._tidied_at > TIDY_INTERVAL_S:
            self._tidied_at = now
            await source.tidy()
