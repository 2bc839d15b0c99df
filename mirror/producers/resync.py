"""The producer of an operator's small scopes: one trip with its memberships, one user with theirs. (Whole tables are
the reconcile's.)"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from mirror.batch import Aside, Outcome, Reading
from mirror.scope import Keys, OfUser, Range, Slice, Wide


@dataclass(frozen=True, slots=True)
class Done:
    request: int
    error: str
    rows: int
    aside: Aside  # still parked


@dataclass
class _Task:
    request: int
    left: deque[Slice]
    rows: int = 0
    aside: Aside = field(default_factory=Aside)


class Resync:
    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._tasks: deque[_Task] = deque()
        self._ended: list[Done] = []

    @property
    def known_requests(self) -> set[int]:
        return {task.request for task in self._tasks}

    def want(self, request: int, *, trip: str | None, user: str | None) -> None:
        slices: list[Slice] = []
        if trip is not None:
            slices = [Keys("trips", ((trip, None),)), Range(Wide("trip_memberships", trip), rows=self._rows)]
        if user is not None:
            slices = [Keys("users", ((user, None),)), OfUser(user)]
        self._tasks.append(_Task(request, deque(slices)))

    def next_slice(self, skip: tuple[str, ...]) -> Slice | None:
        if not self._tasks or self._tasks[0].left[0].table in skip:
            return None
        return self._tasks[0].left[0]

    def settle(self, asked: Slice, reading: Reading, outcome: Outcome, _spent_s: float) -> None:
        if not self._tasks or self._tasks[0].left[0] != asked or reading.slice is None:
            return
        task = self._tasks[0]
        if "error" in reading.slice:
            self._end(task, str(reading.slice["error"]))
            return
        task.rows += outcome.rows
        task.aside += outcome.refused.get(asked.table, Aside())
        task.left.popleft()
        upto: Any = reading.slice.get("upto1"), reading.slice.get("upto2")
        if isinstance(asked, Range) and upto[0] is not None:
            task.left.appendleft(replace(asked, after=upto))
        if not task.left:
            self._end(task, "")

    def take_ended(self) -> tuple[Done, ...]:
        ended, self._ended = tuple(self._ended), []
        return ended

    def cancel(self, request: int) -> None:
        self._tasks = deque(task for task in self._tasks if task.request != request)

    def reset(self) -> None:
        """The requests are durable in the source: they come again."""
        self._tasks.clear()

    def _end(self, task: _Task, error: str) -> None:
        self._tasks.remove(task)
        self._ended.append(Done(task.request, error, task.rows, task.aside))
