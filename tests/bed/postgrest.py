"""A stand-in for PostgREST 14: imitates what calling a function through Supabase's API does, where the real one is not
to be had. (With MIRROR_TEST_POSTGREST_IMAGE the same tests run on that: tests/bed/supabase_api.py.)

What it imitates, after PostgREST's sources: it logs in as `authenticator` and becomes the role of the JWT for one
transaction, with the claims in `request.jwt.claims`; the limits are those of the role that logged in, unless the
function has a `statement_timeout` of its own, which is set before it is called; arguments are matched by name, as its
cache of the schema knows them (read at the start and at `notify pgrst, 'reload schema'`); functions that do not write
run read only; what returns rows is cut at 1,000 without a word; errors are PostgreSQL's, in JSON, with the status that
PostgREST gives them; 40001 is tried again without end (here: 20 times, and counted)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Connection = psycopg.AsyncConnection[Any]
JWT_SECRET = "reallyreallyreallyreallyverysafe"
ROWS_MAX = 1_000
RETRIES_MAX = 20  # of 40001: the real one does not stop
_FUNCTIONS = """
    select p.proname, p.proargnames, p.provolatile = 'v', p.proretset,
           (select split_part(s, '=', 2) from unnest(p.proconfig) as s where s like 'statement_timeout=%%')
    from pg_proc as p where p.pronamespace = %s::regnamespace and p.prokind = 'f'
"""
_BEGIN = """
    select set_config('role', %s, true), set_config('request.jwt.claims', %s, true),
           set_config('request.method', 'POST', true), set_config('request.path', %s, true),
           set_config('search_path', '"public", "extensions"', true),
           set_config('statement_timeout', coalesce(%s, current_setting('statement_timeout')), true)
"""
_STATUS_OF = {"23503": 409, "23505": 409, "25006": 405, "53400": 500, "57P01": 503, "P0001": 400, "42883": 404}
_STATUS_OF |= {"42P01": 404, "42P17": 500}
_STATUS_OF_CLASS = {"08": 503, "53": 503, "0L": 403, "0P": 403, "28": 403}
_SERVERS_OWN = ("09", "25", "2D", "38", "39", "3B", "40", "54", "55", "57", "58", "F0", "HV", "P0", "XX")
_STATUS_OF_CLASS |= dict.fromkeys(_SERVERS_OWN, 500)


@dataclass(frozen=True)
class Function:
    arguments: frozenset[str]
    writes: bool
    returns_rows: bool
    statement_timeout: str | None


class RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "message": message, "details": None, "hint": hint}


def token(role: str) -> str:
    """What a legacy key is, and what the gateway makes of a secret key."""
    parts = [_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, {"role": role})]
    signature = hmac.digest(JWT_SECRET.encode(), ".".join(parts).encode(), hashlib.sha256)
    return ".".join([*parts, _base64(signature)])


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Postgrest:
    """`url`: of the target, for somebody whom it lets in as the role authenticator."""

    url: str
    schemas: tuple[str, ...] = ("public",)
    retried: int = 0
    _functions: dict[str, Function] = field(default_factory=dict)
    _idle: list[Connection] = field(default_factory=list)

    def application(self) -> Starlette:
        return Starlette(routes=[Route("/rpc/{name}", self.rpc, methods=["POST"])])

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as listener:
            await listener.execute("listen pgrst")
            await self._reload(listener)
            listening = asyncio.create_task(self._listen(listener))
            try:
                yield
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
                for connection in self._idle:
                    await connection.close()

    async def rpc(self, request: Request) -> Response:
        try:
            role = _role(request.headers.get("authorization"))
            body = await request.body()
            function = self._function(request, body)
            reply = await self._called(request, role, function, body)
        except RefusedError as refused:
            return _answer(refused.status, json.dumps(refused.body), refused.body["code"])
        except psycopg.Error as error:
            return _error(error, authenticated=role != "anon")
        return _answer(200, reply)

    def _function(self, request: Request, body: bytes) -> Function:
        schema, name = request.headers.get("content-profile", self.schemas[0]), request.path_params["name"]
        if schema not in self.schemas:
            hint = f"Only the following schemas are exposed: {', '.join(self.schemas)}"
            raise RefusedError(406, "PGRST106", f"Invalid schema: {schema}", hint)
        try:
            arguments = json.loads(body)
        except ValueError as error:
            raise RefusedError(400, "PGRST102", "Empty or invalid json") from error
        function = self._functions.get(name)
        if function is None or function.arguments != arguments.keys():
            called = f"{schema}.{name}" + (f"({', '.join(arguments)})" if arguments else " without parameters")
            raise RefusedError(404, "PGRST202", f"Could not find the function {called} in the schema cache")
        return function

    async def _called(self, request: Request, role: str, function: Function, body: bytes) -> str:
        for _ in range(RETRIES_MAX):
            try:
                async with self._connection() as connection:
                    return await self._transaction(connection, request, role, function, body)
            except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                self.retried += 1
        raise RefusedError(500, "40001", "the stand-in has tried often enough; PostgREST would go on")

    async def _transaction(
        self, connection: Connection, request: Request, role: str, function: Function, body: bytes
    ) -> str:
        claims = json.dumps({"role": role})
        async with connection.transaction():
            if not function.writes:
                await connection.execute("set transaction read only")
            await connection.execute(_BEGIN, [role, claims, request.url.path, function.statement_timeout])
            cursor = await connection.execute(_query(request.path_params["name"], function), [body.decode()])
            row = await cursor.fetchone()
        return str(row[0]) if row else "null"

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """One that lost its server is not given out again."""
        connection = (
            self._idle.pop() if self._idle else await psycopg.AsyncConnection.connect(self.url, autocommit=True)
        )
        try:
            yield connection
        finally:
            if connection.closed:
                await connection.close()
            else:
                self._idle.append(connection)

    async def _listen(self, listener: Connection) -> None:
        async for notification in listener.notifies():
            if notification.payload in ("", "reload schema"):
                async with await psycopg.AsyncConnection.connect(self.url) as connection:
                    await self._reload(connection)

    async def _reload(self, connection: Connection) -> None:
        cursor = await connection.execute(_FUNCTIONS, [self.schemas[0]])
        self._functions = {
            name: Function(frozenset(arguments or ()), writes, rows, timeout)
            for name, arguments, writes, rows, timeout in await cursor.fetchall()
        }


def _query(name: str, function: Function) -> sql.Composed:
    """The body goes to the database as it is, and is taken apart there."""
    arguments = sql.SQL(", ").join(
        sql.SQL("{0} => b->{1}").format(sql.Identifier(argument), sql.Literal(argument))
        for argument in sorted(function.arguments)
    )
    call = sql.SQL("public.{}({})").format(sql.Identifier(name), arguments)
    if function.returns_rows:
        rows = sql.SQL("(select r from (values (%s::jsonb)) as v(b), lateral {} as r limit {})").format(call, ROWS_MAX)
        return sql.SQL("select coalesce(json_agg(t.r), '[]')::text from {} as t").format(rows)
    return sql.SQL("select coalesce(to_json({}), 'null')::text from (values (%s::jsonb)) as v(b)").format(call)


def _role(authorization: str | None) -> str:
    if authorization is None:
        return "anon"
    given = authorization.removeprefix("Bearer ")
    parts = given.split(".")
    if len(parts) != 3:
        raise RefusedError(401, "PGRST301", f"Expected 3 parts in JWT; got {len(parts)}")
    role = str(json.loads(base64.urlsafe_b64decode(parts[1] + "=="))["role"])
    if given != token(role):
        raise RefusedError(401, "PGRST301", "No suitable key or wrong key type")
    return role


def _error(error: psycopg.Error, *, authenticated: bool) -> Response:
    state, said = error.sqlstate, error.diag
    if state is None:
        return _answer(503, json.dumps({"code": "PGRST001", "message": "Database client error."}), "PGRST001")
    body = {
        "code": state, "message": said.message_primary, "details": said.message_detail, "hint": said.message_hint
    }  # fmt: skip
    return _answer(_status(state, authenticated=authenticated), json.dumps(body), state)


def _status(state: str, *, authenticated: bool) -> int:
    if state.startswith("PT"):
        return int(state[2:]) if state[2:].isdecimal() else 500
    if state == "42501":
        return 403 if authenticated else 401
    return _STATUS_OF.get(state) or _STATUS_OF_CLASS.get(state[:2], 400)


def _answer(status: int, body: str, code: str | None = None) -> Response:
    headers = {"Proxy-Status": f"PostgREST; error={code}"} if code else {}
    return Response(body, status, headers, media_type="application/json")
