"""The doubts that are open, table by table. What was wrong stays in doubt until it is over AND a comparison that began
later has found, or made, the table equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mirror.applier import Applier, Step
from mirror.batch import Fault
from mirror.doubt import Doubt, Kind, braked, by_weight, doubt, over
from mirror.producers.findings import ALL_TABLES, Finished, Order, TableReport

Place = tuple[Kind, str]
OF_TABLES: tuple[Kind, ...] = ("brake", "unreadable", "capture")


@dataclass(frozen=True, slots=True)
class _Owed:
    """A comparison. `since`: when all was known to be right; `not_by`: the one that was under way when it was over."""

    since: float | None
    not_by: Order | None = None


class OpenDoubts:
    def __init__(self) -> None:
        self._well_at: float | None = None  # the last check of the source that found all well
        self._faults: tuple[Fault, ...] = ()
        self._wrong: dict[Place, Doubt] = {}  # at this moment
        self._owed: dict[Place, _Owed] = {}  # for what is wrong, and what was
        self._whole: dict[Kind, Doubt] = {}  # about no table
        self._locked: tuple[Doubt, ...] = ()  # no position is claimed meanwhile, so nothing has to be compared
        self._orders: list[Order] = []
        self.doubts: tuple[Doubt, ...] = ()

    def take_orders(self) -> tuple[Order, ...]:
        orders, self._orders = tuple(self._orders), []
        return orders

    def claimed(self, inherited: Iterable[Doubt], *, compared: bool, tampered: bool) -> None:
        """What the target says of itself, which the first position ends, and what the daemon before us doubted."""
        for one in inherited:
            if one.kind in OF_TABLES and one.about in ALL_TABLES:
                self._owed.setdefault((one.kind, one.about), _Owed(one.since))
        if tampered:
            self._whole["tampered"] = doubt("tampered", "mirror.state")
        if not compared:
            self._whole["life"] = doubt("life")
        self._gather()

    def checked(self, faults: list[Fault], began: float, running: Order | None) -> None:
        """What the source said is wrong, at `began` or later."""
        fresh = tuple(fault for fault in faults if fault not in self._faults)
        self._faults = tuple(faults)
        captures = {f.table: (f.message, f.cure) for f in faults if f.kind == "capture"}
        if self._are("capture", captures, self._well_at, running) or any(f.kind == "capture" for f in fresh):
            self._orders.append(Order("triggers"))
        self._read({}, self._well_at, running)
        if not faults:
            self._well_at = began
        self._gather()

    def stepped(self, step: Step, applier: Applier, fresh_at: float | None) -> None:
        """`fresh_at`: when all tables could be read for the last time."""
        running, reconcile = applier.reconcile.running, applier.reconcile
        self._read(applier.outbox.broken, fresh_at, running)
        self._locked = tuple(doubt("locked", t, why=why) for t, why in applier.outbox.locked.items())
        unequal = {t: _found(r) for t, r in reconcile.unequal.items() if r.braked or r.drift}
        self._are("brake", unequal, None, None)
        for finished in step.finished:
            self._compared(finished)
        if step.outcome is not None:
            self._whole.pop("clock", None)
            if step.outcome.clock:
                self._whole["clock"] = doubt("clock", why=step.outcome.clock)
            if step.position:
                self._whole.pop("tampered", None)
                self._whole.pop("life", None)
        self._gather()

    def _read(self, broken: Mapping[str, str], since: float | None, running: Order | None) -> None:
        """The applier, and the check of the source, tell which tables cannot be read; the check knows the cure."""
        told = {f.table: (f.message, f.cure) for f in self._faults if f.kind == "unreadable"}
        seen = {table: (reason, "") for table, reason in broken.items()}
        for table in self._are("unreadable", seen | told, since, running):
            self._orders.append(Order("triggers", (table,)))

    def _are(
        self, kind: Kind, wrong: Mapping[str, tuple[str, str]], since: float | None, running: Order | None
    ) -> list[str]:
        """These tables are wrong in this way, and no others. Returns those for which it is over."""
        ended = [place for place in self._wrong if place[0] == kind and place[1] not in wrong]
        for place in ended:
            del self._wrong[place]
            self._owed[place] = replace(self._owed[place], not_by=running)
        for table, (why, cure) in wrong.items():
            owed = self._owed.setdefault((kind, table), _Owed(since))
            self._wrong[kind, table] = doubt(kind, table, since=owed.since, cure=cure, why=why)
        return [table for _, table in ended]

    def _compared(self, finished: Finished) -> None:
        for table, report in finished.tables.items():
            for place in [(kind, table) for kind in OF_TABLES]:
                owed = self._owed.get(place)
                if owed and place not in self._wrong and report.equal and owed.not_by is not finished.order:
                    del self._owed[place]

    def _gather(self) -> None:
        tables = [self._wrong.get(place) or over(*place, owed.since) for place, owed in self._owed.items()]
        self.doubts = by_weight((*self._whole.values(), *self._locked, *tables))


def _found(report: TableReport) -> tuple[str, str]:
    """Why it was not repaired, and the cure."""
    if report.braked:
        return braked(report.extra, report.target_rows), ""
    return f"{report.drift} rows were found by a comparison", "Wait: it is compared again by itself, and repaired."
