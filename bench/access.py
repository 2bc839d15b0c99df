"""What a question costs: may this client enter this channel, may these thousand subscribers see this row?

A private channel is checked as Realtime does it: in a transaction that is rolled back, probe rows are put into
realtime.messages, the client's role, claims and topic are set, the rows are selected, and one is inserted, under the
policies. pgbench sends it (access.pgbench), one client, and tells the time of each statement. Beside our policies:
another role's, which say `using (true)`. Compared are the whole check, and the two statements that policies govern.

A change of a table is checked once per subscriber, in a loop inside the database. Beside a policy that calls
is_trip_member: one that asks the memberships itself with an inlined `exists`, by a role that may read them all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import mirror.demo
from bench import peers
from bench.load import Load, pgbench
from bench.report import Goal, Result, median, percentile
from bench.stage import MEMBERS_PER_TRIP, Connection, Databases, Stage, ask, connect

HERE = Path(__file__).parent
SUPABASE = Path(mirror.demo.__file__).with_name("supabase.sql")
SOURCE_ROWS = 1_000
LARGE = 5_000
SUBSCRIBERS = 1_000
ASKED = 5  # times a second
GOVERNED = slice(5, 7)  # of the statements of access.pgbench, \set included
CHANNEL_ROLES = {"mirror": "authenticated", "using (true)": "bench_open"}
ROW_ROLES = {"mirror": "authenticated", "inlined exists": "bench_inline"}
FORGET = "drop owned by bench_open, bench_inline; drop role bench_open, bench_inline"


def measure(stage: Stage, *, rounds: int, sizes: Sequence[int], seconds: int) -> list[Result]:
    results = []
    stage.fill(SOURCE_ROWS)
    for rows in sizes:
        with stage.databases() as databases, connect(databases.target) as target:
            _furnish(databases, target, rows)
            try:
                for large in (False, True):
                    results += _channel(stage, databases, rounds=rounds, rows=rows, seconds=seconds, large=large)
                for large in (False, True):
                    asked = max(1, ASKED * seconds)
                    results += _row(target, rounds=rounds, rows=rows, large=large, asked=asked)
            finally:
                target.execute(FORGET)
    return results


def _furnish(databases: Databases, target: Connection, rows: int) -> None:
    target.execute(SUPABASE.read_bytes())
    peers.install_mirror(databases)
    target.execute(f"set bench.rows = {rows}; set bench.large = {LARGE}")
    target.execute(HERE.joinpath("access.sql").read_bytes())
    target.execute("vacuum analyze public.trip_memberships, public.users")
    target.execute("checkpoint")


def _title(rows: int, *, large: bool) -> str:
    return f"{rows:,} memberships, " + (f"trip of {LARGE:,}" if large else f"trips of {MEMBERS_PER_TRIP}")


def _channel(stage: Stage, databases: Databases, *, rounds: int, rows: int, seconds: int, large: bool) -> list[Result]:
    script = HERE.joinpath("access.pgbench").read_text()
    found: dict[str, list[Load]] = {who: [] for who in CHANNEL_ROLES}
    defined = (f"--define=last={(LARGE if large else rows) - 1}", f"--define=large={int(large)}")
    for _ in range(rounds):
        for who, role in CHANNEL_ROLES.items():
            options = (f"--define=role={role}", *defined)
            found[who].append(pgbench(stage, databases.target, script, seconds, *options, clients=1, protocol="simple"))
    governed = {who: median(sum(load.statements_ms[GOVERNED]) for load in loads) for who, loads in found.items()}
    whole = {who: median(load.p50_ms for load in loads) for who, loads in found.items()}
    title = _title(rows, large=large)
    results = []
    for who, loads in found.items():
        share = governed[who] / governed["using (true)"]
        ratios = {"/ using (true)": whole[who] / whole["using (true)"], "governed statements / using (true)": share}
        goals = (Goal(f"channel, {title}", share, "× using (true)", 2, at_most=True),) if who == "mirror" else ()
        p50s, p99 = [load.p50_ms for load in loads], median(load.p99_ms for load in loads)
        also = {"governed statements ms": governed[who]}
        results.append(Result(f"channel, {title}", who, "ms", whole[who], p99, p50s, ratios, also, goals))
    return results


def _row(target: Connection, *, rounds: int, rows: int, large: bool, asked: int) -> list[Result]:
    """Asked by turns: what disturbs one disturbs the other. Of a small trip, 20 of the subscribers may see the row."""
    found: dict[str, list[list[float]]] = {who: [] for who in ROW_ROLES}
    for _ in range(rounds):
        times: dict[str, list[float]] = {who: [] for who in ROW_ROLES}
        for _ in range(asked):
            for who, role in ROW_ROLES.items():
                began = time.perf_counter()
                seen = ask(target, "select public.seen_by(%s, %s, %s)", role, 2 if large else 1, SUBSCRIBERS)
                times[who].append((time.perf_counter() - began) * 1000)
                if seen != (SUBSCRIBERS if large else MEMBERS_PER_TRIP):
                    raise RuntimeError(f"{seen} subscribers of {SUBSCRIBERS} see the row as {role}")
        for who, taken in times.items():
            found[who].append(taken)
    middles = {who: [percentile(times, 50) for times in rounds_ms] for who, rounds_ms in found.items()}
    inlined, title = median(middles["inlined exists"]), _title(rows, large=large)
    results = []
    for who, p50s in middles.items():
        ratio, p99 = median(p50s) / inlined, median(percentile(times, 99) for times in found[who])
        what = f"row for {SUBSCRIBERS:,} subscribers, {title}"
        goals = (Goal(what, ratio, "× inlined exists", 1.2, at_most=True),) if who == "mirror" else ()
        results.append(Result(what, who, "ms", median(p50s), p99, p50s, {"/ inlined exists": ratio}, {}, goals))
    return results
