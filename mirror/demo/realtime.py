"""May this person join the channel of that trip? Asked as Supabase Realtime asks when a client joins a private
channel: in a transaction that is rolled back it puts probe rows into realtime.messages, becomes the client's role with
the claims of the client's token, and looks which of the rows the policies let it see. None: the answer is 403.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import psycopg

TIMEOUT_S = 10.0
PAUSE_MIN_S, PAUSE_MAX_S = 0.0002, 0.02

# One round trip; parameters are quoted by the client, since a statement with parameters of the server is but one.
_CHECK = """
begin;
insert into realtime.messages (topic, extension) values (%(topic)s, 'broadcast'), (%(topic)s, 'presence');
select set_config('role', 'authenticated', true), set_config('realtime.topic', %(topic)s, true),
       set_config('request.jwt.claims', %(claims)s, true), set_config('request.jwt.claim.sub', %(sub)s, true),
       set_config('request.jwt.claim.role', 'authenticated', true);
select count(*) from realtime.messages where topic = %(topic)s;
rollback;
"""
_THE_COUNT = 3  # of the five statements, counted from 0


class Realtime:
    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._cursor = psycopg.AsyncClientCursor(connection)
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[Realtime]:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            yield cls(connection)

    async def may_join(self, person: str, trip: str) -> bool:
        claims = json.dumps({"sub": person, "role": "authenticated", "aud": "authenticated"})
        await self._cursor.execute(_CHECK, {"topic": f"trip:{trip}", "claims": claims, "sub": person})
        for _ in range(_THE_COUNT):
            self._cursor.nextset()
        row = await self._cursor.fetchone()
        return row is not None and row[0] > 0

    async def all_answered(self, people: Iterable[str], trip: str, *, allowed: bool) -> bool:
        for person in people:
            if await self.may_join(person, trip) is not allowed:
                return False
        return True

    async def finds(self, query: str, arguments: list[Any]) -> bool:
        """Whether a query of the mirrored tables has a row."""
        cursor = await self._connection.execute(query, arguments)
        return await cursor.fetchone() is not None


async def until(ask: Callable[[], Awaitable[bool]], timeout_s: float = TIMEOUT_S) -> float | None:
    """Asks until the answer is yes: the seconds that it took, None when it was not in time."""
    began, pause_s = time.perf_counter(), PAUSE_MIN_S
    while not await ask():
        if time.perf_counter() - began > timeout_s:
            return None
        await asyncio.sleep(pause_s)
        pause_s = min(PAUSE_MAX_S, pause_s * 1.2)
    return time.perf_counter() - began
