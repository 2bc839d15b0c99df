"""The frozen values that flow from the source through the applier to the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mirror.scope import Slice, Wide

NAMED_MAX = 100


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to write once. Taken before the snapshot is read; the target refuses anything not strictly newer."""

    epoch: int
    batch: int


@dataclass(frozen=True, slots=True)
class Taken:
    """The outbox entries a batch read, as the source named them; passed back unread to be forgotten."""

    at: str
    id: str


@dataclass(frozen=True, slots=True)
class Request:
    """What one drain asks of the source."""

    rows: int
    bytes: int
    entries: int | None = None  # default: rows
    sleep: bool = False
    forget: tuple[Taken, ...] = ()
    reached: str | None = None  # the target's position, when it is to be noted
    in_hand: Taken | None = None  # being applied just now, so neither forgotten nor to be read again
    forget_wide: tuple[tuple[Wide, str], ...] = ()
    skip: tuple[str, ...] = ()
    left: tuple[Wide, ...] = ()  # marks that are known, and nothing to stay awake for
    slice: Slice | None = None
    count: bool = False
    backlog: bool = False
    seek: bool = True
    seen: Any = None  # of what comes first, as the last look said


@dataclass(frozen=True, slots=True)
class Reading:
    """What one snapshot of the source said: the entries, and the present rows of their scopes (one JSON text, never
    parsed here)."""

    snapshot: str
    as_of: str
    scopes: str
    entries: int
    backlog: bool
    wide: tuple[Wide, ...]
    broken: Mapping[str, str]
    slice: Mapping[str, Any] | None
    lag_s: float
    ages_s: Mapping[str, float]
    waiting: int | None
    outbox_bytes: int | None
    asleep: bool
    taken: Taken | None
    requests: tuple[Mapping[str, Any], ...] = ()
    keys: int = 0
    gone_left: bool = False
    seen: Any = None  # of what comes first in a backlog: for the next request, as it is
    dropped: int = 0  # of the entries, those that are about no possible row

    @property
    def complete(self) -> bool:
        """With this reading applied, and what was in hand before it, the target equals the source at its snapshot."""
        return not (self.backlog or self.wide or self.broken)


@dataclass(frozen=True, slots=True)
class Fault:
    """What the source says of one table: its changes are not captured, or it cannot be read."""

    table: str
    kind: Literal["capture", "unreadable"]
    message: str
    cure: str


@dataclass(frozen=True, slots=True)
class Aside:
    """Rows that are parked: how many, and the first of them by key with the reason."""

    n: int = 0
    rows: tuple[Mapping[str, Any], ...] = ()

    def __add__(self, other: Aside) -> Aside:
        return Aside(self.n + other.n, (*self.rows, *other.rows)[:NAMED_MAX])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the target said it did."""

    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    parked: Mapping[str, int] = field(default_factory=dict)
    due: tuple[tuple[str, str, str | None], ...] = ()
    check: Mapping[str, Any] | None = None
    explained: tuple[Mapping[str, Any], ...] = ()
    clock: str | None = None  # what is wrong with this machine's, as both databases see it
    refused: Mapping[str, Aside] = field(default_factory=dict)  # by this batch

    @property
    def rows(self) -> int:
        return sum(n for ops in self.counts.values() for n in ops.values())
