"""Is the target equal to the source? Asked without a daemon, and without changing anything on either side: what waits
in the outbox is read and left there, and does not count as different."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Protocol

from mirror.batch import Outcome, Reading, Request
from mirror.errors import Refused
from mirror.producers.findings import Finished, Order
from mirror.producers.reconcile import Reconcile

ROWS, BYTES_MAX = 5_000, 32_000_000
ENTRIES_MAX = 50_000


class Source(Protocol):
    async def drain(self, request: Request) -> Reading: ...


class Target(Protocol):
    async def compare(self, reading: Reading) -> Outcome: ...


async def compare(source: Source, target: Target, tables: tuple[str, ...]) -> Finished:
    """The caller holds the lead, so that no daemon applies anything meanwhile."""
    reconcile = Reconcile(rows_per_s=float("inf"), brake_share=1.0, rows=ROWS)
    reconcile.want(Order("verify", tables, repair=False))
    while True:
        asked = reconcile.next_slice(())
        if asked is None:
            raise AssertionError("a run without a next slice is over")
        began = time.monotonic()
        reading = await source.drain(Request(rows=ENTRIES_MAX, bytes=BYTES_MAX, slice=asked))
        if reading.backlog:
            raise Refused("source", "too many changes wait to be applied", hint="Start the daemon and ask again.")
        if any(wide.table == asked.table for wide in reading.wide):
            waiting = {"error": "it is marked as changed as a whole, and no daemon has worked that off"}
            reading = replace(reading, slice=waiting)
        outcome = await target.compare(reading)
        reconcile.settle(asked, reading, outcome, time.monotonic() - began)
        ended = reconcile.take_ended()
        if ended:
            return ended[0]
