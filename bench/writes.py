"""What the application pays: durable single-row updates at full speed, with and without somebody who mirrors them.

Everybody has to keep up meanwhile: how far behind the target is when the last write is done stands beside. Updates that
change nothing mapped are compared with the same updates without the mirror.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from bench import peers
from bench.load import CLIENTS, Load, pgbench
from bench.peers import Peer, Sentinel, until
from bench.probes import PROBED
from bench.report import Goal, Result, median
from bench.stage import USERS, Connection, Databases, Stage, connect

MAPPED = f"""
\\set n random({PROBED}, :rows - 1)
\\set role random(1, 1000000000)
update public.trip_memberships set role = :role::bigint::text
where trip_id = public.trip_of(:n) and user_id = public.key('user', :n);
"""
UNMAPPED = """
\\set n random(0, :users - 1)
update public.users set last_seen = clock_timestamp() where id = public.key('user', :n);
"""
RINGING = """
create function public.ring() returns trigger language plpgsql as
  $$ begin perform pg_notify('bench', ''); return null; end $$;
create trigger ring after update on public.trip_memberships for each statement execute function public.ring();
"""
# The least of any mirror with triggers: one that is called and does nothing, and one that keeps the keys of rows that
# changed, with nothing that protects the application from it, and nobody who reads them.
CALLED = """
create table public.kept (
  id bigint generated always as identity, xid xid8 not null default pg_current_xact_id(), k1 text, k2 text);
create function public.least() returns trigger language plpgsql as $$ begin {body} return null; end $$;
create trigger least after update on public.{table} referencing old table as old_rows new table as new_rows
  for each statement execute function public.least();
"""
KEEPING = """
insert into public.kept (k1, k2) select n.{k1}, n.{k2} from new_rows as n join old_rows as o using ({key})
where (n.{a}, n.{b}) is distinct from (o.{a}, o.{b});
"""
_MEMBERSHIPS = KEEPING.format(k1="trip_id", k2="user_id", key="trip_id, user_id", a="role", b="status")
_USERS = KEEPING.format(k1="id", k2="id", key="id", a="email", b="username")
LISTEN_TIMEOUT_S = 0.1
WITHOUT, MIRROR, NATIVE = "without the mirror", "mirror", "native replication"
NOTIFYING = "NOTIFY in every transaction"
EMPTY, KEYS = "floor: an empty trigger", "floor: a trigger that keeps the keys"


@contextmanager
def nobody(_: Databases) -> Iterator[None]:
    yield


@contextmanager
def least(databases: Databases, *, table: str, body: str = "") -> Iterator[None]:
    with connect(databases.source) as source:
        source.execute(CALLED.format(table=table, body=body))
    yield


@contextmanager
def ringing(databases: Databases) -> Iterator[None]:
    """What a mirror would cost that is told of every transaction by NOTIFY: a trigger and one who listens."""
    stop = threading.Event()
    with connect(databases.source) as source, connect(databases.source) as listener:
        source.execute(RINGING)
        listener.execute("listen bench")
        listening = threading.Thread(target=_listen, args=(listener, stop))
        listening.start()
        try:
            yield
        finally:
            stop.set()
            listening.join()


def _listen(listener: Connection, stop: threading.Event) -> None:
    while not stop.is_set():
        for _ in listener.notifies(timeout=LISTEN_TIMEOUT_S):
            pass


@dataclass(frozen=True)
class Case:
    figure: str
    who: str
    peer: Peer
    script: str
    through: Callable[[Sentinel, Connection], bool] | None = None


_FIGURE = f"application's writes, {CLIENTS} writers"
_NOTHING = f"{_FIGURE}, nothing mapped changes"
CASES = (
    Case(_FIGURE, WITHOUT, nobody, MAPPED),
    Case(_FIGURE, MIRROR, peers.mirror, MAPPED, Sentinel.in_position),
    Case(_FIGURE, NATIVE, peers.native, MAPPED, Sentinel.is_visible),
    Case(_FIGURE, NOTIFYING, ringing, MAPPED),
    Case(_FIGURE, EMPTY, partial(least, table="trip_memberships"), MAPPED),
    Case(_FIGURE, KEYS, partial(least, table="trip_memberships", body=_MEMBERSHIPS), MAPPED),
    Case(_NOTHING, WITHOUT, nobody, UNMAPPED),
    Case(_NOTHING, MIRROR, peers.mirror, UNMAPPED, Sentinel.in_position),
    Case(_NOTHING, EMPTY, partial(least, table="users"), UNMAPPED),
    Case(_NOTHING, KEYS, partial(least, table="users", body=_USERS), UNMAPPED),
)


WANTED = {
    (_FIGURE, WITHOUT): ("application's writes", "× without", 0.85),
    (_FIGURE, NATIVE): ("application's writes", "× native", 0.95),
    (_FIGURE, NOTIFYING): ("application's writes", "× always NOTIFY", 2.5),
    (_NOTHING, WITHOUT): ("writes that change nothing mapped", "× without", 0.97),
}


def measure(stage: Stage, *, rounds: int, rows: int, seconds: int) -> list[Result]:
    stage.fill(rows)
    found: dict[Case, list[tuple[Load, float]]] = {case: [] for case in CASES}
    for _ in range(rounds):
        for case, runs in found.items():
            with stage.databases() as databases, case.peer(databases):
                runs.append(_run(stage, databases, case, rows, seconds))
    speeds = {case: median(load.per_second for load, _ in runs) for case, runs in found.items()}
    return [_result(case, runs, speeds) for case, runs in found.items()]


def _run(stage: Stage, databases: Databases, case: Case, rows: int, seconds: int) -> tuple[Load, float]:
    """The load, and how many seconds behind the target was when it ended."""
    variables = (f"--define=rows={rows}", f"--define=users={USERS}")
    load = pgbench(stage, databases.source, case.script, seconds, *variables)
    if case.through is None:
        return load, 0.0
    with connect(databases.source) as source, connect(databases.target) as target:
        through = partial(case.through, Sentinel(source), target)
        began = time.perf_counter()
        return load, until(through) - began


def _result(case: Case, runs: list[tuple[Load, float]], speeds: dict[Case, float]) -> Result:
    """Everybody beside nobody, and the mirror beside everybody."""
    others = [other for other in speeds if other.figure == case.figure and other is not case]
    ratios = {f"/ {o.who}": speeds[case] / speeds[o] for o in others if case.who == MIRROR or o.who == WITHOUT}
    p99 = median(load.p99_ms for load, _ in runs)
    also = {"s behind at the end": median(behind_s for _, behind_s in runs)} if case.through else {}
    goals = tuple(
        Goal(words, ratios[f"/ {other}"], unit, wanted)
        for (figure, other), (words, unit, wanted) in WANTED.items()
        if case.who == MIRROR and figure == case.figure
    )
    speed, rounds = speeds[case], [load.per_second for load, _ in runs]
    return Result(case.figure, case.who, "tx/s", speed, p99, rounds, ratios, also, goals)
