"""What the two sides tell a command that asks them without the daemon, put into the same value that the daemon has
(mirror/known.py): so `mirror status` says what all the others say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from mirror.doubt import Doubt, braked, doubt, read
from mirror.known import Known, all_doubts, may_say_equal, sentence
from mirror.source.primary import faults_of

Report = dict[str, Any]
Side = Mapping[str, Any] | None  # None: it could not be asked


def verdict(source: Side, target: Side, stale_after_s: float) -> Report:
    """One word, the sentence for people, and what takes something away."""
    if any(side is not None and not side["installed"] for side in (source, target)):
        return _document("not installed", "run `mirror install`.", (), equal=False)
    known = known_of(source, target, stale_after_s)
    if source is None or target is None:
        return _document("unknown", "one side could not be asked.", all_doubts(known), equal=False)
    return _document(known.verdict, sentence(known), all_doubts(known), equal=may_say_equal(known))


def _document(word: str, said: str, doubts: tuple[Doubt, ...], *, equal: bool) -> Report:
    return {"verdict": word, "sentence": said, "equal": equal, "doubts": [d.document() for d in doubts]}


def known_of(source: Side, target: Side, stale_after_s: float) -> Known:
    told = target or {}
    now = _moment(told.get("clock")) or 0.0
    age_s = told.get("staleness_seconds")
    return Known(
        now=now,
        turned_at=now,
        role="outsider",
        stale_after_s=stale_after_s,
        source_up=source is not None,
        target_up=target is not None,
        primed=target is None or told.get("primed_at") is not None,
        life=told.get("life"),
        fresh_at=None if age_s is None else now - age_s,
        doubts=tuple(_doubts(source or {}, told)),
        parked=told.get("parked_keys") or Counter(row["tbl"] for row in told.get("parked", ())),
        proven_at=_moment((told.get("proof") or {}).get("at")),
        channels=told.get("channels"),
        outbox_entries=(source or {}).get("outbox_entries", 0),
        looked_at=now,
        oldest_at=now - (source or {}).get("lag_seconds", 0.0),
    )


def _doubts(source: Mapping[str, Any], target: Mapping[str, Any]) -> Iterator[Doubt]:
    """The target tells those of the daemon, too. What the source says at this moment may be news to both."""
    told = [d for d in (read(x, _moment(x.get("since"))) for x in target.get("doubts", ())) if d is not None]
    yield from told
    for table, found in target.get("braked", {}).items():
        if not any((d.kind, d.about) == ("brake", table) for d in told):
            yield doubt("brake", table, why=braked(found["would_delete"], found["rows"]))
    for fault in faults_of(source.get("faults", [])):
        if not any((d.kind, d.about) == (fault.kind, fault.table) for d in told):
            yield doubt(fault.kind, fault.table or "a table", why=fault.message, cure=fault.cure)
    if not source.get("leader", True):
        yield doubt("leader")


def _moment(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()
