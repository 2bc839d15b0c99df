"""The producer of second chances: keys that the target refused, when their pause is over."""

from __future__ import annotations

from mirror.batch import Outcome, Reading
from mirror.scope import Keys, Slice


class Parked:
    def __init__(self) -> None:
        self._due: list[tuple[str, str, str | None]] = []

    def next_slice(self, skip: tuple[str, ...]) -> Keys | None:
        table = next((name for name, _, _ in self._due if name not in skip), None)
        if table is None:
            return None
        return Keys(table, tuple((k1, k2) for name, k1, k2 in self._due if name == table))

    def note(self, outcome: Outcome) -> None:
        """The target's word is the latest: it says who is due after every batch."""
        self._due = list(outcome.due)

    def settle(self, _asked: Slice, _reading: Reading, _outcome: Outcome, _spent_s: float) -> None:
        """Nothing to remember: note() says who is due next."""

    def reset(self) -> None:
        self._due = []
