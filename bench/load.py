"""The application under load: pgbench, from the same PostgreSQL as the source."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.report import percentile
from bench.stage import Stage

CLIENTS = 8
THREADS = 2
FEW = 50


@dataclass(frozen=True)
class Load:
    """`statements_ms`: the mean of each line of the script."""

    per_second: float
    p50_ms: float
    p99_ms: float
    statements_ms: list[float]


def pgbench(
    stage: Stage,
    url: str,
    script: str,
    seconds: int,
    *options: str,
    clients: int = CLIENTS,
    protocol: Literal["prepared", "simple"] = "prepared",
) -> Load:
    """Runs one transaction over and over; `seconds` 0: only often enough to see that it can be done."""
    options = (f"--time={seconds}" if seconds else f"--transactions={FEW}", *options)
    with tempfile.TemporaryDirectory() as directory:
        file, log = Path(directory, "script.sql"), Path(directory, "log")
        file.write_text(script)
        asked: Sequence[str | Path] = [
            stage.source.program("pgbench"), "--no-vacuum", f"--protocol={protocol}", f"--file={file}", "--log",
            f"--log-prefix={log}", f"--client={clients}", f"--jobs={min(clients, THREADS)}", "--report-per-command",
            *options, url,
        ]  # fmt: skip
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"pgbench failed: {done.stderr.strip()}")
        return _load(done.stdout, Path(directory))


def _load(said: str, directory: Path) -> Load:
    """The third field of a line of pgbench's log is the time of that transaction in microseconds."""
    per_second = re.search(r"^tps = ([\d.]+) \(without initial", said, re.MULTILINE)
    if per_second is None:
        raise RuntimeError(f"pgbench said nothing of its speed: {said}")
    times = [int(line.split(" ", 3)[2]) for path in directory.glob("log.*") for line in path.open(encoding="ascii")]
    lines = said.partition("statement latencies in milliseconds")[2].splitlines()[1:]
    statements = [float(line.split(maxsplit=1)[0]) for line in lines if line.strip()]
    return Load(float(per_second[1]), percentile(times, 50) / 1000, percentile(times, 99) / 1000, statements)
