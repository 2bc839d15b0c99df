"""A backlog: single-row changes of distinct keys, one transaction each, written while nobody brings them over; then,
how many rows per second until everything is through.

The clock starts when the mirror has claimed the target, or native replication's worker is at its slot: starting a
process is not the subject. It stops when the target's position says that it equals the source, or when native
replication, which keeps the order of commits, shows the last change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench import peers
from bench.load import CLIENTS, pgbench
from bench.peers import Sentinel, until
from bench.report import Result, median
from bench.stage import Databases, Stage, ask, connect
from bench.usage import Usage, usage

# pgbench keeps a client's variables from one transaction to the next: client c changes the keys c, c + clients, ...
CHANGE = """
\\set n :n + :clients
\\set key :n + :client_id
update public.trip_memberships set role = 'admin'
where trip_id = public.trip_of(:key) and user_id = public.key('user', :key);
"""


@dataclass(frozen=True)
class Run:
    seconds: float
    usage: Usage | None = None


def measure(stage: Stage, *, rounds: int, keys: int) -> list[Result]:
    keys -= keys % CLIENTS
    stage.fill(keys)
    kinds = {"mirror": mirror, "native replication": native}
    runs: dict[str, list[Run]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, kind in kinds.items():
            with stage.databases() as databases:
                runs[name].append(kind(stage, databases, keys))
    speeds = {name: [keys / run.seconds for run in found] for name, found in runs.items()}
    return [
        _result(name, keys, found, runs[name], median(speeds["native replication"])) for name, found in speeds.items()
    ]


def _result(name: str, keys: int, speeds: list[float], runs: list[Run], native_speed: float) -> Result:
    figure, speed = f"backlog, {keys:,} single-row changes", median(speeds)
    return Result(figure, name, "rows/s", speed, None, speeds, {"/ native": speed / native_speed}, _usage(runs, keys))


def _usage(runs: list[Run], keys: int) -> dict[str, float]:
    usages = [run.usage for run in runs if run.usage]
    if not usages:
        return {}
    return {
        "CPU s per 100,000 rows": median(usage.cpu_s for usage in usages) / keys * 100_000,
        "peak RSS MB": median(usage.rss_mb for usage in usages),
    }


def mirror(stage: Stage, databases: Databases, keys: int) -> Run:
    with peers.mirror(databases):
        pass
    sentinel = _write(stage, databases, keys)
    with connect(databases.target) as target:
        epoch = ask(target, "select epoch from mirror.state")
        with peers.daemon(databases) as running:
            began = until(lambda: running.runs() and ask(target, "select epoch from mirror.state") != epoch)
            before = usage(running.process.pid)
            ended = until(lambda: running.runs() and sentinel.in_position(target))
            return Run(ended - began, before and usage(running.process.pid, before))


def native(stage: Stage, databases: Databases, keys: int) -> Run:
    with peers.native(databases), connect(databases.source) as source, connect(databases.target) as target:
        with _disabled(databases):
            sentinel = _write(stage, databases, keys)
        began = until(lambda: ask(source, "select active from pg_replication_slots where slot_name = 'bench'"))
        return Run(until(lambda: sentinel.is_visible(target)) - began)


@contextmanager
def _disabled(databases: Databases) -> Iterator[None]:
    with connect(databases.source) as source, connect(databases.target) as target:
        target.execute("alter subscription bench disable")
        until(lambda: not ask(source, "select active from pg_replication_slots where slot_name = 'bench'"))
        yield
        target.execute("alter subscription bench enable")


def _write(stage: Stage, databases: Databases, keys: int) -> Sentinel:
    """Not waiting for the disk: only what was written matters here. A checkpoint puts everybody at the same start."""
    variables = (f"--define=n=-{CLIENTS}", f"--define=clients={CLIENTS}")
    pgbench(stage, databases, CHANGE, f"--transactions={keys // CLIENTS}", *variables, durable=False)
    with connect(databases.source) as source:
        changed = ask(source, "select count(*) from public.trip_memberships where role = 'admin'")
        if changed != keys:
            raise RuntimeError(f"the backlog has {changed} rows, not {keys}")
        sentinel = Sentinel(source)
        source.execute("checkpoint")
    return sentinel
