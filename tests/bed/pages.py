"""The status page without a daemon: a server that answers with documents of the test's choice, for states that a real
daemon is hard to bring into, and for names and errors that nobody would give it."""

import contextlib
import json
import math
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from mirror.ops.page import load

TOKEN = "correct-horse-battery-staple"
INTERVAL_S = 2
Document = dict[str, Any]


def status(**others: Any) -> Document:
    """All is well, as GET /api/status would tell it."""
    now = time.time()
    return {
        "version": "0.1.0", "now": now, "state": "leading", "verdict": "fresh", "ready": True, "reasons": [],
        "words": {
            "sentence": "Supabase equals your primary as of 0.4 s ago.", "proven": "every row of all three tables",
            "meaning": "Who was added may enter; who was removed may not.",
        }, "doubts": [], "equal": True,
        "staleness_seconds": 0.4, "lag_seconds": 0.0, "stale_after_seconds": 60,
        "source": {"up": True, "reconnects": 1}, "target": {"up": True, "reconnects": 1, "transport": "direct"},
        "doorbell": True, "channels": "ready", "epoch": 3, "outbox": {"entries": 0, "bytes": 8192},
        "tables": {
            "users": table(48_210, upserted=1_204, deleted=3), "trips": table(9_032, upserted=611, deleted=24),
            "trip_memberships": table(131_877, upserted=8_390, deleted=1_911),
        },
        "proof": proof(now - 244), "parked": [], "drift": [], "errors": [], "resync": None,
        "history": {"interval_seconds": INTERVAL_S, "points": history(now)}, "resync_allowed": True,
    } | others  # fmt: skip


def table(rows: int, **others: Any) -> Document:
    return {
        "rows": rows,
        "parked": 0,
        "broken": None,
        "braked": None,
        "doubts": [],
        "upserted": 0,
        "deleted": 0,
    } | others


def proof(at: float) -> Document:
    digests = {"users": "9f86d081884c7d65", "trips": "60303ae22b998861", "trip_memberships": "fd61a03af4f77d87"}
    return {
        "at": at, "reason": "schedule", "snapshot": "48211:48211:",
        "tables": {name: {"rows": 1, "digest": digest} for name, digest in digests.items()},
    }  # fmt: skip


def history(now: float, count: int = 440, hole: tuple[float, float] = (420, 350)) -> list[list[float | None]]:
    """A quiet quarter of an hour, with a stretch that nobody measured."""
    chance = random.Random(7)
    points: list[list[float | None]] = []
    for n in range(count):
        ago = (count - 1 - n) * INTERVAL_S
        if hole[1] < ago < hole[0]:
            continue
        busy = chance.random() < 0.45 + 0.3 * math.sin(n / 30)
        median = 0.0022 * math.exp(chance.gauss(0, 0.35)) if busy else None
        slowest = None if median is None else median * (1.3 + chance.expovariate(0.6))
        lag = chance.choice([0.0, 0.0, 0.0, 0.02]) if busy else 0.0
        points.append([now - ago, lag, (ago % 10) + 0.3, median, slowest, chance.randrange(1, 40) if busy else 0])
    return points


@dataclass
class Canned:
    """What the server answers next; `asked` is what it was sent."""

    status: Document = field(default_factory=status)
    resyncs: dict[int, Document] = field(default_factory=dict)
    asked: list[Document] = field(default_factory=list)
    answers: bool = True
    url: str = ""

    def get(self, path: str) -> tuple[int, Document]:
        if path == "/api/status":
            return 200, self.status | {"now": time.time()}
        number = path.removeprefix("/api/resyncs/")
        return (200, self.resyncs[int(number)]) if int(number) in self.resyncs else (404, {"error": "no such request"})

    def post(self, token: str | None, body: bytes) -> tuple[int, Document]:
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "send the right token"}
        self.asked.append(json.loads(body))
        return 202, {"id": len(self.asked)}


@contextlib.contextmanager
def canned(**others: Any) -> Iterator[Canned]:
    answers, page = Canned(status(**others)), load()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/":
                self._send(200, page.body, page.headers)
            elif answers.answers:
                self._tell(*answers.get(urlsplit(self.path).path))
            else:
                self._send(502, b"<h1>Bad gateway</h1>", {"content-type": "text/html"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self._tell(*answers.post(self.headers["authorization"], body))

        def _tell(self, code: int, document: Document) -> None:
            self._send(code, json.dumps(document).encode(), {"content-type": "application/json"})

        def _send(self, code: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        answers.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield answers
        finally:
            server.shutdown()
            thread.join()
