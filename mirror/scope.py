"""What a batch may be about, beyond the exact keys in the outbox: names of keys, never events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Key = tuple[str | None, str | None]

Want = Literal["rows", "digest", "dry"]


@dataclass(frozen=True, slots=True)
class Wide:
    """More than one batch can hold: a whole table, or all memberships of a large trip."""

    table: str
    trip: str | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """The next rows of a wide scope in key order, after a key, up to another. `rows`: they become the target's;
    `digest`: the target checks its own; `dry`: the target says what differs and changes nothing."""

    wide: Wide
    after: Key = (None, None)
    upto: Key = (None, None)
    rows: int = 5000
    want: Want = "rows"

    @property
    def table(self) -> str:
        return self.wide.table

    def request(self) -> dict[str, Any]:
        return {
            "want": self.want,
            "table": self.wide.table,
            "trip": self.wide.trip,
            "after1": self.after[0],
            "after2": self.after[1],
            "upto1": self.upto[0],
            "upto2": self.upto[1],
            "rows": self.rows,
        }


@dataclass(frozen=True, slots=True)
class Keys:
    """A few exact keys of one table."""

    table: str
    keys: tuple[tuple[str, str | None], ...]

    def request(self) -> dict[str, Any]:
        return {
            "want": "keys",
            "table": self.table,
            "keys1": [k for k, _ in self.keys],
            "keys2": [k for _, k in self.keys],
        }


@dataclass(frozen=True, slots=True)
class OfUser:
    """All memberships of one user."""

    user: str
    table: str = "trip_memberships"

    def request(self) -> dict[str, Any]:
        return {"want": "user", "table": self.table, "user": self.user}


Slice = Range | Keys | OfUser
