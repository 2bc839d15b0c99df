"""How many rows the next batch may ask for: fewer while they are large or the target is slow with them, more again when
not. Two limits, since they have nothing to do with each other: bytes are known when a batch was read, seconds when it
was applied. What a gateway on the way takes at once is known when it has refused more.

A transaction of the application that needs more than that reaches the target in several batches. Until the last of them
the target claims no position, so nothing takes the parts for the whole."""

from __future__ import annotations

ENTRIES_MAX = 10  # for a row: so many changes of the same keys are worth scanning for at once
BYTES_MIN = 16_384  # of a batch, however small a body the gateway takes: a row of more is not the batch's doing
SHRINK_MIN = 0.25  # of one slow batch alone: a stalled network says little about rows


class Allowance:
    def __init__(self, rows: int, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._rows_max = self._by_bytes = self._by_time = rows
        self._per_key = 1.0

    @property
    def rows(self) -> int:
        return min(self._by_bytes, self._by_time)

    @property
    def entries(self) -> int:
        """Of keys that change again and again, many entries make one row."""
        return int(self.rows * self._per_key)

    def read(self, size: int, entries: int = 0, keys: int = 0) -> None:
        """The source should not build what it must throw away."""
        self._per_key = min(ENTRIES_MAX, max(1.0, entries / max(1, keys)))
        if size > self.bytes_max // 2:
            self._by_bytes = max(1, self._by_bytes // 2)
        else:
            self._by_bytes = min(self._rows_max, self._by_bytes * 2)

    def applied(self, rows: int, seconds: float, aimed_s: float) -> None:
        """Or not applied: what ran into the target's time limit was too much as well. A batch that did not use what it
        was allowed says nothing about a larger one."""
        if seconds > aimed_s:
            self._by_time = max(1, int(self._by_time * max(SHRINK_MIN, aimed_s / seconds)))
        elif seconds < aimed_s / 2 and rows >= self._by_time // 2:
            self._by_time = min(self._rows_max, self._by_time * 2)

    def too_large(self, size: int) -> None:
        """A gateway refused a batch of that size. It will refuse the next one, too: so no more of that size, ever."""
        self.bytes_max = max(BYTES_MIN, min(self.bytes_max, size) // 2)
        self._by_bytes = max(1, self.rows // 2)
