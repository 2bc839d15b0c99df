"""python -m bench: runs the figures, prints one Markdown table and writes it, and the JSON, to a directory."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bench import backlog, latency, proof, report, writes
from bench.report import Result
from bench.stage import Stage, ask, connect, open_stage
from mirror import __version__


@dataclass(frozen=True)
class Size:
    """`rows`: memberships in the application's table, for latency and writes."""

    rounds: int
    rows: int
    latency_s: float
    backlog_keys: int
    writes_s: int


SIZES = {
    "full": Size(rounds=3, rows=100_000, latency_s=20, backlog_keys=500_000, writes_s=10),
    "medium": Size(rounds=3, rows=20_000, latency_s=5, backlog_keys=100_000, writes_s=4),
    "small": Size(rounds=1, rows=2_000, latency_s=0.5, backlog_keys=2_000, writes_s=1),
}
Measure = Callable[[Stage], list[Result]]


def _figures(size: Size) -> dict[str, Measure]:
    return {
        "latency": partial(latency.measure, rounds=size.rounds, rows=size.rows, seconds=size.latency_s),
        "backlog": partial(backlog.measure, rounds=size.rounds, keys=size.backlog_keys),
        "proof": partial(proof.measure, rounds=size.rounds, rows=size.backlog_keys, seconds=size.latency_s),
        "writes": partial(writes.measure, rounds=size.rounds, rows=size.rows, seconds=size.writes_s),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full", help="how long it takes: 15 min, 3 min, 20 s")
    parser.add_argument("--figures", nargs="+", choices=list(_figures(SIZES["small"])), help="only these")
    parser.add_argument("--major", type=int, help="the same PostgreSQL on both sides (default: 16 and 18)")
    parser.add_argument("--directory", type=Path, help="where the clusters live: on the disk to be measured")
    parser.add_argument("--output", type=Path, default=Path("reports"), help="bench.md and bench.json go here")
    return parser.parse_args()


def _environment(stage: Stage, size: str) -> dict[str, Any]:
    versions = []
    for server in (stage.source, stage.target):
        with connect(server.url()) as connection:
            versions.append(ask(connection, "select current_setting('server_version')"))
    return {
        "mirror": __version__,
        "size": size,
        "source": versions[0],
        "target": versions[1],
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main() -> None:
    arguments = _arguments()
    figures = _figures(SIZES[arguments.size])
    source, target = (arguments.major or 16, arguments.major or 18)
    results: list[Result] = []
    with open_stage(source, target, arguments.directory) as stage:
        environment = _environment(stage, arguments.size)
        for name in arguments.figures or figures:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            results += figures[name](stage)
    table = report.table(environment, results)
    arguments.output.mkdir(parents=True, exist_ok=True)
    arguments.output.joinpath("bench.md").write_text(table)
    arguments.output.joinpath("bench.json").write_text(
        json.dumps(report.document(environment, results), indent=2) + "\n"
    )
    print(table)


if __name__ == "__main__":
    main()
