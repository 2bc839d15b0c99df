"""Whose clock is wrong? Freshness is measured on the target's clock alone, so a skew does no harm to the data; but it
falsifies lags that people compare, and tokens that expire."""

from __future__ import annotations

import time
from collections.abc import Callable

from mirror.doctor.catalog import Connection
from mirror.doctor.finding import Finding, Side

SKEW_MAX_S = 2.0


def skew(connection: Connection, side: Side, clock: Callable[[], float] = time.time) -> Finding:
    before = clock()
    row = connection.execute("select extract(epoch from clock_timestamp())::float8").fetchone()
    after = clock()
    return judged(side, float(row[0]) if row else after, before, after)


def judged(side: Side, theirs: float, before: float, after: float) -> Finding:
    """They said so between our asking and being answered."""
    off_s = theirs - (before + after) / 2
    if abs(off_s) - (after - before) / 2 <= SKEW_MAX_S:
        return Finding(side, "clock", "ok", f"its clock and ours differ by less than {SKEW_MAX_S:g} s")
    way = "ahead of" if off_s > 0 else "behind"
    sentence = (
        f"its clock is {abs(off_s):.0f} s {way} this machine's: ages look wrong by that, tokens expire sooner or later"
    )
    return Finding(side, "clock", "warning", sentence, "Let this machine keep time (NTP).")
