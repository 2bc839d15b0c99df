"""Asks both sides, whichever answers."""

from __future__ import annotations

from contextlib import ExitStack

from mirror.config import Settings
from mirror.errors import ConfigError, MirrorError
from mirror.mapping import Mapping
from mirror.why import source, target
from mirror.why.evidence import Evidence, Person, Row


def look(settings: Settings, mapping: Mapping, who: str, trip: str, topic: str | None) -> Evidence:
    errors: list[str] = []
    with ExitStack() as stack:
        supabase = primary = None
        try:
            supabase = stack.enter_context(target.opened(settings))
        except MirrorError as error:
            errors.append(str(error))
        try:
            primary = stack.enter_context(source.opened(settings, mapping))
        except MirrorError as error:
            errors.append(str(error))
        side = primary or supabase
        if side is None:
            return Evidence(Person(who, who, known=False), trip, None, None, tuple(errors))
        person = _person(who, side.people(who))
        position = supabase.position() if supabase else None
        return Evidence(
            person,
            trip,
            primary.look(person, trip, position["snapshot"] if position else None) if primary else None,
            supabase.look(person, trip, topic or supabase.topic(mapping.access.topics, trip)) if supabase else None,
            tuple(errors),
        )


def _person(who: str, found: list[Row]) -> Person:
    if len({row["id"] for row in found}) > 1:
        listed = "; ".join(f"{row['id']} ({row['username']})" for row in found[:5])
        raise ConfigError(f"{who} may be {listed}{' and others' if len(found) > 5 else ''}", hint="Name one by id.")
    if not found:
        return Person(who, who, known=False)
    row = found[0]
    return Person(str(row["id"]), row["subject"] or str(row["id"]), row["username"])
