"""HTTP clients for tests: polite ones, and ones that say exactly the bytes they are told to and nothing more."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

PATIENCE_S = 5.0


@dataclass(frozen=True)
class Reply:
    status: int
    head: str
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Raw:
    """One connection, by the byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        await asyncio.wait_for(self._writer.drain(), PATIENCE_S)

    async def hears(self, words: bytes) -> bytes:
        return await asyncio.wait_for(self._reader.readuntil(words), PATIENCE_S)

    async def rest(self) -> str:
        """Everything until the server closes; a reset says nothing."""
        try:
            return (await asyncio.wait_for(self._reader.read(), PATIENCE_S)).decode()
        except ConnectionResetError:
            return ""

    def leave(self) -> None:
        self._writer.transport.abort()


class Clients:
    def __init__(self, port: int) -> None:
        self._port = port
        self._raw: list[Raw] = []

    async def raw(self, *parts: bytes) -> Raw:
        client = Raw(*await asyncio.open_connection("127.0.0.1", self._port))
        self._raw.append(client)
        for part in parts:
            await client.say(part)
        return client

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request on a connection of its own; as many as you like at the same time."""
        query_text = "&".join(f"{name}={quote(value, safe='')}" for name, value in (query or {}).items())
        lines = {"host": "localhost", "connection": "close", "content-length": str(len(body)), **(headers or {})}
        head = f"{method} {path}{'?' if query else ''}{query_text} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(head.encode() + body)
            said = (await reader.read()).decode()
        finally:
            writer.transport.abort()
        answered, _, text = said.partition("\r\n\r\n")
        return Reply(int(answered.split()[1]), answered, text)

    async def get(self, path: str, **query: str) -> Reply:
        return await self.ask("GET", path, query=query)

    def leave(self) -> None:
        for client in self._raw:
            client.leave()


@asynccontextmanager
async def clients(port: int) -> AsyncIterator[Clients]:
    """All of them leave at the end."""
    there = Clients(port)
    try:
        yield there
    finally:
        there.leave()
        await asyncio.sleep(0)
