"""Nothing happens: what the daemon uses of a processor meanwhile, heartbeats included."""

from __future__ import annotations

import time

from bench import peers
from bench.report import Goal, Result
from bench.stage import Stage
from bench.usage import usage

SETTLE_S = 1.0  # what follows a first load is no idling


def measure(stage: Stage, *, rows: int, seconds: float) -> list[Result]:
    stage.fill(rows)
    with stage.databases() as databases, peers.mirror(databases) as daemon:
        time.sleep(min(SETTLE_S, seconds))
        before = usage(daemon.process.pid)
        time.sleep(seconds)
        used = usage(daemon.process.pid, before)
    if used is None:
        return []
    percent = used.cpu_s / seconds * 100
    goals = (Goal("daemon, idle", percent, "% CPU", 0.5, at_most=True),)
    return [
        Result(f"idle, {seconds:g} s", "mirror", "% CPU", percent, None, [percent], {}, {"RSS MB": used.rss_mb}, goals)
    ]
