"""What happened lately, for those who look: errors in plain words, drift, the last proof, how fast it went. Written by
the loop, read by the thread that serves HTTP: what is read is never changed, only replaced (or a deque, taken from the
other end)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from mirror.applier import Applier, Step
from mirror.errors import MirrorError
from mirror.producers.findings import ALL_TABLES, Finished

ERRORS_MAX, DRIFT_MAX, PROPAGATIONS_MAX = 20, 50, 10_000
TEXT_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Trouble:
    """The same again counts; it does not push out what else happened."""

    at: float
    kind: str
    message: str
    cure: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Drift:
    at: float
    table: str
    key: tuple[str | None, str | None]
    direction: str


class Record:
    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self.errors: tuple[Trouble, ...] = ()
        self.drift: tuple[Drift, ...] = ()
        self.proof: Mapping[str, Any] | None = None
        self.resync: Mapping[str, Any] | None = None
        self.braked: Mapping[str, Mapping[str, int]] = {}
        self.propagations: deque[float] = deque(maxlen=PROPAGATIONS_MAX)  # taken by whoever draws them
        self.upserted: dict[str, int] = dict.fromkeys(ALL_TABLES, 0)
        self.deleted: dict[str, int] = dict.fromkeys(ALL_TABLES, 0)
        self.opened = {"source": 0, "target": 0}

    def leads(self, proof: Mapping[str, Any] | None) -> None:
        """`proof`: the last one that the target remembers, by whichever daemon."""
        self.proof = self.proof if proof is None else _proof(proof)

    def failed(self, error: MirrorError) -> None:
        self.trouble(type(error).__name__, error.message, error.hint)

    def trouble(self, kind: str, message: str, cure: str = "") -> None:
        new = Trouble(self._now(), kind, message[:TEXT_MAX], cure[:TEXT_MAX])
        same = next((t for t in self.errors if replace(t, at=new.at, times=1) == new), None)
        others = tuple(t for t in self.errors if t is not same)
        self.errors = (*others, replace(new, times=same.times + 1) if same else new)[-ERRORS_MAX:]

    def observe(self, step: Step, applier: Applier) -> None:
        self.braked = {t: {"rows": r.target_rows, "would_delete": r.extra} for t, r in applier.reconcile.braked.items()}
        self.resync = _progress(applier)
        for finished in step.finished:
            self._finished(finished, step)
        if step.outcome is None:
            return
        for table, ops in step.outcome.counts.items():
            self.upserted[table] += ops.get("upsert", 0)
            self.deleted[table] += ops.get("delete", 0)
        self.propagations.extend(age_s + step.read_s + step.apply_s for age_s in step.reading.ages_s.values())

    def _finished(self, finished: Finished, step: Step) -> None:
        if finished.proves:
            self.proof = _proof(finished.certificate() | {"at": step.reading.as_of, "reason": finished.order.reason})
        at = self._now()
        found = [
            Drift(at, table, (row["k1"], row["k2"]), row["direction"])
            for table, report in finished.tables.items()
            if not report.expected
            for row in report.differences[:DRIFT_MAX]
        ]
        self.drift = (*self.drift, *found)[-DRIFT_MAX:]


def _proof(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "at": datetime.fromisoformat(document["at"]).timestamp(),
        "reason": document["reason"],
        "snapshot": document["snapshot"],
        "tables": {
            t: {"rows": p["rows"], "digest": p["digest"], "parked": p.get("parked", 0)}
            for t, p in document["tables"].items()
        },
    }


def _progress(applier: Applier) -> dict[str, Any] | None:
    running, progress = applier.reconcile.running, applier.reconcile.progress()
    if running is None or progress is None:
        return None
    done, total = progress["rows_checked"], progress["rows_expected"]
    percent = round(min(100.0, 100 * done / total), 1) if total else None
    return {
        "id": running.request,
        "state": "running",
        "reason": running.reason,
        "phase": progress["phase"],
        "table": progress["table"],
        "done_rows": done,
        "total_rows": total or None,
        "percent": percent,
    }
