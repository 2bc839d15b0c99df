"""What the daemon knows of itself. Written by the loop, read by everybody who looks; ages are computed when somebody
looks, so that they keep growing when the loop hangs or the source is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Vitals:
    clock: Callable[[], float] = time.monotonic
    stale_after_s: float = 60.0
    source_up: bool = False
    target_up: bool = False
    leader: bool = False
    primed: bool = False
    doorbell_proven: bool = False
    parked: dict[str, int] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    last_error: str = ""
    outbox_entries: int = 0
    walks: int = 0
    applied_rows: int = 0
    _turned_at: float = field(default=float("-inf"))
    _fresh_at: float | None = None
    _oldest_at: float | None = None

    def turned(self) -> None:
        """The loop is alive."""
        self._turned_at = self.clock()

    def looked(self, began: float, lag_s: float) -> None:
        """A snapshot begun at `began` had entries not applied before it; the oldest was `lag_s` old."""
        self._oldest_at = began - lag_s if lag_s > 0 else None

    def caught_up(self) -> None:
        self._oldest_at = None

    def positioned(self, began: float) -> None:
        """The target equals the source at a snapshot taken after `began`."""
        self._fresh_at = began

    @property
    def turned_ago_s(self) -> float:
        return self.clock() - self._turned_at

    @property
    def lag_s(self) -> float:
        """Age of the oldest entry not yet applied. When nobody has looked for a while nobody knows: then it is the time
        since the last look, the most it can be."""
        if self._oldest_at is not None:
            return self.clock() - self._oldest_at
        blind = self.clock() - (self._fresh_at if self._fresh_at is not None else self._turned_at)
        return 0.0 if self.source_up and self.target_up else max(0.0, min(blind, 1e9))

    @property
    def staleness_s(self) -> float:
        """Infinite until this daemon has put the target at a position."""
        return float("inf") if self._fresh_at is None else self.clock() - self._fresh_at

    def why_not_ready(self) -> list[str]:
        reasons = []
        if not self.source_up:
            reasons.append("the source does not answer")
        if not self.leader and self.source_up:
            return []  # a standby is ready as long as it can see that somebody leads
        if not self.target_up:
            reasons.append("the target does not answer")
        if not self.primed:
            reasons.append("the first load is not complete")
        if self.staleness_s > self.stale_after_s:
            reasons.append("the mirror is stale")
        reasons += [f"{table} cannot be read: {reason}" for table, reason in self.broken.items()]
        if not self.doorbell_proven:
            reasons.append("the doorbell is not proven: changes arrive with the polling floor")
        return reasons
