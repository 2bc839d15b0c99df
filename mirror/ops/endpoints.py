"""What is served, and what is refused. Every answer that is not a page or metrics is JSON with a reason."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mirror.known import Known
from mirror.ops import page
from mirror.ops.answers import JSONResponse
from mirror.ops.history import INTERVAL_S, History, seconds
from mirror.ops.knowledge import Knowledge
from mirror.ops.metrics import Metrics
from mirror.ops.report import ready, report
from mirror.ops.resyncs import Resyncs
from mirror.ops.sides import Parked, Primary
from mirror.ops.wait import Waiters
from mirror.ops.waiting import Waiting
from mirror.target.target import Transport

LIVE_WITHIN_S = 120.0  # longer than any bounded wait of the loop
SCRAPE_KEPT_S = 0.2
NOT_OURS = "this is not a name of this daemon: put it into MIRROR_HTTP_HOSTS, or ask for localhost or an address"
_GUARDED = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True)
class Told:
    """What the daemon has to tell, and where more can be asked."""

    knowledge: Knowledge
    waiters: Waiters
    source_url: str
    open_target: Callable[[], Awaitable[Transport]]
    transport: str
    admin_token: SecretStr | None
    hosts: frozenset[str]  # what it may be called, besides localhost and addresses


def application(told: Told) -> Starlette:
    look, record = told.knowledge.look, told.knowledge.record
    history = History(look, record)
    resyncs = Resyncs(Primary(told.source_url), look, told.admin_token)
    status = _Status(told, history, Parked(told.open_target, look))
    routes = [
        Route("/", _page()),
        Route("/metrics", _Scrape(told.knowledge.metrics).show),
        Route("/livez", _livez(look)),
        Route("/readyz", _readyz(look)),
        Route("/wait", _never_here, methods=["GET"]),  # for the methods that are refused; see _Guard
        Route("/api/status", status.show),
        Route("/api/resyncs/{id}", resyncs.show),
        Route("/resync", resyncs.ask, methods=["POST"]),
    ]
    app = Starlette(routes=routes, lifespan=_beside(history, told.waiters), exception_handlers={HTTPException: _refuse})
    app.add_middleware(_Guard, wait=Waiting(told.waiters, look), hosts=told.hosts)
    return app


def _beside(history: History, waiters: Waiters) -> Callable[[Starlette], contextlib.AbstractAsyncContextManager[None]]:
    async def sampling() -> None:
        while True:
            history.sample()
            await asyncio.sleep(INTERVAL_S)

    @contextlib.asynccontextmanager
    async def beside(_: Starlette) -> AsyncIterator[None]:
        waiters.serve()
        task = asyncio.create_task(sampling())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    return beside


Endpoint = Callable[[Request], Awaitable[Response]]
Look = Callable[[], Known]


def _page() -> Endpoint:
    loaded = page.load()

    async def show(_: Request) -> Response:
        return Response(loaded.body, headers=dict(loaded.headers))

    return show


class _Scrape:
    """Whoever scrapes as fast as he can does not make the daemon write the same thousand lines for each request."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._at = float("-inf")
        self._text = b""

    async def show(self, _: Request) -> Response:
        if self._clock() - self._at > SCRAPE_KEPT_S:
            self._at, self._text = self._clock(), generate_latest(self._metrics.registry)
        return Response(self._text, media_type=CONTENT_TYPE_LATEST)


def _livez(look: Look) -> Endpoint:
    async def livez(_: Request) -> Response:
        turned_ago_s = look().turned_ago_s
        alive = turned_ago_s < LIVE_WITHIN_S
        reasons = [] if alive else [f"the loop has not turned for {turned_ago_s:.0f} s"]
        return JSONResponse({"live": alive, "reasons": reasons}, status_code=200 if alive else 503)

    return livez


def _readyz(look: Look) -> Endpoint:
    async def readyz(_: Request) -> Response:
        known = look()
        body = ready(known) | {
            "leader": known.leader,
            "verdict": known.verdict,
            "lag_seconds": seconds(known.lag_s),
            "staleness_seconds": seconds(known.staleness_s),
            "outbox_entries": known.outbox_entries,
            "applied_rows": known.applied_rows,
            "source_up": known.source_up,
            "target_up": known.target_up,
        }
        return JSONResponse(body, status_code=200 if body["ready"] else 503)

    return readyz


@dataclass(frozen=True)
class _Status:
    told: Told
    history: History
    parked: Parked

    async def show(self, request: Request) -> Response:
        since = _number(request, "since", 0.0)
        known, record = self.told.knowledge.look(), self.told.knowledge.record
        opened = record.opened
        document = report(known, record, self.history, since=since)
        source = {"up": known.source_up, "reconnects": opened["source"]}
        target = {"up": known.target_up, "reconnects": opened["target"], "transport": self.told.transport}
        more = {"parked": await self.parked.keys(), "resync_allowed": self.told.admin_token is not None}
        return JSONResponse(document | {"source": source, "target": target} | more)


async def _never_here(_: Request) -> Response:
    raise AssertionError("_Guard answers GET and HEAD of /wait")


def _number(request: Request, name: str, default: float) -> float:
    try:
        number = float(request.query_params.get(name, default))
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise HTTPException(400, f"{name} is a number of seconds")
    return number


async def _refuse(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


class _Guard:
    """Headers that keep a browser from doing more with an answer than showing it. And only names that are ours: a page
    whose own name was bent to our address (DNS rebinding) may not read along, wherever we listen.

    Whoever waits is let through on the shortest way: ten thousand times what Starlette keeps for a request under way is
    a heap that the garbage collector stops the whole process for."""

    def __init__(self, app: ASGIApp, *, wait: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._wait = wait
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif not _is_ours(Request(scope).headers.get("host", ""), self._hosts):
            refusal = JSONResponse({"error": NOT_OURS}, 421)
            await refusal(scope, receive, _guarded(send))
        elif scope["path"] == "/wait" and scope["method"] in {"GET", "HEAD"}:
            await self._wait(scope, receive, _guarded(send))
        else:
            await self._app(scope, receive, _guarded(send))


def _guarded(send: Send) -> Send:
    async def send_guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            for name, value in _GUARDED.items():
                headers.setdefault(name, value)
        await send(message)

    return send_guarded


def _is_ours(host: str, hosts: frozenset[str]) -> bool:
    """Rebinding needs a name: who asks for an address (a probe of Kubernetes asks for the pod's) has looked none up."""
    before, colon, port = host.rpartition(":")
    name = (before if colon and port.isdecimal() else host).lower()
    if name in {"", "localhost"} or name in hosts or name.endswith(".localhost"):
        return True
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name.strip("[]"))
        return True
    return False
