"""The producer of proofs: cuts a table into slices, lets the target check the digest of each, and looks at the rows
only where it differs.

Every check happens in the transaction that brings the target to the snapshot the digest was taken in, so a difference
is drift, not lag, however busy the source is.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from mirror.batch import Outcome, Reading
from mirror.producers.comparison import Comparison
from mirror.producers.findings import ALL_TABLES, Finished, Order, State, TableReport
from mirror.scope import Range, Slice, Wide

SLICE_MIN, SLICE_START, SLICE_MAX = 200, 2_000, 20_000
SLICE_SECONDS = 0.005  # what a slice may take, on both sides together: live changes come first,
SLICE_QUIET_SECONDS, QUIET_S = 0.025, 1.0  # and when there were none for so long
AGAIN_MIN_S, AGAIN_FACTOR = 15.0, 10  # what was left unequal is compared again after so many times what that took


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
        self._run: Comparison | None = None
        self._digest_rows = SLICE_START
        self._not_before = self._live_at = float("-inf")
        self._finished: list[tuple[Wide, str]] = []
        # What comparisons found and did not repair (the brake, a table that could not be read, a `verify`), until a
        # later one proves the table.
        self.unequal: dict[str, TableReport] = {}
        self._again_at = float("inf")
        self._spent_s = 0.0  # on the comparison under way
        self._ended: list[Finished] = []
        self._seen: dict[str, int] = {}  # how many rows the last run found, for progress bars

    def want(self, order: Order) -> None:
        same = [o for o in self._waiting if o.request is None and order.request is None and o.tables == order.tables]
        if not same:
            self._waiting.append(order)

    @property
    def busy(self) -> bool:
        return self._run is not None or bool(self._waiting)

    @property
    def braked(self) -> dict[str, TableReport]:
        return {table: report for table, report in self.unequal.items() if report.braked}

    @property
    def left(self) -> tuple[Wide, ...]:
        """Marks that stay where they are until their tables are compared again: no reason to stay awake."""
        return () if self.busy else tuple(Wide(table) for table in self.unequal)

    def again_in_s(self) -> float:
        """Until what was left unequal is compared again; infinity when nothing was."""
        return max(0.0, self._again_at - self._clock())

    @property
    def known_requests(self) -> set[int]:
        orders = [*self._waiting, *([self._run.order] if self._run else [])]
        return {order.request for order in orders if order.request is not None}

    def covers(self, table: str) -> bool:
        """Is a whole-table mark of this table in hand already: being compared, or to be compared again?"""
        running = self._run is not None and table in self._run.left and self._run.order.repair
        waits = table in self.unequal and (self.unequal[table].braked or self.unequal[table].unreadable)
        return bool(waits) or running or any(table in o.tables and o.repair for o in self._waiting)

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
        if not self.busy and self._again_at <= self._clock():
            self._waiting.append(Order("again", tuple(t for t in ALL_TABLES if t in self.unequal)))
        if self._run is None and self._waiting:
            self._run, self._spent_s = Comparison(self._waiting.popleft()), 0.0
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
        self._spent_s += spent_s
        self._pace(asked, rows, spent_s)
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

    def _finish_if_done(self, run: Comparison) -> None:
        self._finished += run.marks
        for wide, _ in run.marks:
            self.unequal.pop(wide.table, None)
        run.marks = []
        if not run.done:
            return
        self._note(run)
        failed = any(report.unreadable for report in run.reports.values())
        state: State = "braked" if run.braked else "failed" if failed else "done"
        self._ended.append(Finished(run.order, state, run.reports, run.since, run.upto))
        self._run = None

    def _note(self, run: Comparison) -> None:
        for table, report in run.reports.items():
            self._seen[table] = report.rows
            if report.equal:
                self.unequal.pop(table, None)
            elif run.order.repair or table not in self.braked:  # looking does not let go of the brake
                self.unequal[table] = report
        if not self.unequal:
            self._again_at = float("inf")
        elif set(run.order.tables) & self.unequal.keys():
            self._again_at = self._clock() + max(AGAIN_MIN_S, AGAIN_FACTOR * self._spent_s)
