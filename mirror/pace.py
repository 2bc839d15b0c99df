"""How often a look does what costs: count the entries, seek those that may take something from a person, and take a
slice along."""

from __future__ import annotations

from typing import Any

from mirror.batch import Reading

COUNT_INTERVAL_S = 1.0
SEEK_INTERVAL_S = 0.25  # in a backlog: how late the latest revocation may be found,
SEEK_ENTRY_S = 1e-6  # or later in a huge one: looking takes a twentieth of this for each entry that waits
SLICE_EVERY = 8  # in a backlog, one batch in so many carries a slice: a walk must end even under constant load


class Pace:
    def __init__(self) -> None:
        self.backlog = False
        self._stuck = False  # behind marks that only a slice can settle
        self._gone_left = False  # of what comes first more waits than fitted the last batch,
        self.seen: Any = None  # and what a source of this release says of it, so that it is not sought again
        self._turns = 0
        self._counted_at = self._sought_at = float("-inf")
        self._seek_interval_s = SEEK_INTERVAL_S

    @property
    def crowded(self) -> bool:
        """Entries wait, and can be worked off."""
        return self.backlog and not self._stuck

    def read(self, reading: Reading) -> None:
        self.backlog = reading.backlog
        self._stuck = reading.backlog and reading.entries == 0
        self._gone_left, self.seen = reading.gone_left, reading.seen
        if reading.waiting is not None:
            self._seek_interval_s = max(SEEK_INTERVAL_S, SEEK_ENTRY_S * reading.waiting)

    def takes_slice(self) -> bool:
        self._turns += 1
        return not self.crowded or self._turns % SLICE_EVERY == 0

    def counts(self, now: float) -> bool:
        due = now - self._counted_at >= COUNT_INTERVAL_S
        if due:
            self._counted_at = now
        return due

    def seeks(self, now: float) -> bool:
        left = self._gone_left and self.seen is None
        due = not self.backlog or left or now - self._sought_at >= self._seek_interval_s
        if due:
            self._sought_at = now
        return due
