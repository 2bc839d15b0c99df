"""The producer of second chances: keys that one of the sides refuses.

While nothing has changed that costs little: now and then a sample of a table's keys. When one of them fits, the cause
of others may be gone as well: then all of them are tried, in larger batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mirror.batch import Outcome, Reading
from mirror.producers.findings import ALL_TABLES
from mirror.scope import Keys, Slice

SAMPLE, MANY = 100, 1000
PAUSE_MIN_S, PAUSE_MAX_S = 5.0, 30.0
HURRY_S = 20.0  # without another one that fits


class Parked:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._parked: Mapping[str, int] | None = None  # None: the target has not said yet
        self._before: Mapping[str, int] = {}
        self._due: dict[str, tuple[tuple[str, str | None], ...]] = {}
        self._trying = ""  # the table whose keys are under way
        self._pause_s: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._hurry_until: dict[str, float] = {}

    def asks(self) -> dict[str, int]:
        """How many keys of each table the target is to name with the next batch."""
        if self._parked is None:
            return dict.fromkeys(ALL_TABLES, SAMPLE)
        now = self._clock()
        return {
            table: MANY if self._hurries(table, now) else SAMPLE
            for table, n in self._parked.items()
            if n
            and table not in self._due
            and self._not_before.get(table, now) <= now
            and (table != self._trying or self._hurries(table, now))
        }

    def wants(self) -> bool:
        """Is that worth a batch of its own?"""
        return bool(self._parked) and bool(self.asks())

    def is_due(self, skip: tuple[str, ...]) -> bool:
        return any(table not in skip for table in self._due)

    def next_slice(self, skip: tuple[str, ...]) -> Keys | None:
        for table in ALL_TABLES:  # parents first: children may wait for them
            if table in self._due and table not in skip:
                self._trying = table
                return Keys(table, self._due.pop(table))
        return None

    def note(self, outcome: Outcome, asked: Mapping[str, int]) -> None:
        """The target's word is the latest: how many there are, and who is to be tried now."""
        self._before, self._parked = self._parked or {}, outcome.parked
        for table, k1, k2 in outcome.due:
            self._due[table] = (*self._due.get(table, ()), (k1, k2))
        for table in asked.keys() - self._due.keys():
            self._not_before[table] = self._clock() + PAUSE_MIN_S

    def settle(self, asked: Slice, reading: Reading, outcome: Outcome, _spent_s: float) -> None:
        table, now, self._trying = asked.table, self._clock(), ""
        if reading.slice is not None and outcome.parked.get(table, 0) < self._before.get(table, 0):
            self._hurry_until[table] = now + HURRY_S
            self._pause_s, self._not_before = {}, {}  # rows of other tables may have waited for these
        elif not self._hurries(table, now):
            self._pause_s[table] = min(PAUSE_MAX_S, 2 * self._pause_s.get(table, PAUSE_MIN_S / 2))
            self._not_before[table] = now + self._pause_s[table]

    def reset(self) -> None:
        self._parked = None
        self._due, self._trying = {}, ""
        self._pause_s, self._not_before, self._hurry_until = {}, {}, {}

    def _hurries(self, table: str, now: float) -> bool:
        return self._hurry_until.get(table, now) > now
