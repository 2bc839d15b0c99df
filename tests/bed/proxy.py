"""A TCP proxy that misbehaves on request: cuts, refuses, stalls, delays, and swallows replies.

Put it between the mirror and one of the databases: `proxy.url(original_url)` is the same database through the proxy.
"""

import asyncio
import socket
import struct
from collections.abc import Coroutine
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit, urlunsplit

from mirror.demo import servers

Direction = Literal["to_server", "to_client"]
DIRECTIONS: tuple[Direction, ...] = ("to_server", "to_client")
CHUNK_BYTES = 65_536
# SO_LINGER switched on with zero seconds: closing sends RST and throws away what was not sent yet.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """`async with Proxy(host, port) as proxy`; at the end everything that runs through it is cut."""

    def __init__(self, host: str, port: int, *, delay_s: float = 0.0) -> None:
        self.port = 0
        self.delay_s = delay_s  # added to every chunk, each way; may be changed at any time
        self.accepted = 0  # connections so far
        self._upstream = (host, port)
        self._listener: asyncio.Server | None = None
        self._flowing: dict[Direction, asyncio.Event] = {direction: asyncio.Event() for direction in DIRECTIONS}
        self._swallow_after_bytes: int | None = None
        self._swallowed = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.resume()

    @classmethod
    def to(cls, url: str, *, delay_s: float = 0.0) -> Self:
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or 5432, delay_s=delay_s)

    def url(self, original: str) -> str:
        """The same URL, with the proxy in place of the server."""
        parts = urlsplit(original)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}"))

    def cut(self) -> None:
        """Resets all connections (RST), on both sides; new ones are welcome."""
        for writer in list(self._writers):
            _reset(writer)

    def refuse(self) -> None:
        """Nobody gets in any more (connection refused); those who are in stay."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def accept(self) -> None:
        """Lets people in again after refuse(), on the same port: one that the kernel gives to nobody meanwhile."""
        if self._listener is None:
            self.port = self.port or servers._free_port()
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    def stall(self, *directions: Direction) -> None:
        """Nothing gets through any more, and nobody is told: a network that lost its way. Both ways by default."""
        for direction in directions or DIRECTIONS:
            self._flowing[direction].clear()

    def resume(self, *directions: Direction) -> None:
        """What was held back is delivered now."""
        for direction in directions or DIRECTIONS:
            self._flowing[direction].set()

    def strand(self) -> None:
        """The connections that there are fall silent for ever; new ones work: a gateway that lost its memory, or a
        server whose network has moved."""
        self.stall()
        self._flowing = {direction: asyncio.Event() for direction in DIRECTIONS}
        self.resume()

    def swallow_replies(self, after_bytes: int = 0) -> asyncio.Event:
        """The next reply is lost after so many bytes, and its connection is cut: the server did it, nobody knows.

        The event is set when it has happened. Only one reply is swallowed. A reply starts when the server has done
        the work, unless it is longer than the server's send buffer (8 kB).
        """
        self._swallow_after_bytes = after_bytes
        self._swallowed = asyncio.Event()
        return self._swallowed

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        self.cut()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.accepted += 1
        flowing = self._flowing
        self._connections.add(task)
        self._writers.add(client_writer)
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._upstream)
            self._writers.add(server_writer)
            try:
                await _first_to_end(
                    self._pump("to_server", flowing["to_server"], client_reader, server_writer),
                    self._pump("to_client", flowing["to_client"], server_reader, client_writer),
                )
            finally:
                self._close(server_writer)
        except (OSError, asyncio.CancelledError):
            _reset(client_writer)  # the server is not there, one side is gone, or the test is over
        finally:
            self._close(client_writer)
            self._connections.discard(task)

    def _close(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.close()

    async def _pump(
        self, direction: Direction, flowing: asyncio.Event, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await flowing.wait()
            if direction == "to_client" and self._swallow_after_bytes is not None:
                data, last = self._swallow(data)
                writer.write(data)
                if last:
                    # Only the rest of this reply is lost; what was let through still arrives.
                    return
            else:
                writer.write(data)
            await writer.drain()
        await flowing.wait()  # nor does the end get through

    def _swallow(self, data: bytes) -> tuple[bytes, bool]:
        assert self._swallow_after_bytes is not None
        kept = data[: self._swallow_after_bytes]
        if len(kept) == len(data):
            self._swallow_after_bytes -= len(data)
            return kept, False
        self._swallow_after_bytes = None
        self._swallowed.set()
        return kept, True


async def _first_to_end(*directions: Coroutine[None, None, None]) -> None:
    """When one side closes, the other is closed, too: PostgreSQL knows no half-open conversation."""
    tasks = [asyncio.ensure_future(direction) for direction in directions]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    if (sock := writer.get_extra_info("socket")) is not None and not writer.transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()
