"""Takes in what happens, and yields what is known (mirror/known.py). The loop and the daemon tell it; nothing else is
kept of freshness anywhere. What it is told it passes on to the metrics, the record and the log, which count and
remember but claim nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from mirror.applier import Applier, Step
from mirror.batch import Fault
from mirror.doubt import Doubt, read
from mirror.errors import MirrorError, Superseded, Unreachable
from mirror.known import Known, closed_channels, told
from mirror.ops import lines
from mirror.ops.metrics import Metrics
from mirror.ops.open import OpenDoubts
from mirror.ops.record import Record
from mirror.producers.findings import Order
from mirror.target.replies import Claimed

TROUBLES = {"capture": "NotCaptured", "channels": "ChannelsClosed"}  # as they have always been called
TURN_S = 1.0  # a turn that takes longer than this is not taken for "nothing to do"


class Knowledge:
    def __init__(
        self,
        stale_after_s: float = 60.0,
        reconcile_when: str = "off",
        key_ends: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._known = Known(born_at=clock(), stale_after_s=stale_after_s)
        self._open = OpenDoubts()
        self.metrics = Metrics(self.look, reconcile_when, key_ends)
        self.record = Record()

    def look(self) -> Known:
        """As of now: ages go on growing when the loop hangs or a side is gone."""
        return replace(self._known, now=self._clock())

    def to_compare(self) -> tuple[Order, ...]:
        """What has to be compared, from now on, before a doubt ends."""
        return self._open.take_orders()

    def to_tell(self) -> list[dict[str, Any]]:
        """The doubts that the target cannot know of itself; `since` on our monotonic clock."""
        return [d.document() | {"since": d.since} for d in told(self._known)]

    # What happens.

    def turned(self) -> None:
        self._note(turned_at=self._clock())

    def opened(self, side: str) -> None:
        self.metrics.reconnects.labels(side).inc()
        self.record.opened[side] += 1

    def answered(self) -> None:
        self._note(source_up=True)

    def stands_by(self, waits_for: str | None = None) -> None:
        self._note(role="standby", target_up=None, waits_for=waits_for)

    def leads(self, claimed: Claimed, asked_at: float) -> None:
        """Both sides have answered, the target knows us. What the last daemon doubted, we doubt until we have compared.
        `asked_at`: before the claim."""
        documents = ((d, d.get("since")) for d in claimed.doubts)
        inherited = (
            read(d, since and asked_at - (claimed.clock - moment(since)).total_seconds()) for d, since in documents
        )
        compared = claimed.compared or not claimed.primed  # what was never filled has its own doubt
        self._open.claimed(filter(None, inherited), compared=compared, tampered=claimed.tampered)
        proof = claimed.proof
        self._note(
            role="leader",
            waits_for=None,
            target_up=True,
            led_since=time.time(),
            epoch=claimed.epoch,
            primed=claimed.primed,
            life=claimed.life,
            channels=claimed.channels,
            proven_at=moment(proof["at"]).timestamp() if proof else None,
        )
        self.record.leads(proof)

    def ended(self) -> None:
        """A session is over, for whatever reason."""
        self._note(role="starting", waits_for=None, doorbell_proven=False)

    def failed(self, error: MirrorError) -> None:
        """The target is not asked again before the source has answered."""
        if isinstance(error, Unreachable):
            lost: dict[str, Any] = {"target_up": False}
            self._note(**(lost if error.side == "target" else {"source_up": False, "target_up": None}))
        self.turned()
        self.record.failed(error)
        self.metrics.errors.labels(type(error).__name__).inc()
        self.metrics.batches.labels("superseded" if isinstance(error, Superseded) else "failed").inc()
        lines.failed(error)

    def sleeps(self, longest_s: float) -> None:
        """Nothing is to be done until it rings, or so much time has passed."""
        self._note(next_look_at=self._clock() + longest_s + TURN_S)

    def woke(self, reason: str) -> None:
        self.sleeps(0.0)
        self.metrics.wakeups.labels(reason).inc()

    def checked(self, faults: list[Fault], began: float, applier: Applier) -> None:
        """The source said, at `began` or later, what is wrong with triggers and tables."""
        self._open.checked(faults, began, applier.reconcile.running)
        self._note()

    def channels(self, state: str, reason: str | None, *, changed: bool) -> None:
        """`reason`: what kept the target from opening them. `changed`: since this was told last."""
        self._note(channels=state)
        if not changed:
            return
        closed = closed_channels(state)
        if closed is None:
            lines.channels_open()
        else:
            self._doubted(replace(closed, reason=closed.reason + (f" ({reason})" if reason else "")))

    def reported(self, state: str) -> None:
        """An operator's resync has ended."""
        self.metrics.resyncs.labels(state).inc()

    def stepped(self, step: Step, applier: Applier, *, heard: bool) -> None:
        """A turn of the loop worked out. `heard`: the doorbell is."""
        outcome, reading = step.outcome, step.reading
        self._open.stepped(step, applier, self._known.fresh_at)
        facts: dict[str, Any] = {
            "turned_at": self._clock(),
            "doorbell_proven": heard,
            "walks": len(applier.walks),
            "outbox_entries": waiting(step, self._known.outbox_entries),
            "looked_at": step.began,
            "next_look_at": self._clock() + TURN_S,
            "oldest_at": None if step.position else self._oldest_at(step),
        }
        if reading.outbox_bytes is not None:
            facts["outbox_bytes"] = reading.outbox_bytes
        if any(finished.proves for finished in step.finished):
            facts["proven_at"] = time.time()
        if outcome is not None:
            facts |= {"parked": dict(outcome.parked), "applied_rows": self._known.applied_rows + outcome.rows}
            if step.position:
                facts |= {"fresh_at": step.began, "primed": True}
        self._note(**facts)
        self.metrics.observe(step)
        self.record.observe(step, applier)
        lines.stepped(step)

    def _oldest_at(self, step: Step) -> float:
        """A table that was left out keeps its entries, as old as they are."""
        oldest_at, before = step.began - step.reading.lag_s, self._known.oldest_at
        return oldest_at if before is None or not step.skipped else min(oldest_at, before)

    def _note(self, **facts: Any) -> None:
        before = {(d.kind, d.about, d.reason) for d in self._known.doubts}
        self._known = replace(self._known, **facts, doubts=self._open.doubts)
        for one in self._open.doubts:
            if (one.kind, one.about, one.reason) not in before:
                self._doubted(one)
        if before and not self._open.doubts:
            lines.no_doubt()

    def _doubted(self, new: Doubt) -> None:
        lines.doubted(new)
        self.record.trouble(TROUBLES.get(new.kind, new.kind.capitalize()), new.reason, new.cure)


def waiting(step: Step, before: int) -> int:
    """They are counted once a second; in a backlog, what one batch takes says little."""
    reading = step.reading
    if reading.waiting is not None:
        return reading.waiting
    return max(before, reading.entries) if reading.backlog else reading.entries


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
