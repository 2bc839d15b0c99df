"""The figures, by the names they are asked for with, and how large each of them is at each size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench import (
    access,
    backlog,
    changes,
    growth,
    http,
    https,
    idle,
    keeping,
    latency,
    others,
    proof,
    revocations,
    writes,
)
from bench.report import Result
from bench.stage import Stage


@dataclass(frozen=True)
class Size:
    """`rows`: memberships in the application's table where their number is not the subject."""

    rounds: int
    rows: int
    latency_s: float
    backlog: int
    load: int
    writes_s: int
    keeping_s: float
    idle_s: float
    growth: tuple[int, ...]
    access: tuple[int, ...]
    clients: int  # of the HTTP server
    timeout_s: int  # of one figure


SIZES = {
    "full": Size(
        rounds=3, rows=100_000, latency_s=20, backlog=500_000, load=1_000_000, writes_s=10, keeping_s=600, idle_s=60,
        growth=(10_000, 1_000_000, 10_000_000), access=(1_000_000, 10_000_000), clients=10_000, timeout_s=1_800,
    ),
    "medium": Size(
        rounds=3, rows=20_000, latency_s=5, backlog=100_000, load=200_000, writes_s=4, keeping_s=60, idle_s=20,
        growth=(10_000, 1_000_000), access=(1_000_000,), clients=2_000, timeout_s=300,
    ),
    "small": Size(
        rounds=1, rows=2_000, latency_s=0.3, backlog=2_000, load=2_000, writes_s=0, keeping_s=1, idle_s=0.5,
        growth=(2_000, 4_000), access=(10_000,), clients=20, timeout_s=60,
    ),
}  # fmt: skip
Measure = Callable[[Stage], list[Result]]


def figures(size: Size) -> dict[str, Measure]:
    rounds = size.rounds
    drained = partial(backlog.measure, rounds=rounds, n=size.backlog)
    beside = partial(others.measure, rounds=1, rows=size.rows, seconds=size.latency_s, n=size.backlog)
    return {
        "latency": partial(latency.quiet, rounds=rounds, rows=size.rows, seconds=size.latency_s),
        "busy": partial(latency.busy, rounds=rounds, rows=size.rows, seconds=size.latency_s),
        "distance": partial(latency.distant, rounds=rounds, rows=size.rows, seconds=size.latency_s),
        "backlog": partial(drained, kinds=[changes.SINGLE]),
        "hot": partial(drained, kinds=[changes.HOT]),
        "bulk": partial(drained, kinds=[changes.BULK_UPDATES, changes.BULK_INSERTS]),
        "revocations": partial(drained, kinds=[changes.REVOCATIONS]),
        "kinds": partial(revocations.measure, rounds=rounds, n=size.backlog),
        "https": partial(https.measure, rounds=rounds, n=size.backlog),
        "proof": partial(proof.measure, rounds=rounds, rows=size.load, seconds=size.latency_s),
        "writes": partial(writes.measure, rounds=rounds, rows=size.rows, seconds=size.writes_s),
        "keeping": partial(keeping.measure, rows=size.rows, seconds=size.keeping_s),
        "growth": partial(growth.measure, turns=2 * rounds, sizes=size.growth),
        "access": partial(access.measure, rounds=rounds, sizes=size.access, seconds=size.writes_s),
        "pglogical": partial(beside, who="pglogical"),
        "slony": partial(beside, who="Slony-I"),
        "http": partial(http.measure, rounds=rounds, rows=size.rows, seconds=size.latency_s, wanted=size.clients),
        "idle": partial(idle.measure, rows=size.rows, seconds=size.idle_s),
    }
