"""The producer of second chances: keys that the target refused, when their pause is over."""

from __future__ import annotations

from mirror.batch import Outcome
from mirror.scope import Keys


class Parked:
    def __init__(self) -> None:
        self._due: list[tuple[str, str, str | None]] = []

    def next_slice(self) -> Keys | None:
        if not self._due:
            return None
        table = self._due[0][0]
        return Keys(table, tuple((k1, k2) for name, k1, k2 in self._due if name == table))

    def settle(self, outcome: Outcome) -> None:
        """The target's word is the latest: it says who is due after every batch."""
        self._due = list(outcome.due)

    def reset(self) -> None:
        self._due = []
