"""What both sides say about one user and one trip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Person:
    """Who is meant. Somebody without a profile may well be a member."""

    id: str
    subject: str
    username: str | None = None
    known: bool = True

    def __str__(self) -> str:
        return f"{self.username} ({self.id})" if self.username else self.id


@dataclass(frozen=True, slots=True)
class Primary:
    user: Row | None
    trip: Row | None
    membership: Row | None
    waiting: tuple[Row, ...]
    leads: bool
    filters: Mapping[str, str]
    installed: bool = True
    needs_user: bool = True

    @property
    def wants(self) -> bool:
        """Is there a membership that is to be mirrored, and that counts?"""
        needed = (self.trip, self.membership, *((self.user,) if self.needs_user else ()))
        return all(row is not None and row["mirrored"] for row in needed)


@dataclass(frozen=True, slots=True)
class Channel:
    """What the policies of realtime.messages say to this user, by extension; what could not be asked is missing."""

    topic: str
    receives: Mapping[str, bool] = field(default_factory=dict)
    sends: Mapping[str, bool] = field(default_factory=dict)
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Mirror:
    user: Row | None
    trip: Row | None
    membership: Row | None
    parked: tuple[Row, ...]
    position: Row
    is_member: bool | None
    channel: Channel | None


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What can be known of Supabase through HTTPS: how fresh it is, and what it refuses of these keys."""

    snapshot: str | None
    staleness_s: float | None
    parked: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    person: Person
    trip: str
    primary: Primary | None
    mirror: Mirror | None
    glimpse: Glimpse | None = None
    errors: tuple[str, ...] = ()
