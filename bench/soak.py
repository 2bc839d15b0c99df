"""python -m bench.soak: does the outbox stay small for half an hour?

Writers at a steady rate; for a part of the time somebody's report holds a snapshot (nothing can be vacuumed), and
somebody else's transaction stays open after it wrote. Every few seconds: the outbox's bytes, the entries that wait,
the daemon's memory. Prints a line a minute and the worst of it all at the end."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg

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


def _size(source: psycopg.Connection[object]) -> tuple[float, int]:
    size = "mirror.outbox_bytes()"
    megabytes = float(str(ask(source, f"select ({size}) / 1048576.0")))
    return megabytes, int(str(ask(source, "select count(*) from mirror.outbox")))


@contextlib.contextmanager
def _holding(databases: Databases) -> Iterator[None]:
    """A report that keeps its snapshot, and a writer that forgot to commit."""
    with psycopg.connect(databases.source) as reader, psycopg.connect(databases.source) as writer:
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select count(*) from public.users")
        writer.execute("update public.users set username = 'forgotten' where id = public.key('user', 1)")
        yield


def _watch(databases: Databases, pid: int, minutes: float, worst: Worst) -> None:
    source = connect(databases.source)
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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=int, default=300, help="transactions a second")
    arguments = parser.parse_args()
    worst = {"quiet": Worst(), "held": Worst()}
    with open_stage(16, 18, None) as stage:
        stage.fill(100_000)
        with contextlib.ExitStack() as stack:
            databases = stack.enter_context(stage.databases())
            install_mirror(databases)
            pid = stack.enter_context(daemon(databases)).process.pid
            target = stack.enter_context(connect(databases.target))
            until(lambda: ask(target, "select primed_at from mirror.state"))
            writers = subprocess.Popen(
                [stage.source.binaries / "pgbench", "-n", "-M", "prepared", "-c", "4", f"--rate={arguments.rate}",
                 f"--time={int(arguments.minutes * 60) + 20}", "--file=/dev/stdin", databases.source],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            if writers.stdin is not None:
                writers.stdin.write(SCRIPT)
                writers.stdin.close()
            try:
                _watch(databases, pid, arguments.minutes * 2 / 3, worst["quiet"])
                with _holding(databases):
                    _watch(databases, pid, arguments.minutes / 3, worst["held"])
            finally:
                writers.terminate()
                writers.wait()
    for name, found in worst.items():
        print(f"{name}: outbox at most {found.outbox_mb:.2f} MB, {found.waiting} waiting, daemon {found.rss_mb:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
