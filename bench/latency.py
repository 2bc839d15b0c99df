"""Commit to visible: from the reply to COMMIT in the source to the moment the row is visible in the target; at 50
transactions per second, while the application writes 6,000 per second, and with a round trip of 2 ms to each side.
How it is seen stands in probes.py."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from bench import peers
from bench.load import pgbench
from bench.peers import Peer
from bench.probes import PER_SECOND, WARM_UP_S, latencies_ms, round_trip_ms
from bench.report import Goal, Result, median, percentile
from bench.stage import Databases, Stage
from bench.wire import wire
from bench.writes import MAPPED

BUSY_PER_SECOND = 6_000
ROUND_TRIP_S = 0.002
FLOOR, MIRROR, NATIVE = "floor: NOTIFY, select, durable commit", "mirror", "native replication"
DURABLE = "native replication, durable apply"
QUIET: Mapping[str, Peer] = {
    FLOOR: peers.relay,
    MIRROR: peers.mirror,
    NATIVE: peers.native,
    DURABLE: peers.native_durable,
}
BUSY: Mapping[str, Peer] = {name: peer for name, peer in QUIET.items() if name != FLOOR}


def quiet(stage: Stage, *, rounds: int, rows: int, seconds: float) -> list[Result]:
    stage.fill(rows)
    samples: dict[str, list[list[float]]] = {name: [] for name in QUIET}
    for turn in range(rounds):
        for name, peer in QUIET.items():
            with stage.databases() as databases, peer(databases):
                samples[name].append(latencies_ms(databases, seconds, random.Random(turn)))
    floor, native = _p50(samples[FLOOR]), _p50(samples[NATIVE])
    results = []
    for name, found in samples.items():
        p50, p99 = _p50(found), _p99(found)
        ratios = {"p50 / floor": p50 / floor, "p50 / native": p50 / native, "p99 / p50": p99 / p50}
        goals = (
            Goal(f"commit to visible, {PER_SECOND} tx/s, p50", ratios["p50 / floor"], "× floor", 3, at_most=True),
            Goal(f"commit to visible, {PER_SECOND} tx/s, p99", ratios["p99 / p50"], "× p50", 3, at_most=True),
        )
        results.append(_result(f"commit to visible, {PER_SECOND} tx/s", name, found, ratios, goals))
    return results


def busy(stage: Stage, *, rounds: int, rows: int, seconds: float) -> list[Result]:
    stage.fill(rows)
    samples: dict[str, list[list[float]]] = {name: [] for name in BUSY}
    loads: dict[str, list[float]] = {name: [] for name in BUSY}
    for turn in range(rounds):
        for name, peer in BUSY.items():
            with stage.databases() as databases, peer(databases):
                times, per_second = under_load(stage, databases, rows, seconds, random.Random(turn))
                samples[name].append(times)
                loads[name].append(per_second)
    durable = _p99(samples[DURABLE])
    title = f"commit to visible, {BUSY_PER_SECOND:,} tx/s"
    results = []
    for name, found in samples.items():
        ratios = {"p99 / native's, durable": _p99(found) / durable}
        goal = Goal(f"{title}, p99", ratios["p99 / native's, durable"], "× native, durable", 1, at_most=True)
        also = {"tx/s": median(loads[name])}
        results.append(_result(title, name, found, ratios, (goal,), also))
    return results


def under_load(
    stage: Stage, databases: Databases, rows: int, seconds: float, chance: random.Random, rate: int = BUSY_PER_SECOND
) -> tuple[list[float], float]:
    """Probes while 8 clients write at this rate (0: as fast as they can), and how fast they were."""
    speeds: list[float] = []
    options = [f"--define=rows={rows}", *([f"--rate={rate}"] if rate else [])]
    time_s = round(WARM_UP_S + seconds + 0.5)

    def load() -> None:
        speeds.append(pgbench(stage, databases.source, MAPPED, time_s, *options).per_second)

    writing = threading.Thread(target=load)
    writing.start()
    try:
        found = latencies_ms(databases, seconds, chance)
    finally:
        writing.join()
    if not speeds:
        raise RuntimeError("the load failed")
    return found, speeds[0]


def distant(stage: Stage, *, rounds: int, rows: int, seconds: float) -> list[Result]:
    """Native replication goes over both wires, as what comes through the mirror does; and over one, beside."""
    stage.fill(rows)
    both = f"{NATIVE}, over both wires"
    samples: dict[str, list[list[float]]] = {name: [] for name in (FLOOR, MIRROR, NATIVE, both)}
    trips = []
    for turn in range(rounds):
        for name, found in samples.items():
            with stage.databases() as databases, _wires(databases) as (via, doubly):
                trips.append(round_trip_ms(via.source, databases.source))
                far: dict[str, Peer] = {
                    FLOOR: partial(peers.relay, via=via),
                    MIRROR: partial(peers.mirror, via=via),
                    NATIVE: partial(peers.native, via=via.source),
                    both: partial(peers.native, via=doubly),
                }
                with far[name](databases):
                    found.append(latencies_ms(databases, seconds, random.Random(turn)))
    trip, native = median(trips), _p50(samples[both])
    title, unit = "commit to visible, 2 ms to each side", "round trips over native"
    results = []
    for name, found in samples.items():
        over = (_p50(found) - native) / trip
        goals = (Goal(f"{title}, p50", over, unit, 1.5, at_most=True),)
        results.append(_result(title, name, found, {unit: over}, goals, {"round trip ms": trip}))
    return results


@contextmanager
def _wires(databases: Databases) -> Iterator[tuple[Databases, str]]:
    """Both databases at the end of a wire each, and the source at the end of two."""
    with (
        wire(databases.source, ROUND_TRIP_S) as source,
        wire(databases.target, ROUND_TRIP_S) as target,
        wire(source, ROUND_TRIP_S) as doubly,
    ):
        yield Databases(source, target), doubly


def _result(
    figure: str,
    who: str,
    found: list[list[float]],
    ratios: dict[str, float],
    goals: tuple[Goal, ...],
    also: dict[str, float] | None = None,
) -> Result:
    rounds = [percentile(samples, 50) for samples in found]
    wanted = goals if who == MIRROR else ()
    return Result(figure, who, "ms", median(rounds), _p99(found), rounds, ratios, also or {}, wanted)


def _p50(rounds: list[list[float]]) -> float:
    return median(percentile(samples, 50) for samples in rounds)


def _p99(rounds: list[list[float]]) -> float:
    return median(percentile(samples, 99) for samples in rounds)
