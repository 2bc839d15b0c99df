"""The metrics, by the names that dashboards rely on. Ages are computed at scrape time.

What a daemon does not know it does not claim: a standby exports no lag, and nobody exports the state of a side that was
not asked. So min() and max() over several daemons are about those who know. Every label value comes from here and is
there from the start: nothing outside can make up another one, and increase() sees the first error, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from mirror import __version__
from mirror.applier import Step
from mirror.doubt import KINDS
from mirror.known import Known, all_doubts
from mirror.ops.schedule import next_run
from mirror.producers.findings import ALL_TABLES, Finished

_FAST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600)
_OPS = ("upsert", "delete")
_BATCHES = ("applied", "failed", "superseded")
_PHASES = ("read", "apply")
_REASONS = ("rung", "poll", "heartbeat", "awake")
_SIDES = ("source", "target")
_KINDS = ("Unreachable", "UnknownOutcome", "Superseded", "Refused")  # every other error ends the daemon
_DIRECTIONS = ("missing", "extra", "changed")
_RESYNCS = ("done", "braked", "failed", "cancelled")


class Metrics:
    def __init__(
        self, look: Callable[[], Known], reconcile_when: str = "off", key_ends: Mapping[str, float] | None = None
    ) -> None:
        # When a counter was born interests nobody, and doubles their number.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.propagation = self._histogram(
            "propagation_seconds", "Source write to target commit, oldest entry of each batch", table=ALL_TABLES
        )
        self.rows = self._counter("rows_applied", "Rows changed in the target", table=ALL_TABLES, op=_OPS)
        self.batches = self._counter("batches", "Batches by result", result=_BATCHES)
        self.batch_seconds = self._histogram("batch_seconds", "Time of a batch by phase", phase=_PHASES)
        self.wakeups = self._counter("wakeups", "Why the loop woke", reason=_REASONS)
        self.reconnects = self._counter("reconnects", "Sessions opened anew", side=_SIDES)
        self.errors = self._counter("errors", "Errors by kind", kind=_KINDS)
        self.checked = self._counter(
            "reconcile_rows_checked", "Rows of the source compared with the target", table=ALL_TABLES
        )
        self.drift = self._counter(
            "drift_rows", "Rows that differed without a reason", table=ALL_TABLES, direction=_DIRECTIONS
        )
        self.resyncs = self._counter("resyncs", "Requests of operators, by result", result=_RESYNCS)
        self.registry.register(_Gauges(look, reconcile_when, key_ends or {}))
        ProcessCollector(registry=self.registry)

    def observe(self, step: Step) -> None:
        for finished in step.finished:
            self._finished(finished)
        if step.reading.dropped:
            self.errors.labels("UnreadableEntry").inc(step.reading.dropped)
        self.batch_seconds.labels("read").observe(step.read_s)
        if step.outcome is None:
            return
        self.batch_seconds.labels("apply").observe(step.apply_s)
        self.batches.labels("applied").inc()
        for table in ALL_TABLES:
            for op in _OPS:
                self.rows.labels(table, op).inc(step.outcome.counts.get(table, {}).get(op, 0))
            if table in step.reading.ages_s:
                self.propagation.labels(table).observe(step.reading.ages_s[table] + step.read_s + step.apply_s)

    def _finished(self, finished: Finished) -> None:
        """Drift counts when it is repaired: whoever only looks, or is stopped by the brake, finds it once more."""
        for table, report in finished.tables.items():
            self.checked.labels(table).inc(report.rows)
            if report.repaired and not report.expected:
                self.drift.labels(table, "missing").inc(report.missing)
                self.drift.labels(table, "extra").inc(report.extra)
                self.drift.labels(table, "changed").inc(report.changed)

    def _counter(self, name: str, text: str, **labels: tuple[str, ...]) -> Counter:
        counter = Counter(f"mirror_{name}", text, list(labels), registry=self.registry)
        for values in itertools.product(*labels.values()):
            counter.labels(*values)
        return counter

    def _histogram(self, name: str, text: str, **labels: tuple[str, ...]) -> Histogram:
        histogram = Histogram(f"mirror_{name}", text, list(labels), buckets=_FAST, registry=self.registry)
        for values in itertools.product(*labels.values()):
            histogram.labels(*values)
        return histogram


class _Gauges:
    """What is known at the moment of a scrape."""

    def __init__(self, look: Callable[[], Known], reconcile_when: str, key_ends: Mapping[str, float]) -> None:
        self._look = look
        self._when = reconcile_when
        self._key_ends = key_ends

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("mirror_build", "The version that runs", value={"version": __version__})
        known = self._look()
        yield from self._of_every_daemon(known)
        yield from _unless_standby(known)
        yield from self._of_a_leader(known)

    def _of_every_daemon(self, v: Known) -> Iterator[Metric]:
        yield _gauge("leader", "1 on the daemon that writes", v.leader)
        yield _gauge("standby", "1 while another daemon leads", v.standby)
        yield _gauge("source_up", "1 while the source answers", v.source_up)
        yield _gauge("target_up", "1 while the target answers; absent while nobody asks it", v.target_up)
        yield _gauge("stale_after_seconds", "The staleness from which on the copy is called stale", v.stale_after_s)
        key = GaugeMetricFamily(
            "mirror_target_key_ends_timestamp_seconds", "When the Supabase key stops working", None, ["why"]
        )
        for why, ends_at in self._key_ends.items():
            key.add_metric([why], ends_at)
        yield key

    def _of_a_leader(self, v: Known) -> Iterator[Metric]:
        """As it was last seen by a daemon that leads, or has led and lost a side."""
        knows = v.led_since is not None and not v.standby
        for name, text, value in (
            ("primed", "1 once the first load is complete", v.primed),
            ("doorbell_proven", "1 while a NOTIFY is known to arrive", v.doorbell_proven),
            ("outbox_entries", "Entries waiting in the outbox", v.outbox_entries),
            ("outbox_bytes", "Size of the outbox in the source", v.outbox_bytes),
            ("channels_ready", "1 while the policies of private channels are in place", _is_ready(v.channels)),
            ("capture_faults", "Tables whose changes are, or were, not captured", len(v.about("capture"))),
            ("reconcile_last_success_timestamp_seconds", "When equality of all tables was last proven", v.proven_at),
            ("reconcile_due_timestamp_seconds", "When the next proof was due after the last one", self._due_at(v)),
        ):
            yield _gauge(name, text, value if knows else None)
        for name, text, found in (
            ("parked_keys", "Keys that the target refuses", v.parked),
            ("braked", "1 while the brake keeps a repair from deleting too much", dict.fromkeys(v.about("brake"), 1)),
            (
                "broken",
                "1 while the table cannot be read, or is not compared since",
                dict.fromkeys(v.about("unreadable"), 1),
            ),
        ):
            family = GaugeMetricFamily(f"mirror_{name}", text, labels=["table"])
            for table in ALL_TABLES if knows else ():
                family.add_metric([table], found.get(table, 0))
            yield family

    def _due_at(self, v: Known) -> float | None:
        since = v.proven_at or v.led_since
        return None if since is None else next_run(self._when, since)


def _unless_standby(v: Known) -> Iterator[Metric]:
    """Also of a daemon that has never led: as long as it cannot reach the source, nothing gets fresher."""
    lag_s, staleness_s = (None, None) if v.standby else (v.lag_s, v.staleness_s)
    yield _gauge("lag_seconds", "Age of the oldest entry not yet applied, 0 when none", lag_s)
    yield _gauge("staleness_seconds", "Now minus the snapshot that the target certainly equals", staleness_s)
    if not v.standby:
        family = GaugeMetricFamily(
            "mirror_doubts", "What takes something away from what may be claimed", labels=["kind"]
        )
        found = all_doubts(v)
        for kind in KINDS:
            family.add_metric([kind], sum(d.kind == kind for d in found))
        yield family


def _is_ready(channels: str | None) -> bool | None:
    return None if channels is None else channels == "ready"


def _gauge(name: str, text: str, value: float | None) -> GaugeMetricFamily:
    """Absent when nobody knows."""
    family = GaugeMetricFamily(f"mirror_{name}", text)
    if value is not None:
        family.add_metric([], float(value))
    return family
