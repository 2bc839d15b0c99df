"""What a batch may be about, beyond the exact keys in the outbox: names of keys, never events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Wide:
    """A mark of more than one batch can hold: a whole table, or all memberships of a large trip."""

    table: str
    trip: str | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """The next rows of a wide scope in key order, after a key."""

    wide: Wide
    after: tuple[str | None, str | None] = (None, None)
    rows: int = 5000

    def request(self) -> dict[str, Any]:
        return {
            "table": self.wide.table,
            "trip": self.wide.trip,
            "after1": self.after[0],
            "after2": self.after[1],
            "rows": self.rows,
        }


@dataclass(frozen=True, slots=True)
class Keys:
    """A few exact keys of one table."""

    table: str
    keys: tuple[tuple[str, str | None], ...]

    def request(self) -> dict[str, Any]:
        return {"table": self.table, "keys1": [k for k, _ in self.keys], "keys2": [k for _, k in self.keys]}


Slice = Range | Keys
