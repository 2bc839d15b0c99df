"""A template database per side, and clones of it: each test has both sides to itself in some 30 ms."""

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from tests.bed.backends import Side

Prepare = Callable[[psycopg.AsyncConnection], Awaitable[None]]


@dataclass(frozen=True)
class Template:
    """A prepared database that nobody is connected to, from which databases for tests are cloned."""

    side: Side
    name: str
    owner: str
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def clone(self) -> Iterator[str]:
        """The URL of a fresh copy, dropped at the end with everybody who is still connected."""
        name = f"{self.name}_{next(self._numbers)}"
        _admin(self.side, "create database {} template {} owner {}", name, self.name, self.owner)
        try:
            yield self.side.url(name)
        finally:
            _admin(self.side, "drop database {} with (force)", name)


@contextmanager
def template(side: Side, label: str, prepare: Prepare) -> Iterator[Template]:
    """The name is different in each run: two runs may share a server."""
    name = f"mirror_test_{label}_{secrets.token_hex(4)}"
    _admin(side, "create database {}", name)
    try:
        owner = asyncio.run(_prepare(side.url(name), prepare))
        yield Template(side, name, owner)
    finally:
        _admin(side, "drop database {} with (force)", name)


async def _prepare(url: str, prepare: Prepare) -> str:
    """Whoever owns the template owns the clones: that is not copied by itself."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        await prepare(conn)
        cursor = await conn.execute(
            "select pg_get_userbyid(datdba) from pg_database where datname = current_database()"
        )
        row = await cursor.fetchone()
        assert row is not None
        return str(row[0])


def _admin(side: Side, statement: str, *names: str) -> None:
    with psycopg.connect(side.admin_url, autocommit=True) as conn:
        conn.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
