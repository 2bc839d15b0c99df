"""The lines of the log, of what happens in the loop."""

from __future__ import annotations

import logging

from mirror.applier import Step
from mirror.doubt import SORTS, Doubt
from mirror.errors import MirrorError, Superseded
from mirror.producers.findings import Finished

log = logging.getLogger(__name__)

DRIFT_LINES = 10  # the request's result has more, the metrics count all


def failed(error: MirrorError) -> None:
    log.warning("stepping aside" if isinstance(error, Superseded) else "starting over", extra={"error": str(error)})


def doubted(new: Doubt) -> None:
    level = logging.WARNING if SORTS[new.kind].ready else logging.ERROR
    log.log(level, "%s", new.reason, extra={"doubt": new.kind, "cure": new.cure})


def no_doubt() -> None:
    log.info("what was in doubt is over, and compared")


def channels_open() -> None:
    log.info("private channels are open")


def stepped(step: Step) -> None:
    for finished in step.finished:
        _finished(finished)
    if step.reading.dropped:
        log.warning(
            "entries of the outbox that no trigger of the mirror has written were dropped",
            extra={"entries": step.reading.dropped},
        )
    if step.outcome is not None and (step.outcome.rows or step.reading.entries or step.walked):
        log.info("batch", extra=_told(step))


def _finished(finished: Finished) -> None:
    found = {name: r.document() | {"differences": None} for name, r in finished.tables.items()}
    brief = {name: {k: v for k, v in d.items() if v} for name, d in found.items()}
    for name, report in finished.tables.items():
        for row in report.differences[:DRIFT_LINES] if not report.expected else ():
            key = "/".join(k for k in (row["k1"], row["k2"]) if k)
            log.warning("drift", extra={"table": name, "key": key, "direction": row["direction"]})
    log.info("reconcile", extra={"reason": finished.order.reason, "result": finished.state, "tables": brief})


def _told(step: Step) -> dict[str, object]:
    reading = step.reading
    counts, parked = (step.outcome.counts, step.outcome.parked) if step.outcome else ({}, {})
    return {
        "entries": reading.entries,
        "rows": {table: "+".join(f"{n} {op}" for op, n in ops.items()) for table, ops in counts.items()},
        "read_ms": round(step.read_s * 1000, 1),
        "apply_ms": round(step.apply_s * 1000, 1),
        "lag_ms": round((reading.lag_s + step.read_s + step.apply_s) * 1000, 1),
        **({"backlog": True} if reading.backlog else {}),
        **({"walk": step.walked.table} if step.walked else {}),
        **({"parked": dict(parked)} if parked else {}),
    }
