"""Asks both sides, whichever answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Literal, TypeVar

from mirror.config import Settings
from mirror.errors import ConfigError, MirrorError
from mirror.https import Https
from mirror.mapping import Mapping
from mirror.translation import translated
from mirror.why import source, target
from mirror.why.evidence import Evidence, Person, Row

NOT_THROUGH_HTTPS = "target: through HTTPS nobody can ask as this user; set MIRROR_TARGET_URL, if only for this command"
T = TypeVar("T")


def look(settings: Settings, mapping: Mapping, who: str, trip: str, topic: str | None) -> Evidence:
    way, errors = settings.target_way(), _Errors()
    with ExitStack() as stack:
        primary = errors.spare("source", lambda: stack.enter_context(source.opened(settings, mapping)))
        supabase = None
        if isinstance(way, Https):
            errors.said.append(NOT_THROUGH_HTTPS)
        else:
            supabase = errors.spare("target", lambda: stack.enter_context(target.opened(way)))
        person = _person(who, _people(primary, supabase, who, errors))
        mirror = glimpse = None
        if isinstance(way, Https):
            glimpse = errors.spare("target", lambda: target.glimpse(way, person, trip))
        elif supabase is not None:
            mirror = errors.spare("target", lambda: supabase.look(person, trip, topic, mapping.access.topics))
        known = mirror.position["snapshot"] if mirror else glimpse.snapshot if glimpse else None
        told = errors.spare("source", lambda: primary.look(person, trip, known)) if primary else None
        return Evidence(person, trip, told, mirror, glimpse, tuple(errors.said))


class _Errors:
    """What one side does not say must not keep the other from talking."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def spare(self, side: Literal["source", "target"], ask: Callable[[], T]) -> T | None:
        try:
            with translated(side):
                return ask()
        except MirrorError as error:
            self.said.append(str(error))
            return None


def _people(primary: source.Asked | None, supabase: target.Asked | None, who: str, errors: _Errors) -> list[Row]:
    found = errors.spare("source", lambda: primary.people(who)) if primary else None
    if found is None and supabase is not None:
        found = errors.spare("target", lambda: supabase.people(who))
    return found or []


def _person(who: str, found: list[Row]) -> Person:
    if len({row["id"] for row in found}) > 1:
        listed = "; ".join(f"{row['id']} ({row['username']})" for row in found[:5])
        raise ConfigError(f"{who} may be {listed}{' and others' if len(found) > 5 else ''}", hint="Name one by id.")
    if not found:
        return Person(who, who, known=False)
    row = found[0]
    return Person(str(row["id"]), row["subject"] or str(row["id"]), row["username"])
