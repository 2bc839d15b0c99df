"""What HTTP costs a change: commit to visible, with nobody there and with clients of each kind: ten thousand requests
that wait, scrapes, clients that say half a request, a flood of small ones.

The clients are a process of their own. On a small machine they take processor time from both servers and the daemon,
too: that is part of what is measured.

    python -m bench.http [--seconds 20] [--rounds 3] [--clients 10000] [--only scrapes]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import random
import resource
import socket
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from multiprocessing.synchronize import Event
from pathlib import Path

from bench import peers
from bench.probes import PER_SECOND, latencies_ms
from bench.report import Goal, Report, Result, median, percentile, table
from bench.stage import Databases, Stage, ask, connect, open_stage
from bench.usage import usage

OPENED_PER_TICK, TICK_S = 50, 0.05  # 1,000 connections a second
READY_TIMEOUT_S = 60.0
ROWS = 20_000
AT_MOST = 1.5

Client = Callable[[int, int, str, Event], Awaitable[None]]


async def waiters(port: int, n: int, token: str, ready: Event) -> None:
    """For a transaction that never ends. Ready is when the last one has been asked for; by then some are still to be
    dealt with."""
    connections = []
    for i in range(n):
        connections.append(await asyncio.open_connection("127.0.0.1", port))
        connections[-1][1].write(f"GET /wait?timeout=60&token={token} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        if i % OPENED_PER_TICK == 0:
            await asyncio.sleep(TICK_S)
    ready.set()
    await asyncio.gather(*(reader.read(1) for reader, _ in connections))


async def scrapes(port: int, per_minute: int, _: str, ready: Event) -> None:
    ready.set()
    while True:
        await _say(port, b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        await asyncio.sleep(60 / per_minute)


async def halves(port: int, n: int, _: str, ready: Event) -> None:
    """Connections that say half a request, and come back when they are thrown out."""
    ready.set()

    async def half() -> None:
        while True:
            await asyncio.sleep(random.uniform(0, 5))
            await _say(port, b"POST /resync HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10000000\r\n\r\n{")

    await asyncio.gather(*(half() for _ in range(n)))


async def flood(port: int, per_second: int, token: str, ready: Event) -> None:
    """What a small script does: waits that end at once, garbage, unknown paths, one connection each."""
    ready.set()
    paths = (f"/wait?timeout=0&token={token}", "/wait?token=garbage", "/nothing", "/readyz", "/api/status")
    while True:
        wanted = [f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode() for path in paths]
        await asyncio.gather(*(_say(port, request) for request in wanted))
        await asyncio.sleep(len(paths) / per_second)


async def _say(port: int, request: bytes) -> None:
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        await reader.read()
        writer.close()


def clients(wanted: int) -> dict[str, tuple[Client, int] | None]:
    return {
        "nobody": None,
        f"{wanted:,} that wait": (waiters, wanted),
        "1,000 scrapes a minute": (scrapes, 1_000),
        "1,000 halves of a request": (halves, 1_000),
        "200 requests a second": (flood, 200),
    }


def measure(stage: Stage, *, rounds: int, rows: int, seconds: float, wanted: int, only: str = "") -> list[Result]:
    stage.fill(rows)
    kinds = {name: kind for name, kind in clients(wanted).items() if kind is None or only in name}
    samples: dict[str, list[list[float]]] = {name: [] for name in kinds}
    used_mb = dict.fromkeys(kinds, 0.0)
    for turn in range(rounds):
        for name, kind in kinds.items():
            port = _free_port()
            settings = {"MIRROR_HTTP_PORT": str(port)}
            with stage.databases() as databases, peers.mirror(databases, settings=settings) as daemon:
                with _attended(kind, port, databases):
                    samples[name].append(latencies_ms(databases, seconds, random.Random(turn)))
                    _answers(port)
                used = usage(daemon.process.pid)
                used_mb[name] = used.rss_mb if used else 0.0
    return [_result(name, found, samples["nobody"], used_mb[name]) for name, found in samples.items()]


def _result(name: str, found: list[list[float]], quiet: list[list[float]], used_mb: float) -> Result:
    """Of all rounds together: on a machine that others use, too, a single round's p99 is chance."""
    figure = f"commit to visible, {PER_SECOND} tx/s, HTTP"
    p50s = [percentile(samples, 50) for samples in found]
    p99 = percentile([*chain(*found)], 99)
    ratio = p99 / percentile([*chain(*quiet)], 99)
    goals = (Goal(f"{figure}: {name}, p99", ratio, "× quiet", AT_MOST, at_most=True),) if name != "nobody" else ()
    return Result(figure, name, "ms", median(p50s), p99, p50s, {"p99 / quiet": ratio}, {"RSS MB": used_mb}, goals)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _answers(port: int) -> None:
    """In between, everybody else is answered; what is not 200 raises."""
    urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=10).close()


@contextmanager
def _attended(kind: tuple[Client, int] | None, port: int, databases: Databases) -> Iterator[None]:
    if kind is None:
        yield
        return
    with connect(databases.source) as application:
        application.execute("begin; select pg_current_xact_id()")  # never ends
        token = str(ask(application, "select mirror.token()"))
        context = multiprocessing.get_context("spawn")
        ready = context.Event()
        process = context.Process(target=_run, args=(*kind, port, token, ready), daemon=True)
        process.start()
        try:
            if not ready.wait(READY_TIMEOUT_S):
                raise TimeoutError("the clients are not ready")
            yield
        finally:
            process.terminate()
            process.join()


def _run(client: Client, n: int, port: int, token: str, ready: Event) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_forever(client(port, n, token, ready)))


async def _forever(client: Awaitable[None]) -> None:
    await client


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.http")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--only", default="", help="kinds of clients with this in their name")
    parser.add_argument("--directory", type=Path)
    given = parser.parse_args()
    with open_stage(16, 18, given.directory) as stage:
        found = measure(
            stage, rounds=given.rounds, rows=ROWS, seconds=given.seconds, wanted=given.clients, only=given.only
        )
    print(table(Report({"rounds": given.rounds, "seconds": given.seconds}, found)))


if __name__ == "__main__":
    main()
