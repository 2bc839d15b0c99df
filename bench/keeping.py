"""Keeping up: 8 writers at full speed for minutes, probes among them, and sixty times a look at what must not grow.

What must not: the outbox (bytes of both tables), the target's table (its updates leave dead rows, which vacuum must get
at), the daemon. The first third of the time is compared with the last."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field

from bench import peers
from bench.latency import under_load
from bench.load import CLIENTS
from bench.report import Goal, Result, percentile
from bench.stage import Databases, Stage, ask, connect
from bench.usage import usage

SAMPLES = 60
OUTBOX = "select mirror.outbox_bytes() / 1048576.0"
WAITING = "select count(*) from mirror.outbox"
TARGET = "select pg_table_size('public.trip_memberships') / 1048576.0"
LITTLE_MB = 1.0  # an outbox below that does not grow, whatever its first third was


@dataclass
class Samples:
    outbox_mb: list[float] = field(default_factory=list)
    target_mb: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)

    def take(self, databases: Databases, pid: int, stop: threading.Event, pause_s: float) -> None:
        with connect(databases.source) as source, connect(databases.target) as target:
            while not stop.wait(pause_s):
                self.outbox_mb.append(float(str(ask(source, OUTBOX))))
                self.waiting.append(float(str(ask(source, WAITING))))
                self.target_mb.append(float(str(ask(target, TARGET))))
                used = usage(pid)
                self.rss_mb.append(used.rss_mb if used else 0.0)


def measure(stage: Stage, *, rows: int, seconds: float) -> list[Result]:
    stage.fill(rows)
    samples, stop = Samples(), threading.Event()
    with stage.databases() as databases, peers.mirror(databases) as daemon:
        before = usage(daemon.process.pid)
        watching = threading.Thread(target=samples.take, args=(databases, daemon.process.pid, stop, seconds / SAMPLES))
        watching.start()
        try:
            found, per_second = under_load(stage, databases, rows, seconds, random.Random(0), rate=0)
        finally:
            stop.set()
            watching.join()
        used = usage(daemon.process.pid, before)
    return [_result(found, per_second, seconds, samples, used.cpu_s if used else 0.0)]


def _result(found: list[float], per_second: float, seconds: float, samples: Samples, cpu_s: float) -> Result:
    p50, p99 = percentile(found, 50), percentile(found, 99)
    outbox, target = _growth(samples.outbox_mb), _growth(samples.target_mb)
    also = {
        "tx/s": per_second,
        "outbox MB at most": max(samples.outbox_mb, default=0.0),
        "entries waiting at most": max(samples.waiting, default=0.0),
        "target MB at the end": samples.target_mb[-1] if samples.target_mb else 0.0,
        "peak RSS MB": max(samples.rss_mb, default=0.0),
        "% CPU": cpu_s / seconds * 100,
    }
    goals = (
        Goal("keeping up at full speed, lag p99", p99, "ms", 200, at_most=True),
        Goal("keeping up, outbox", outbox, "× its first third", 1.5, at_most=True),
        Goal("keeping up, target's table", target, "× its first third", 1.2, at_most=True),
    )
    ratios = {"outbox, last / first third": outbox, "target, last / first third": target}
    title = f"keeping up, {CLIENTS} writers at full speed, {seconds:g} s"
    return Result(title, "mirror", "ms", p50, p99, [p50], ratios, also, goals)


def _growth(megabytes: list[float]) -> float:
    """The most of the last third, beside the most of the first."""
    if len(megabytes) < 3:
        return 1.0
    third = len(megabytes) // 3
    return max(LITTLE_MB, *megabytes[-third:]) / max(LITTLE_MB, *megabytes[:third])
