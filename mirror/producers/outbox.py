"""The producer of everyday scopes: what the outbox says is dirty. Keeps what has to be forgotten once it is applied,
what the source is to know of the target before that matters, and which tables cannot be read, or written, for now."""

from __future__ import annotations

from collections.abc import Callable

from mirror.batch import Reading, Taken

BROKEN_RETRY_S = 5.0
NOTE_INTERVAL_S = 1.0  # a write of its own in the source


class Outbox:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._broken: dict[str, tuple[str, float]] = {}
        self._locked: dict[str, tuple[str, float]] = {}
        self.forget: tuple[Taken, ...] = ()
        self.position: str | None = None  # the snapshot that the target equals, when it equals the last one applied
        self._owes_note = True
        self._noted_at = float("-inf")

    @property
    def broken(self) -> dict[str, str]:
        return {table: reason for table, (reason, _) in self._broken.items()}

    @property
    def locked(self) -> dict[str, str]:
        """In the target, by others."""
        return {table: reason for table, (reason, _) in self._locked.items()}

    def skip(self) -> tuple[str, ...]:
        """Tables not to read before their pause is over: no error is asked for thousands of times a second."""
        now = self._clock()
        return tuple(table for table, (_, until) in (self._broken | self._locked).items() if until > now)

    def retry_at(self) -> float:
        """When the first of the broken or locked tables is tried again; infinity when all is well."""
        return min((until for _, until in (*self._broken.values(), *self._locked.values())), default=float("inf"))

    def read(self, reading: Reading, skipped: tuple[str, ...]) -> None:
        """Takes note of a reading, before it is applied."""
        until = self._clock() + BROKEN_RETRY_S
        self._broken = {table: entry for table, entry in self._broken.items() if table in skipped}
        self._broken |= {table: (reason, until) for table, reason in reading.broken.items()}

    def broke(self, table: str, reason: str) -> None:
        """A slice of this table could not be read."""
        self._broken[table] = (reason, self._clock() + BROKEN_RETRY_S)

    def locked_out(self, table: str, reason: str) -> None:
        """The target could not write this table. What was read of it is read again."""
        self._locked[table] = (reason, self._clock() + BROKEN_RETRY_S)

    def written(self, skipped: tuple[str, ...]) -> None:
        """A batch was applied, of all tables but these."""
        self._locked = {table: entry for table, entry in self._locked.items() if table in skipped}

    def settle(self, reading: Reading) -> None:
        """The batch is applied: these entries, exactly, may be forgotten."""
        if reading.taken is not None:
            self.forget += (reading.taken,)
            self._owes_note = True

    def forgotten(self, taken: tuple[Taken, ...]) -> None:
        self.forget = tuple(applied for applied in self.forget if applied not in taken)

    def note(self) -> str | None:
        """How far the target is, for the source to keep: it forgets for that one's sake, and a target that was restored
        to an earlier state must be told from it. The last one is noted, too, if later than it was forgotten."""
        now = self._clock()
        if self.position is None or not self._owes_note or now - self._noted_at < NOTE_INTERVAL_S:
            return None
        self._owes_note, self._noted_at = False, now
        return self.position

    def reset(self) -> None:
        """After a failure nothing is known to be applied, or noted: everything is read again."""
        self.forget = ()
        self.position = None
        self._owes_note = True
