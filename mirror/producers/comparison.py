"""One comparison under way: which table, which phase, how far.

    compare every slice  ->  explain those that differ, row by row  ->  the brake  ->  the one operation

Nothing of a table is changed before all of it was compared: only then is it known how much a repair would delete.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from mirror.batch import Aside, Outcome, Reading
from mirror.producers.findings import Order, TableReport
from mirror.scope import Key, Range, Wide

SAMPLES_MAX = 100
BRAKE_ROWS = 100
UNREADABLE_TRIES = 5


class Comparison:
    """An order, carried out slice by slice."""

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
        self.aside = Aside()  # what is parked once all is repaired
        self.tries = 0
        if self.left:
            self.reports[self.table] = TableReport(expected=self.order.reason == "again")

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
        aside = Aside(found["parked"], tuple(found.get("parked_rows", ())))  # an older target names none
        report.aside += aside
        report.missing += found["missing"]
        report.extra += found["extra"]
        report.changed += found["changed"]
        report.differences += found["rows"][: SAMPLES_MAX - len(report.differences)]
        _, upto = self.differing.popleft()
        # A mark, or a person, says that something is new here: parked keys may fit by now, and are tried at once.
        anew = self.order.rewrite or self.order.reason == "mark" or (self.order.reason == "resync" and aside.n)
        if anew or any(found[way] for way in ("missing", "extra", "changed", "refused")):
            self.to_repair.append((asked.after, ended if ended[0] is not None else upto))
        else:
            self.aside += aside
        if ended[0] is not None and ended != upto:
            self.differing.appendleft((ended, upto))  # it held more than fits one batch

    def _repaired(self, asked: Range, outcome: Outcome, ended: Key) -> None:
        self.aside += outcome.refused.get(asked.table, Aside())
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
            self.report.aside = self.aside
            if self.table_since is not None:
                self.marks.append((Wide(self.table), self.table_since))
            self.end_table()

    def _is_too_much(self, brake_share: float) -> bool:
        """The brake: for what was found, and once more for what is really deleted, since the source may have been
        emptied after we looked."""
        allowed = max(BRAKE_ROWS, brake_share * self.report.target_rows)
        return not self.order.force and max(self.report.extra, self.deleted) > allowed
