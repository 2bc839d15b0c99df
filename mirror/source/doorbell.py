"""The listening connection. It has no other purpose: autocommit, never a transaction, so it never holds back VACUUM.

A notification only wakes; the loop decides. What can go wrong with LISTEN costs latency (the polling floor), never
data: a connection that was cut is opened again and rings by itself; one that hears nothing is found by a round trip.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from psycopg import AsyncConnection

from mirror.errors import ConfigError, MirrorError, Unreachable
from mirror.postgres import connect_bare, fetched
from mirror.translation import translated

log = logging.getLogger(__name__)

PROOF_TIMEOUT_S = 5.0
PROOF_INTERVAL_S = 60.0  # it costs the source a commit; a round trip costs it nothing:
ALIVE_INTERVAL_S = 8.0
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.1, 5.0


class Doorbell:
    def __init__(self, url: str, wake: asyncio.Event) -> None:
        self._url = url
        self._wake = wake
        self.proven = False
        self._heard = False
        self.reconnects = 0
        self.rings = 0

    async def check(self) -> None:
        """One proof before anything relies on it. It comes before everything else that is said to the source: a pooler
        is found out before a setting or a lock of ours could stay behind in one of its sessions."""
        async with self._opened():
            pass

    async def run(self) -> None:
        """Listens for ever; reconnects with jittered, growing pauses."""
        pause_s = BACKOFF_MIN_S
        while True:
            try:
                async with self._opened() as connection:
                    pause_s = BACKOFF_MIN_S
                    self.proven = True
                    self._wake.set()  # whatever was rung while nobody listened
                    await self._listen(connection)
            except MirrorError as error:
                log.warning("doorbell lost", extra={"error": error.message, "again_in_s": round(pause_s, 1)})
            finally:
                self.proven = False
            self.reconnects += 1
            self._wake.set()
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
            pause_s = min(BACKOFF_MAX_S, pause_s * 2)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Listening, and proven to hear."""
        connection = await connect_bare(self._url, "source")
        try:
            await self._say(connection, "listen mirror")
            await self._prove(connection)
            yield connection
        finally:
            await connection.close()

    async def _prove(self, listener: AsyncConnection[Any]) -> None:
        """A notification sent through another connection must arrive. Behind a pooler it does not, while everything
        else works; when that does not work either, it is the network."""
        nonce = secrets.token_hex(8)
        sender = await connect_bare(self._url, "source")
        try:
            row = await self._say(sender, "select host(inet_server_addr()), inet_server_port()")
            await self._say(sender, "select pg_notify('mirror', %s)", [nonce])
            if await self._hears(listener, nonce):
                self._heard = True
                return
            await self._say(listener, "unlisten mirror")  # the pooler's session listens, if anybody does
            await self._say(sender, "select 1")
        finally:
            await sender.close()
        if self._heard:  # it worked on this URL before
            raise Unreachable("source", "the doorbell is deaf")
        behind = f"The server itself is at {row[0]}, port {row[1]}. " if row and row[0] else ""
        raise ConfigError(
            "a NOTIFY on this connection does not arrive: MIRROR_SOURCE_URL goes through a connection pooler",
            hint=f"{behind}Use the server's direct host (on Neon: the host name without -pooler).",
        )

    async def _say(self, connection: AsyncConnection[Any], query: str, arguments: list[Any] | None = None) -> Any:
        return await fetched(connection, "source", query, arguments, within_s=PROOF_TIMEOUT_S)

    async def _hears(self, listener: AsyncConnection[Any], nonce: str) -> bool:
        with translated("source"):
            async with aclosing(listener.notifies(timeout=PROOF_TIMEOUT_S)) as notifications:
                async for notification in notifications:
                    self._wake.set()
                    if notification.payload == nonce:
                        return True
        return False

    async def _listen(self, connection: AsyncConnection[Any]) -> None:
        """Half-open TCP looks alive for ever: between the rings the server has to answer, and now and then it has to
        hear itself."""
        proven_at = time.monotonic()
        while True:
            with translated("source"):
                async for _ in connection.notifies(timeout=min(ALIVE_INTERVAL_S, PROOF_INTERVAL_S)):
                    self.rings += 1
                    self._wake.set()
            if time.monotonic() - proven_at < PROOF_INTERVAL_S:
                await self._say(connection, "")
                continue
            proven_at = time.monotonic()
            nonce = secrets.token_hex(8)
            await self._say(connection, "select pg_notify('mirror', %s)", [nonce])
            if not await self._hears(connection, nonce):
                raise Unreachable("source", "the doorbell is deaf")
