"""Supabase's API for one target: a gateway that knows the project's keys, and PostgREST behind it. The gateway is a
stand-in always; PostgREST is tests/bed/postgrest.py, or the program that MIRROR_TEST_POSTGREST_BIN names.

    async with api(target_url) as supabase:
        supabase.settings          SUPABASE_URL and a secret key, as a user sets them
        supabase.answers           what the gateway says to the next calls by itself: a 502 page, a paused project
        supabase.calls             what was asked: function, headers, bytes
        supabase.body_max          larger ones are 413

For lost and late replies, cuts and stalls put a tests/bed/proxy.py before it: `Proxy.to(supabase.url)`.

As a program it serves until it is killed, and prints its URL: python -m tests.bed.supabase_api TARGET_URL
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tests.bed import postgrest
from tests.bed.eventually import eventually
from tests.bed.postgrest_answers import BrokenReplyError
from tests.bed.postgrest_jwt import JWT_SECRET, token
from tests.bed.target_side import as_role

SECRET_KEY = "sb_secret_" + "N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz"
BINARY = "MIRROR_TEST_POSTGREST_BIN"
NO_KEY = {"message": "No API key found in request", "hint": "No `apikey` request header or url param was found."}
BROKEN = {"message": "An invalid response was received from the upstream server"}
BAD_KEY = {"message": "Invalid API key", "hint": "Double check your Supabase `anon` or `service_role` API key."}


@dataclass(frozen=True)
class Call:
    function: str
    headers: Mapping[str, str]
    size: int


@dataclass
class Supabase:
    """`rest`: the stand-in behind the gateway, None when it is the real one."""

    upstream: httpx.AsyncClient
    rest: postgrest.Postgrest | None
    url: str = ""
    answers: deque[Response] = field(default_factory=deque)
    calls: list[Call] = field(default_factory=list)
    body_max: int | None = None

    @property
    def settings(self) -> dict[str, str]:
        return {"SUPABASE_URL": self.url, "SUPABASE_SECRET_KEY": SECRET_KEY}

    def application(self) -> Starlette:
        return Starlette(routes=[Route("/rest/v1/rpc/{name}", self.forward, methods=["GET", "POST"])])

    async def forward(self, request: Request) -> Response:
        body = await request.body()
        self.calls.append(Call(request.path_params["name"], dict(request.headers), len(body)))
        if self.answers:
            return self.answers.popleft()
        if self.body_max is not None and len(body) > self.body_max:
            return HTMLResponse("<html>413 Request Entity Too Large</html>", 413)
        key, headers = request.headers.get("apikey"), dict(request.headers)
        if key is None:
            return JSONResponse(NO_KEY, 401)
        if key not in (SECRET_KEY, *map(token, ("service_role", "anon"))):
            return JSONResponse(BAD_KEY, 401)
        if key == SECRET_KEY and "authorization" not in headers:
            headers["authorization"] = f"Bearer {token('service_role')}"
        del headers["host"]
        path = request.url.path.removeprefix("/rest/v1")
        try:
            reply = await self.upstream.request(
                request.method, path, params=request.query_params, content=body, headers=headers
            )
        except (httpx.HTTPError, BrokenReplyError):
            return JSONResponse(BROKEN, 502)
        kept = {name: value for name, value in reply.headers.items() if name in ("content-type", "proxy-status")}
        return Response(reply.content, reply.status_code, kept)


@contextlib.asynccontextmanager
async def api(target_url: str, *, schemas: tuple[str, ...] = ("public",), port: int = 0) -> AsyncIterator[Supabase]:
    async with contextlib.AsyncExitStack() as stack:
        if os.environ.get(BINARY):
            base = await stack.enter_async_context(_program(target_url, schemas))
            supabase = Supabase(await stack.enter_async_context(httpx.AsyncClient(base_url=base, timeout=60)), None)
            await eventually(lambda: _is_up(supabase.upstream), 20.0)
        else:
            rest = postgrest.Postgrest(as_role(target_url, "authenticator"), schemas)
            await stack.enter_async_context(rest.open())
            within = httpx.ASGITransport(rest.application())
            client = httpx.AsyncClient(base_url="http://postgrest", transport=within)
            supabase = Supabase(await stack.enter_async_context(client), rest)
        supabase.url = await stack.enter_async_context(_serving(supabase.application(), port))
        yield supabase


@contextlib.asynccontextmanager
async def _program(target_url: str, schemas: tuple[str, ...]) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "PGRST_DB_URI": as_role(target_url, "authenticator"), "PGRST_DB_SCHEMAS": ",".join(schemas),
        "PGRST_DB_ANON_ROLE": "anon", "PGRST_DB_MAX_ROWS": "1000", "PGRST_DB_EXTRA_SEARCH_PATH": "public,extensions",
        "PGRST_JWT_SECRET": JWT_SECRET, "PGRST_SERVER_HOST": "127.0.0.1", "PGRST_SERVER_PORT": str(port),
        "PGRST_LOG_LEVEL": "crit",
    }  # fmt: skip
    program = await asyncio.create_subprocess_exec(os.environ[BINARY], env=settings)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            program.kill()
        await program.wait()


async def _is_up(client: httpx.AsyncClient) -> bool:
    return (await client.get("/")).status_code < 500


@contextlib.asynccontextmanager
async def _serving(application: Starlette, port: int) -> AsyncIterator[str]:
    config = uvicorn.Config(application, "127.0.0.1", port, log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    serving = asyncio.create_task(server.main_loop())
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        server.force_exit = True
        await server.shutdown()


async def _serve(arguments: argparse.Namespace) -> None:
    async with api(arguments.target_url, port=arguments.port) as supabase:
        sys.stdout.write(f"{supabase.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target_url")
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_serve(parser.parse_args()))
