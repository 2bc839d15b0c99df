"""/api/status: everything that the daemon knows of itself, for the status page and for programs."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from mirror import __version__
from mirror.ops.history import INTERVAL_S, History, seconds
from mirror.ops.record import Record
from mirror.ops.vitals import Vitals
from mirror.producers.findings import ALL_TABLES


def report(vitals: Vitals, record: Record, history: History, *, since: float) -> dict[str, Any]:
    """All ages in seconds as of now; None is "not known"."""
    reasons = vitals.why_not_ready()
    return {
        "version": __version__,
        "now": round(time.time(), 3),
        "state": "leading" if vitals.leader else "standby" if vitals.standby else "starting",
        "verdict": verdict(vitals),
        "waits_for": vitals.waits_for if vitals.standby else None,
        "ready": not reasons,
        "reasons": reasons,
        "staleness_seconds": None if vitals.standby else seconds(vitals.staleness_s),
        "lag_seconds": None if vitals.standby else seconds(vitals.lag_s),
        "stale_after_seconds": vitals.stale_after_s,
        "doorbell": vitals.doorbell_proven,
        "channels": None if vitals.standby else vitals.channels,
        "epoch": record.epoch or None,
        "outbox": {"entries": vitals.outbox_entries, "bytes": vitals.outbox_bytes},
        "tables": {table: _table(table, vitals, record) for table in ALL_TABLES},
        "proof": record.proof,
        "drift": [asdict(drift) for drift in record.drift],
        "errors": [asdict(trouble) for trouble in record.errors],
        "resync": record.resync,
        "history": {"interval_seconds": INTERVAL_S, "points": history.since(since)},
    }


def verdict(vitals: Vitals) -> str:
    if vitals.standby:
        return "standby"
    if vitals.staleness_s == float("inf"):
        return "not primed" if vitals.leader and not vitals.primed else "unknown"
    return "stale" if vitals.staleness_s > vitals.stale_after_s else "fresh"


def _table(table: str, vitals: Vitals, record: Record) -> dict[str, Any]:
    proven = record.proof["tables"].get(table) if record.proof else None
    return {
        "rows": proven["rows"] if proven else None,
        "parked": vitals.parked.get(table, 0),
        "broken": vitals.broken.get(table),
        "braked": record.braked.get(table),
        "upserted": record.upserted[table],
        "deleted": record.deleted[table],
    }
