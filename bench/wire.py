"""A long wire: a TCP proxy that delivers everything a fixed time later. A program of its own, so that it takes its time
from nobody else's interpreter: python -m bench.wire HOST PORT SECONDS prints the port where it listens.

Two threads for each direction, one that notes when a piece is due and one that delivers it, so that pieces that follow
each other closely are all delayed by the same time and not by the sum. A thread's sleep is precise to a twentieth of a
millisecond; asyncio's timers are to a whole one. What a round trip really takes is measured and told."""

from __future__ import annotations

import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

STOP_TIMEOUT_S = 10.0
PIECE_BYTES = 65_536
Line = queue.SimpleQueue[tuple[float, bytes]]


@contextmanager
def wire(url: str, round_trip_s: float) -> Iterator[str]:
    """The same database at the far end of a wire: its URL."""
    parts = urlsplit(url)
    command = [sys.executable, "-m", "bench.wire", parts.hostname, str(parts.port), str(round_trip_s / 2)]
    with subprocess.Popen([word for word in command if word], stdout=subprocess.PIPE, text=True) as process:
        try:
            port = process.stdout.readline().strip() if process.stdout else ""
            user, at, _ = parts.netloc.rpartition("@")
            yield urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{port}"))
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)


def _serve(upstream: tuple[str, int], delay_s: float) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
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


if __name__ == "__main__":
    _serve((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))
