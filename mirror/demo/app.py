"""What the back end of the trip planning app does to its own tables. It knows nothing of the mirror."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg


@dataclass(frozen=True)
class Person:
    id: str
    name: str


@dataclass(frozen=True)
class Trip:
    id: str
    name: str


@dataclass(frozen=True)
class Member:
    person: Person
    trip: Trip


class App:
    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[App]:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            yield cls(connection)

    async def sign_up(self, name: str) -> Person:
        """Names repeat, so the username gets a number from the second one on."""
        row = await self._row(
            "with wanted as (select lower(replace(%(name)s, ' ', '.')) as stem), "
            "free as (select stem || case n when 0 then '' else n::text end as username from wanted, "
            "  (select count(*) as n from user_profiles, wanted where username ~ ('^' || stem || '[0-9]*$')) as taken) "
            "insert into user_profiles (username, email, full_name) "
            "select username, username || '@example.com', %(name)s from free returning id::text",
            {"name": name},
        )
        return Person(row[0], name)

    async def create_trip(self, owner: Person, name: str) -> Trip:
        """The trip and its first member in one transaction."""
        async with self._connection.transaction():
            row = await self._row(
                "insert into trips (name, created_by) values (%s, %s) returning id::text", [name, owner.id]
            )
            trip = Trip(row[0], name)
            await self._do(
                "insert into trip_memberships (trip_id, user_id, role, status) values (%s, %s, 'OWNER', 'ACTIVE')",
                [trip.id, owner.id],
            )
        return trip

    async def invite(self, person: Person, trip: Trip, *, accepted: bool = False) -> None:
        """Somebody who left is invited again by the row that is still there."""
        await self._do(
            "insert into trip_memberships (trip_id, user_id, status) values (%s, %s, %s) "
            "on conflict (trip_id, user_id) do update set status = excluded.status",
            [trip.id, person.id, "ACTIVE" if accepted else "PENDING"],
        )

    async def set_status(self, member: Member, status: str) -> None:
        await self._do(
            "update trip_memberships set status = %s::membership_status where trip_id = %s and user_id = %s",
            [status, member.trip.id, member.person.id],
        )

    async def set_role(self, member: Member, role: str) -> None:
        await self._do(
            "update trip_memberships set role = %s::membership_role where trip_id = %s and user_id = %s",
            [role, member.trip.id, member.person.id],
        )

    async def rename(self, trip: Trip, name: str) -> None:
        await self._do("update trips set name = %s where id = %s", [name, trip.id])

    async def soft_delete(self, trip: Trip) -> None:
        """The memberships stay ACTIVE, as in many an app."""
        await self._do("update trips set deleted_at = now() where id = %s", [trip.id])

    async def import_guests(self, trip: Trip, count: int) -> Person:
        """Profiles and memberships of many guests in one transaction; returns one of them."""
        async with self._connection.transaction():
            await self._do(
                "insert into user_profiles (username, email, full_name) "
                "select %s || i, i || '@guests.example', 'Guest ' || i from generate_series(1, %s) as i",
                [_guests_of(trip), count],
            )
            await self._do(
                "insert into trip_memberships (trip_id, user_id, status) "
                "select %s, id, 'ACTIVE' from user_profiles where starts_with(username, %s)",
                [trip.id, _guests_of(trip)],
            )
            row = await self._row(
                "select id::text from user_profiles where starts_with(username, %s) limit 1", [_guests_of(trip)]
            )
        return Person(row[0], "a guest")

    async def remove_guests(self, trip: Trip) -> int:
        """Hard deletes, memberships and profiles in one transaction."""
        row = await self._row(
            "with gone as (delete from user_profiles where starts_with(username, %s) returning id), "
            "members as (delete from trip_memberships where trip_id = %s and user_id in (select id from gone)) "
            "select count(*) from gone",
            [_guests_of(trip), trip.id],
        )
        return int(row[0])

    async def touch_anybody(self) -> bool:
        """What `GET /users/me` does all day: writes the profile and changes nothing that matters elsewhere. Returns
        whether the mirror marked anything because of it, which it must not."""
        async with self._connection.transaction():
            await self._do(
                'update user_profiles set last_seen_at = clock_timestamp(), preferences = \'{"theme": "dark"}\' '
                "where id = (select id from user_profiles order by random() limit 1)"
            )
            row = await self._row("select exists (select from mirror.outbox where xid = pg_current_xact_id())")
        return bool(row[0])

    async def anybody(self) -> Person | None:
        row = await self._maybe_row(
            "select id::text, full_name from user_profiles where not starts_with(username, 'guest.') "
            "order by random() limit 1"
        )
        return Person(*row) if row else None

    async def any_trip(self) -> Trip | None:
        row = await self._maybe_row(
            "select id::text, name from trips where deleted_at is null order by random() limit 1"
        )
        return Trip(*row) if row else None

    async def any_member(self, status: str, role: str | None = None) -> Member | None:
        """A member with this status of a trip that is on; never its owner, never a guest."""
        row = await self._maybe_row(
            "select p.id::text, p.full_name, t.id::text, t.name from trip_memberships as m "
            "join user_profiles as p on p.id = m.user_id join trips as t on t.id = m.trip_id "
            "where m.status = %s::membership_status and m.role = coalesce(%s::membership_role, m.role) "
            "and m.role <> 'OWNER' and t.deleted_at is null and not starts_with(p.username, 'guest.') "
            "order by random() limit 1",
            [status, role],
        )
        return Member(Person(row[0], row[1]), Trip(row[2], row[3])) if row else None

    async def is_member(self, person: Person, trip: Trip) -> bool:
        row = await self._maybe_row(
            "select 1 from trip_memberships where trip_id = %s and user_id = %s and status <> 'INACTIVE'",
            [trip.id, person.id],
        )
        return row is not None

    async def _do(self, query: str, arguments: Any = None) -> None:
        await self._connection.execute(query, arguments)

    async def _maybe_row(self, query: str, arguments: Any = None) -> Any:
        cursor = await self._connection.execute(query, arguments)
        return await cursor.fetchone()

    async def _row(self, query: str, arguments: Any = None) -> Any:
        row = await self._maybe_row(query, arguments)
        if row is None:
            raise LookupError(f"no row: {query}")
        return row


def _guests_of(trip: Trip) -> str:
    """What the usernames of a trip's imported guests begin with."""
    return f"guest.{trip.id}."
