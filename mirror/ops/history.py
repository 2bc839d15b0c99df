"""The last minutes, for a chart: one point every two seconds, also while the loop hangs."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

from mirror.known import Known
from mirror.ops.record import Record

INTERVAL_S = 2.0
POINTS_MAX = 450  # 15 minutes

Point = tuple[float, float | None, float | None, float | None, float | None, int]


class History:
    """Points: time, lag, staleness, median and maximum of the propagation since the last point, rows applied since."""

    def __init__(self, look: Callable[[], Known], record: Record, now: Callable[[], float] = time.time) -> None:
        self._look = look
        self._record = record
        self._now = now
        self._rows = look().applied_rows
        self._points: deque[Point] = deque(maxlen=POINTS_MAX)

    def sample(self) -> None:
        known = self._look()
        took_s = self._taken()
        rows, self._rows = known.applied_rows - self._rows, known.applied_rows
        self._points.append(
            (
                round(self._now(), 3),
                seconds(None if known.standby else known.lag_s),
                seconds(None if known.standby else known.staleness_s),
                seconds(statistics.median(took_s)) if took_s else None,
                seconds(max(took_s)) if took_s else None,
                rows,
            )
        )

    def since(self, at: float) -> list[Point]:
        return [point for point in self._points if point[0] > at]

    def _taken(self) -> list[float]:
        """The loop may be adding at the other end: only what is there now."""
        propagations = self._record.propagations
        return [propagations.popleft() for _ in range(len(propagations))]


def seconds(value: float | None) -> float | None:
    """For JSON, which knows no infinity."""
    return None if value is None or value == float("inf") else round(value, 4)
