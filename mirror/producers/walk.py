"""The producer of wide scopes that are sent as they are, in bounded slices in key order: the first load of an empty
table, and a large trip. (A marked table of which the target has rows is compared instead: producers/reconcile.py.)

How far a walk is, is kept in the target by the transaction that takes it there: an interrupted first load goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mirror.batch import Outcome, Reading
from mirror.scope import Range, Slice, Wide
from mirror.tables import TABLES

_ORDER: dict[str, int] = {table.name: i for i, table in enumerate(TABLES)}


@dataclass(frozen=True, slots=True)
class Walk:
    """`since`: the snapshot in which its marks were seen; all rows are read later, so those marks are settled by it."""

    wide: Wide
    since: str
    after: tuple[str | None, str | None] = (None, None)
    rows: int = 0


def _moved(walk: Walk, asked: Range, reading: Reading) -> Walk | None:
    """Where a walk is after this slice; None at its end."""
    if reading.slice is None or "error" in reading.slice or walk.wide != asked.wide or walk.after != asked.after:
        return walk
    if reading.slice["upto1"] is None:
        return None
    upto = (reading.slice["upto1"], reading.slice["upto2"])
    return replace(walk, after=upto, rows=walk.rows + int(reading.slice["rows"]))


class Walks:
    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._walks: list[Walk] = []
        self._finished: list[tuple[Wide, str]] = []

    def __len__(self) -> int:
        return len(self._walks)

    @property
    def forget(self) -> tuple[tuple[Wide, str], ...]:
        return tuple(self._finished)

    def forgotten(self) -> None:
        self._finished = []

    def next_slice(self, skip: tuple[str, ...]) -> Range | None:
        """Parents first, for the sake of foreign keys in adopted tables."""
        ready = [walk for walk in self._walks if walk.wide.table not in skip]
        if not ready:
            return None
        walk = min(ready, key=lambda w: _ORDER[w.wide.table])
        return Range(walk.wide, walk.after, rows=self._rows)

    def document(self, asked: Range, reading: Reading) -> list[dict[str, Any]]:
        """How far all walks will be once this reading is applied."""
        moved = [m for walk in self._walks if (m := _moved(walk, asked, reading)) is not None]
        return [
            {"table": w.wide.table, "trip": w.wide.trip, "since": w.since, "after": w.after, "rows": w.rows}
            for w in moved
        ]

    def restore(self, document: tuple[dict[str, Any], ...]) -> None:
        """As far as the target says. Walks whose marks are gone end at the first reading."""
        self._walks = [
            Walk(Wide(w["table"], w["trip"]), w["since"], (w["after"][0], w["after"][1]), w["rows"]) for w in document
        ]
        self._finished = []

    def covers(self, wide: Wide) -> bool:
        return any(walk.wide == wide for walk in self._walks)

    def begin(self, wide: Wide, since: str) -> None:
        self._walks.append(Walk(wide, since))

    def read(self, reading: Reading, skipped: tuple[str, ...]) -> None:
        """A mark that is gone (somebody else settled it) ends its walk."""
        unreadable = {*skipped, *reading.broken}
        self._walks = [
            w for w in self._walks if w.wide in reading.wide or w.wide.table in unreadable or reading.backlog
        ]

    def go_on(self, asked: Slice | None, reading: Reading) -> bool:
        """Before the slice is applied: may the one behind it be read already? Not when this was the last, whose marks
        must not be forgotten before it is applied. If the apply fails, restore() takes us back."""
        if asked is None or reading.slice is None or reading.slice.get("upto1") is None:
            return False
        self.settle(asked, reading, Outcome(), 0.0)
        return True

    def settle(self, asked: Slice, reading: Reading, _outcome: Outcome, _spent_s: float) -> None:
        """The slice is applied: go on behind it, or the walk is through and its marks can be forgotten."""
        if not isinstance(asked, Range):
            return
        moved = [(walk, _moved(walk, asked, reading)) for walk in self._walks]
        self._finished += [(walk.wide, walk.since) for walk, after in moved if after is None]
        self._walks = [after for _, after in moved if after is not None]
