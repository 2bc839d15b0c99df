"""Probes: single-row changes at a steady rate, from the reply to COMMIT in the source to the moment the row is visible
in the target.

The observer is a trigger in the target that notifies: it says so after the commit became visible, costs everybody the
same, and takes no processor from what is measured, as a polling loop would on a small machine. Writer and observer are
independent of each other, so a slow change does not slow the load down. The pauses are random: changes also meet a
daemon that is just going to sleep.
"""

from __future__ import annotations

import random
import threading
import time

from bench.report import median
from bench.stage import Connection, Databases, connect

PER_SECOND = 50
WARM_UP_S = 0.5
PROBED = 500  # memberships that only probes change: the first so many
LAST_TIMEOUT_S = 30.0
QUESTIONS = 100
# Only the probes are told of: what else is written meanwhile does not notify.
OBSERVER = """
drop function if exists public.seen cascade;
create function public.seen() returns trigger language plpgsql as
  $$ begin perform pg_notify('seen', new.role); return null; end $$;
create trigger seen after insert or update on public.trip_memberships for each row when (new.role like 'probe %')
  execute function public.seen();
alter table public.trip_memberships enable always trigger seen;
"""
INSERT = (
    "insert into public.trip_memberships (trip_id, user_id, role) values (public.trip_of(%s), gen_random_uuid(), %s)"
)
UPDATE = """
update public.trip_memberships set role = %s where trip_id = public.trip_of(%s) and user_id = public.key('user', %s)
"""


def round_trip_ms(far: str, near: str) -> float:
    """What a wire adds to the shortest of questions."""
    return _asked_ms(far) - _asked_ms(near)


def _asked_ms(url: str) -> float:
    times = []
    with connect(url) as connection:
        for _ in range(QUESTIONS):
            began = time.perf_counter()
            connection.execute("select", prepare=True)
            times.append(time.perf_counter() - began)
    return median(times) * 1000


def latencies_ms(databases: Databases, seconds: float, chance: random.Random, name: str = "first") -> list[float]:
    """`name`: another one for another time on the same rows."""
    warm_up_s = min(seconds, WARM_UP_S)
    warm_up, n = int(warm_up_s * PER_SECOND), int((warm_up_s + seconds) * PER_SECOND)
    with connect(databases.target) as observer, connect(databases.source) as writer:
        observer.execute(OBSERVER)
        observer.execute("listen seen")
        seen: dict[str, float] = {}
        watching = threading.Thread(target=_watch, args=(observer, seen, n, seconds), daemon=True)
        watching.start()
        committed = _write(writer, n, chance, name)
        watching.join(LAST_TIMEOUT_S)
    missing = committed.keys() - seen.keys()
    if missing:
        raise RuntimeError(f"{len(missing)} of {n} changes did not arrive")
    return [(seen[role] - at) * 1000 for role, at in list(committed.items())[warm_up:]]


def _watch(observer: Connection, seen: dict[str, float], n: int, seconds: float) -> None:
    for notification in observer.notifies(timeout=WARM_UP_S + seconds + LAST_TIMEOUT_S):
        seen.setdefault(notification.payload, time.perf_counter())
        if len(seen) == n:
            return


def _write(writer: Connection, n: int, chance: random.Random, name: str) -> dict[str, float]:
    """Inserts and updates in turn, no row twice within 20 seconds; returns when each one's commit was answered."""
    committed = {}
    due = time.perf_counter()
    for i in range(n):
        due += chance.expovariate(PER_SECOND)
        time.sleep(max(0.0, due - time.perf_counter()))
        role, row = f"probe {name} {i}", i // 2 % PROBED
        if i % 2:
            writer.execute(INSERT, [row, role], prepare=True)
        else:
            writer.execute(UPDATE, [role, row, row], prepare=True)
        committed[role] = time.perf_counter()
    return committed
