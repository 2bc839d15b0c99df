"""What the two databases say of the mirror, without the daemon. Either may be away; what can be told is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.rows import dict_row

from mirror.cli.seen import Report, verdict
from mirror.config import Settings
from mirror.errors import ConfigError, MirrorError, Refused
from mirror.https import Https
from mirror.postgres import connect_blocking
from mirror.target import replies
from mirror.target.target import Target
from mirror.target.ways import check, open_transport
from mirror.translation import UNDEFINED_FUNCTION, translated

NOTICED_WITHIN_S = 10.0  # a person waits
Connection = psycopg.Connection[Any]

_WAITING = """
    select count(*) as outbox_entries, coalesce(extract(epoch from now() - min(at)), 0)::float8 as lag_seconds,
           (select to_jsonb(l) from mirror.leader() as l) as lead,
           (select coalesce(jsonb_agg(to_jsonb(s)), '[]') from mirror.strangers() as s) as strangers,
           (select sum(pg_total_relation_size(c.oid))::bigint from pg_class as c
            where c.relnamespace = to_regnamespace('mirror') and c.relkind = 'r' and c.relname ~ '^outbox')
             as outbox_bytes,
           mirror.faults() as faults
    from mirror.outbox
"""
_RESYNC = """
    select json_build_object('id', id, 'state', state, 'reason', kind, 'table', coalesce(progress->>'table', tbl),
                             'phase', progress->>'phase', 'done_rows', coalesce((progress->>'rows_checked')::bigint, 0),
                             'total_rows', nullif((progress->>'rows_expected')::bigint, 0))
    from mirror.request where done_at is null order by id limit 1
"""


class Sides:
    """Keeps its connections, so that watching does not open two every second."""

    def __init__(self, settings: Settings) -> None:
        check(settings)
        way = settings.target_way()
        self._settings = settings
        self._urls = {"source": settings.source()} | ({} if isinstance(way, Https) else {"target": way})
        self._stale_after_s = settings.stale_after_s
        self._open: dict[str, Connection] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._open.values():
            connection.close()

    def read(self) -> Report:
        """`verdict` is one word, the rest says why (mirror/cli/seen.py)."""
        errors: list[str] = []
        target = self._ask("target", _target, errors) if "target" in self._urls else self._ask_api(errors)
        source = self._ask("source", _source, errors)
        return {
            **verdict(source, target, self._stale_after_s),
            "stale_after_seconds": self._stale_after_s,
            "errors": errors,
            "target": target,
            "source": source,
        }

    def _ask(self, side: str, question: Callable[[Connection], Report], errors: list[str]) -> Report | None:
        try:
            if side not in self._open:
                self._open[side] = connect_blocking(self._urls[side], side)
            with translated(side):
                return question(self._open[side])
        except ConfigError:
            raise
        except MirrorError as error:
            errors.append(str(error))
            with contextlib.suppress(KeyError):
                self._open.pop(side).close()
            return None

    def _ask_api(self, errors: list[str]) -> Report | None:
        try:
            return {"installed": True, **asyncio.run(_status(self._settings))}
        except ConfigError:
            raise
        except MirrorError as error:
            errors.append(str(error))
            return {"installed": False} if isinstance(error, Refused) and error.sqlstate == UNDEFINED_FUNCTION else None


async def _status(settings: Settings) -> Report:
    transport = await open_transport(settings, NOTICED_WITHIN_S)
    try:
        return await Target(transport).status()
    finally:
        await transport.close()


def _target(connection: Connection) -> Report:
    row = connection.execute("select to_regproc('public.mirror_status') is not null").fetchone()
    row = connection.execute("select public.mirror_status()").fetchone() if row and row[0] else None
    return {"installed": False} if row is None or row[0] is None else {"installed": True, **replies.status(row[0])}


def _source(connection: Connection) -> Report:
    row = connection.execute("select to_regclass('mirror.outbox') is not null").fetchone()
    if not (row and row[0]):
        return {"installed": False}
    with connection.cursor(row_factory=dict_row) as cursor:
        (waiting,) = cursor.execute(_WAITING).fetchall()
    resync = connection.execute(_RESYNC).fetchone()
    leads = {"leader": waiting["lead"] is not None}
    return {"installed": True, **waiting, **leads, "resync": resync[0] if resync else None}
