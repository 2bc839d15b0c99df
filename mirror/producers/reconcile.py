"""The producer of proofs: cuts a table into slices, lets the target check the digest of each, and looks at the rows
only where it differs.

    compare every slice  ->  explain those that differ, row by row  ->  the brake  ->  the one operation

Every check happens in the transaction that brings the target to the snapshot the digest was taken in, so a difference
is drift, not lag, however busy the source is. Nothing of a table is changed before all of it was compared: only then is
it known how much a repair would delete.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from mirror.batch import Outcome, Reading
from mirror.producers.findings import ALL_TABLES, Finished, Order, State, TableReport
from mirror.scope import Key, Range, Slice, Wide

SLICE_MIN, SLICE_START, SLICE_MAX = 200, 2_000, 20_000
SLICE_SECONDS = 0.005  # what a slice may take, on both sides together: live changes come first,
SLICE_QUIET_SECONDS, QUIET_S = 0.025, 1.0  # and when there were none for so long
SAMPLES_MAX = 100
BRAKE_ROWS = 100
UNREADABLE_TRIES = 5


class _Run:
    """One order under way: which table, which phase, how far."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.left = deque(order.tables)
        self.reports: dict[str, TableReport] = {}
        self.since: str | None = None
        self.upto: str | None = None
        self.braked = False
        self.marks: list[tuple[Wide, str]] = []
        self._begin()

    def _begin(self) -> None:
        self.phase: Literal["compare", "explain", "repair"] = "compare"
        self.after: Key = (None, None)  # up to here it was compared,
        self.read_to: Key = (None, None)  # and up to here read: the next slice, while the target checks the one before
        self.differing: deque[tuple[Key, Key]] = deque()
        self.to_repair: deque[tuple[Key, Key]] = deque()
        self.table_since: str | None = None
        self.deleted = 0
        self.tries = 0
        if self.left:
            self.reports[self.table] = TableReport()

    @property
    def table(self) -> str:
        return self.left[0]

    @property
    def report(self) -> TableReport:
        return self.reports[self.table]

    @property
    def done(self) -> bool:
        return not self.left

    def next(self, digest_rows: int, rows: int) -> Range:
        wide = Wide(self.table)
        match self.phase:
            case "compare":
                return Range(wide, self.read_to, rows=digest_rows, want="digest")
            case "explain":
                after, upto = self.differing[0]
                return Range(wide, after, upto, rows, want="dry")
            case "repair":
                after, upto = self.to_repair[0]
                return Range(wide, after, upto, rows)

    def end_table(self) -> None:
        self.left.popleft()
        self._begin()

    def fail_table(self, reason: str) -> None:
        """Tried again a few times; then the other tables go on."""
        self.tries += 1
        if self.tries >= UNREADABLE_TRIES:
            self.report.unreadable = reason
            self.end_table()

    def settle(self, asked: Range, reading: Reading, outcome: Outcome, brake_share: float) -> None:
        broken = reading.broken.get(asked.table) or (reading.slice or {}).get("error")
        if broken is not None:
            self.fail_table(str(broken))
            return
        if reading.slice is None:
            return
        self.tries = 0
        self.since = self.since or reading.snapshot
        self.table_since = self.table_since or reading.snapshot
        self.upto = reading.snapshot
        self.report.expected |= any(wide.table == asked.table for wide in reading.wide)
        ended: Key = (reading.slice["upto1"], reading.slice["upto2"])
        match self.phase:
            case "compare":
                self._compared(asked, reading, outcome, ended)
            case "explain":
                self._explained(asked, reading, outcome, ended)
            case "repair":
                self._repaired(asked, outcome, ended)
        self._advance(brake_share)

    def go_on(self, asked: Range, reading: Reading) -> bool:
        """May the slice behind this one be read before the target has checked it?"""
        piece = reading.slice
        if asked.want != "digest" or piece is None or "error" in piece or piece["upto1"] is None or reading.backlog:
            return False
        self.read_to = (piece["upto1"], piece["upto2"])
        return True

    def _compared(self, asked: Range, reading: Reading, outcome: Outcome, ended: Key) -> None:
        if asked.after != self.after:
            return  # read ahead of a slice that has to be compared again
        self.read_to = asked.after
        if reading.backlog or outcome.check is None or reading.slice is None:
            return  # not comparable: the target is not at this snapshot; the same slice again
        check = reading.slice["check"]
        self.report.rows += int(check["n"])
        self.report.digest ^= int(check["digest"])
        self.report.target_rows += int(outcome.check["n"])
        if not outcome.check["equal"]:
            self.differing.append((asked.after, ended))
        elif self.order.rewrite:
            self.to_repair.append((asked.after, ended))
        self.after = self.read_to = ended
        if ended[0] is None:
            self.phase = "explain"

    def _explained(self, asked: Range, reading: Reading, outcome: Outcome, ended: Key) -> None:
        if reading.backlog or any(wide.table == asked.table and wide.trip is not None for wide in reading.wide):
            return  # what the target lacks may still be on its way
        found = outcome.explained[0]
        report = self.report
        report.parked += found["parked"]
        report.missing += found["missing"]
        report.extra += found["extra"]
        report.changed += found["changed"]
        report.differences += found["rows"][: SAMPLES_MAX - len(report.differences)]
        _, upto = self.differing.popleft()
        # A mark says that something is new here: a parked key may fit by now, so it is tried at once.
        anew = self.order.rewrite or self.order.reason == "mark"
        if anew or any(found[way] for way in ("missing", "extra", "changed", "refused")):
            self.to_repair.append((asked.after, ended if ended[0] is not None else upto))
        if ended[0] is not None and ended != upto:
            self.differing.appendleft((ended, upto))  # it held more than fits one batch

    def _repaired(self, asked: Range, outcome: Outcome, ended: Key) -> None:
        self.deleted += outcome.counts.get(asked.table, {}).get("delete", 0)
        _, upto = self.to_repair.popleft()
        if ended[0] is not None and ended != upto:
            self.to_repair.appendleft((ended, upto))

    def _advance(self, brake_share: float) -> None:
        """On to the next phase, or the next table, when this one is through."""
        if self.phase == "explain" and not self.differing:
            if not self.order.repair:
                self.end_table()
                return
            self.phase = "repair"
        if self.phase == "repair" and self._is_too_much(brake_share):
            self.report.braked = self.braked = True
            self.end_table()
        elif self.phase == "repair" and not self.to_repair:
            self.report.repaired = True
            if self.table_since is not None:
                self.marks.append((Wide(self.table), self.table_since))
            self.end_table()

    def _is_too_much(self, brake_share: float) -> bool:
        """The brake: for what was found, and once more for what is really deleted, since the source may have been
        emptied after we looked."""
        allowed = max(BRAKE_ROWS, brake_share * self.report.target_rows)
        return not self.order.force and max(self.report.extra, self.deleted) > allowed


class Reconcile:
    """At most one order is under way; others wait their turn, equal ones once."""

    def __init__(
        self, *, rows_per_s: float, brake_share: float, rows: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rows_per_s = rows_per_s
        self._brake_share = brake_share
        self._rows = rows
        self._clock = clock
        self._waiting: deque[Order] = deque()
        self._run: _Run | None = None
        self._digest_rows = SLICE_START
        self._not_before = self._live_at = float("-inf")
        self._finished: list[tuple[Wide, str]] = []
        self.braked: dict[str, TableReport] = {}
        self._ended: list[Finished] = []
        self._seen: dict[str, int] = {}  # how many rows the last run found, for progress bars
        self.checked: dict[str, int] = dict.fromkeys(ALL_TABLES, 0)

    def want(self, order: Order) -> None:
        same = [o for o in self._waiting if o.request is None and order.request is None and o.tables == order.tables]
        if not same:
            self._waiting.append(order)

    @property
    def busy(self) -> bool:
        return self._run is not None or bool(self._waiting)

    @property
    def known_requests(self) -> set[int]:
        orders = [*self._waiting, *([self._run.order] if self._run else [])]
        return {order.request for order in orders if order.request is not None}

    def covers(self, table: str) -> bool:
        """Is a whole-table mark of this table in hand already: being compared, or stopped by the brake?"""
        running = self._run is not None and table in self._run.left and self._run.order.repair
        return table in self.braked or running or any(table in o.tables and o.repair for o in self._waiting)

    @property
    def forget(self) -> tuple[tuple[Wide, str], ...]:
        return tuple(self._finished)

    def forgotten(self) -> None:
        self._finished = []

    def progress(self) -> dict[str, Any] | None:
        run = self._run
        if run is None or run.done:
            return None
        checked = sum(report.rows for report in run.reports.values())
        expected = sum(self._seen.get(table, 0) for table in run.order.tables)
        return {"table": run.table, "phase": run.phase, "rows_checked": checked, "rows_expected": expected}

    @property
    def running(self) -> Order | None:
        return self._run.order if self._run else None

    def wait_s(self) -> float:
        """How long the next slice has to wait for the sake of its rate."""
        return max(0.0, self._not_before - self._clock())

    def is_held_up(self, skip: tuple[str, ...]) -> bool:
        """Its table cannot be read for now."""
        return self._run is not None and self._run.table in skip

    def next_slice(self, skip: tuple[str, ...]) -> Range | None:
        if self.wait_s() > 0:
            return None
        if self._run is None and self._waiting:
            self._run = _Run(self._waiting.popleft())
        if self._run is None or self._run.table in skip:
            return None
        return self._run.next(self._digest_rows, self._rows)

    def go_on(self, asked: Slice | None, reading: Reading, began: float) -> bool:
        """While the target checks a slice, the next one is read; unless it would have to wait for its rate."""
        run = self._run
        if run is None or run.done or not isinstance(asked, Range) or asked.table != run.table:
            return False
        rows = int((reading.slice or {}).get("rows", 0))
        self._not_before = began + rows / self._rows_per_s
        return self.wait_s() == 0 and asked.after == run.read_to and run.go_on(asked, reading)

    def settle(self, asked: Slice, reading: Reading, outcome: Outcome, spent_s: float) -> None:
        run = self._run
        if run is None or run.done or not isinstance(asked, Range) or asked.table != run.table:
            return
        rows = int((reading.slice or {}).get("rows", 0))
        if reading.entries:
            self._live_at = self._clock()
        self._pace(asked, rows, spent_s)
        self.checked[asked.table] += rows
        run.settle(asked, reading, outcome, self._brake_share)
        self._finish_if_done(run)

    def cancel(self, request: int) -> None:
        self._waiting = deque(o for o in self._waiting if o.request != request)
        if self._run is not None and self._run.order.request == request:
            self._run = None

    def take_ended(self) -> tuple[Finished, ...]:
        ended, self._ended = tuple(self._ended), []
        return ended

    def reset(self) -> None:
        """After a failure: what is under way begins again, for nobody knows what happened in between."""
        if self._run is not None:
            self._waiting.appendleft(self._run.order)
            self._run = None
        self._finished = []

    def _pace(self, asked: Range, rows: int, spent_s: float) -> None:
        self._not_before = self._clock() - spent_s + rows / self._rows_per_s
        if asked.want == "digest" and rows:
            quiet = self._clock() - self._live_at > QUIET_S
            ideal = rows * (SLICE_QUIET_SECONDS if quiet else SLICE_SECONDS) / max(spent_s, 1e-4)
            gently = (self._digest_rows + ideal) / 2
            self._digest_rows = int(min(SLICE_MAX, max(SLICE_MIN, gently if quiet else min(gently, ideal))))

    def _finish_if_done(self, run: _Run) -> None:
        self._finished += run.marks
        for wide, _ in run.marks:
            self.braked.pop(wide.table, None)
        run.marks = []
        if not run.done:
            return
        for table, report in run.reports.items():
            self._seen[table] = report.rows
            if report.braked:
                self.braked[table] = report
            elif report.equal:
                self.braked.pop(table, None)
        failed = any(report.unreadable for report in run.reports.values())
        state: State = "braked" if run.braked else "failed" if failed else "done"
        self._ended.append(Finished(run.order, state, run.reports, run.since, run.upto))
        self._run = None
