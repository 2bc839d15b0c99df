"""The source side without a daemon: install it, write like the application, read what was marked, drain."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from mirror.mapping import Mapping
from mirror.postgres import connect_blocking
from mirror.source import install as source_side

Connection = psycopg.Connection[Any]
Mark = tuple[str, str | None, str | None]

# The application's own soft deletes and row filters.
SOFT = Mapping.model_validate(
    {
        "trips": {"where": "deleted_at is null"},
        "trip_memberships": {"where": "status = 'ACTIVE'"},
    }
)


def an_id(number: int) -> str:
    return str(UUID(int=number))


def install(url: str, mapping: Mapping | None = None) -> list[str]:
    """As `mirror install source` does it; what it said."""
    said: list[str] = []
    with connect_blocking(url, "source") as connection:
        source_side.install(connection, mapping or Mapping(), said.append)
    return said


def uninstall(url: str) -> list[str]:
    said: list[str] = []
    with connect_blocking(url, "source") as connection:
        source_side.uninstall(connection, said.append)
    return said


def as_user(url: str, user: str) -> str:
    return make_conninfo(url, user=user)


def marks(connection: Connection) -> list[Mark]:
    """What was marked since the last call; each as often as it was."""
    rows = connection.execute("with d as (delete from mirror.outbox returning tbl, k1, k2) select * from d").fetchall()
    return ordered(rows)


def ordered(some: list[Mark]) -> list[Mark]:
    return sorted(some, key=lambda row: [(part is not None, part) for part in row])


def users(*numbers: int) -> list[Mark]:
    return [("users", an_id(n), None) for n in numbers]


def trips(*numbers: int) -> list[Mark]:
    return [("trips", an_id(n), None) for n in numbers]


def moved(*numbers: int) -> list[Mark]:
    """Trips that entered or left: their memberships are marked by trip, and they themselves."""
    return [*(("trip_memberships", an_id(n), None) for n in numbers), *trips(*numbers)]


def members(*keys: tuple[int, int]) -> list[Mark]:
    return [("trip_memberships", an_id(t), an_id(u)) for t, u in keys]


def whole(*tables: str) -> list[Mark]:
    return [(table, None, None) for table in tables]


def rows_of(scopes: str | None, table: str) -> list[dict[str, Any]]:
    """The rows of one table in what a drain returned."""
    return [row for s in json.loads(f"[{scopes or ''}]") if s["table"] == table for row in objects(s["rows"])]


def objects(rows: dict[str, str]) -> list[dict[str, Any]]:
    """Rows as they travel, a list for each column written as an array, taken apart; values as text."""
    columns = [array(written) for written in rows.values()]
    return [dict(zip(rows, values, strict=True)) for values in zip(*columns, strict=True)]


def array(written: str) -> list[str | None]:
    items = re.findall(r'"((?:[^"\\]|\\.)*)"|([^,{}"]+)', written, re.DOTALL)
    return [None if plain == "NULL" else plain or re.sub(r"\\(.)", r"\1", quoted) for quoted, plain in items]


def gone_of(scopes: str | None, table: str) -> list[dict[str, Any]]:
    return [key for s in json.loads(f"[{scopes or ''}]") if s["table"] == table for key in s.get("gone", [])]


def drain(connection: Connection, **request: Any) -> tuple[dict[str, Any], str | None]:
    """One look at the outbox, forgetting nothing: (reply, scopes)."""
    document = {"rows": 1000, "bytes": 10_000_000, "sleep": False, "asleep": False, "skip": [], "forget_wide": []}
    row = connection.execute(
        "call mirror.drain(%s::jsonb, null, null, null, null, null, null)", [json.dumps(document | request)]
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def read_slice(connection: Connection, table: str, rows: int = 1000) -> list[dict[str, Any]]:
    """The first rows of a table as the daemon would load it."""
    reply, scopes = drain(connection, slice={"table": table, "rows": rows})
    assert reply["broken"] == {}
    assert "error" not in reply["slice"]
    return [row for s in json.loads(f"[{scopes}]") if "range" in s for row in objects(s["rows"])]


@contextmanager
def role(url: str, name: str, options: str = "login") -> Iterator[str]:
    """A role of this server, gone again at the end with all it has in this database."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(sql.SQL("create role {} " + options).format(sql.Identifier(name)))
        try:
            yield as_user(url, name)
        finally:
            admin.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(name)))
            admin.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))
