"""The HTTP server: uvicorn in a thread of its own.

Not in the daemon's event loop: there, everything that became readable at the same moment is dealt with before the
mirror's next reply, and ten thousand clients that say something at once are a second. A thread takes at most SWITCH_S
of the interpreter before the loop has its turn again, whatever the clients do; and when the loop hangs, /livez says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import uvicorn
from starlette.applications import Starlette

from mirror.errors import ConfigError
from mirror.ops.connections import Unfinished, protocol

SWITCH_S = 0.0005
FULL_EVERY = 150  # collections of what is younger; those come after 7,000 new objects
HEAD_MAX = 16_384
TICK_S = 1.0


@contextlib.asynccontextmanager
async def serving(app: Starlette, host: str, port: int, connections_max: int) -> AsyncIterator[int]:
    """Serves until the block is left; yields the port (0 asks for a free one)."""
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"cannot serve HTTP on {host}:{port}: {error.strerror}", hint="Set MIRROR_HTTP_HOST and MIRROR_HTTP_PORT."
        ) from error
    served_at: int = listener.getsockname()[1]
    server = _server(app, connections_max)
    with _two_threads(), ThreadPoolExecutor(1, "http") as thread:
        ended = asyncio.get_running_loop().run_in_executor(thread, server.run, [listener])
        try:
            yield served_at
        finally:
            server.stop()
            await ended


@contextlib.contextmanager
def _two_threads() -> Iterator[None]:
    """Neither keeps the other waiting. The interpreter is passed on often, and a full garbage collection, which stops
    both (for half a second with ten thousand requests under way), does not come each time that those are a quarter
    more. All that waits for it is what is left of connections that were open for long, a kilobyte each."""
    switch_s, (young, middle, old) = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(young, middle, FULL_EVERY)
    try:
        yield
    finally:
        sys.setswitchinterval(switch_s)
        gc.set_threshold(young, middle, old)


class _Server(uvicorn.Server):
    """Looks at its clock once a second and not ten times: a daemon with nothing to do should cost nothing."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._wake: Callable[[], object] = lambda: None

    def stop(self) -> None:
        """From another thread."""
        self.should_exit = True
        self._wake()

    async def main_loop(self) -> None:
        stopped = asyncio.Event()
        self._wake = partial(asyncio.get_running_loop().call_soon_threadsafe, stopped.set)
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), TICK_S)


def _server(app: Starlette, connections_max: int) -> _Server:
    unfinished = Unfinished(connections_max)

    async def sweep() -> None:
        unfinished.sweep()

    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=protocol(unfinished),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=HEAD_MAX,
        timeout_graceful_shutdown=1,
        callback_notify=sweep,
        timeout_notify=1,
    )
    return _Server(config)
