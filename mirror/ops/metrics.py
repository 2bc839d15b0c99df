"""The metrics, by the names that dashboards rely on. Ages are computed at scrape time from the vitals."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from mirror import __version__
from mirror.applier import Step
from mirror.ops.vitals import Vitals
from mirror.producers.findings import Finished
from mirror.tables import TABLES

_FAST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600)


class Metrics:
    def __init__(self, vitals: Vitals) -> None:
        self.registry = CollectorRegistry()
        self.propagation = Histogram(
            "mirror_propagation_seconds", "Source write to target commit, oldest entry of each batch", ["table"],
            buckets=_FAST, registry=self.registry,
        )  # fmt: skip
        self.rows = Counter(
            "mirror_rows_applied", "Rows changed in the target", ["table", "op"], registry=self.registry
        )
        self.batches = Counter("mirror_batches", "Batches by result", ["result"], registry=self.registry)
        self.batch_seconds = Histogram(
            "mirror_batch_seconds", "Time of a batch by phase", ["phase"], buckets=_FAST, registry=self.registry
        )
        self.wakeups = Counter("mirror_wakeups", "Why the loop woke", ["reason"], registry=self.registry)
        self.reconnects = Counter("mirror_reconnects", "Sessions opened anew", ["side"], registry=self.registry)
        self.errors = Counter("mirror_errors", "Errors by kind", ["kind"], registry=self.registry)
        self.reconciled_at = Gauge(
            "mirror_reconcile_last_success_timestamp_seconds", "When equality of all tables was last proven",
            registry=self.registry,
        )  # fmt: skip
        self.checked = Counter(
            "mirror_reconcile_rows_checked",
            "Rows of the source compared with the target",
            ["table"],
            registry=self.registry,
        )
        self.drift = Counter(
            "mirror_drift_rows", "Rows that differed without a reason", ["table", "direction"], registry=self.registry
        )
        self.resyncs = Counter("mirror_resyncs", "Requests of operators, by result", ["result"], registry=self.registry)
        for result in ("done", "braked", "failed"):
            self.resyncs.labels(result)
        for table in TABLES:
            self.propagation.labels(table.name)
            self.checked.labels(table.name)
            for direction in ("missing", "extra", "changed"):
                self.drift.labels(table.name, direction)
            for op in ("upsert", "delete"):
                self.rows.labels(table.name, op)
        for result in ("applied", "failed", "superseded"):
            self.batches.labels(result)
        self.registry.register(_Ages(vitals))  # the registry wants collect(), as documented

    def observe(self, step: Step) -> None:
        for finished in step.finished:
            self._finished(finished)
        self.batch_seconds.labels("read").observe(step.read_s)
        if step.outcome is None:
            return
        self.batch_seconds.labels("apply").observe(step.apply_s)
        self.batches.labels("applied").inc()
        for table, ops in step.outcome.counts.items():
            for op, n in ops.items():
                self.rows.labels(table, op).inc(n)
        for table, age_s in step.reading.ages_s.items():
            if table in {t.name for t in TABLES}:
                self.propagation.labels(table).observe(age_s + step.read_s + step.apply_s)

    def _finished(self, finished: Finished) -> None:
        if finished.proves:
            self.reconciled_at.set_to_current_time()
        if finished.order.reason == "resync":
            self.resyncs.labels(finished.state).inc()
        for table, report in finished.tables.items():
            self.checked.labels(table).inc(report.rows)
            if not report.expected:
                self.drift.labels(table, "missing").inc(report.missing)
                self.drift.labels(table, "extra").inc(report.extra)
                self.drift.labels(table, "changed").inc(report.changed)


class _Ages:
    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals

    def collect(self) -> Iterable[Metric]:
        v = self._vitals
        staleness = v.staleness_s
        for name, text, value in (
            ("lag_seconds", "Age of the oldest entry not yet applied, 0 when none", v.lag_s),
            ("staleness_seconds", "Now minus the snapshot that the target equals", staleness),
            ("outbox_entries", "Entries waiting in the outbox", float(v.outbox_entries)),
            ("source_up", "1 while the source answers", float(v.source_up)),
            ("target_up", "1 while the target answers", float(v.target_up)),
            ("leader", "1 on the daemon that writes", float(v.leader)),
        ):
            yield GaugeMetricFamily(f"mirror_{name}", text, value=value)
        parked = GaugeMetricFamily("mirror_parked_keys", "Keys that the target refuses", labels=["table"])
        for table in TABLES:
            parked.add_metric([table.name], v.parked.get(table.name, 0))
        yield parked
        yield InfoMetricFamily("mirror_build", "The version that runs", value={"version": __version__})
