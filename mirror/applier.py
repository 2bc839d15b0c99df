"""THE operation: make the target equal to the source within a scope.

    fence  ->  one snapshot of the source  ->  one transaction in the target  ->  forget exactly what was applied

The fence is taken before the snapshot, so a daemon that was paused in between can never write what it read: somebody
newer has claimed. Whatever fails, nothing is sent again; the daemon claims a new epoch and reads anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from mirror.batch import Fence, Outcome, Reading, Request
from mirror.producers.outbox import Outbox
from mirror.producers.parked import Parked
from mirror.producers.walk import Walks
from mirror.scope import Keys, Range, Slice, Wide

BYTES_MAX = 4_000_000
COUNT_INTERVAL_S = 1.0
SLICE_EVERY = 8  # in a backlog, one batch in so many carries a slice: a walk must end even under constant load


class Source(Protocol):
    async def drain(self, request: Request) -> Reading: ...


class Target(Protocol):
    def next_fence(self) -> Fence: ...

    async def apply(self, reading: Reading, fence: Fence, *, position: bool, began: float) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Step:
    """What one turn of the loop did."""

    reading: Reading
    outcome: Outcome | None
    position: bool
    began: float
    read_s: float
    apply_s: float
    skipped: tuple[str, ...] = ()
    walked: Wide | None = None
    newly_broken: dict[str, str] = field(default_factory=dict)

    @property
    def worked(self) -> bool:
        """There may be more: look again before sleeping."""
        return self.reading.entries > 0 or self.reading.slice is not None or self.reading.backlog


class Applier:
    def __init__(
        self,
        *,
        rows: int,
        heartbeat_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows = rows
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self.outbox = Outbox(clock)
        self.walks = Walks()
        self.parked = Parked()
        self._settled = False  # the target's position is that of the last reading
        self._beat_at = -heartbeat_s
        self._counted_at = -COUNT_INTERVAL_S
        self._turn = 0
        self._backlog = False
        self._stuck = False

    async def step(self, source: Source, target: Target, *, may_sleep: bool) -> Step:
        fence = target.next_fence()
        began = self._clock()
        request = self._request(may_sleep, began)
        reading = await source.drain(request)
        read_at = self._clock()
        self.walks.forgotten()
        self._stuck = reading.backlog and reading.entries == 0  # behind marks that only a walk can settle
        self._backlog = reading.backlog
        newly_broken = self.outbox.read(reading, request.skip)
        self.walks.read(reading, request.skip)
        position = reading.complete and not request.skip
        outcome = None
        if reading.scopes or (position and self._is_due(began)):
            outcome = await target.apply(reading, fence, position=position, began=began)
            self._settle(request.slice, reading, outcome, position, began)
        else:
            self.outbox.settle(reading)
        return Step(
            reading=reading,
            outcome=outcome,
            position=position,
            began=began,
            read_s=read_at - began,
            apply_s=self._clock() - read_at,
            skipped=request.skip,
            walked=request.slice.wide if isinstance(request.slice, Range) and reading.slice is not None else None,
            newly_broken=newly_broken,
        )

    def reset(self, *, keep_walks: bool) -> None:
        """After a failure: what was read is not known to be applied. Walks may go on where they were, when nobody else
        has led in between: their slices are applied one by one."""
        self.outbox.reset()
        self.parked.reset()
        self._settled = False
        self._backlog = False
        if not keep_walks:
            self.walks.reset()

    def until_due(self) -> float:
        """Until time alone is a reason to look: the heartbeat, or, while that is impossible, the next attempt at the
        tables that could not be read."""
        at = self.outbox.retry_at() if self.outbox.broken else self._beat_at + self._heartbeat_s
        return max(0.0, at - self._clock())

    def _request(self, may_sleep: bool, now: float) -> Request:
        self._turn += 1
        skip = self.outbox.skip()
        count = now - self._counted_at >= COUNT_INTERVAL_S
        if count:
            self._counted_at = now
        chosen: Slice | None = None
        if not self._backlog or self._stuck or self._turn % SLICE_EVERY == 0:
            chosen = self.parked.next_slice() or self.walks.next_slice(self._rows, skip)
        return Request(
            rows=self._rows,
            bytes=BYTES_MAX,
            sleep=may_sleep,
            forget=self.outbox.forget,
            forget_wide=self.walks.forget,
            skip=skip,
            looked=self.outbox.looked,
            slice=chosen,
            count=count,
        )

    def _is_due(self, now: float) -> bool:
        """An empty batch that moves the position: the first after a time without one, and the heartbeat."""
        return not self._settled or now - self._beat_at >= self._heartbeat_s

    def _settle(self, asked: Slice | None, reading: Reading, outcome: Outcome, position: bool, began: float) -> None:
        self.outbox.settle(reading)
        self.parked.settle(outcome)
        match asked:
            case Range():
                self.walks.settle(asked, reading)
            case Keys() | None:
                pass
        self._settled = position
        if position:
            self._beat_at = began
