"""Requests of operators, as the source keeps them: left by whoever asks, worked off by the daemon that leads."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection

from mirror.translation import translated

ASK = "select mirror.ask(%s, tbl => %s, trip => %s, usr => %s, rewrite => %s, force => %s)"
STATE = "select state, progress, result, done_at from mirror.request where id = %s"


async def ask(
    connection: AsyncConnection[Any],
    *,
    table: str | None,
    trip: str | None,
    user: str | None,
    rewrite: bool,
    force: bool,
) -> int:
    with translated("source"):
        cursor = await connection.execute(ASK, ["resync", table, trip, user, rewrite, force])
        row = await cursor.fetchone()
    if row is None:
        raise AssertionError("a function returns a row")
    return int(row[0])


async def state(connection: AsyncConnection[Any], request: int) -> dict[str, Any] | None:
    with translated("source"):
        row = await (await connection.execute(STATE, [request])).fetchone()
    return None if row is None else {"id": request, "state": row[0], "progress": row[1], "result": row[2]}
