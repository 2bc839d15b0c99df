"""What the leader looks at beside the copying, now and then: do the triggers capture, are private channels open?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mirror.applier import Applier
from mirror.errors import Refused
from mirror.ops.knowledge import Knowledge
from mirror.source.primary import Primary
from mirror.target.target import Channels, Target

FAULTS_INTERVAL_S = 60.0  # at most
CHANNELS_INTERVAL_S, CLOSED_INTERVAL_S = 60.0, 5.0


@dataclass
class Watch:
    knowledge: Knowledge
    applier: Applier
    faults_interval_s: float = FAULTS_INTERVAL_S  # for so long a missing trigger is not noticed
    clock: Callable[[], float] = time.monotonic
    _faults_at: float = field(default=float("-inf"))
    _channels_at: float = field(default=float("-inf"))
    _channels: Channels = field(default=Channels("ready"))

    def begin(self) -> None:
        """A side that was away may have come back without its triggers. Of channels the claim has told."""
        self._faults_at = float("-inf")
        self._channels_at = self.clock() if self.knowledge.look().channels == "ready" else float("-inf")

    async def look(self, source: Primary, target: Target) -> None:
        now, known = self.clock(), self.knowledge.look().channels
        if now - self._faults_at >= min(self.faults_interval_s, FAULTS_INTERVAL_S):
            self._faults_at = now
            self.knowledge.checked(await source.faults(), now, self.applier)
        interval_s = CHANNELS_INTERVAL_S if known == "ready" else CLOSED_INTERVAL_S
        if known is not None and now - self._channels_at >= interval_s:
            self._channels_at = now
            before, self._channels = self._channels, await _opened(target, known)
            self.knowledge.channels(self._channels.state, self._channels.reason, changed=self._channels != before)


async def _opened(target: Target, known: str) -> Channels:
    """Realtime makes its table of messages when it likes; the policies are made on it as soon as it is seen."""
    try:
        return await target.open_channels()
    except Refused as error:  # by an API that has not noticed the function yet: the copy does not wait for that
        return Channels(known, None if known == "ready" else error.message)
