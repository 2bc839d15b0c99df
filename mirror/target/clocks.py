"""Three clocks: this machine's, the source's and the target's. How fresh the target is, is told by the target's;
between its replies time is measured by this machine's and by the source's, and the one that says less is believed. So
a clock that runs fast, or jumps, never makes the target look fresher than it is."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

COMPARED_AFTER_S = 5.0
TOLERANCE, TOLERANCE_S = 0.01, 0.1


@dataclass(frozen=True, slots=True)
class _Heard:
    """A reply: the target said `theirs` between `sent` and `received` on our clock. The reading it was about: the
    source said `as_of` between `began` and `sent`."""

    theirs: datetime
    sent: float
    received: float
    began: float = 0.0
    as_of: datetime | None = None


class Clocks:
    def __init__(self) -> None:
        # Of a batch that was read ahead, the reply before the last one is the last that was heard before it was read.
        self._heard: deque[_Heard] = deque(maxlen=3)
        self._compared: _Heard | None = None
        self._way: str | None = None
        self.apart: str | None = None  # what is wrong with this machine's clock

    def claimed(self, theirs: datetime, sent: float, received: float) -> None:
        self._heard.clear()
        self._heard.append(_Heard(theirs, sent, received))
        self._compared = None

    def applied(self, theirs: datetime, sent: float, received: float, began: float, as_of: str) -> None:
        heard = _Heard(theirs, sent, received, began, datetime.fromisoformat(as_of))
        self._heard.append(heard)
        self._compare(heard)

    def fresh_at(self, began: float, as_of: str) -> datetime:
        """A moment on the target's clock that is certainly not after a snapshot that was begun at `began`, when the
        source said `as_of`. A request that arrives late does not look fresher for it."""
        if not self._heard:
            raise AssertionError("claim comes before apply")
        heard = next((h for h in reversed(self._heard) if h.received <= began), self._heard[0])
        by_ours, by_theirs = began - heard.received, 0.0
        if heard.as_of is not None:
            since = (datetime.fromisoformat(as_of) - heard.as_of).total_seconds()
            by_theirs = since - (heard.received - heard.began)  # the reply came so much later than the snapshot
        return heard.theirs + timedelta(seconds=min(by_ours, by_theirs))

    def moment(self, at: float | None) -> str | None:
        """What the target's clock said at a moment of ours that is over."""
        if at is None or not self._heard:
            return None
        heard = self._heard[-1]
        return (heard.theirs + timedelta(seconds=min(0.0, at - heard.received))).isoformat()

    def _compare(self, now: _Heard) -> None:
        """Both databases against us: one alone may have been set."""
        before = self._compared
        if before is None or before.as_of is None or now.as_of is None:
            self._compared = now
            return
        target_s = (now.theirs - before.theirs).total_seconds()
        source_s = (now.as_of - before.as_of).total_seconds()
        if max(target_s, source_s, now.sent - before.received) < COMPARED_AFTER_S:
            return
        self._compared = now
        rates = (
            _rate(target_s, now.sent - before.received, now.received - before.sent),
            _rate(source_s, now.began - before.sent, now.sent - before.began),
        )
        way = "fast" if min(rates) > 0 else "slow" if max(rates) < 0 else None
        if way != self._way:  # how much it is changes a little all the time
            self.apart = way and f"this machine's clock runs {way} by {100 * min(map(abs, rates)):.0f} %"
        self._way = way


def _rate(theirs_s: float, least_s: float, most_s: float) -> float:
    """By how much of it we say more (or less) than a database that says `theirs_s`, where we know our own time from
    `least_s` to `most_s` only; 0 = within the tolerance."""
    tolerance_s = TOLERANCE * abs(theirs_s) + TOLERANCE_S
    off_s = min(0.0, most_s - theirs_s) or max(0.0, least_s - theirs_s)
    return off_s / max(abs(theirs_s), TOLERANCE_S) if abs(off_s) > tolerance_s else 0.0
