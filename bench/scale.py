"""How far one daemon carries, calculated from what this run has measured."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.report import Result, shown

DAY_S = 86_400
MANY = 10_000_000


def sentences(results: Sequence[Result]) -> list[str]:
    """One for each thing that could run out, where its figure was taken."""
    said = []
    if drained := _ours(results, "single-row changes"):
        said.append(
            f"A backlog drains at {shown(drained.median)} changes/s: one daemon's ceiling, "
            f"{shown(drained.median * DAY_S / 1e6)} millions a day."
        )
        if "CPU s per 100,000 rows" in drained.also:
            share = drained.also["CPU s per 100,000 rows"] * drained.median / 100_000
            said.append(
                f"The daemon itself is then busy for {share:.0%} of one processor: the two databases are first."
            )
    if written := _ours(results, "8 writers"):
        kept = written.median / drained.median if drained else 0
        said.append(
            f"8 writers at full speed make {shown(written.median)} changes/s while it keeps up"
            + (f": {kept:.0%} of that ceiling." if kept else ".")
        )
    if load := _ours(results, "first load"):
        said.append(
            f"The first load of {MANY:,} memberships takes {shown(MANY / load.median)} s at the speed of this run."
        )
    if (compared := _ours(results, "comparison")) and (rows := _number(compared.figure)):
        said.append(f"Comparing {MANY:,} memberships takes {shown(MANY / rows * compared.median)} s without its limit.")
    if grown := [r for r in results if r.figure.startswith("cost of a change") and r.who == "mirror"]:
        sizes = ", ".join(f"{shown(r.median)} µs at {_number(r.figure):,}" for r in grown)
        said.append(f"A change costs {sizes} memberships.")
    return said


def _ours(results: Sequence[Result], words: str) -> Result | None:
    return next((r for r in results if words in r.figure and r.who == "mirror"), None)


def _number(figure: str) -> int:
    found = re.search(r"\d[\d,]*", figure)
    return int(found[0].replace(",", "")) if found else 0
