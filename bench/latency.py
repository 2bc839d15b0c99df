"""Commit to visible: single-row changes at 50 transactions per second, from the reply to COMMIT in the source to the
moment the row is visible in the target.

The observer is a trigger in the target that notifies: it says so after the commit became visible, costs everybody the
same, and takes no processor from what is measured, as a polling loop would on a small machine. Writer and observer are
independent of each other, so a slow change does not slow the load down. The pauses are random: changes also meet a
daemon that is just going to sleep.
"""

from __future__ import annotations

import random
import threading
import time

from bench import peers
from bench.peers import Peer
from bench.report import Result, median, percentile
from bench.stage import Connection, Databases, Stage, connect

PER_SECOND = 50
WARM_UP_S = 0.5
LAST_TIMEOUT_S = 30.0
OBSERVER = """
create function public.seen() returns trigger language plpgsql as
  $$ begin perform pg_notify('seen', new.role); return null; end $$;
create trigger seen after insert or update on public.trip_memberships for each row execute function public.seen();
alter table public.trip_memberships enable always trigger seen;
"""
INSERT = (
    "insert into public.trip_memberships (trip_id, user_id, role) values (public.trip_of(%s), gen_random_uuid(), %s)"
)
UPDATE = """
update public.trip_memberships set role = %s where trip_id = public.trip_of(%s) and user_id = public.key('user', %s)
"""
PEERS: dict[str, Peer] = {
    "floor: NOTIFY, select, durable commit": peers.relay,
    "mirror": peers.mirror,
    "native replication": peers.native,
    "native replication, durable apply": peers.native_durable,
}


def measure(stage: Stage, *, rounds: int, rows: int, seconds: float) -> list[Result]:
    stage.fill(rows)
    samples: dict[str, list[list[float]]] = {name: [] for name in PEERS}
    for turn in range(rounds):
        for name, peer in PEERS.items():
            with stage.databases() as databases, peer(databases):
                samples[name].append(latencies_ms(databases, seconds, random.Random(turn)))
    floor, *_ = (median(percentile(r, 50) for r in rounds_ms) for rounds_ms in samples.values())
    native = median(percentile(r, 50) for r in samples["native replication"])
    return [_result(name, rounds_ms, floor, native) for name, rounds_ms in samples.items()]


def _result(name: str, rounds_ms: list[list[float]], floor: float, native: float) -> Result:
    p50s, p99s = [percentile(r, 50) for r in rounds_ms], [percentile(r, 99) for r in rounds_ms]
    p50, p99 = median(p50s), median(p99s)
    ratios = {"p50 / floor": p50 / floor, "p50 / native": p50 / native, "p99 / p50": p99 / p50}
    return Result(f"commit to visible, {PER_SECOND} tx/s", name, "ms", p50, p99, p50s, ratios)


def latencies_ms(databases: Databases, seconds: float, chance: random.Random, name: str = "r") -> list[float]:
    """`name`: what the roles that are written begin with; another one for another time on the same rows."""
    warm_up, n = int(WARM_UP_S * PER_SECOND), int((WARM_UP_S + seconds) * PER_SECOND)
    with connect(databases.target) as observer, connect(databases.source) as writer:
        observer.execute(OBSERVER)
        observer.execute("listen seen")
        seen: dict[str, float] = {}
        watching = threading.Thread(target=_watch, args=(observer, seen, f"{name}{n - 1}"), daemon=True)
        watching.start()
        committed = _write(writer, n, chance, name)
        watching.join(LAST_TIMEOUT_S)
    missing = committed.keys() - seen.keys()
    if missing:
        raise RuntimeError(f"{len(missing)} of {n} changes did not arrive")
    return [(seen[role] - at) * 1000 for role, at in list(committed.items())[warm_up:]]


def _watch(observer: Connection, seen: dict[str, float], last: str) -> None:
    for notification in observer.notifies(timeout=LAST_TIMEOUT_S):
        seen[notification.payload] = time.perf_counter()
        if notification.payload == last:
            return


def _write(writer: Connection, n: int, chance: random.Random, name: str) -> dict[str, float]:
    """Inserts and updates in turn, each of another row; returns when each one's commit was answered."""
    committed = {}
    due = time.perf_counter()
    for i in range(n):
        due += chance.expovariate(PER_SECOND)
        time.sleep(max(0.0, due - time.perf_counter()))
        if i % 2:
            writer.execute(INSERT, [i, f"{name}{i}"], prepare=True)
        else:
            writer.execute(UPDATE, [f"{name}{i}", i, i], prepare=True)
        committed[f"{name}{i}"] = time.perf_counter()
    return committed
