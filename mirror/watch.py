"""What the leader looks at beside the copying, now and then: do the triggers capture, are private channels open?
It says once what has changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mirror.errors import Refused
from mirror.ops.record import Record
from mirror.ops.vitals import Vitals
from mirror.producers.findings import Order
from mirror.source.primary import Primary
from mirror.target.replies import CLOSED
from mirror.target.target import Channels, Target

log = logging.getLogger(__name__)

FAULTS_INTERVAL_S = 60.0
CHANNELS_INTERVAL_S, CLOSED_INTERVAL_S = 60.0, 5.0


@dataclass
class Watch:
    vitals: Vitals
    record: Record
    compare: Callable[[Order], None]
    clock: Callable[[], float] = time.monotonic
    _faults_at: float = field(default=float("-inf"))
    _channels_at: float = field(default=float("-inf"))
    _channels: Channels = field(default=Channels("ready"))

    def begin(self) -> None:
        """A side that was away may have come back without its triggers. Of channels the claim has told."""
        self._faults_at = float("-inf")
        self._channels_at = self.clock() if self.vitals.channels == "ready" else float("-inf")

    async def look(self, source: Primary, target: Target) -> None:
        now, known = self.clock(), self.vitals.channels
        if now - self._faults_at >= FAULTS_INTERVAL_S:
            self._faults_at = now
            self._note_faults([fault.message for fault in await source.faults() if fault.kind == "capture"])
        interval_s = CHANNELS_INTERVAL_S if known == "ready" else CLOSED_INTERVAL_S
        if known is not None and now - self._channels_at >= interval_s:
            self._channels_at = now
            self._note_channels(await _opened(target, known))

    def _note_faults(self, faults: list[str]) -> None:
        """A trigger that is gone or disabled is reported at once; what it missed is found by comparing."""
        fresh = [fault for fault in faults if fault not in self.vitals.faults]
        changed, self.vitals.faults = set(faults) != set(self.vitals.faults), faults
        if fresh:
            log.error("changes are not captured: run `mirror install source`", extra={"faults": fresh})
            self.record.trouble("NotCaptured", "; ".join(fresh), "Run `mirror install source`.")
        if changed:  # also when they are back: until then changes were missed
            self.compare(Order("triggers"))

    def _note_channels(self, channels: Channels) -> None:
        self.vitals.channels = channels.state
        before, self._channels = self._channels, channels
        if channels == before:
            return
        if channels.state not in CLOSED:
            log.info("private channels are open")
            return
        message, cure = CLOSED[channels.state]
        message += f" ({channels.reason})" if channels.reason else ""
        log.error(message, extra={"cure": cure})
        self.record.trouble("ChannelsClosed", message, cure)


async def _opened(target: Target, known: str) -> Channels:
    """Realtime makes its table of messages when it likes; the policies are made on it as soon as it is seen."""
    try:
        return await target.open_channels()
    except Refused as error:  # by an API that has not noticed the function yet: the copy does not wait for that
        return Channels(known, error.message if known in CLOSED else None)
