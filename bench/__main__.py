"""python -m bench: runs the figures, prints one Markdown table and writes it, the JSON and the plot to a directory."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import plot, report, scale
from bench.figures import SIZES, Measure, Size, figures
from bench.peers import LeftOutError
from bench.report import Goal, Report, Result
from bench.stage import Stage, ask, connect, open_stage
from bench.usage import take_peak_mb
from mirror import __version__


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="medium", help="how long it takes: see bench/README.md")
    parser.add_argument("--figures", nargs="+", choices=list(figures(SIZES["small"])), help="only these")
    parser.add_argument("--rounds", type=int, help="how often each figure is taken; the median counts")
    parser.add_argument("--major", type=int, help="the same PostgreSQL on both sides (default: 16 and 18)")
    parser.add_argument("--directory", type=Path, help="where the clusters live: on the disk to be measured")
    parser.add_argument("--output", type=Path, default=Path("reports"), help="bench.md, .json and .svg go here")
    parser.add_argument("--publish", action="store_true", help="as bench/results.* too: what the README shows")
    return parser.parse_args()


def _environment(stage: Stage, name: str, size: Size) -> dict[str, Any]:
    versions = []
    for server in (stage.source, stage.target):
        with connect(server.url()) as connection:
            versions.append(ask(connection, "select current_setting('server_version')"))
    return {
        "mirror": __version__,
        "size": name,
        "rounds": size.rounds,
        "source": versions[0],
        "target": versions[1],
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _measure(
    name: str, measure: Measure, stage: Stage, found: Report, peaks_mb: dict[str, float], timeout_s: int
) -> None:
    """A figure that fails, or hangs, costs no other one: it says why, and the run goes on."""
    print(f"measuring {name} ...", end=" ", file=sys.stderr, flush=True)
    began = time.monotonic()
    signal.alarm(timeout_s)
    try:
        found.results += measure(stage)
    except LeftOutError as error:
        found.left_out[name] = str(error)
    except Exception as error:  # noqa: BLE001 - whatever it was, it is reported in the table and in the exit code
        found.failed[name] = f"{type(error).__name__}: {error}".strip()
        traceback.print_exc()
    finally:
        signal.alarm(0)
    found.seconds[name] = round(time.monotonic() - began, 1)
    if peak_mb := take_peak_mb():
        peaks_mb[name] = peak_mb
    print(f"{found.seconds[name]} s", file=sys.stderr, flush=True)


def _peaks(peaks_mb: dict[str, float]) -> list[Result]:
    """What thousands of open connections need is theirs, and stands by itself."""
    found = []
    for kind, of_http in (("without HTTP clients", False), ("with HTTP clients", True)):
        also = {name: peak_mb for name, peak_mb in peaks_mb.items() if (name == "http") is of_http}
        if also:
            highest = max(also.values())
            goals = (Goal(f"daemon, memory {kind}", highest, "MB", 80, at_most=True),)
            found.append(Result(f"daemon, memory {kind}", "mirror", "MB", highest, None, [highest], {}, also, goals))
    return found


def _write(found: Report, directory: Path, name: str = "bench") -> str:
    said = [f"- {sentence}" for sentence in scale.sentences(found.results)]
    table = report.table(found) + "\n".join(["", "How far one daemon carries:", "", *said, ""] if said else [])
    directory.mkdir(parents=True, exist_ok=True)
    directory.joinpath(f"{name}.md").write_text(table)
    directory.joinpath(f"{name}.json").write_text(json.dumps(report.document(found), indent=2) + "\n")
    told = "{processors} processors, source PostgreSQL {source}, target {target}, size {size}, {at}"
    directory.joinpath(f"{name}.svg").write_text(plot.svg(found.goals, told.format_map(found.environment)))
    return table


def _took_too_long(*_: object) -> None:
    raise TimeoutError("the figure took too long")


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGALRM, _took_too_long)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped, as after Ctrl-C
    size: Size = SIZES[arguments.size]
    if arguments.rounds:
        size = replace(size, rounds=arguments.rounds)
    chosen = figures(size)
    source, target = (arguments.major or 16, arguments.major or 18)
    peaks_mb: dict[str, float] = {}
    with open_stage(source, target, arguments.directory) as stage:
        found = Report(_environment(stage, arguments.size, size))
        for name in arguments.figures or chosen:
            _measure(name, chosen[name], stage, found, peaks_mb, size.timeout_s)
            _write(found, arguments.output)  # so that an interrupted run leaves what it has
    found.results += _peaks(peaks_mb)
    print(_write(found, arguments.output))
    if arguments.publish:
        _write(found, Path(__file__).parent, "results")
    return 1 if found.failed else 0


if __name__ == "__main__":
    sys.exit(main())
