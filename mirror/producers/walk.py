"""The producer of wide scopes: a whole table or a large trip, worked off in bounded slices in key order. This is how a
TRUNCATE, a broken projection and the first load are brought in."""

from __future__ import annotations

from dataclasses import dataclass

from mirror.batch import Reading
from mirror.scope import Range, Wide
from mirror.tables import TABLES

_ORDER: dict[str, int] = {table.name: i for i, table in enumerate(TABLES)}


@dataclass(frozen=True, slots=True)
class Walk:
    """`since`: the snapshot in which its marks were seen; all rows are read later, so those marks are settled by it."""

    wide: Wide
    since: str
    after: tuple[str | None, str | None] = (None, None)
    rows: int = 0


class Walks:
    def __init__(self) -> None:
        self._walks: list[Walk] = []
        self._finished: list[tuple[Wide, str]] = []

    def __len__(self) -> int:
        return len(self._walks)

    @property
    def forget(self) -> tuple[tuple[Wide, str], ...]:
        return tuple(self._finished)

    def forgotten(self) -> None:
        self._finished = []

    def next_slice(self, rows: int, skip: tuple[str, ...]) -> Range | None:
        """Parents first, for the sake of foreign keys in adopted tables."""
        ready = [walk for walk in self._walks if walk.wide.table not in skip]
        if not ready:
            return None
        walk = min(ready, key=lambda w: _ORDER[w.wide.table])
        return Range(walk.wide, walk.after, rows)

    def read(self, reading: Reading, skipped: tuple[str, ...]) -> None:
        """Begins a walk for each mark that has none; a mark that is gone (somebody else settled it) ends its walk."""
        finished = {wide for wide, _ in self._finished}
        known = {walk.wide for walk in self._walks}
        unreadable = {*skipped, *reading.broken}
        self._walks = [
            w for w in self._walks if w.wide in reading.wide or w.wide.table in unreadable or reading.backlog
        ]
        for wide in reading.wide:
            if wide not in known and wide not in finished:
                self._walks.append(Walk(wide, reading.snapshot))

    def settle(self, asked: Range, reading: Reading) -> None:
        """The slice is applied: go on behind it, or the walk is through and its marks can be forgotten."""
        if reading.slice is None:
            return
        walk = next((w for w in self._walks if w.wide == asked.wide), None)
        if walk is None or walk.after != asked.after:
            return
        self._walks.remove(walk)
        rows = walk.rows + int(reading.slice["rows"])
        upto = (reading.slice["upto1"], reading.slice["upto2"])
        if upto[0] is None:
            self._finished.append((walk.wide, walk.since))
        else:
            self._walks.append(Walk(walk.wide, walk.since, upto, rows))

    def reset(self) -> None:
        self._walks.clear()
        self._finished.clear()
