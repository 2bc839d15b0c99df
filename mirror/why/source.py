"""What the primary says, read through the mapping that is installed there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from mirror.config import Settings
from mirror.mapping import Mapping
from mirror.postgres import connect_blocking, refuse_pooled_host
from mirror.render import parts
from mirror.source.install import read_install
from mirror.source.projection import Source, look
from mirror.tables import TABLES
from mirror.why.evidence import Person, Primary, Row

Connection = psycopg.Connection[Any]
LIMITS = "set statement_timeout = '10s'"


class Asked:
    """The primary, open, and how its tables are read."""

    def __init__(self, connection: Connection, source: Source, *, installed: bool, needs_user: bool) -> None:
        self._connection = connection
        self._source = source
        self._installed = installed
        self._needs_user = needs_user

    def people(self, who: str) -> list[Row]:
        """Whoever has this id; else whoever has this subject, e-mail address or username."""
        try:
            found = self._rows("person_by_id", who=who)
        except psycopg.DataError:  # not an id
            found = []
        return found or self._rows("person_by_name", who=who)

    def look(self, person: Person, trip: str, snapshot: str | None) -> Primary:
        """`snapshot`: what the target equals; entries of before are done, though perhaps not forgotten yet."""
        keys = {"user": person.id, "trip": trip}
        waiting = self._rows("waiting", snapshot=snapshot, **keys) if self._installed else []
        return Primary(
            user=self._row("person_by_id", who=person.id),
            trip=self._row("trip", trip=trip),
            membership=self._row("membership", **keys),
            waiting=tuple(waiting),
            leads=bool((self._row("leads") or {}).get("leads")),
            filters={table.name: self._source.of(table).where for table in TABLES},
            installed=self._installed,
            needs_user=self._needs_user,
        )

    def _row(self, query: str, **texts: str | None) -> Row | None:
        try:
            return next(iter(self._rows(query, **texts)), None)
        except psycopg.DataError:  # a key that cannot exist, such as a word where ids are uuids
            return None

    def _rows(self, query: str, **texts: str | None) -> list[Row]:
        given = {name: sql.Literal(texts.get(name)).as_string() for name in ("who", "user", "trip", "snapshot")}
        wanted = next(q for name, _, q in parts("source/why.sql", _places(self._source) | given) if name == query)
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return list(cursor.execute(wanted.encode()).fetchall())


@contextmanager
def opened(settings: Settings, mapping: Mapping) -> Iterator[Asked]:
    url = settings.source()
    refuse_pooled_host(url)
    with connect_blocking(url, "source") as connection:
        connection.execute(LIMITS)
        install = read_install(connection)
        needs_user = not mapping.access.members_without_user
        if install is not None:
            mapping = Mapping.model_validate({**install["mapping"]["mapping"], "target": mapping.target})
        yield Asked(connection, look(connection, mapping), installed=install is not None, needs_user=needs_user)


def _places(source: Source) -> dict[str, str]:
    places = {"user_type": source.types["user_id"], "trip_type": source.types["trip_id"]}
    for table in TABLES:
        p = source.of(table)
        places |= {table.name: p.relation, f"{table.name}_alias": p.alias, f"{table.name}_where": p.where}
        places |= {f"{table.name}_{column}": text for column, text in p.expressions.items()}
    return places
