"""A long wire: a TCP proxy that delivers everything a fixed time later, in a process of its own.

Two threads for each direction, one that notes when a piece is due and one that delivers it, so that pieces that follow
each other closely are all delayed by the same time and not by the sum. A thread's sleep is precise to a twentieth of a
millisecond; asyncio's timers are to a whole one. What a round trip really takes is measured and told."""

from __future__ import annotations

import multiprocessing
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from urllib.parse import urlsplit, urlunsplit

from bench.report import median
from bench.stage import connect

STOP_TIMEOUT_S = 10.0
PIECE_BYTES = 65_536
TRIES = 200
Line = queue.SimpleQueue[tuple[float, bytes]]


@contextmanager
def wire(url: str, round_trip_s: float) -> Iterator[str]:
    """The same database at the far end of a wire: its URL."""
    parts = urlsplit(url)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    upstream = (parts.hostname or "127.0.0.1", parts.port or 5432)
    process = context.Process(target=_serve, args=(upstream, round_trip_s / 2, there), daemon=True)
    process.start()
    try:
        user, at, _ = parts.netloc.rpartition("@")
        yield urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{here.recv()}"))
    finally:
        process.terminate()
        process.join(STOP_TIMEOUT_S)


def round_trip_ms(far: str, near: str) -> float:
    """What the wire adds to the shortest of questions."""
    return _asked_ms(far) - _asked_ms(near)


def _asked_ms(url: str) -> float:
    times = []
    with connect(url) as connection:
        for _ in range(TRIES):
            began = time.perf_counter()
            connection.execute("select", prepare=True)
            times.append(time.perf_counter() - began)
    return median(times) * 1000


def _serve(upstream: tuple[str, int], delay_s: float, there: Pipe) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    there.send(listener.getsockname()[1])
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(upstream)
        for one, other in ((client, server), (server, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line: Line = queue.SimpleQueue()
            threading.Thread(target=_take, args=(one, line, delay_s), daemon=True).start()
            threading.Thread(target=_deliver, args=(other, line), daemon=True).start()


def _take(one: socket.socket, line: Line, delay_s: float) -> None:
    data = b"-"
    while data:
        try:
            data = one.recv(PIECE_BYTES)
        except OSError:  # reset: for the other end that is an end like any other
            data = b""
        line.put((time.perf_counter() + delay_s, data))


def _deliver(other: socket.socket, line: Line) -> None:
    while True:
        due, data = line.get()
        time.sleep(max(0.0, due - time.perf_counter()))
        try:
            if not data:
                return other.shutdown(socket.SHUT_WR)
            other.sendall(data)
        except OSError:
            return None  # it has gone; whoever still sends hears it from the other direction
