"""What operators asked for, durably, in the source: hands each request to the producer that can do it, and says how it
goes. A request that this daemon loses comes again with the next reading."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mirror.producers.findings import ALL_TABLES, Finished, Order
from mirror.producers.reconcile import Reconcile
from mirror.producers.resync import Done, Resync

REPORT_INTERVAL_S = 0.5
READ_MAX = 5  # open requests that a reading carries, the oldest first


@dataclass(frozen=True, slots=True)
class Report:
    request: int
    kind: Literal["resync", "verify"]
    state: str
    progress: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] | None = None


class Requests:
    def __init__(self, reconcile: Reconcile, resync: Resync, clock: Callable[[], float] = time.monotonic) -> None:
        self._reconcile = reconcile
        self._resync = resync
        self._clock = clock
        self._reported_at = float("-inf")
        self._ended: list[Report] = []

    def read(self, requests: tuple[Mapping[str, Any], ...]) -> None:
        """Begins what is new, ends what was taken back."""
        ended = {report.request for report in self._ended}
        known = self._reconcile.known_requests | self._resync.known_requests
        for gone in known - {request["id"] for request in requests}:
            if len(requests) < READ_MAX or gone < requests[-1]["id"]:
                self._cancel(gone)  # taken back before it had begun
        for request in requests:
            if request["id"] in ended:
                continue
            if request["cancelled"]:
                self._cancel(request["id"])
                self._ended.append(Report(request["id"], request["kind"], "cancelled"))
            elif request["id"] not in known:
                self._begin(request)

    def _cancel(self, request: int) -> None:
        self._reconcile.cancel(request)
        self._resync.cancel(request)

    def _begin(self, request: Mapping[str, Any]) -> None:
        if request["trip"] is not None or request["usr"] is not None:
            self._resync.want(request["id"], trip=request["trip"], user=request["usr"])
            return
        self._reconcile.want(
            Order(
                reason="verify" if request["kind"] == "verify" else "resync",
                tables=(request["tbl"],) if request["tbl"] else ALL_TABLES,
                repair=request["kind"] == "resync",
                rewrite=request["rewrite"],
                force=request["force"],
                request=request["id"],
            )
        )

    def settle(self, finished: tuple[Finished, ...]) -> None:
        """Takes note of what came to its end with the last batch."""
        for end in finished:
            if end.order.request is not None:
                self._ended.append(Report(end.order.request, _kind(end.order), end.state, {}, end.document()))
        for done in self._resync.take_ended():
            self._ended.append(Report(done.request, "resync", "failed" if done.error else "done", {}, _result(done)))

    def due(self) -> list[Report]:
        """What is to be told now: every end at once, progress twice a second."""
        reports, self._ended = self._ended, []
        running, now = self._reconcile.running, self._clock()
        if running is not None and running.request is not None and now - self._reported_at >= REPORT_INTERVAL_S:
            self._reported_at = now
            reports.append(Report(running.request, _kind(running), "running", self._reconcile.progress() or {}))
        return reports

    def reset(self) -> None:
        self._ended.clear()


def _result(done: Done) -> dict[str, Any]:
    if done.error:
        return {"error": done.error}
    return {"rows_changed": done.rows, "parked": done.aside.n, "parked_rows": list(done.aside.rows)}


def _kind(order: Order) -> Literal["resync", "verify"]:
    return "verify" if order.reason == "verify" else "resync"
