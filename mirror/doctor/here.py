"""This machine's side: what the mirror itself runs on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg

from mirror.doctor.finding import Finding

PSYCOPG_MIN = (3, 2, 10)


def examine(version: str = psycopg.__version__) -> Iterator[Finding]:
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:3])
    if numbers < PSYCOPG_MIN:
        sentence = f"psycopg {version} loses notifications that arrive during a query"
        yield Finding("here", "psycopg", "error", sentence, "pip install 'psycopg[binary]>=3.2.10'")
    else:
        yield Finding("here", "psycopg", "ok", f"psycopg {version}")
