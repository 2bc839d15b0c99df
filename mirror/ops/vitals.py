"""What the daemon knows of itself. Written by the loop, read by everybody who looks; ages are computed when somebody
looks, so that they keep growing when the loop hangs or a side is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mirror.target.replies import CLOSED

TURN_S = 1.0  # a turn that takes longer than this is not taken for "nothing to do"


@dataclass
class Vitals:
    clock: Callable[[], float] = time.monotonic
    stale_after_s: float = 60.0
    source_up: bool | None = None  # what it said last; None: nobody is asking it
    target_up: bool | None = None
    leader: bool = False
    standby: bool = False  # another daemon leads, as the source has just said
    waits_for: str | None = None  # a standby: whose lease, and until when
    led_since: float | None = None  # seconds since 1970
    proven_at: float | None = None  # the same: when equality of all tables was last proven, by whichever daemon
    primed: bool = False
    doorbell_proven: bool = False
    parked: dict[str, int] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    braked: dict[str, str] = field(default_factory=dict)
    locked: dict[str, str] = field(default_factory=dict)  # in the target, by others
    clock_apart: str | None = None  # what is wrong with this machine's; it is said, and takes nothing away
    channels: str | None = None  # ready, missing or closed; None: the target cannot tell
    outbox_entries: int = 0
    outbox_bytes: int = 0
    walks: int = 0
    applied_rows: int = 0
    _turned_at: float | None = None
    _fresh_at: float | None = None
    _oldest_at: float | None = None
    _looked_at: float | None = None
    _next_look_at: float = float("-inf")

    def __post_init__(self) -> None:
        self._born_at = self.clock()

    def turned(self) -> None:
        """The loop is alive."""
        self._turned_at = self.clock()

    def looked(self, began: float, oldest_s: float, *, everywhere: bool) -> None:
        """A snapshot begun at `began` has entries that are still to be applied, the oldest `oldest_s` old; not
        `everywhere`: it left out a table that cannot be read for now, whose entries stay as old as they are."""
        oldest_at = began - oldest_s
        if not everywhere and self._oldest_at is not None:
            oldest_at = min(oldest_at, self._oldest_at)
        self._oldest_at = oldest_at
        self._look(began)

    def caught_up(self, began: float) -> None:
        """All that was visible in a snapshot begun at `began` is applied."""
        self._oldest_at = None
        self._look(began)

    def sleeps(self, longest_s: float) -> None:
        """Nothing is to be done until somebody rings, or so much time has passed."""
        self._next_look_at = self.clock() + longest_s + TURN_S

    def _look(self, began: float) -> None:
        self._looked_at = began
        self._next_look_at = self.clock() + TURN_S

    @property
    def turned_ago_s(self) -> float:
        return self.clock() - (self._born_at if self._turned_at is None else self._turned_at)

    @property
    def lag_s(self) -> float:
        """Age of the oldest entry not yet applied. When nobody has looked for longer than was meant, nobody knows: then
        it is the time since the last look, the most it can be."""
        if self._oldest_at is not None:
            return self.clock() - self._oldest_at
        if self.leader and self.clock() <= self._next_look_at:
            return 0.0
        return self.clock() - (self._born_at if self._looked_at is None else self._looked_at)

    @property
    def staleness_s(self) -> float:
        """Infinite until this daemon has put the target at a position."""
        return float("inf") if self._fresh_at is None else self.clock() - self._fresh_at

    def stands_by(self, waits_for: str | None = None) -> None:
        self.standby, self.target_up, self.waits_for = True, None, waits_for

    def leads(self, *, primed: bool, proven_at: float | None) -> None:
        """Both sides have answered, the target knows us."""
        self.standby, self.leader, self.target_up = False, True, True
        self.led_since = time.time()
        self.primed, self.proven_at = primed, proven_at

    def ended(self) -> None:
        """A session is over, for whatever reason."""
        self.leader = self.standby = self.doorbell_proven = False

    def lost(self, side: str) -> None:
        """No answer. The target is not asked again before the source has answered."""
        if side == "source":
            self.source_up, self.target_up = False, None
        else:
            self.target_up = False

    def positioned(self, began: float) -> None:
        """The target equals the source at a snapshot taken after `began`."""
        self._fresh_at = began
        self.primed = True

    def why_not_ready(self) -> list[str]:
        if self.standby:
            return []  # ready to take over, and it can see that somebody leads
        reasons = []
        if not self.source_up:
            reasons.append("the source does not answer")
        if self.source_up and not self.target_up:
            reasons.append("the target does not answer")
        if not self.primed:
            reasons.append("the first load is not complete")
        if self.staleness_s > self.stale_after_s:
            reasons.append("the mirror is stale")
        if self.channels in CLOSED:
            reasons.append(". ".join(CLOSED[self.channels]))
        reasons += self.faults
        reasons += [f"the brake is on for {table}: {reason}" for table, reason in self.braked.items()]
        reasons += [f"{table} cannot be read: {reason}" for table, reason in self.broken.items()]
        reasons += [f"{table} cannot be written in the target: {reason}" for table, reason in self.locked.items()]
        if not self.doorbell_proven:
            reasons.append("the doorbell is not proven: changes arrive with the polling floor")
        return reasons
