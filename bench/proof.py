"""First load and comparison of all memberships.

First load: from the daemon's claim to `primed`, beside a plain COPY out | COPY in of the same columns into a table with
the same primary key. Comparison: a verify of the equal table by the leading daemon, without its rate limit, beside one
scan of each side that does nothing but take the same digest; and what a change takes to be visible while comparisons
run one after the other, beside the same while nothing runs."""

from __future__ import annotations

import random
import threading
import time

from bench import peers
from bench.peers import TARGET_TABLES, until
from bench.probes import latencies_ms
from bench.report import Goal, Result, median, percentile
from bench.stage import Connection, Databases, Stage, ask, connect
from bench.usage import usage

NO_LIMIT = {"MIRROR_RECONCILE_ROWS_PER_SECOND": "1000000000"}
COPY_OUT = "copy (select trip_id, user_id, role, status from public.trip_memberships) to stdout"
COPY_IN = "copy public.trip_memberships (trip_id, user_id, role, status) from stdin"
DIGEST = """
select bit_xor(('x' || left(md5(concat_ws('|', trip_id, user_id, role, status)), 16))::bit(64)::bigint)
from public.trip_memberships
"""


def measure(stage: Stage, *, rounds: int, rows: int, seconds: float) -> list[Result]:
    stage.fill(rows)
    found: dict[str, list[float]] = {}
    for turn in range(rounds):
        for name, value in (_copy(stage) | _mirror(stage, seconds, turn)).items():
            found.setdefault(name, []).append(value)
    middle = {name: median(values) for name, values in found.items()}
    load, copy = rows / middle["load"], rows / middle["copy"]
    quiet, busy = middle["p99"], middle["p99 while comparing"]
    title = f"{rows:,} memberships"
    return [
        Result(f"first load, {title}", "COPY into COPY", "rows/s", copy, None, found["copy"], {}),
        Result(f"first load, {title}", "mirror", "rows/s", load, None, found["load"], {"/ COPY": load / copy},
               {"peak RSS MB": middle["rss"]}, (Goal("first load", load / copy, "× COPY", 0.6),)),
        Result(f"comparison, {title}", "digest scan of both sides", "s", middle["scan"], None, found["scan"], {}),
        Result(f"comparison, {title}", "mirror", "s", middle["verify"], None, found["verify"],
               {"/ scan": middle["verify"] / middle["scan"]}, {},
               (Goal("comparison of equal tables", middle["verify"] / middle["scan"], "× scan", 2, at_most=True),)),
        Result("p99 of a change", "nothing else runs", "ms", quiet, None, found["p99"], {}),
        Result("p99 of a change", "comparisons run", "ms", busy, None, found["p99 while comparing"],
               {"/ quiet": busy / quiet}, {},
               (Goal("p99 of a change while comparing", busy / quiet, "× quiet", 3, at_most=True),)),
    ]  # fmt: skip


def _copy(stage: Stage) -> dict[str, float]:
    with (
        stage.databases() as databases,
        connect(databases.source) as source,
        connect(databases.target) as target,
    ):
        target.execute(TARGET_TABLES)
        began = time.perf_counter()
        with source.cursor().copy(COPY_OUT) as out, target.cursor().copy(COPY_IN) as into:
            for data in out:
                into.write(data)
        return {"copy": time.perf_counter() - began}


def _mirror(stage: Stage, seconds: float, turn: int) -> dict[str, float]:
    with stage.databases() as databases:
        peers.install_mirror(databases)
        with (
            connect(databases.source) as source,
            connect(databases.target) as target,
            peers.daemon(databases, NO_LIMIT) as running,
        ):
            began = until(lambda: ask(target, "select epoch > 0 from mirror.state"))
            load = until(lambda: ask(target, "select primed_at from mirror.state")) - began
            target.execute("vacuum analyze public.trip_memberships")
            scan = _timed(source, DIGEST) + _timed(target, DIGEST)
            verify = _verify(source)
            quiet = percentile(latencies_ms(databases, seconds, random.Random(turn)), 99)
            busy = _busy(databases, seconds, turn)
            used = usage(running.process.pid)
    return {"load": load, "scan": scan, "verify": verify, "p99": quiet, "p99 while comparing": busy,
            "rss": used.rss_mb if used else 0.0}  # fmt: skip


def _timed(connection: Connection, query: str) -> float:
    connection.execute("set max_parallel_workers_per_gather = 0")
    began = time.perf_counter()
    connection.execute(query)
    return time.perf_counter() - began


def _verify(source: Connection) -> float:
    request = ask(source, "select mirror.ask('verify', 'trip_memberships', null, null, false, false)")
    began = time.perf_counter()
    return until(lambda: ask(source, "select done_at from mirror.request where id = %s", request)) - began


def _busy(databases: Databases, seconds: float, turn: int) -> float:
    """One comparison after the other, as long as it takes."""
    stop = threading.Event()

    def compare() -> None:
        with connect(databases.source) as source:
            while not stop.is_set():
                _verify(source)

    comparing = threading.Thread(target=compare)
    comparing.start()
    try:
        return percentile(latencies_ms(databases, seconds, random.Random(turn + 1000), "busy"), 99)
    finally:
        stop.set()
        comparing.join()
