"""The target side without a daemon: install it, claim it, and apply batches written by hand."""

import json
import re
import uuid
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from mirror.mapping import Mapping
from mirror.postgres import connect_blocking
from mirror.target import install as target_side

UUIDS = {"user_id": "uuid", "trip_id": "uuid", "created_by": "uuid"}
TEXTS = dict.fromkeys(UUIDS, "text")
INTEGERS = dict.fromkeys(UUIDS, "integer")
BIGINTS = dict.fromkeys(UUIDS, "bigint")
SOURCE = {"system": "7", "timeline": None, "database": "app", "install": "8c7d"}
# After mirror.state was changed by hand: as if the mirror itself had written it.
RESEAL = "select mirror.keep(s) from mirror.state as s"

Row = dict[str, Any]
Connection = psycopg.AsyncConnection[Any]


def put_in_place(url: str, types: dict[str, str] | None = None, mapping: Mapping | None = None) -> list[str]:
    """`mirror install target --take-rights`, for a source with these keys; what it said."""
    said: list[str] = []
    with connect_blocking(url, "target") as connection:
        target_side.install(connection, types or UUIDS, mapping or Mapping(), said.append, take_rights=True)
    return said


def as_role(url: str, role: str) -> str:
    """The same database for somebody else: the servers of the tests let everybody in."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))


def an_id(number: int) -> str:
    """The same uuid for the same number, in the order of the numbers."""
    return str(uuid.UUID(int=number))


def user(key: Any, username: str | None = None, **more: Any) -> Row:
    return {"id": key, "subject": str(key), "email": None, "username": username} | more


def trip(key: Any, name: str | None = None, created_by: Any = None) -> Row:
    return {"id": key, "name": name, "created_by": created_by}


def membership(trip_id: Any, user_id: Any, role: str | None = "MEMBER", status: str | None = "ACTIVE") -> Row:
    return {"trip_id": trip_id, "user_id": user_id, "role": role, "status": status}


def peopled(*members: Row) -> tuple[Row, Row]:
    """These memberships, and the users they are about: who is not a mirrored user is a member of nothing."""
    users = [user(key) for key in dict.fromkeys(member["user_id"] for member in members)]
    return scope("users", users), scope("trip_memberships", members)


def scope(table: str, rows: Iterable[Row] = (), **more: Any) -> Row:
    return {"table": table, "rows": lists(rows)} | more


def lists(rows: Iterable[Row]) -> dict[str, str]:
    """Rows as they travel: a list for each column, written as PostgreSQL writes arrays."""
    rows = list(rows)
    columns = dict.fromkeys(column for row in rows for column in row)
    return {column: array([row.get(column) for row in rows]) for column in columns}


def array(values: Iterable[Any]) -> str:
    quoted = [re.sub(r'(["\\])', r"\\\1", str(v)) for v in values]
    return "{" + ",".join("NULL" if v is None else f'"{q}"' for v, q in zip(values, quoted, strict=True)) + "}"


def span(
    table: str,
    rows: Iterable[Row] = (),
    *,
    after: Sequence[Any] = (),
    upto: Sequence[Any] = (),
    trip: Any = None,
    refused: Sequence[Row] = (),
) -> Row:
    """A range, as the source writes it: after the one key, up to the other; both are text, or absent."""
    (after1, after2), (upto1, upto2) = _bound(after), _bound(upto)
    bounds = {"trip": _text(trip), "after1": after1, "after2": after2, "upto1": upto1, "upto2": upto2}
    return scope(table, rows, gone=[], refused=list(refused), range=bounds)


def _bound(key: Sequence[Any]) -> tuple[str | None, str | None]:
    return _text(key[0] if key else None), _text(key[1] if len(key) > 1 else None)


def _text(key: Any) -> str | None:
    return None if key is None else str(key)


def position(snapshot: str, as_of: str = "2026-01-01T00:00:00+00:00", fresh_at: str | None = None) -> Row:
    return {"snapshot": snapshot, "as_of": as_of, "fresh_at": fresh_at or as_of}


class Writer:
    """A daemon's place at the target: claims once, then applies one batch after the other."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.epoch = 0
        self.batch = 0

    async def claim(self, source: Row | None = None) -> Row:
        reply = await self._call("mirror_claim", source or SOURCE)
        self.epoch, self.batch = reply["epoch"], 0
        return reply

    async def apply(self, *scopes: Row, position: Row | None = None, **notes: Any) -> Row:
        self.batch += 1
        return await self.send(self.epoch, self.batch, *scopes, position=position, **notes)

    async def send(self, epoch: int, batch: int, *scopes: Row, position: Row | None = None, **notes: Any) -> Row:
        document = {"epoch": epoch, "batch": batch, "position": position, "scopes": scopes, **notes}
        return await self._call("mirror_apply", document)

    async def status(self) -> Row:
        return await self._call("mirror_status")

    async def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return await (await self.connection.execute(query, arguments)).fetchall()

    async def one(self, query: str, *arguments: Any) -> Any:
        (row,) = await self.rows(query, *arguments)
        return row[0]

    async def _call(self, function: str, argument: Row | None = None) -> Row:
        place, values = ("%s::jsonb", [json.dumps(argument)]) if argument is not None else ("", [])
        row = await (await self.connection.execute(f"select public.{function}({place})", values)).fetchone()
        assert row is not None
        reply: Row = row[0]
        return reply
