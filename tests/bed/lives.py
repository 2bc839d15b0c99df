"""Primaries that crash, under an application that takes tokens all the time; and who checks every yes.

The application commits asynchronously for the most part, and rolls back often, so a crash takes much with it and hands
its transaction ids out again. From the first moment after the crash it goes on.
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg

from mirror.demo.binaries import run_as
from mirror.demo.cluster import environment, own, prepare
from mirror.demo.servers import Server, temporary_directory
from tests.bed.daemons import differences, projections, rows
from tests.bed.eventually import eventually
from tests.bed.proxy import Proxy
from tests.bed.templates import prepare_source

# Durable, as production is; but asynchronous commits stay in memory for long, so that a crash takes many.
SETTINGS = {
    "wal_writer_delay": "3s",
    "autovacuum_naptime": "1h",
    "max_connections": "60",
    "max_standby_streaming_delay": "-1",
}
CRASHES = ("kill", "immediate", "segfault", "backend", "promote", "restart")
WRITERS, PAUSE_S = 2, 0.004
MIRRORED = {"users": "select id::text, subject, email, username from public.users"}
Connection = psycopg.AsyncConnection[Any]


class Replica(Server):
    """A copy that streams; `promote` makes it the primary."""

    def _says_ready(self) -> bool:
        try:
            lines = self._data.joinpath("postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() in {"ready", "standby"}


class Primary:
    """The URL stays the same whichever server is the primary."""

    def __init__(self, server: Server, proxy: Proxy, directory: Path) -> None:
        self.server, self.proxy = server, proxy
        self._directory = directory
        self._replicas = 0

    @property
    def url(self) -> str:
        return self.proxy.url(self.server.url())

    async def crash(self, way: str) -> None:
        match way:
            case "kill":
                await asyncio.to_thread(self.server.kill)
                await asyncio.to_thread(self.server.restart)
            case "immediate" | "restart":
                await asyncio.to_thread(self.server.restart, "immediate" if way == "immediate" else "fast")
            case "segfault" | "backend":
                await self._end_backend(signal.SIGSEGV if way == "segfault" else signal.SIGKILL)
            case "promote":
                await self._promote()

    async def _end_backend(self, number: signal.Signals) -> None:
        """One session dies, and with it all: the server recovers by itself."""
        async with await psycopg.AsyncConnection.connect(self.server.url(), autocommit=True) as session:
            os.kill(session.info.backend_pid, number)
            with contextlib.suppress(psycopg.Error):
                await session.execute("select pg_sleep(60)")
        await eventually(self.answers, 30)

    async def _promote(self) -> None:
        replica = await asyncio.to_thread(self.copy)
        async with await psycopg.AsyncConnection.connect(self.server.url(), autocommit=True) as session:
            streams = "select exists (select from pg_stat_replication where state = 'streaming')"
            await eventually(lambda: _value(session, streams), 30)
        await self.switch_to(replica)
        async with await psycopg.AsyncConnection.connect(replica.url(), autocommit=True) as session:
            await session.execute("select pg_promote(wait => false)")
        await eventually(self.answers, 30)

    async def switch_to(self, server: Server) -> None:
        """The primary until now is gone for good."""
        old, self.server = self.server, server
        self.proxy._upstream = ("127.0.0.1", server.port)
        await asyncio.to_thread(old.kill)
        await asyncio.to_thread(shutil.rmtree, old.directory)
        self.proxy.cut()

    def copy(self) -> Replica:
        self._replicas += 1
        directory = self._directory / f"replica{self._replicas}"
        prepare(directory)
        subprocess.run(
            [self.server.program("pg_basebackup"), "-D", directory / "data", "-d", self.server.url(), "-R", "-X",
             "stream", "-c", "fast"],
            check=True, capture_output=True, cwd=directory, env=environment(), **run_as(),
        )  # fmt: skip
        own(directory / "data")
        return Replica.start(self.server.major, directory, settings=SETTINGS)

    async def answers(self) -> bool:
        async with await psycopg.AsyncConnection.connect(self.server.url(), autocommit=True) as session:
            return not await _value(session, "select pg_is_in_recovery()")


@asynccontextmanager
async def a_primary(major: int = 16) -> AsyncIterator[Primary]:
    with temporary_directory() as directory:
        server = await asyncio.to_thread(Server.start, major, directory / "server", settings=SETTINGS)
        async with Proxy.to(server.url()) as proxy:
            primary = Primary(server, proxy, directory)
            try:
                async with await psycopg.AsyncConnection.connect(primary.url, autocommit=True) as source:
                    await prepare_source(source)
                yield primary
            finally:
                await asyncio.to_thread(primary.server.stop, "immediate")


async def _value(connection: Connection, query: str, *arguments: object) -> Any:
    row = await (await connection.execute(query, arguments)).fetchone()
    return row[0] if row else None


@dataclass
class Written:
    """What one transaction of the application left: a row, and the token that it was given."""

    key: str
    token: str
    durable: bool


@dataclass
class Figures:
    rounds: int = 0
    tokens: int = 0
    yes: int = 0
    lost: int = 0  # what a crash took
    early: list[str] = field(default_factory=list)
    false_positions: list[str] = field(default_factory=list)
    lives: set[str] = field(default_factory=set)


_ASK = """
select public.mirror_has(t.token), exists (select from public.users as u where u.id = t.key::uuid),
       (select s.position_life from mirror.state as s)
from unnest(%s::text[], %s::text[]) as t(token, key)
"""


class Application:
    """Writes and asks until it is told to stop; what it finds is in `figures`."""

    def __init__(self, url: str, target_url: str, port: int) -> None:
        self._url, self._target_url = url, target_url
        self._wait_url = f"http://127.0.0.1:{port}/wait"
        self.open: list[Written] = []  # not answered yes so far
        self.figures = Figures()
        self._pause = asyncio.Event()
        self._resting: set[asyncio.Task[None]] = set()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        tasks = [asyncio.create_task(self._write()) for _ in range(WRITERS)]
        tasks += [asyncio.create_task(self._ask_target()), asyncio.create_task(self._ask_daemon())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def writes(self, transactions: int) -> None:
        """So many more are acknowledged."""
        enough = self.figures.tokens + transactions
        await eventually(lambda: self.figures.tokens >= enough, 60)

    async def rest(self) -> None:
        self._pause.set()
        await eventually(lambda: len(self._resting) == WRITERS, 60)

    def go_on(self) -> None:
        self._pause.clear()
        self._resting.clear()

    async def _write(self) -> None:
        """Connects anew after each failure, at once: the first transactions after a crash are the dangerous ones."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as session:
                    while True:
                        await self._transaction(session)
                        await asyncio.sleep(PAUSE_S)
                        while self._pause.is_set():
                            self._resting.add(asyncio.current_task())  # type: ignore[arg-type]
                            await asyncio.sleep(0.01)
            except (psycopg.Error, OSError):
                await asyncio.sleep(0.01)

    async def _transaction(self, session: Connection) -> None:
        written = Written(str(uuid.uuid4()), "", durable=random.random() < 0.05)
        fails = random.random() < 0.3
        with contextlib.suppress(psycopg.Rollback):
            async with session.transaction():
                await session.execute(f"set local synchronous_commit = {'on' if written.durable else 'off'}")
                await session.execute("insert into public.users (id, username) values (%s, 'x')", [written.key])
                written.token = await _value(session, "select mirror.token()")
                if fails:
                    raise psycopg.Rollback
        if not fails:
            self.figures.tokens += 1
            self.open.append(written)

    async def _ask_target(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._target_url, autocommit=True) as target:
            while True:
                asked = random.sample(self.open, min(300, len(self.open))) + self.open[-50:]
                columns = [[w.token for w in asked], [w.key for w in asked]]
                answers = await (await target.execute(_ASK, columns)).fetchall()
                for written, (has, there, life) in zip(asked, answers, strict=True):
                    if has:
                        await self._yes(written, life, there=there)
                await asyncio.sleep(0.01)

    async def _ask_daemon(self) -> None:
        """The youngest ones, through /wait."""
        async with (
            await psycopg.AsyncConnection.connect(self._target_url, autocommit=True) as target,
            httpx.AsyncClient(trust_env=False) as client,
        ):
            while True:
                await asyncio.sleep(0.005)
                if not self.open:
                    continue
                written = self.open[-1]
                reply = await client.get(self._wait_url, params={"token": written.token, "timeout": 0.5}, timeout=30)
                if reply.status_code == 200:
                    row = await (await target.execute(
                        "select exists (select from public.users where id = %s), life from mirror.state",
                        [written.key],
                    )).fetchone()  # fmt: skip
                    assert row is not None
                    await self._yes(written, row[1], there=row[0])

    async def _yes(self, written: Written, life: str, *, there: bool) -> None:
        """A yes is right when the row is there; or when a crash took it, and that is over and compared."""
        if written in self.open:
            self.open.remove(written)
            self.figures.yes += 1
        if there:
            return
        number = written.token.split("/")[1].partition(".")[0]
        over = int(life.partition(".")[0]) > int(number)
        if written.durable or not over or await self._is_in_source(written.key):
            self.figures.early.append(f"{written} at life {life}")
        else:
            self.figures.lost += 1

    async def _is_in_source(self, key: str) -> bool:
        async def ask() -> tuple[bool]:
            async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as source:
                return (await _value(source, "select exists (select from public.users where id = %s)", key),)

        return (await eventually(ask, 60))[0]

    async def settle(self, timeout_s: float = 60.0) -> None:
        """With the application at rest: as soon as its last token is answered yes, the two sides are equal."""
        async with (
            await psycopg.AsyncConnection.connect(self._url, autocommit=True) as source,
            await psycopg.AsyncConnection.connect(self._target_url, autocommit=True) as target,
        ):
            token = await _value(source, "select mirror.token()")
            await eventually(lambda: _value(target, "select public.mirror_has(%s)", token), timeout_s)
            users = {"users": projections()["users"]}
            here, there = await rows(source, users), await rows(target, MIRRORED)
            if here != there:
                self.figures.false_positions.append(f"{token}: {differences(here, there)}")
            self.figures.lives.add(await _value(target, "select position_life from mirror.state"))
            assert await _value(target, "select mirror_is_fresh('1 minute')")
