"""The application under load: pgbench, from the same PostgreSQL as the source."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.report import percentile
from bench.stage import Databases, Stage

CLIENTS = 8
THREADS = 2


@dataclass(frozen=True)
class Load:
    per_second: float
    p99_ms: float


def pgbench(stage: Stage, databases: Databases, script: str, *options: str, durable: bool = True) -> Load:
    """Runs one transaction over and over; `options` say for how long, or how often."""
    with tempfile.TemporaryDirectory() as directory:
        file, log = Path(directory, "script.sql"), Path(directory, "log")
        file.write_text(script)
        asked: Sequence[str | Path] = [
            stage.source.binaries / "pgbench", "--no-vacuum", "--protocol=prepared", f"--file={file}", "--log",
            f"--log-prefix={log}", f"--client={CLIENTS}", f"--jobs={THREADS}", *options, databases.source,
        ]  # fmt: skip
        settings = {} if durable else {"PGOPTIONS": "-c synchronous_commit=off"}
        done = subprocess.run(asked, env=os.environ | settings, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"pgbench failed: {done.stderr.strip()}")
        per_second = re.search(r"^tps = ([\d.]+) \(without initial", done.stdout, re.MULTILINE)
        if per_second is None:
            raise RuntimeError(f"pgbench said nothing of its speed: {done.stdout}")
        return Load(float(per_second[1]), _p99_ms(Path(directory)))


def _p99_ms(directory: Path) -> float:
    """The third field of a line of pgbench's log is the time of that transaction in microseconds."""
    times = [int(line.split(" ", 3)[2]) for path in directory.glob("log.*") for line in path.open(encoding="ascii")]
    return percentile(times, 99) / 1000
