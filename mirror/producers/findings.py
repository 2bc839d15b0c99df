"""What a comparison is asked to do, and what it found: values, without the how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mirror.batch import Aside
from mirror.tables import TABLES

ALL_TABLES = tuple(table.name for table in TABLES)
Reason = Literal["start", "schedule", "triggers", "mark", "again", "resync", "verify"]
State = Literal["done", "braked", "failed"]


@dataclass(frozen=True, slots=True)
class Order:
    """What to compare, and what may be done about it."""

    reason: Reason
    tables: tuple[str, ...] = ALL_TABLES
    repair: bool = True
    rewrite: bool = False
    force: bool = False
    request: int | None = None


@dataclass
class TableReport:
    """What comparing one table found, and what became of it."""

    rows: int = 0
    target_rows: int = 0
    digest: int = 0
    missing: int = 0
    extra: int = 0
    changed: int = 0
    aside: Aside = field(default_factory=Aside)  # differ for a known reason: they are parked
    repaired: bool = False
    braked: bool = False
    unreadable: str = ""
    expected: bool = False  # a mark, or an earlier comparison, told of the differences: they are not counted as drift
    differences: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def parked(self) -> int:
        return self.aside.n

    @property
    def drift(self) -> int:
        return self.missing + self.extra + self.changed

    @property
    def equal(self) -> bool:
        """But for rows that are parked: who says "equal" says how many."""
        return not self.unreadable and (self.drift == 0 or self.repaired)

    @property
    def hex(self) -> str:
        return f"{self.digest & 0xFFFFFFFFFFFFFFFF:016x}"

    def document(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "target_rows": self.target_rows,
            "digest": self.hex,
            "missing": self.missing,
            "extra": self.extra,
            "changed": self.changed,
            "parked": self.parked,
            "parked_rows": list(self.aside.rows),
            "repaired": self.repaired and self.drift > 0,
            "braked": self.braked,
            "unreadable": self.unreadable,
            "differences": self.differences,
        }


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an order."""

    order: Order
    state: State
    tables: Mapping[str, TableReport]
    since: str | None
    upto: str | None

    @property
    def proves(self) -> bool:
        """All three tables are equal to the source now, but for the rows that are parked."""
        return set(self.tables) == set(ALL_TABLES) and all(report.equal for report in self.tables.values())

    @property
    def parked(self) -> int:
        return sum(report.parked for report in self.tables.values())

    def document(self) -> dict[str, Any]:
        return self._about({name: report.document() for name, report in self.tables.items()})

    def certificate(self) -> dict[str, Any]:
        """What is kept as proof: every slice was equal at a snapshot between these two."""
        tables = {name: {"rows": r.rows, "digest": r.hex, "parked": r.parked} for name, r in self.tables.items()}
        return self._about(tables)

    def _about(self, tables: dict[str, Any]) -> dict[str, Any]:
        return {"since": self.since, "snapshot": self.upto, "tables": tables}
