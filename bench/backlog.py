"""A backlog: changes written while nobody brings them over; then, how many of them per second until all are through.

The clock starts when the mirror has claimed the target, or native replication's worker is at its slot: starting a
process is not the subject. It stops when the target's position says that it equals the source, or when native
replication, which keeps the order of commits, shows the last change.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bench import peers
from bench.changes import REVOCATIONS, REVOKED_EVERY, SINGLE, Kind, write
from bench.peers import TIMEOUT_S, until
from bench.report import Goal, Result, median
from bench.stage import MEMBERS_PER_TRIP, Databases, Stage, ask, connect
from bench.usage import Usage, usage

MIRROR, NATIVE, HTTPS = "mirror", "native replication", "mirror through HTTPS"
REVOKED = f"""
create table public.revoked as
  select md5('trip' || n / {MEMBERS_PER_TRIP})::uuid as trip_id, md5('user' || n)::uuid as user_id
  from generate_series({REVOKED_EVERY} - 1, %s, {REVOKED_EVERY}) as n
"""
STILL_THERE = """
select exists (select from public.revoked as r where exists (
  select from public.trip_memberships as m where m.trip_id = r.trip_id and m.user_id = r.user_id offset 0))
"""


@dataclass(frozen=True)
class Run:
    seconds: float
    usage: Usage | None = None
    revoked_s: float | None = None  # until the last revocation was visible


Runner = Callable[[Databases, Kind, int], Run]


def measure(
    stage: Stage, *, rounds: int, n: int, kinds: Sequence[Kind], runners: Mapping[str, Runner] | None = None
) -> list[Result]:
    stage.fill(n)
    chosen = runners or {MIRROR: mirror, NATIVE: native}
    runs: dict[tuple[Kind, str], list[Run]] = {(kind, name): [] for kind in kinds for name in chosen}
    for _ in range(rounds):
        for (kind, name), found in runs.items():
            with stage.databases() as databases:
                found.append(chosen[name](databases, kind, n))
    return [result for kind in kinds for result in _results(kind, n, {name: runs[kind, name] for name in chosen})]


def _results(kind: Kind, n: int, runs: dict[str, list[Run]]) -> list[Result]:
    """Each beside native replication, where that runs, and beside the direct transport."""
    figure = f"backlog, {n:,} {kind.title}"
    speeds = {name: [n / run.seconds for run in found] for name, found in runs.items()}
    results = []
    for name, found in speeds.items():
        bases = {"/ native": NATIVE} | ({"/ direct": MIRROR} if name == HTTPS else {})
        ratios = {label: median(found) / median(speeds[base]) for label, base in bases.items() if base in speeds}
        also = _also(runs[name], n)
        goals = tuple(_goals(kind, name, ratios, also))
        results.append(Result(figure, name, "changes/s", median(found), None, found, ratios, also, goals))
    return results


def _also(runs: list[Run], n: int) -> dict[str, float]:
    also = {}
    if usages := [run.usage for run in runs if run.usage]:
        also["CPU s per 100,000 rows"] = median(used.cpu_s for used in usages) / n * 100_000
        also["peak RSS MB"] = median(used.rss_mb for used in usages)
    if shares := [run.revoked_s / run.seconds for run in runs if run.revoked_s is not None]:
        also["last revocation / whole"] = median(shares)
    return also


def _goals(kind: Kind, name: str, ratios: dict[str, float], also: dict[str, float]) -> Iterator[Goal]:
    if name == MIRROR and kind.wanted and "/ native" in ratios:
        yield Goal(f"backlog, {kind.title}", ratios["/ native"], "× native", kind.wanted)
    if name == MIRROR and kind is SINGLE and "/ native" in ratios and "CPU s per 100,000 rows" in also:
        cpu_s = also["CPU s per 100,000 rows"]
        yield Goal("daemon, CPU for 100,000 rows", cpu_s, "s", 0.25, at_most=True)
    if name == HTTPS:
        yield Goal("backlog through HTTPS", ratios["/ direct"], "× direct", 0.6)
    if name == MIRROR and kind is REVOCATIONS:
        share = also["last revocation / whole"]
        yield Goal("backlog, last revocation visible", share, "of the whole", 0.15, at_most=True)


def mirror(databases: Databases, kind: Kind, n: int, settings: Mapping[str, str] | None = None) -> Run:
    with peers.mirror(databases, settings=settings):
        pass
    sentinel = write(databases, kind, n)
    with connect(databases.target) as target:
        epoch = ask(target, "select epoch from mirror.state")
        with _revocations(databases, kind, n) as revoked, peers.daemon(databases, settings) as running:
            began = until(lambda: running.runs() and ask(target, "select epoch from mirror.state") != epoch)
            before = usage(running.process.pid)
            ended = until(lambda: running.runs() and sentinel.in_position(target))
            used = usage(running.process.pid, before) if before else None
    return Run(ended - began, used, revoked[0] - began if revoked else None)


def native(databases: Databases, kind: Kind, n: int) -> Run:
    with peers.native(databases), connect(databases.source) as source, connect(databases.target) as target:
        with _disabled(databases):
            sentinel = write(databases, kind, n)
        began = until(lambda: ask(source, "select active from pg_replication_slots where slot_name = 'bench'"))
        return Run(until(lambda: sentinel.is_visible(target)) - began)


@contextmanager
def _disabled(databases: Databases) -> Iterator[None]:
    with connect(databases.source) as source, connect(databases.target) as target:
        target.execute("alter subscription bench disable")
        until(lambda: not ask(source, "select active from pg_replication_slots where slot_name = 'bench'"))
        yield
        target.execute("alter subscription bench enable")


@contextmanager
def _revocations(databases: Databases, kind: Kind, n: int) -> Iterator[list[float]]:
    """When the last of them was visible; nothing for other kinds. A question costs little: it ends at the first that is
    still there."""
    if kind is not REVOCATIONS:
        yield []
        return
    seen: list[float] = []
    stop = threading.Event()
    with connect(databases.target) as target:
        target.execute(REVOKED.replace("%s", str(n - 1)))
        target.execute("analyze public.revoked")

        def watch() -> None:
            seen.append(until(lambda: stop.is_set() or not ask(target, STILL_THERE), TIMEOUT_S))

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            yield seen
        finally:
            stop.set()
            watching.join()
