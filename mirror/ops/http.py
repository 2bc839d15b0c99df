"""/metrics, /livez and /readyz, served inside the daemon's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mirror.errors import ConfigError
from mirror.ops.metrics import Metrics
from mirror.ops.vitals import Vitals

LIVE_WITHIN_S = 120.0  # longer than any bounded wait of the loop


def application(vitals: Vitals, metrics: Metrics) -> Starlette:
    async def show_metrics(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def livez(_: Request) -> Response:
        alive = vitals.turned_ago_s < LIVE_WITHIN_S
        reasons = [] if alive else [f"the loop has not turned for {vitals.turned_ago_s:.0f} s"]
        return JSONResponse({"live": alive, "reasons": reasons}, status_code=200 if alive else 503)

    async def readyz(_: Request) -> Response:
        reasons = vitals.why_not_ready()
        body = {
            "ready": not reasons,
            "reasons": reasons,
            "leader": vitals.leader,
            "lag_seconds": round(vitals.lag_s, 3),
            "staleness_seconds": None if vitals.staleness_s == float("inf") else round(vitals.staleness_s, 3),
            "outbox_entries": vitals.outbox_entries,
            "applied_rows": vitals.applied_rows,
            "source_up": vitals.source_up,
            "target_up": vitals.target_up,
        }
        return JSONResponse(body, status_code=200 if not reasons else 503)

    return Starlette(routes=[Route("/metrics", show_metrics), Route("/livez", livez), Route("/readyz", readyz)])


@contextlib.asynccontextmanager
async def serving(app: Starlette, host: str, port: int) -> AsyncIterator[int]:
    """Serves until the block is left; yields the port (0 asks for a free one)."""
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"cannot serve HTTP on {host}:{port}: {error.strerror}", hint="Set MIRROR_HTTP_HOST and MIRROR_HTTP_PORT."
        ) from error
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", limit_concurrency=1000, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    server.config.load()
    server.lifespan = config.lifespan_class(config)
    task = asyncio.create_task(_serve(server, listener))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    """Server.serve() without its signal handlers: SIGTERM is the daemon's to take."""
    await server.startup(sockets=[listener])
    await server.main_loop()
    await server.shutdown(sockets=[listener])
