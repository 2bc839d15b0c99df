"""Values as the two sides would tell them, for tests without them."""

from datetime import UTC, datetime
from typing import Any

from mirror.applier import Step
from mirror.batch import Outcome, Reading
from mirror.target.replies import Claimed

THEN = datetime(2026, 1, 1, tzinfo=UTC)


def claimed(**more: Any) -> Claimed:
    facts: dict[str, Any] = {
        "clock": THEN, "version": 1, "epoch": 1, "types": {}, "primed": True, "snapshot": None, "empty": (),
        "walks": (), "proof": None, "channels": "ready",
    }  # fmt: skip
    return Claimed(**(facts | more))


def reading(**more: Any) -> Reading:
    facts: dict[str, Any] = {
        "snapshot": "7:7:", "as_of": THEN.isoformat(), "scopes": "", "entries": 0, "backlog": False, "wide": (),
        "broken": {}, "slice": None, "lag_s": 0.0, "ages_s": {}, "waiting": None, "outbox_bytes": None,
        "asleep": False, "taken": None,
    }  # fmt: skip
    return Reading(**(facts | more))


def step(began: float, outcome: Outcome | None = None, **more: Any) -> Step:
    facts: dict[str, Any] = {"reading": reading(), "position": True, "read_s": 0.0, "apply_s": 0.0}
    return Step(began=began, outcome=outcome or Outcome(), **(facts | more))
