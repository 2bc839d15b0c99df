"""Growth: what a change costs when there are ten thousand memberships, and when there are ten millions.

The same number of distinct rows is changed at each size, spread over the whole table, several times over, each time
while the target is held by a lock, so that they wait as a backlog; the clock starts when the lock is given back. Native
replication does the same beside it at each size: a page that is touched for the first time after a checkpoint is
written to the WAL whole, by whoever writes, so changes spread over a large table cost more than those of a small one in
any case. That is the floor. The first load of each size tells the daemon's memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import LiteralString

import psycopg

from bench import peers
from bench.peers import Sentinel, until
from bench.report import Goal, Result, median
from bench.stage import Connection, Databases, Stage, ask, connect
from bench.usage import usage

CHANGES_MAX = 10_000
CHANGE = """
create or replace procedure public.change_spread(rows bigint, n bigint, turn bigint) language plpgsql as $$
begin
  for i in 0..n - 1 loop
    update public.trip_memberships set role = 'turn ' || turn
    where trip_id = public.trip_of(i * (rows / n)) and user_id = public.key('user', i * (rows / n));
    commit;
  end loop;
end $$;
"""
MIRROR, NATIVE = "mirror", "native replication"


@dataclass(frozen=True)
class Cost:
    """Microseconds per change, each turn."""

    rounds: list[float]
    rss_mb: float = 0.0
    load_s: float = 0.0


def measure(stage: Stage, *, turns: int, sizes: Sequence[int]) -> list[Result]:
    costs: dict[str, list[Cost]] = {MIRROR: [], NATIVE: []}
    for rows in sizes:
        stage.fill(rows)
        for name, run in ((MIRROR, _mirror), (NATIVE, _native)):
            with stage.databases() as databases:
                costs[name].append(run(databases, rows, turns))
    return [result for name in costs for result in _results(name, sizes, costs)]


def _results(name: str, sizes: Sequence[int], costs: dict[str, list[Cost]]) -> list[Result]:
    results = []
    for rows, cost in zip(sizes, costs[name], strict=True):
        middle = median(cost.rounds)
        growth = middle / median(costs[name][0].rounds)
        ratios = {"/ smallest": growth}
        goals: tuple[Goal, ...] = ()
        if name == MIRROR and rows == sizes[-1]:
            what = f"cost of a change, {sizes[-1]:,} memberships"
            goals = (Goal(what, growth, f"× at {sizes[0]:,}", 1.25, at_most=True),)
        also = {"first load s": cost.load_s, "peak RSS MB": cost.rss_mb} if cost.rss_mb else {}
        figure = f"cost of a change, {rows:,} memberships"
        results.append(Result(figure, name, "µs", middle, None, cost.rounds, ratios, also, goals))
    return results


def _mirror(databases: Databases, rows: int, turns: int) -> Cost:
    peers.install_mirror(databases)
    with connect(databases.target) as target, peers.daemon(databases) as running:
        began = until(lambda: running.runs() and ask(target, "select epoch > 0 from mirror.state"))
        load_s = until(lambda: running.runs() and ask(target, "select primed_at from mirror.state")) - began
        rounds = _turns(databases, rows, turns, "select from mirror.state for update", Sentinel.in_position)
        used = usage(running.process.pid)
    return Cost(rounds, used.rss_mb if used else 0.0, load_s)


def _native(databases: Databases, rows: int, turns: int) -> Cost:
    with peers.native(databases):
        hold = "lock table public.trip_memberships in share mode"
        return Cost(_turns(databases, rows, turns, hold, Sentinel.is_visible))


def _turns(
    databases: Databases, rows: int, turns: int, hold: LiteralString, through: Callable[[Sentinel, Connection], bool]
) -> list[float]:
    n = min(rows, CHANGES_MAX)
    rounds = []
    with connect(databases.source) as source, connect(databases.target) as target:
        source.execute(CHANGE)
        for turn in range(turns):
            with psycopg.connect(databases.target) as holding:
                holding.execute(hold)
                source.execute("set synchronous_commit = off")
                source.execute("call public.change_spread(%s, %s, %s)", [rows, n, turn])
                source.execute("reset synchronous_commit")  # native replication sends only what is on the disk
                sentinel = Sentinel(source)
                began = time.perf_counter()
            ended = until(partial(through, sentinel, target))
            rounds.append((ended - began) / n * 1_000_000)
    return rounds
