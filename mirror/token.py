"""Read-your-writes: is everything that a token stands for in the mirror?

A token is what `mirror.token()` says inside or after a transaction of the application:

    install / life of the primary / the transaction's own id, or - / what it saw (a pg_snapshot, xmin:xmax:xip,...)

A life is `number.name`, or its number alone while no daemon has named it; a source that no daemon with lives has led
says none. A crash ends one (schema/source/life.sql), and transaction ids mean something within one life only: a later
life's position has every token of an earlier life, and an earlier one's has none of a later one.

Within a life, the mirror has it when every transaction that the token's snapshot sees, and the token's own, is seen by
the snapshot that the target equals. "Its id is smaller than" would be a guess: transactions do not end in the order of
their ids. `mirror_has()` in the target answers the same from SQL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LENGTH_MAX = 12_000  # some 900 transactions open at once
_XID = r"[1-9][0-9]{0,19}"
_SNAPSHOT = re.compile(rf"({_XID}):({_XID}):((?:{_XID}(?:,{_XID})*)?)", re.ASCII)
_LIFE = r"([1-9][0-9]{0,17})(?:\.([0-9a-z]{1,16}))?"
_TOKEN = re.compile(rf"([0-9A-Za-z-]{{1,64}})/(?:{_LIFE}/)?({_XID}|-)/([0-9:,]+)", re.ASCII)
_XID_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Sees every transaction below xmax, except those that were open."""

    xmin: int
    xmax: int
    open: frozenset[int]

    def sees(self, xid: int) -> bool:
        return xid < self.xmax and xid not in self.open

    def misses(self, other: Snapshot) -> int | None:
        """A transaction that the other one sees and this one does not; None when there is none."""
        beyond = other.xmax - 1
        while beyond >= self.xmax:
            if beyond not in other.open:
                return beyond
            beyond -= 1
        return max((xid for xid in self.open if other.sees(xid)), default=None)


@dataclass(frozen=True, slots=True)
class Life:
    number: int
    name: str | None


@dataclass(frozen=True, slots=True)
class Token:
    install: str
    life: Life | None
    own: int | None
    seen: Snapshot

    def lacks(self, snapshot: Snapshot) -> int | None:
        """A transaction that this token stands for and the snapshot does not see; None when it sees them all."""
        if self.own is not None and not snapshot.sees(self.own):
            return self.own
        return snapshot.misses(self.seen)


@dataclass(frozen=True, slots=True)
class Garbage:
    reason: str


def read_token(text: str) -> Token | Garbage:
    if len(text) > LENGTH_MAX:
        return Garbage(f"a token has at most {LENGTH_MAX} characters")
    found = _TOKEN.fullmatch(text)
    if found is None:
        return Garbage("this is not what mirror.token() says")
    snapshot = read_snapshot(found[5])
    if snapshot is None:
        return Garbage("the token holds no pg_snapshot")
    own = None if found[4] == "-" else int(found[4])
    if own is not None and own > _XID_MAX:
        return Garbage("the token holds no transaction id")
    return Token(found[1], Life(int(found[2]), found[3]) if found[2] else None, own, snapshot)


def read_life(text: str | None) -> Life | None:
    """As the target writes it: `number.name`."""
    number, _, name = (text or "").partition(".")
    return Life(int(number), name) if number else None


def read_snapshot(text: str) -> Snapshot | None:
    """As PostgreSQL writes it: in order, within its bounds. It would read a little more than it writes."""
    found = _SNAPSHOT.fullmatch(text)
    if found is None:
        return None
    xmin, xmax = int(found[1]), int(found[2])
    xip = [int(xid) for xid in found[3].split(",")] if found[3] else []
    in_order = all(a < b for a, b in zip([xmin - 1, *xip], [*xip, xmax], strict=True))
    return Snapshot(xmin, xmax, frozenset(xip)) if in_order and xmin <= xmax <= _XID_MAX else None
