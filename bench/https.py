"""A backlog through HTTPS beside the same one over a Postgres connection.

PostgREST itself cannot be had everywhere: its stand-in of the tests answers, a gateway before it, as a process of its
own in Python. What those two cost is in the figure, and is more than PostgREST would take."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mirror.demo
from bench import backlog
from bench.backlog import HTTPS, MIRROR, Run
from bench.changes import SINGLE, Kind
from bench.peers import STOP_TIMEOUT_S
from bench.report import Result
from bench.stage import Databases, Stage, connect

SUPABASE = Path(mirror.demo.__file__).with_name("supabase.sql")
ROOT = Path(__file__).parent.parent


def measure(stage: Stage, *, rounds: int, n: int) -> list[Result]:
    return backlog.measure(stage, rounds=rounds, n=n, kinds=[SINGLE], runners={MIRROR: _direct, HTTPS: _https})


def _direct(databases: Databases, kind: Kind, n: int) -> Run:
    _furnish(databases)
    return backlog.mirror(databases, kind, n)


def _https(databases: Databases, kind: Kind, n: int) -> Run:
    _furnish(databases)
    with _api(databases.target) as settings:
        return backlog.mirror(databases, kind, n, settings)


def _furnish(databases: Databases) -> None:
    with connect(databases.target) as target:
        target.execute(SUPABASE.read_bytes())


@contextmanager
def _api(target_url: str) -> Iterator[dict[str, str]]:
    """What the daemon is told instead of the target's URL."""
    from tests.bed.supabase_api import SECRET_KEY  # noqa: PLC0415 - of the tests, and needed by this figure alone

    command = [sys.executable, "-m", "tests.bed.supabase_api", target_url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip() if process.stdout else ""
            yield {"MIRROR_TARGET_URL": "", "SUPABASE_URL": url, "SUPABASE_SECRET_KEY": SECRET_KEY}
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
