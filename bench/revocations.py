"""Ten ways to lose something, behind a backlog: when is the last of each visible, and has anything that was given later
come before it? The target is asked in one statement what is still there and what has come, over and over."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import peers
from bench.backlog import MIRROR
from bench.changes import BULK_ROWS, INSERT_MANY, UPDATE_MANY
from bench.peers import TIMEOUT_S, Sentinel, until
from bench.report import Goal, Result, median
from bench.stage import MEMBERS_PER_TRIP, Connection, Databases, Stage, ask, connect
from mirror.mapping import load_mapping

EACH = 5  # transactions of each kind, each about a trip and a user of its own,
ROWS_MIN = 10 * EACH * MEMBERS_PER_TRIP  # so there have to be as many trips
LATER = 100  # memberships that are given when all that is done
ASK_INTERVAL_S = 0.002
MAPPING = """
[users]
subject = "login"
where = "deleted_at is null"
[trips]
where = "deleted_at is null"
[trip_memberships]
where = "archived_at is null"
"""
COLUMNS = """
alter table public.users add login text, add deleted_at timestamptz;
alter table public.trip_memberships add archived_at timestamptz;
update public.users set login = 'before';
"""
MEMBER = "trip_id = public.key('trip', {n}) and user_id = public.key('user', {n} * 20)"
TRIP, USER = "id = public.key('trip', {n})", "id = public.key('user', {n} * 20)"
IN_TARGET = {
    "public.trip_memberships": "t.trip_id = md5('trip' || n)::uuid and t.user_id = md5('user' || n * 20)::uuid",
    "public.trips": "t.id = md5('trip' || n)::uuid",
    "public.users": "t.id = md5('user' || n * 20)::uuid",
}
GIVE = f"""
insert into public.trip_memberships (trip_id, user_id, role)
select public.trip_of(n), public.key('later', n), 'guest' from generate_series(0, {LATER - 1}) as n
"""
GIVEN = f"""
select exists (select from generate_series(0, {LATER - 1}) as n join public.trip_memberships as t
               on t.trip_id = md5('trip' || n / {MEMBERS_PER_TRIP})::uuid and t.user_id = md5('later' || n)::uuid)
"""
# In front: what gives, and what may take as well as give.
IN_FRONT = {"grants": INSERT_MANY, "changed roles": UPDATE_MANY}


@dataclass(frozen=True)
class Kind:
    """`done` in the source to the n-th trip's first member, its user, or itself; `left`: what of it must go."""

    table: str
    done: str
    left: str = "true"


KINDS = {
    "delete": Kind("public.trip_memberships", f"delete from public.trip_memberships where {MEMBER}"),
    "status": Kind(
        "public.trip_memberships",
        f"update public.trip_memberships set status = 'LEFT' where {MEMBER}",
        "t.status <> 'LEFT'",
    ),
    "role": Kind(
        "public.trip_memberships",
        f"update public.trip_memberships set role = 'none' where {MEMBER}",
        "t.role <> 'none'",
    ),
    "subject": Kind("public.users", f"update public.users set login = 'after' where {USER}", "t.subject <> 'after'"),
    "filter": Kind("public.trip_memberships", f"update public.trip_memberships set archived_at = now() where {MEMBER}"),
    "trip, soft": Kind("public.trips", f"update public.trips set deleted_at = now() where {TRIP}"),
    "trip, hard": Kind("public.trips", f"delete from public.trips where {TRIP}"),
    "user, soft": Kind("public.users", f"update public.users set deleted_at = now() where {USER}"),
    "user, hard": Kind("public.users", f"delete from public.users where {USER}"),
    "re-key": Kind(
        "public.trip_memberships",
        f"update public.trip_memberships set user_id = public.key('other', {{n}}) where {MEMBER}",
    ),
}


@dataclass
class Seen:
    """By those who look at the target: when each kind was through, and whether a later grant was there before."""

    at: dict[str, float] = field(default_factory=dict)
    overtaken: bool = False


def measure(stage: Stage, *, rounds: int, n: int) -> list[Result]:
    stage.fill(max(n, ROWS_MIN))
    results = []
    for what in IN_FRONT:
        shares: list[dict[str, float]] = []
        for _ in range(rounds):
            with stage.databases() as databases:
                shares.append(_run(databases, what, n))
        results.append(_result(what, n, shares))
    return results


def _result(what: str, n: int, shares: list[dict[str, float]]) -> Result:
    worst = [max(found[kind] for kind in KINDS) for found in shares]
    also = {kind: median(found[kind] for found in shares) for kind in (*KINDS, "overtaken by later grants", "whole, s")}
    goals = (Goal(f"revocations of ten kinds behind {what}", median(worst), "of the whole", 0.15, at_most=True),)
    figure = f"revocations of ten kinds, {n:,} {what} in front"
    return Result(
        figure, MIRROR, "of the whole", median(worst), None, worst, {}, also, goals if what == "grants" else ()
    )


def _run(databases: Databases, what: str, n: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "mirror.toml"
        file.write_text(MAPPING)
        settings = {"MIRROR_CONFIG": str(file)}
        with connect(databases.source) as source:
            source.execute(COLUMNS)
            with peers.mirror(databases, settings=settings, mapping=load_mapping(file)):
                pass
            sentinel = _write(source, what, n)
        return _drained(databases, settings, sentinel)


def _write(source: Connection, what: str, n: int) -> Sentinel:
    for first in range(0, n, BULK_ROWS):
        source.execute(IN_FRONT[what], [first, min(n, first + BULK_ROWS)])
    for number, kind in enumerate(KINDS.values()):
        for one in range(number * EACH, (number + 1) * EACH):
            source.execute(kind.done.format(n=one))
    source.execute(GIVE)
    sentinel = Sentinel(source)
    source.execute("checkpoint")
    return sentinel


def _drained(databases: Databases, settings: dict[str, str], sentinel: Sentinel) -> dict[str, float]:
    """The clock runs as for any other backlog."""
    with connect(databases.target) as target:
        epoch = ask(target, "select epoch from mirror.state")
        with _watching(databases) as seen, peers.daemon(databases, settings) as running:
            began = until(lambda: running.runs() and ask(target, "select epoch from mirror.state") != epoch)
            ended = until(lambda: running.runs() and sentinel.in_position(target))
            until(lambda: len(seen.at) == len(KINDS))
    shares = {kind: (at - began) / (ended - began) for kind, at in seen.at.items()}
    return shares | {"overtaken by later grants": float(seen.overtaken), "whole, s": ended - began}


def _left() -> str:
    parts = []
    for number, (name, kind) in enumerate(KINDS.items()):
        numbers = f"generate_series({number * EACH}, {number * EACH + EACH - 1}) as n"
        found = f"select from {numbers} join {kind.table} as t on {IN_TARGET[kind.table]} and {kind.left}"
        parts.append(f"case when exists ({found}) then '{name}' end")
    return f"select array_remove(array[{', '.join(parts)}], null), ({GIVEN})"


@contextmanager
def _watching(databases: Databases) -> Iterator[Seen]:
    seen, stop, question = Seen(), threading.Event(), _left()

    def watch() -> None:
        with connect(databases.target) as target:
            deadline = time.perf_counter() + TIMEOUT_S
            while len(seen.at) < len(KINDS) and not stop.is_set() and time.perf_counter() < deadline:
                row: Any = target.execute(question, prepare=True).fetchone()
                now = time.perf_counter()
                seen.at |= {kind: now for kind in KINDS if kind not in row[0] and kind not in seen.at}
                seen.overtaken |= bool(row[0]) and row[1]
                time.sleep(ASK_INTERVAL_S)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        stop.set()
        watching.join()
