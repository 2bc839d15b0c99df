"""People in front of the target: signed in with a token, and asking as PostgREST and Realtime let them ask."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg

from mirror.mapping import Mapping
from tests.bed.backends import Pair
from tests.bed.databases import Template, template
from tests.bed.target_side import Connection, Writer, position, put_in_place
from tests.bed.templates import prepare_target

PROBE = "insert into realtime.messages (topic, extension) values (%s, 'broadcast'), (%s, 'presence')"


@contextmanager
def installed(pair: Pair, types: dict[str, str] | None = None, mapping: Mapping | None = None) -> Iterator[Template]:
    """A Supabase project with the mirror in it, to be cloned: installing takes longer than most tests."""

    async def prepare(connection: psycopg.AsyncConnection) -> None:
        await prepare_target(connection)
        url = pair.target.url(connection.info.dbname)
        await asyncio.to_thread(put_in_place, url, types, mapping)

    with template(pair.target, "installed", prepare) as made:
        yield made


class Project:
    """One database: what the mirror brings there, and what people see of it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.writer = Writer(connection)

    @classmethod
    @asynccontextmanager
    async def of(cls, made: Template) -> AsyncIterator["Project"]:
        with made.clone() as url:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                project = cls(connection)
                await project.writer.claim()
                yield project

    async def mirror(self, *scopes: dict[str, Any], fresh_at: str = "2026-01-01T00:00:00+00:00") -> None:
        """These rows come from the source, and with them the target equals it."""
        at = position(f"{self.writer.batch + 10}:{self.writer.batch + 10}:", fresh_at=fresh_at)
        await self.writer.apply(*scopes, position=at)

    async def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return await (await self.connection.execute(query, arguments or None)).fetchall()

    async def one(self, query: str, *arguments: Any) -> Any:
        (row,) = await self.rows(query, *arguments)
        return row[0]

    @asynccontextmanager
    async def signed_in(self, sub: Any, *, topic: str = "", role: str = "authenticated") -> AsyncIterator["Project"]:
        """One request; `sub` as it stands in the token, or a whole token's claims as text."""
        async with self.connection.transaction():
            await self._become(sub, topic, role)
            yield self

    async def ask(self, sub: Any, query: str, *arguments: Any, role: str = "authenticated") -> Any:
        async with self.signed_in(sub, role=role):
            return await self.one(query, *arguments)

    async def column(self, sub: Any, query: str, *arguments: Any) -> set[Any]:
        async with self.signed_in(sub):
            return {row[0] for row in await self.rows(query, *arguments)}

    async def receives(self, sub: Any, topic: str, *, role: str = "authenticated") -> set[str]:
        """What Realtime finds when it asks: probe rows, the client's role and claims, and all is rolled back."""
        async with self.connection.transaction(force_rollback=True):
            await self.connection.execute(PROBE, [topic, topic])
            await self._become(sub, topic, role)
            found = await self.rows("select extension from realtime.messages where topic = %s", topic)
        return {extension for (extension,) in found}

    async def sends(self, sub: Any, topic: str, *, role: str = "authenticated") -> set[str]:
        return {e for e in ("broadcast", "presence", "postgres_changes") if await self._may_insert(sub, topic, e, role)}

    async def _may_insert(self, sub: Any, topic: str, extension: str, role: str) -> bool:
        try:
            async with self.connection.transaction(force_rollback=True):
                await self._become(sub, topic, role)
                await self.connection.execute(
                    "insert into realtime.messages (topic, extension) values (%s, %s)", [topic, extension]
                )
        except psycopg.errors.InsufficientPrivilege:
            return False
        return True

    async def _become(self, sub: Any, topic: str, role: str) -> None:
        claims = sub if isinstance(sub, Claims) else json.dumps({"sub": sub, "role": role})
        await self.connection.execute(
            "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true), "
            "set_config('realtime.topic', %s, true)",
            [role, claims, topic],
        )


class Claims(str):
    """The whole of request.jwt.claims, as it is."""

    __slots__ = ()
