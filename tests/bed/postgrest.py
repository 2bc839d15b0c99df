"""A stand-in for PostgREST 14: imitates what calling a function through Supabase's API does, where the real one is not
to be had. With MIRROR_TEST_POSTGREST_BIN the same tests run on a real one (tests/bed/supabase_api.py).

What it imitates, after PostgREST's sources:
- It logs in as `authenticator`, becomes the role of the token for one transaction, with that role's settings (ALTER
  ROLE) and the claims; `statement_timeout` and two more settings of the function are set before it is called.
- Functions are known as they were when it last looked: at the start (503, PGRST002 until then), and a while after
  `notify pgrst, 'reload schema'` (until then 404, PGRST202), when its pool is flushed, too. ANY reply of status 503
  makes it look again.
- Arguments are matched by name: missing ones 404, PGRST202; two functions that fit 300, PGRST203.
- What does not write runs READ ONLY, and so does every GET; rows are cut at 1,000 without a word; void is 204.
- Errors are PostgreSQL's, in JSON, with the status that PostgREST gives them. Of PTxyz the message is the reason phrase
  of the status line: one that is not a line of ASCII breaks the reply. 40001 is tried again without end, client or not.

UPDATE and DELETE without WHERE are 21000, as in sessions that preload safeupdate: the database imitates that itself,
for sessions of `authenticator` (mirror/demo/supabase.sql).

What it does not: tables and views, JWKS, Prefer, the OpenAPI document, single unnamed parameters."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.bed import postgrest_schema
from tests.bed.postgrest_answers import RefusedError, answer, error, refusal
from tests.bed.postgrest_jwt import claims_of
from tests.bed.postgrest_schema import Connection, Function, SchemaCache

RELOAD_MIN_S, RELOAD_MAX_S = 0.15, 0.7
_CONTENT_TYPES = ("application/json", "")
_ACCEPTED = ("application/json", "application/*", "*/*", "")
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True)
class _Call:
    cache: SchemaCache
    request: Request
    claims: dict[str, Any]
    function: Function
    keys: set[str]
    body: str


@dataclass
class Postgrest:
    """`url`: of the target, for a login that it lets in as the role authenticator. Tests set the delays."""

    url: str
    schemas: tuple[str, ...] = ("public",)
    start_s: float = 0.0
    reload_s: float | None = None
    pool_size: int = 10
    pool_wait_s: float = 10.0
    retried: int = 0  # after 40001
    reloads: int = 0
    _cache: SchemaCache | None = None
    _idle: list[Connection] = field(default_factory=list)
    _flushed: int = 0
    _closing: bool = False
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def application(self) -> Starlette:
        return Starlette(routes=[Route("/rpc/{name}", self.rpc, methods=_METHODS)])

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self._slots = asyncio.Semaphore(self.pool_size)
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as listener:
            await listener.execute("listen pgrst")
            if not self.start_s:
                self._cache = await postgrest_schema.read(listener, self.schemas)
            self._tasks |= {asyncio.create_task(self._listen(listener)), asyncio.create_task(self._keep_cache())}
            try:
                yield
            finally:
                self._closing = True
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await self._flush()

    async def rpc(self, request: Request) -> Response:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a request is a task")
        self._tasks.add(task)
        try:
            response = await self._answered(request)
        finally:
            self._tasks.discard(task)
        if response.status_code == 503:
            self._wanted.set()
        return response

    async def _answered(self, request: Request) -> Response:
        claims: dict[str, Any] = {"role": "anon"}
        try:
            cache = self._known()
            claims = claims_of(request.headers.get("authorization"))
            keys, body = await _payload(request)
            function = cache.choose(self._schema(request), request.path_params["name"], keys)
            reply = await self._called(_Call(cache, request, claims, function, keys, body))
        except RefusedError as refused:
            return refusal(refused)
        except psycopg.Error as raised:
            return error(raised, authenticated=claims["role"] != "anon")
        return answer(204, "") if reply is None else answer(200, reply)

    def _known(self) -> SchemaCache:
        if self._cache is None:
            raise RefusedError(503, "PGRST002", "Could not query the database for the schema cache. Retrying.")
        return self._cache

    def _schema(self, request: Request) -> str:
        profile = "accept-profile" if request.method in ("GET", "HEAD") else "content-profile"
        schema = request.headers.get(profile, self.schemas[0])
        if schema not in self.schemas:
            hint = f"Only the following schemas are exposed: {', '.join(self.schemas)}"
            raise RefusedError(406, "PGRST106", f"Invalid schema: {schema}", hint)
        return schema

    async def _called(self, call: _Call) -> str | None:
        """None: nothing. Ends when the transaction ends, also when the client has gone long ago."""
        while True:
            try:
                async with self._connection() as connection:
                    return await _transaction(connection, call)
            except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                if self._closing:  # psycopg raises this instead, when it comes together with being cancelled
                    raise
                self.retried += 1
                await asyncio.sleep(0)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """One that lost its server is not given out again, nor one that was out when the pool was flushed."""
        try:
            await asyncio.wait_for(self._slots.acquire(), self.pool_wait_s)
        except TimeoutError as late:
            raise RefusedError(504, "PGRST003", "Timed out acquiring connection from connection pool.") from late
        flushed = self._flushed
        try:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                yield connection
            finally:
                if connection.closed or flushed != self._flushed:
                    await connection.close()
                else:
                    self._idle.append(connection)
        finally:
            self._slots.release()

    async def _connect(self) -> Connection:
        try:
            return await psycopg.AsyncConnection.connect(self.url, autocommit=True)
        except psycopg.OperationalError as down:
            raise RefusedError(503, "PGRST000", "Database connection error. Retrying the connection.") from down

    async def _flush(self) -> None:
        self._flushed += 1
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()

    async def _listen(self, listener: Connection) -> None:
        async for notification in listener.notifies():
            if notification.payload in ("", "reload schema"):
                self._wanted.set()

    async def _keep_cache(self) -> None:
        """Several wishes at once are one."""
        if self.start_s:
            await asyncio.sleep(self.start_s)
            self._wanted.set()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._cache is not None:
                delay_s = random.uniform(RELOAD_MIN_S, RELOAD_MAX_S) if self.reload_s is None else self.reload_s
                await asyncio.sleep(delay_s)
            try:
                async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
                    self._cache = await postgrest_schema.read(connection, self.schemas)
            except psycopg.Error:
                self._wanted.set()
                await asyncio.sleep(RELOAD_MIN_S)
                continue
            self.reloads += 1
            await self._flush()


async def _transaction(connection: Connection, call: _Call) -> str | None:
    request, role = call.request, call.claims["role"]
    settings = {"search_path": '"public", "extensions"'} | call.cache.roles.get(role, {})
    settings |= {
        "role": role, "request.jwt.claims": json.dumps(call.claims), "request.method": request.method,
        "request.path": request.url.path, "request.headers": json.dumps(dict(request.headers)),
    }  # fmt: skip
    settings |= call.function.settings
    async with connection.transaction():
        if request.method != "POST" or not call.function.writes:
            await connection.execute("set transaction read only")
        places = sql.SQL(", ").join([sql.SQL("set_config(%s, %s, true)")] * len(settings))
        await connection.execute(
            sql.SQL("select {}").format(places), [part for pair in settings.items() for part in pair]
        )
        row = await (await connection.execute(call.function.call(call.keys), [call.body])).fetchone()
    if call.function.returns_nothing:
        return None
    return str(row[0]) if row else "null"


async def _payload(request: Request) -> tuple[set[str], str]:
    """The names of the arguments, and the body as it came."""
    if request.method not in ("GET", "HEAD", "POST"):
        raise RefusedError(405, "PGRST101", f"Cannot use the {request.method} method on RPC")
    accepted = [kind.split(";")[0].strip() for kind in request.headers.get("accept", "").split(",")]
    if not any(kind in _ACCEPTED for kind in accepted):
        raise RefusedError(406, "PGRST107", f"None of these media types are available: {', '.join(accepted)}")
    if request.method != "POST":
        return set(request.query_params), json.dumps(dict(request.query_params))
    kind = request.headers.get("content-type", "").split(";")[0].strip()
    if kind not in _CONTENT_TYPES:
        raise RefusedError(400, "PGRST102", f"Content-Type not acceptable: {kind}")
    text = (await request.body()).decode(errors="replace") or "{}"
    try:
        said = json.loads(text)
    except ValueError as invalid:
        raise RefusedError(400, "PGRST102", "Empty or invalid json") from invalid
    return set(said) if isinstance(said, dict) else set(), text
