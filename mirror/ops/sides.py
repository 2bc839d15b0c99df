"""What HTTP asks the databases, beside the loop: over connections of its own, one at a time and short-lived, so that no
number of requests makes more than one session on either side or keeps the loop waiting."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from mirror.errors import MirrorError, Unreachable
from mirror.known import Known
from mirror.postgres import connect
from mirror.source import requests
from mirror.target.target import Target, Transport

TIMEOUT_S = 8.0
QUEUE_MAX = 20
PAUSE_S = 0.1  # between two sessions
STATE_KEPT_S, STATES_MAX = 0.5, 100
PARKED_KEPT_S, PARKED_MAX = 5.0, 50
PARKED_WAIT_S = 1.0  # whoever asks how it goes is not kept waiting by a target that hangs


class Primary:
    """The requests of operators in the source."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._turn = asyncio.Lock()
        self._queued = 0
        self._states: OrderedDict[int, tuple[float, dict[str, Any] | None]] = OrderedDict()

    async def ask(self, *, table: str | None, trip: str | None, user: str | None, rewrite: bool, force: bool) -> int:
        async with self._session() as session:
            return await requests.ask(session, table=table, trip=trip, user=user, rewrite=rewrite, force=force)

    async def state(self, request: int) -> dict[str, Any] | None:
        kept = self._states.get(request)
        if kept is None or self._clock() - kept[0] > STATE_KEPT_S:
            async with self._session() as session:
                kept = self._clock(), await requests.state(session, request)
            self._states[request] = kept
            self._states.move_to_end(request)
            if len(self._states) > STATES_MAX:
                self._states.popitem(last=False)
        return kept[1]

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[AsyncConnection[Any]]:
        if self._queued >= QUEUE_MAX:
            raise Unreachable("source", "too many ask at once", hint="Ask again in a second.")
        self._queued += 1
        try:
            async with asyncio.timeout(TIMEOUT_S), self._turn:
                session = await connect(self._url, "source")
                try:
                    yield session
                finally:
                    await session.close()
                    await asyncio.sleep(PAUSE_S)
        except TimeoutError as error:
            raise Unreachable("source", f"no answer within {TIMEOUT_S:.0f} s") from error
        finally:
            self._queued -= 1


class Parked:
    """The keys that the target refuses. The loop knows how many; which ones is asked only when there are any."""

    def __init__(
        self,
        open_target: Callable[[], Awaitable[Transport]],
        look: Callable[[], Known],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open = open_target
        self._look = look
        self._clock = clock
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._known: list[dict[str, Any]] = []

    async def keys(self) -> list[dict[str, Any]]:
        if not self._look().parked_rows:
            return []
        if self._asking is None and self._clock() - self._asked_at > PARKED_KEPT_S:
            self._asked_at = self._clock()
            self._asking = asyncio.create_task(self._refresh())
        if self._asking is not None:
            await asyncio.wait((self._asking,), timeout=PARKED_WAIT_S)
        return self._known

    async def _refresh(self) -> None:
        """The loop asks the same target, and says what is wrong with it: then these are the last ones known."""
        try:
            with suppress(MirrorError, TimeoutError):
                self._known = await self._ask()
        finally:
            self._asking = None

    async def _ask(self) -> list[dict[str, Any]]:
        async with asyncio.timeout(TIMEOUT_S):
            transport = await self._open()
            try:
                status = await Target(transport).status()
            finally:
                await transport.close()
        return [_key(row) for row in status["parked"][:PARKED_MAX]]


def _key(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "table": row["tbl"],
        "key": [row["k1"], row["k2"] or None],
        "reason": row["reason"][:1000],
        "since": _seconds(row["since"]),
        "tries": row["tries"],
        "retry_at": _seconds(row["retry_at"]),
    }


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
