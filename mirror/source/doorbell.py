"""The listening connection. It has no other purpose: autocommit, never a transaction, so it never holds back VACUUM.

A notification only wakes; the loop decides. What can go wrong with LISTEN costs latency (the polling floor), never
data: a connection that was cut is opened again and rings by itself; one that hears nothing is found by a round trip.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from typing import Any

from psycopg import AsyncConnection

from mirror.errors import ConfigError, MirrorError, Unreachable
from mirror.postgres import connect, translated

log = logging.getLogger(__name__)

PROOF_TIMEOUT_S = 5.0
PROOF_INTERVAL_S = 60.0
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.1, 30.0


class Doorbell:
    def __init__(self, url: str, wake: asyncio.Event) -> None:
        self._url = url
        self._wake = wake
        self.proven = False
        self._heard = False
        self.reconnects = 0
        self.rings = 0

    async def check(self) -> None:
        """One proof before anything relies on it; a pooled connection is refused here."""
        connection = await self._open()
        await connection.close()
        self.proven = False

    async def run(self) -> None:
        """Listens for ever; reconnects with jittered, growing pauses."""
        pause_s = BACKOFF_MIN_S
        while True:
            try:
                connection = await self._open()
                pause_s = BACKOFF_MIN_S
                self._wake.set()  # whatever was rung while nobody listened
                try:
                    await self._listen(connection)
                finally:
                    self.proven = False
                    await connection.close()
            except MirrorError as error:
                log.warning("doorbell lost", extra={"error": str(error), "again_in_s": round(pause_s, 1)})
            self.reconnects += 1
            self._wake.set()
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
            pause_s = min(BACKOFF_MAX_S, pause_s * 2)

    async def _open(self) -> AsyncConnection[Any]:
        connection = await connect(self._url, "source")
        try:
            with translated("source"):
                await connection.execute("listen mirror")
            await self._prove(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _prove(self, listener: AsyncConnection[Any]) -> None:
        """A notification sent through another connection must arrive. Behind a pooler it does not."""
        nonce = secrets.token_hex(8)
        sender = await connect(self._url, "source")
        try:
            with translated("source"):
                row = await (await sender.execute("select host(inet_server_addr()), inet_server_port()")).fetchone()
                await sender.execute("select pg_notify('mirror', %s)", [nonce])
                async for notification in listener.notifies(timeout=PROOF_TIMEOUT_S):
                    if notification.payload == nonce:
                        self.proven = self._heard = True
                        return
        finally:
            await sender.close()
        if self._heard:  # it worked on this URL before: trouble on the way, not a pooler
            raise Unreachable("source", "the listening connection is deaf")
        behind = f"The server itself is at {row[0]}, port {row[1]}. " if row and row[0] else ""
        raise ConfigError(
            "a NOTIFY on this connection does not arrive: MIRROR_SOURCE_URL goes through a connection pooler",
            hint=f"{behind}Use the server's direct host (on Neon: the host name without -pooler).",
        )

    async def _listen(self, connection: AsyncConnection[Any]) -> None:
        with translated("source"):
            while True:
                async for _ in connection.notifies(timeout=PROOF_INTERVAL_S):
                    self.rings += 1
                    self._wake.set()
                await self._round_trip(connection)

    async def _round_trip(self, connection: AsyncConnection[Any]) -> None:
        """Half-open TCP looks alive for ever: hear ourselves now and then."""
        nonce = secrets.token_hex(8)
        try:
            async with asyncio.timeout(PROOF_TIMEOUT_S):
                await connection.execute("select pg_notify('mirror', %s)", [nonce])
                async for notification in connection.notifies():
                    self._wake.set()
                    if notification.payload == nonce:
                        return
        except TimeoutError as error:
            raise Unreachable("source", "the listening connection is deaf") from error
