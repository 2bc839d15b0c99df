"""What the daemon says of itself on /metrics, as anybody who scrapes it sees it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException

from prometheus_client.parser import text_string_to_metric_families

from mirror.demo.commands import get


@dataclass(frozen=True)
class Gauges:
    lag_s: float
    staleness_s: float
    rows_applied: float


def scrape(port: int) -> Gauges | None:
    """None when it does not answer."""
    with suppress(OSError, HTTPException):
        status, text = get(port, "/metrics")
        if status == 200:
            return read(text.decode())
    return None


def read(text: str) -> Gauges:
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return Gauges(totals["mirror_lag_seconds"], totals["mirror_staleness_seconds"], totals["mirror_rows_applied_total"])
