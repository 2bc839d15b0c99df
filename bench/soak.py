"""python -m bench.soak: does the outbox stay small for half an hour?

Writers at a steady rate; for a part of the time somebody's report holds a snapshot (nothing can be vacuumed), and
somebody else's transaction stays open after it wrote. Every few seconds: the outbox's bytes, the entries that wait,
the daemon's memory. Prints a line a minute, and the worst of it all and how long drains took at the end."""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from prometheus_client.parser import text_string_to_metric_families

from bench.peers import daemon, install_mirror, until
from bench.stage import Databases, ask, connect, open_stage
from bench.usage import usage

SCRIPT = """\\set n random(0, 99999)
update public.trip_memberships set role = 'r' || (random() * 1000)::int
where trip_id = public.trip_of(:n) and user_id = public.key('user', :n);
"""
SAMPLE_S = 5.0


@dataclass
class Worst:
    outbox_mb: float = 0.0
    waiting: int = 0
    rss_mb: float = 0.0
    drains: str = ""


def _size(source: psycopg.Connection[object]) -> tuple[float, int]:
    size = "mirror.outbox_bytes()"
    megabytes = float(str(ask(source, f"select ({size}) / 1048576.0")))
    return megabytes, int(str(ask(source, "select count(*) from mirror.outbox")))


def _drains(port: int) -> dict[float, float]:
    """How many drains took no longer than so many seconds, since the daemon began."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    return {
        float(sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "mirror_batch_seconds_bucket" and sample.labels["phase"] == "read"
    }


def _in_words(before: dict[float, float], after: dict[float, float]) -> str:
    counts = {limit: n - before.get(limit, 0.0) for limit, n in sorted(after.items())}
    total = counts[float("inf")]
    p50, p99 = (next(limit for limit, n in counts.items() if n >= share * total) * 1000 for share in (0.5, 0.99))
    return f"{total:.0f} drains, half of them within {p50:g} ms, 99 % within {p99:g} ms"


@contextlib.contextmanager
def _holding(databases: Databases) -> Iterator[None]:
    """A report that keeps its snapshot, and a writer that forgot to commit."""
    with psycopg.connect(databases.source) as reader, psycopg.connect(databases.source) as writer:
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select count(*) from public.users")
        writer.execute("update public.users set username = 'forgotten' where id = public.key('user', 1)")
        yield


def _watch(databases: Databases, pid: int, port: int, minutes: float, worst: Worst) -> None:
    source = connect(databases.source)
    before = _drains(port)
    ends = time.monotonic() + 60 * minutes
    said = 0.0
    while time.monotonic() < ends:
        megabytes, waiting = _size(source)
        used = usage(pid)
        worst.outbox_mb, worst.waiting = max(worst.outbox_mb, megabytes), max(worst.waiting, waiting)
        worst.rss_mb = max(worst.rss_mb, used.rss_mb if used else 0.0)
        if time.monotonic() - said >= 60:
            said = time.monotonic()
            print(f"outbox {megabytes:.2f} MB, {waiting} waiting, daemon {worst.rss_mb:.0f} MB", flush=True)
        time.sleep(SAMPLE_S)
    worst.drains = _in_words(before, _drains(port))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--held-minutes", type=float, default=10, help="so many of them somebody holds back")
    parser.add_argument("--rate", type=int, default=300, help="transactions a second")
    arguments = parser.parse_args()
    worst = {"quiet": Worst(), "held": Worst()}
    with open_stage(16, 18, None) as stage:
        stage.fill(100_000)
        with contextlib.ExitStack() as stack:
            databases = stack.enter_context(stage.databases())
            install_mirror(databases)
            port = _free_port()
            running = stack.enter_context(daemon(databases, {"MIRROR_HTTP_PORT": str(port)}))
            pid = running.process.pid
            target = stack.enter_context(connect(databases.target))
            until(lambda: ask(target, "select primed_at from mirror.state"))
            writers = subprocess.Popen(
                [stage.source.program("pgbench"), "-n", "-M", "prepared", "-c", "4", f"--rate={arguments.rate}",
                 f"--time={int(arguments.minutes * 60) + 20}", "--file=/dev/stdin", databases.source],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            if writers.stdin is not None:
                writers.stdin.write(SCRIPT)
                writers.stdin.close()
            try:
                _watch(databases, pid, port, arguments.minutes - arguments.held_minutes, worst["quiet"])
                with _holding(databases):
                    _watch(databases, pid, port, arguments.held_minutes, worst["held"])
            finally:
                writers.terminate()
                writers.wait()
    for name, found in worst.items():
        print(f"{name}: outbox at most {found.outbox_mb:.2f} MB, {found.waiting} waiting, daemon {found.rss_mb:.0f} MB")
        print(f"{name}: {found.drains}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
