"""`mirror demo --once`: 403, 200, 403, 403 for one private channel, and how soon after the change in Neon.

Each answer is Supabase's own (mirror.demo.realtime); the clock starts when the application's commit has returned.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mirror.demo.app import App, Member, Person, Trip
from mirror.demo.ink import Ink, between, pad
from mirror.demo.realtime import TIMEOUT_S, Realtime, until
from mirror.demo.world import PRIMARY, SUPABASE, World

COLUMNS = 78
_HAPPENED, _ASKED, _ANSWER, _AFTER = 37, 15, 15, 11


@dataclass(frozen=True)
class Chapter:
    """Something that happened in Neon, and whether Supabase's answer became the right one."""

    happened: str
    asked: str
    allowed: bool
    after_s: float | None
    waited: bool = True

    @property
    def right(self) -> bool:
        return self.after_s is not None


async def populate(app: App) -> None:
    for name in ("Ines Duarte", "Noah Becker", "Zuri Mwangi"):
        await app.create_trip(await app.sign_up(name), f"{name.split()[0]}'s weekend")


async def tell(world: World) -> tuple[Trip, list[Chapter]]:
    async with App.connect(world.app_url) as app, Realtime.connect(world.realtime_url) as realtime:
        maya, jonas, aiko = [await app.sign_up(name) for name in ("Maya Okafor", "Jonas Weber", "Aiko Tanaka")]
        trip = await app.create_trip(maya, "Lisbon in June")
        await app.invite(aiko, trip, accepted=True)
        chapters = [await _nobody(realtime, jonas, (maya, aiko), trip)]

        async def chapter(happened: str, change: Awaitable[None], people: tuple[Person, ...], *, allowed: bool) -> None:
            await change
            after_s = await until(_answers(realtime, people, trip, allowed=allowed))
            asked = people[0].name.split()[0] if len(people) == 1 else "everybody"
            chapters.append(Chapter(happened, asked, allowed, after_s))

        membership = Member(jonas, trip)
        await chapter("Maya invites Jonas", app.invite(jonas, trip, accepted=True), (jonas,), allowed=True)
        await chapter("Maya removes Jonas", app.set_status(membership, "INACTIVE"), (jonas,), allowed=False)
        await chapter("Maya soft-deletes the trip", app.soft_delete(trip), (maya, aiko, jonas), allowed=False)
        return trip, chapters


async def _nobody(realtime: Realtime, jonas: Person, members: tuple[Person, ...], trip: Trip) -> Chapter:
    """Jonas is denied while the members are allowed: the trip is known, only he is not."""
    known = await until(_answers(realtime, members, trip, allowed=True))
    denied = not await realtime.may_join(jonas.id, trip.id)
    right = known is not None and denied
    return Chapter("Jonas has no membership", "Jonas", allowed=False, after_s=0.0 if right else None, waited=False)


def _answers(
    realtime: Realtime, people: tuple[Person, ...], trip: Trip, *, allowed: bool
) -> Callable[[], Awaitable[bool]]:
    ids = [person.id for person in people]
    return lambda: realtime.all_answered(ids, trip.id, allowed=allowed)


def table(trip: Trip, chapters: list[Chapter], ink: Ink) -> str:
    title = between(ink(f"{trip.name}, a private channel", "bold"), f"Neon {PRIMARY} → Supabase {SUPABASE}", COLUMNS)
    head = (
        pad("in Neon", _HAPPENED) + pad("asks to join", _ASKED) + pad("Supabase says", _ANSWER) + f"{'after':>{_AFTER}}"
    )
    rule = ink("─" * COLUMNS, "dim")
    lines = [title, f"topic trip:{trip.id}", rule, ink(head, "dim"), *(_row(c, ink) for c in chapters), rule]
    return "\n".join(f" {line}" for line in [*lines, _verdict(chapters, ink)])


def _row(chapter: Chapter, ink: Ink) -> str:
    answer = ink("200 allowed", "green") if chapter.allowed else ink("403 denied", "yellow")
    if not chapter.right:
        answer = ink(f"not {200 if chapter.allowed else 403}", "red", "bold")
    return pad(chapter.happened, _HAPPENED) + pad(chapter.asked, _ASKED) + pad(answer, _ANSWER) + _after(chapter)


def _after(chapter: Chapter) -> str:
    if not chapter.waited:
        return f"{'-':>{_AFTER}}"
    after = f"> {TIMEOUT_S:.0f} s" if chapter.after_s is None else f"{chapter.after_s * 1000:.1f} ms"
    return f"{after:>{_AFTER}}"


def _verdict(chapters: list[Chapter], ink: Ink) -> str:
    wrong = sum(not chapter.right for chapter in chapters)
    if wrong:
        return ink(f"The story did not come out right: {wrong} of {len(chapters)} answers are wrong.", "red", "bold")
    return ink("Asked as role authenticated, under RLS; times from the commit in Neon.", "dim")
