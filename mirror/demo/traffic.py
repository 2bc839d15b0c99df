"""Endless believable traffic: something that members would notice about once a second, and profiles touched all the
time, which the mirror must not notice.

One storyteller does one thing after the other and waits until Supabase knows of it, so every time shown is measured.
What exists is looked up in the database each time: whoever changes something with psql meanwhile disturbs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from mirror.demo import names
from mirror.demo.app import App, Member, Person, Trip
from mirror.demo.realtime import Realtime, until

PAUSE_MEAN_S, PAUSE_MAX_S = 0.7, 2.5
TOUCHES_PER_S = 8.0
GUESTS = range(200, 2000)
IMPORTS_KEPT = 2


@dataclass(frozen=True)
class Happening:
    """Something that happened in Neon and what Supabase made of it."""

    kind: str
    text: str
    answer: str  # what Supabase says then: "200 allowed", "403 denied", or what it knows
    after_s: float | None = None
    waited: bool = True
    at: datetime = field(default_factory=lambda: datetime.now().astimezone())


Deed = Callable[[], Awaitable[Happening | None]]


class Traffic:
    def __init__(self, app: App, realtime: Realtime, random: Random) -> None:
        self._app, self._realtime, self._random = app, realtime, random
        self._imported: list[tuple[Trip, Person]] = []
        self._deeds: dict[Deed, int] = {
            self.sign_up: 10, self.create_trip: 10, self.invite: 24, self.accept: 26, self.change_role: 8,
            self.leave: 14, self.rename: 6, self.cancel: 4, self.bulk: 4,
        }  # fmt: skip

    async def happenings(self) -> AsyncIterator[Happening]:
        while True:
            (deed,) = self._random.choices(list(self._deeds), list(self._deeds.values()))
            if happening := await deed():
                yield happening
                await asyncio.sleep(min(PAUSE_MAX_S, self._random.expovariate(1 / PAUSE_MEAN_S)))

    async def sign_up(self) -> Happening | None:
        person = await self._app.sign_up(names.person(self._random))
        after_s = await self._finds("select 1 from public.users where id = %s", person.id)
        return Happening("sign-up", f"{person.name} signed up", "known", after_s)

    async def create_trip(self) -> Happening | None:
        if (person := await self._app.anybody()) is None:
            return None
        trip = await self._app.create_trip(person, names.trip(self._random))
        return await self._opened("trip", f"{person.name} created {trip.name}", person, trip)

    async def invite(self) -> Happening | None:
        """Pending is not yet a member: the row does not even reach Supabase."""
        person, trip = await self._app.anybody(), await self._app.any_trip()
        if person is None or trip is None or await self._app.is_member(person, trip):
            return None
        await self._app.invite(person, trip)
        allowed = await self._realtime.may_join(person.id, trip.id)
        answer = "200 allowed" if allowed else "403 denied"
        return Happening("invitation", f"{person.name} was invited to {trip.name}", answer, waited=False)

    async def accept(self) -> Happening | None:
        if (member := await self._app.any_member("PENDING")) is None:
            return None
        await self._app.set_status(member, "ACTIVE")
        return await self._opened(
            "joined", f"{member.person.name} joined {member.trip.name}", member.person, member.trip
        )

    async def leave(self) -> Happening | None:
        if (member := await self._app.any_member("ACTIVE")) is None:
            return None
        await self._app.set_status(member, "INACTIVE")
        return await self._closed("left", f"{member.person.name} left {member.trip.name}", member)

    async def change_role(self) -> Happening | None:
        before, role = self._random.choice((("VIEWER", "EDITOR"), ("EDITOR", "VIEWER")))
        if (member := await self._app.any_member("ACTIVE", before)) is None:
            return None
        await self._app.set_role(member, role)
        after_s = await self._finds(
            "select 1 from public.trip_memberships where trip_id = %s and user_id = %s and role = %s",
            member.trip.id, member.person.id, role,
        )  # fmt: skip
        text = f"{member.person.name} is now {role.lower()} of {member.trip.name}"
        return Happening("role", text, role.lower(), after_s)

    async def rename(self) -> Happening | None:
        if (trip := await self._app.any_trip()) is None:
            return None
        name = names.trip(self._random)
        await self._app.rename(trip, name)
        after_s = await self._finds("select 1 from public.trips where id = %s and name = %s", trip.id, name)
        return Happening("rename", f"{trip.name} is now called {name}", "renamed", after_s)

    async def cancel(self) -> Happening | None:
        """The memberships stay as they are; nobody may join any more all the same."""
        if (member := await self._app.any_member("ACTIVE")) is None:
            return None
        await self._app.soft_delete(member.trip)
        return await self._closed("cancelled", f"{member.trip.name} was cancelled, for everybody", member)

    async def bulk(self) -> Happening | None:
        """Many guests in one transaction; and when there are enough of them, all of one import out again."""
        if len(self._imported) >= IMPORTS_KEPT:
            return await self._bulk_out(*self._imported.pop(0))
        if (person := await self._app.anybody()) is None:
            return None
        trip, count = await self._app.create_trip(person, names.gathering(self._random)), self._random.choice(GUESTS)
        guest = await self._app.import_guests(trip, count)
        self._imported.append((trip, guest))
        return await self._opened("import", f"{trip.name}: {count:,} guests in", guest, trip)

    async def _bulk_out(self, trip: Trip, guest: Person) -> Happening:
        count = await self._app.remove_guests(trip)
        text = f"{trip.name}: {count:,} guests out"
        return await self._closed("removal", text, Member(guest, trip))

    async def _opened(self, kind: str, text: str, person: Person, trip: Trip) -> Happening:
        after_s = await until(lambda: self._realtime.may_join(person.id, trip.id))
        return Happening(kind, text, "200 allowed", after_s)

    async def _closed(self, kind: str, text: str, member: Member) -> Happening:
        after_s = await until(lambda: self._realtime.all_answered([member.person.id], member.trip.id, allowed=False))
        return Happening(kind, text, "403 denied", after_s)

    async def _finds(self, query: str, *arguments: object) -> float | None:
        return await until(lambda: self._realtime.finds(query, list(arguments)))


async def seed(app: App, random: Random, people: int = 40, trips: int = 10) -> None:
    """What is there before the mirror is installed, so that the first load has something to do."""
    known = [await app.sign_up(names.person(random)) for _ in range(people)]
    for _ in range(trips):
        trip = await app.create_trip(random.choice(known), names.trip(random))
        for person in random.sample(known, 4):
            if not await app.is_member(person, trip):
                await app.invite(person, trip, accepted=random.random() < 0.7)


async def touches(app: App, random: Random) -> AsyncIterator[bool]:
    """Whether the mirror was given work by a touch, again and again."""
    while True:
        yield await app.touch_anybody()
        await asyncio.sleep(random.expovariate(TOUCHES_PER_S))
