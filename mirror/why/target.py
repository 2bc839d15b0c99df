"""What Supabase says, and what its policies say to this user: asked as Realtime asks, rolled back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row

from mirror.errors import Refused
from mirror.https import Https
from mirror.postgres import connect_blocking
from mirror.render import parts
from mirror.target.access import epochs_first
from mirror.why.evidence import Channel, Glimpse, Mirror, Person, Row

Connection = psycopg.Connection[Any]
LIMITS = "set statement_timeout = '10s'"
EXTENSIONS = ("broadcast", "presence")


class Asked:
    """Supabase, open."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queries = {name: query for name, _, query in parts("target/why.sql")}

    def people(self, who: str) -> list[Row]:
        return self._rows("person", who=who)

    def look(self, person: Person, trip: str, topic: str | None, topics: tuple[str, ...]) -> Mirror:
        """`topic`: the channel; None: the first of the mapping's `topics`."""
        keys = {"user": person.id, "trip": trip}
        position = self._row("position")
        if position is None:
            raise Refused("target", "an install did not end", hint="Run `mirror install target`.")
        channel = topic or self._topic(topics, trip)
        return Mirror(
            user=self._row("user", **keys),
            trip=self._row("trip", **keys),
            membership=self._row("membership", **keys),
            parked=tuple(self._rows("parked", **keys)),
            position=position,
            is_member=self._is_member(person, trip, channel),
            channel=self._channel(person, channel),
        )

    def _topic(self, topics: tuple[str, ...], trip: str) -> str:
        pattern = next(iter(epochs_first(topics)), "trip:{id}")
        epoch = str((self._row("epoch", trip=trip) or {})["epoch"]) if "{epoch}" in pattern else ""
        return pattern.replace("{id}", trip).replace("{epoch}", epoch).replace("*", "any")

    def _is_member(self, person: Person, trip: str, topic: str) -> bool | None:
        with self._connection.transaction(force_rollback=True):
            self._become(person, topic)
            row = self._row("is_member", trip=trip)
        return None if row is None else bool(row["verdict"])

    def _channel(self, person: Person, topic: str) -> Channel | None:
        """None: there is no Realtime here."""
        row = self._connection.execute("select to_regclass('realtime.messages') is not null").fetchone()
        if not (row and row[0]):
            return None
        try:
            received = self._received(person, topic)
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise
            return Channel(topic, trouble=f"{error.diag.message_primary} ({error.sqlstate})")
        sends = {extension: self._sends(person, topic, extension) for extension in EXTENSIONS}
        return Channel(topic, {e: e in received for e in EXTENSIONS}, sends)

    def _received(self, person: Person, topic: str) -> set[str]:
        with self._connection.transaction(force_rollback=True):
            for extension in EXTENSIONS:
                self._connection.execute(self._queries["probe"].encode(), {"topic": topic, "extension": extension})
            self._become(person, topic)
            return {row["extension"] for row in self._rows("received", topic=topic)}

    def _sends(self, person: Person, topic: str, extension: str) -> bool:
        try:
            with self._connection.transaction(force_rollback=True):
                self._become(person, topic)
                self._connection.execute(self._queries["probe"].encode(), {"topic": topic, "extension": extension})
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise
            return False
        return True

    def _become(self, person: Person, topic: str) -> None:
        claims = json.dumps({"sub": person.subject, "role": "authenticated", "aud": "authenticated"})
        self._rows("become", topic=topic, claims=claims, sub=person.subject)

    def _row(self, query: str, **texts: str) -> Row | None:
        return next(iter(self._rows(query, **texts)), None)

    def _rows(self, query: str, **texts: str) -> list[Row]:
        values: Mapping[str, str] = texts
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return list(cursor.execute(self._queries[query].encode(), values).fetchall())


def glimpse(https: Https, person: Person, trip: str) -> Glimpse:
    from mirror.target.once import opened as api_opened  # noqa: PLC0415 - a third of a second, for those who go this way

    with api_opened(https) as api:
        status = api.status()
    keys = (("users", person.id, ""), ("trips", trip, ""), ("trip_memberships", trip, person.id))
    parked = tuple(p for p in status["parked"] if (p["tbl"], p["k1"], p["k2"]) in keys)
    return Glimpse(status["snapshot"], status["staleness_seconds"], parked)


@contextmanager
def opened(url: str) -> Iterator[Asked]:
    with connect_blocking(url, "target") as connection:
        connection.execute(LIMITS)
        row = connection.execute("select to_regclass('mirror.state') is not null").fetchone()
        if not (row and row[0]):
            raise Refused("target", "the mirror is not installed", hint="Run `mirror install target`.")
        yield Asked(connection)
