"""THE operation: make the target equal to the source within a scope.

    fence  ->  one snapshot of the source  ->  one transaction in the target  ->  forget exactly what was applied

The fence is taken before the snapshot, so a daemon that was paused in between can never write what it read: somebody
newer has claimed. Whatever fails, nothing is sent again; the daemon claims a new epoch and reads anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from mirror.allowance import Allowance
from mirror.batch import Fence, Outcome, Reading, Request, Taken
from mirror.errors import LOCKED, TOO_LARGE, Refused
from mirror.pace import Pace
from mirror.producers.findings import Finished, Order
from mirror.producers.outbox import Outbox
from mirror.producers.parked import Parked
from mirror.producers.reconcile import Reconcile
from mirror.producers.requests import Requests
from mirror.producers.resync import Resync
from mirror.producers.walk import Walks
from mirror.scope import Keys, Range, Slice, Wide
from mirror.tables import TABLES

BYTES_MAX = 4_000_000
_TABLES = frozenset(table.name for table in TABLES)


class SliceProducer(Protocol):
    """Who names slices: one at a time, settled when it is applied."""

    def next_slice(self, skip: tuple[str, ...]) -> Slice | None: ...

    def settle(self, asked: Slice, reading: Reading, outcome: Outcome, spent_s: float, /) -> None: ...


class Source(Protocol):
    async def drain(self, request: Request) -> Reading: ...

    async def assure_lead(self) -> None: ...


class Target(Protocol):
    @property
    def seconds_aimed(self) -> float: ...

    def next_fence(self) -> Fence: ...

    async def apply(
        self, reading: Reading, fence: Fence, *, position: bool, began: float, notes: Mapping[str, Any]
    ) -> Outcome: ...


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
    finished: tuple[Finished, ...] = ()

    @property
    def worked(self) -> bool:
        """There may be more: look again before sleeping."""
        return self.reading.entries > 0 or self.reading.slice is not None or self.reading.backlog


@dataclass(frozen=True, slots=True)
class _Look:
    """What one snapshot said, and to whom."""

    fence: Fence
    began: float
    skip: tuple[str, ...]
    producer: SliceProducer | None
    asked: Slice | None
    reading: Reading
    read_at: float

    @property
    def rows(self) -> int:
        """What the target has to work on, roughly: rows that are only checked do not count."""
        if isinstance(self.asked, Keys):
            return self.reading.keys + len(self.asked.keys)
        sliced = isinstance(self.asked, Range) and self.asked.want == "rows" and self.reading.slice is not None
        return self.reading.keys + (int((self.reading.slice or {}).get("rows", 0)) if sliced else 0)


class Applier:
    def __init__(
        self,
        *,
        rows: int,
        heartbeat_s: float,
        brake_share: float = 0.2,
        reconcile_rows_per_s: float = 200_000.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowance = Allowance(rows, BYTES_MAX)
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._pace = Pace()
        self.outbox = Outbox(clock)
        self.parked = Parked(clock)
        self.resync = Resync(rows)
        self.walks = Walks(rows)
        self.reconcile = Reconcile(rows_per_s=reconcile_rows_per_s, brake_share=brake_share, rows=rows, clock=clock)
        self.requests = Requests(self.reconcile, self.resync, clock)
        self._producers: tuple[SliceProducer, ...] = (self.parked, self.resync, self.walks, self.reconcile)
        self._empty: set[str] = set()  # tables that the target has nothing of: loaded, not compared
        self._found: dict[str, Any] = {}  # by comparisons, and the doubts: goes with the next batch
        self._beside: dict[str, Any] = {}  # what can wait for one
        self._to_prove = False  # the first load is not compared yet
        self._marked = False  # whole tables wait to be compared, so the last reading was no position
        self._settled = False  # the target's position is that of the last reading
        self._beat_at = -heartbeat_s
        self._ahead: asyncio.Task[_Look] | None = None

    async def step(self, source: Source, target: Target, *, may_sleep: bool) -> Step:
        ahead, self._ahead = self._ahead, None
        look = await (ahead or self._look(source, target, may_sleep=may_sleep))
        reading, asked = look.reading, look.asked
        self._read(look)
        position = reading.complete and not look.skip
        outcome, left_out, sent_at, ended_at = None, False, look.read_at, look.read_at
        due = bool(self._found) or self.parked.wants() or (position and self._is_due(look.began))
        if reading.scopes or asked is not None or due:
            # What was read ahead may be old by now. Asked before the next one is read, which keeps the session busy.
            await source.assure_lead()
            notes = self._notes(look)  # before reading ahead, which moves the walks on
            self._read_ahead(source, target, look)
            sent_at = self._clock()
            try:
                outcome = await self._apply(target, look, position=position, notes=notes)
            except Refused as error:
                self._leave_out(error)
                left_out = True
            ended_at = self._clock()
        if not left_out:
            self.outbox.settle(reading)
        if look.producer is not None and asked is not None and outcome is not None:
            look.producer.settle(asked, reading, outcome, look.read_at - look.began + ended_at - sent_at)
        finished = self.reconcile.take_ended()
        self._keep(finished, reading)
        self.requests.settle(finished)
        return Step(
            reading=reading,
            outcome=outcome,
            position=position and not left_out,
            began=look.began,
            read_s=look.read_at - look.began,
            apply_s=ended_at - look.read_at,
            skipped=look.skip,
            walked=asked.wide if isinstance(asked, Range) and asked.want == "rows" and reading.slice else None,
            finished=finished,
        )

    def _read_ahead(self, source: Source, target: Target, look: _Look) -> None:
        """In a backlog, and during a walk or a comparison, the next batch is read while this one
        is applied: both servers are busy.

        It is as if it were read afterwards. Its fence is newer, and taken before its snapshot; its batch is applied
        second, or not at all: when the first apply fails, it is thrown away. What it leaves out is what this batch has
        in hand, by the entries' ids: whatever changed those keys since has entries of its own, which this snapshot did
        not show and the next one does. So it is complete, and a position, if nothing else is left; and this batch's
        entries are forgotten by the look after that, when they are applied. A revocation that is found now waits for
        the one batch that is under way."""
        if self.outbox.locked:
            return  # a batch that the target has no room for is read again as a whole
        went_on = look.producer is self.walks and self.walks.go_on(look.asked, look.reading)
        if look.producer is self.reconcile:
            went_on = self.reconcile.go_on(look.asked, look.reading, look.began)
        if went_on or self._pace.crowded:
            # A slice in hand is not asked for again.
            ahead = self._look(source, target, in_hand=look.reading.taken, slices=went_on or look.asked is None)
            self._ahead = asyncio.create_task(ahead)

    async def _look(
        self,
        source: Source,
        target: Target,
        *,
        may_sleep: bool = False,
        in_hand: Taken | None = None,
        slices: bool = True,
    ) -> _Look:
        """One snapshot of the source."""
        fence = target.next_fence()
        began = self._clock()
        skip = self.outbox.skip()
        producer, asked = self._choose(skip) if slices else (None, None)
        request = self._request(may_sleep, began, skip, asked, in_hand)
        reading = await source.drain(request)
        self.outbox.forgotten(request.forget)
        return _Look(fence, began, skip, producer, asked, reading, self._clock())

    async def _apply(self, target: Target, look: _Look, *, position: bool, notes: dict[str, Any]) -> Outcome:
        sent_at = self._clock()
        try:
            outcome = await target.apply(look.reading, look.fence, position=position, began=look.began, notes=notes)
        except Refused as error:
            if error.sqlstate == TOO_LARGE:
                self._allowance.too_large(len(look.reading.scopes))
            raise
        finally:
            self._allowance.applied(look.rows, self._clock() - sent_at, target.seconds_aimed)
        self._found, self._beside = {}, {}
        self._empty -= outcome.counts.keys()
        self.outbox.written(look.skip)
        self._settled = position
        self.outbox.position = look.reading.snapshot if position else None
        if position:
            self._beat_at = look.began
            if self._to_prove:
                self._to_prove = False
                self.reconcile.want(Order("start"))
        self.parked.note(outcome, notes["due"])
        return outcome

    def _leave_out(self, error: Refused) -> None:
        """A table that others have locked in the target. Nothing of this batch was applied: the other tables go on in
        the next one, without it. What was read ahead relies on this batch: then all starts over, without that table."""
        if error.sqlstate != LOCKED or error.about not in _TABLES:
            raise error
        self.outbox.locked_out(error.about, error.hint)
        self._pace = Pace()  # what comes first was read, and not applied
        if self._ahead is not None:
            raise error

    async def rest(self) -> None:
        """Nothing is read ahead any more: due before another `begin`, whatever ended the last one."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)  # whatever it was, nobody waits for it

    def begin(self, *, empty: tuple[str, ...], walks: tuple[dict[str, Any], ...], prove: bool = False) -> None:
        """A new epoch: what was read before is not known to be applied. Walks are as far as the target says. `prove`:
        compare as soon as the target is at a position, with which the first load is through."""
        self.outbox.reset()
        self._pace = Pace()  # what comes first is not known to be applied either
        self.parked.reset()
        self.resync.reset()
        self.requests.reset()
        self.reconcile.reset()
        self.walks.restore(walks)
        self._empty = set(empty)
        self._found, self._beside = {}, {}
        self._settled = False
        self._to_prove = prove

    def tell(self, name: str, what: Any, *, soon: bool) -> None:
        """Goes with the next batch; `soon`: there will be one for its sake."""
        self._beside.pop(name, None)
        (self._found if soon or name in self._found else self._beside)[name] = what

    def want_position(self) -> None:
        """The next turn tells the target its position, also when nothing has changed: somebody waits for it."""
        self._settled = False

    def until_due(self) -> float:
        """Until time alone is a reason to look: the heartbeat, or, while that is impossible, the next attempt at the
        tables that could not be read; tables that are to be compared again; a reconcile that keeps to its rate. Not at
        all, when the last look before sleeping has found what to do: who asked for it did not ring."""
        skip = self.outbox.skip()
        if self.resync.next_slice(skip) or self.walks.next_slice(skip) or self.parked.is_due(skip):
            return 0.0
        impossible = self.outbox.broken or self.outbox.locked or self._marked
        at = self.outbox.retry_at() if impossible else self._beat_at + self._heartbeat_s
        due = min(max(0.0, at - self._clock()), self.reconcile.again_in_s())
        if self.reconcile.busy and not self.reconcile.is_held_up(skip):
            return min(due, self.reconcile.wait_s())
        return due

    def _choose(self, skip: tuple[str, ...]) -> tuple[SliceProducer | None, Slice | None]:
        """The next slice of somebody who has one; in a backlog only now and then."""
        if not self._pace.takes_slice():
            return None, None
        for producer in self._producers:
            chosen = producer.next_slice(skip)
            if chosen is not None:
                return producer, chosen
        return None, None

    def _request(
        self, may_sleep: bool, now: float, skip: tuple[str, ...], asked: Slice | None, in_hand: Taken | None
    ) -> Request:
        return Request(
            rows=self._allowance.rows,
            bytes=self._allowance.bytes_max,
            entries=self._allowance.entries,
            sleep=may_sleep,
            forget=self.outbox.forget,
            reached=self.outbox.note(),
            in_hand=in_hand,
            forget_wide=self.walks.forget + self.reconcile.forget,
            skip=skip,
            left=self.reconcile.left,
            slice=self._bounded(asked),
            count=self._pace.counts(now),
            backlog=self._pace.backlog,
            seek=self._pace.seeks(now),
            seen=self._pace.seen,
        )

    def _read(self, look: _Look) -> None:
        """Takes note of a reading, before it is applied; returns the tables that have newly become unreadable."""
        reading, skip = look.reading, look.skip
        asked = look.asked if look.producer in (self.walks, self.reconcile) else None
        self.walks.forgotten()
        self.reconcile.forgotten()
        self._allowance.read(len(reading.scopes), reading.entries, reading.keys)
        self._pace.read(reading)
        self._marked = bool(reading.wide)
        self.outbox.read(reading, skip)
        if asked is not None and reading.slice is not None and "error" in reading.slice:
            self.outbox.broke(asked.table, str(reading.slice["error"]))
        self.walks.read(reading, skip)
        self.requests.read(reading.requests)
        for wide in reading.wide:
            if self.walks.covers(wide):
                continue
            if wide.trip is not None or wide.table in self._empty:
                self._empty.discard(wide.table)
                self.walks.begin(wide, reading.snapshot)
            elif not self.reconcile.covers(wide.table):
                self.reconcile.want(Order("mark", (wide.table,)))

    def _bounded(self, asked: Slice | None) -> Slice | None:
        """Rows of a slice are rows to be applied; a digest is only checked, and has a pace of its own."""
        if isinstance(asked, Range) and asked.want != "digest":
            return replace(asked, rows=min(asked.rows, self._allowance.rows))
        if isinstance(asked, Keys):
            return replace(asked, keys=asked.keys[: self._allowance.rows])
        return asked

    def _notes(self, look: _Look) -> dict[str, Any]:
        """What goes with the batch besides rows."""
        notes: dict[str, Any] = {"due": self.parked.asks()}
        asked = look.asked
        if isinstance(asked, Range) and look.producer is self.walks:
            notes["walks"] = self.walks.document(asked, look.reading)
        if isinstance(asked, Range) and asked.want == "dry":
            notes["explain"] = True
        return notes | self._beside | self._found

    def _keep(self, finished: tuple[Finished, ...], reading: Reading) -> None:
        """What comparisons found, for whoever asks the target: the proof, and the tables that the brake has stopped."""
        for end in finished:
            if end.proves:
                self._found["proof"] = end.certificate() | {"at": reading.as_of, "reason": end.order.reason}
            if end.order.repair:
                braked = self.reconcile.braked.items()
                self._found["braked"] = {t: {"rows": r.target_rows, "would_delete": r.extra} for t, r in braked}

    def _is_due(self, now: float) -> bool:
        """An empty batch that moves the position: the first after a time without one, and the heartbeat."""
        return not self._settled or now - self._beat_at >= self._heartbeat_s
