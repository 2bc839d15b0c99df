"""Connections to Postgres: one way to open them, and how long an answer is waited for.

`search_path` is empty in every session: an expression of the mapping means the same in the daemon, in the triggers'
check at install, and for whoever comes after. So is the isolation level: were `serializable` a database's default, our
reading of the outbox would abort the application's transactions.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from psycopg import conninfo
from psycopg.abc import RV, PQGen

from mirror.errors import ConfigError, Unreachable
from mirror.limits import ASK_S, CONNECT_S, KEEPALIVE
from mirror.tls import verified
from mirror.translation import SETTING, translated

_SESSION = """
    set search_path = ''; set timezone = 'UTC'; set datestyle = 'ISO';
    set lock_timeout = '1s'; set statement_timeout = '60s'; set idle_in_transaction_session_timeout = '60s';
    set jit = off; set max_parallel_workers_per_gather = 0;
    set client_min_messages = error; set default_transaction_isolation = 'read committed'
"""
# The source's rows must never be filtered silently: with row_security off a policy that would hide some is an error.
# Forgetting need not be durable (a lost one is repeated), and its queries are planned once (half of a small drain is
# planning). The target's functions see to their own durability, since not everybody comes through here.
_SIDE = {
    "source": "; set row_security = off; set synchronous_commit = off; set plan_cache_mode = force_generic_plan",
    "target": "",
}
_WHO: dict[str, Any] = {
    "application_name": "mirror",
    "client_encoding": "utf8",  # a database in SQL_ASCII would hand out bytes
}


def parameters(url: str, side: str) -> dict[str, Any]:
    """The parts of a URL. What is wrong with one is said of its setting and nothing of it is quoted: an unescaped / or
    @ in a password makes libpq take pieces of the password for the host, the port or the database."""
    try:
        parts = conninfo.conninfo_to_dict(url)
    except (psycopg.ProgrammingError, UnicodeDecodeError):
        parts = {}
    if not parts or not all(map(_is_port, str(parts.get("port", "")).split(","))) or _is_misread(parts):
        raise ConfigError(
            f"{SETTING[side]} is not a Postgres URL",
            hint="It looks like postgresql://user:password@host:5432/database; special characters in the password are "
            "written as % and two digits (/ is %2F, @ is %40).",
        )
    if side == "target":
        _refuse_transaction_pooler(parts)
    return dict(parts)


def _is_port(text: str) -> bool:
    return text == "" or (text.isdecimal() and len(text) < 6 and 1 <= int(text) <= 65535)


def _is_misread(parts: Mapping[str, Any]) -> bool:
    return any("@" in str(parts.get(name, "")) for name in ("host", "hostaddr", "dbname"))


def _refuse_transaction_pooler(parts: Mapping[str, Any]) -> None:
    host = str(parts.get("host", ""))
    if parts.get("port") == "6543" and host.endswith((".supabase.com", ".supabase.co")):
        raise ConfigError(
            "MIRROR_TARGET_URL names Supabase's transaction pooler (port 6543), which keeps no session",
            hint="Use port 5432 of the same host.",
        )


def refuse_one_database(source_url: str, target_url: str) -> None:
    """The application's own tables are not to be taken for the copy."""
    places = [parameters(source_url, "source"), parameters(target_url, "target")]
    source, target = ([p.get("host"), p.get("port", "5432"), p.get("dbname", p.get("user"))] for p in places)
    if source == target:
        raise ConfigError("MIRROR_SOURCE_URL and MIRROR_TARGET_URL are the same database")


def refuse_pooled_host(url: str) -> None:
    """Neon's pooled hosts are PgBouncer in transaction mode: LISTEN and session locks are silently dead there."""
    host = str(parameters(url, "source").get("host", ""))
    if "-pooler." in host or host.endswith("-pooler"):
        raise ConfigError(
            f"MIRROR_SOURCE_URL names the pooled host {host}, where NOTIFY never arrives",
            hint=f"Use the direct host {host.replace('-pooler', '')}.",
        )


class Session(psycopg.AsyncConnection[Any]):
    """A connection that is given up at once: whoever stops waiting for an answer (a timeout, a shutdown) does not want
    the query cancelled politely, through a second connection over a network that may just have lost its way. Ending
    the conversation makes the wait end, and the server rolls back.

    And it knows when bytes last went either way: a long answer on a slow network is not silence."""

    _waiting_since: float | None = None
    _limit: tuple[asyncio.Timeout, float] | None = None

    @property
    def silent_s(self) -> float:
        """How long it has been waiting without a byte; 0 when it waits for nothing."""
        return 0.0 if self._waiting_since is None else time.monotonic() - self._waiting_since

    @asynccontextmanager
    async def given_up_after(self, silent_s: float) -> AsyncIterator[None]:
        """TimeoutError after so long a silence."""
        async with asyncio.timeout(silent_s) as limit:
            self._limit = limit, silent_s
            try:
                yield
            finally:
                self._limit = None

    async def wait(self, gen: PQGen[RV], *arguments: Any, **options: Any) -> RV:
        self._waiting_since = time.monotonic()
        try:
            return await super().wait(self._noting(gen), *arguments, **options)
        finally:
            self._waiting_since = None

    def _noting(self, gen: PQGen[RV]) -> PQGen[RV]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    self._waiting_since = time.monotonic()
                    if self._limit is not None:
                        limit, silent_s = self._limit
                        limit.reschedule(asyncio.get_running_loop().time() + silent_s)
                wanted = gen.send(ready)
        except StopIteration as end:
            result: RV = end.value
            return result

    async def cancel_safe(self, *, timeout: float = 0.0) -> None:  # noqa: ARG002, ASYNC109 - psycopg's signature
        with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(self.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)


async def connect(url: str, side: str) -> Session:
    """An autocommit session with the mirror's settings, or Unreachable."""
    connection = await connect_bare(url, side)
    try:
        await fetched(connection, side, _SESSION + _SIDE[side], within_s=CONNECT_S)
    except BaseException:
        await connection.close()
        raise
    return connection


async def connect_bare(url: str, side: str) -> Session:
    """The same without a SET. Behind a pooler those would stay with a server session that the application gets next, so
    whoever does not know yet whether this is a pooler must not say any."""
    with translated(side):
        return await Session.connect(**_options(url, side, CONNECT_S), autocommit=True)


def connect_blocking(url: str, side: str) -> psycopg.Connection[Any]:
    """The same for commands that do one thing after the other."""
    with translated(side):
        connection = psycopg.Connection.connect(**_options(url, side, ASK_S), autocommit=True)
        try:
            connection.execute(_SESSION + _SIDE[side])
        except BaseException:
            connection.close()
            raise
    return connection


def _options(url: str, side: str, connect_s: int) -> dict[str, Any]:
    return _WHO | KEEPALIVE | verified(parameters(url, side)) | {"connect_timeout": connect_s}


async def fetched(
    connection: psycopg.AsyncConnection[Any],
    side: str,
    query: str,
    values: Sequence[Any] | None = None,
    *,
    within_s: float,
) -> Any:
    """The first row of the answer, or None. A server that does not answer in time is not there."""
    try:
        async with asyncio.timeout(within_s):
            with translated(side):
                cursor = await connection.execute(query, values)
                return await cursor.fetchone() if cursor.description else None
    except TimeoutError as error:
        raise Unreachable(side, f"no answer within {within_s:g} s") from error
