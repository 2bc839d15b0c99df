"""/api/status and /readyz: what is known, for the status page and for programs."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from mirror import __version__
from mirror.known import MEANINGS, Known, all_doubts, may_say_equal, not_ready, sentence
from mirror.ops.history import INTERVAL_S, History, seconds
from mirror.ops.record import Record
from mirror.producers.findings import ALL_TABLES

STATES = {"leader": "leading", "standby": "standby"}


def report(known: Known, record: Record, history: History, *, since: float) -> dict[str, Any]:
    """All ages in seconds as of now; None is "not known"."""
    return {
        "version": __version__,
        "now": round(time.time(), 3),
        "state": STATES.get(known.role, "starting"),
        "verdict": known.verdict,
        "waits_for": known.waits_for,
        "words": words(known) | {"proven": _proven(known, record)},
        **ready(known),
        "equal": may_say_equal(known),
        "staleness_seconds": None if known.standby else seconds(known.staleness_s),
        "lag_seconds": None if known.standby else seconds(known.lag_s),
        "stale_after_seconds": known.stale_after_s,
        "doorbell": known.doorbell_proven,
        "channels": None if known.standby else known.channels,
        "epoch": known.epoch or None,
        "life": known.life,
        "outbox": {"entries": known.outbox_entries, "bytes": known.outbox_bytes},
        "tables": {table: _table(table, known, record) for table in ALL_TABLES},
        "proof": record.proof,
        "drift": [asdict(drift) for drift in record.drift],
        "errors": [asdict(trouble) for trouble in record.errors],
        "resync": record.resync,
        "history": {"interval_seconds": INTERVAL_S, "points": history.since(since)},
    }


def ready(known: Known) -> dict[str, Any]:
    """`reasons` are those that keep it from being ready, `doubts` are all, with their cures."""
    reasons = [d.reason for d in not_ready(known)]
    return {"ready": not reasons, "reasons": reasons, "doubts": [d.document() for d in all_doubts(known)]}


def words(known: Known) -> dict[str, str]:
    """For people: the page shows them as they are."""
    said = sentence(known, "Supabase", "your primary")
    return {"sentence": said[:1].upper() + said[1:], "meaning": MEANINGS[known.verdict]}


def _proven(known: Known, record: Record) -> str:
    """What was compared by the last proof; of rows that are left out it was not every row."""
    then = sum(table["parked"] for table in record.proof["tables"].values()) if record.proof else 0
    parked = max(then, known.parked_rows)
    return f"all three tables, but not the {parked} rows that are parked" if parked else "every row of all three tables"


def _table(table: str, known: Known, record: Record) -> dict[str, Any]:
    proven = record.proof["tables"].get(table) if record.proof else None
    return {
        "rows": proven["rows"] if proven else None,
        "parked": known.parked.get(table, 0),
        "broken": known.about("unreadable").get(table),
        "braked": record.braked.get(table),
        "doubts": [d.reason for d in all_doubts(known) if d.about == table],
        "upserted": record.upserted[table],
        "deleted": record.deleted[table],
    }
