"""What is exported: only what the daemon knows, with label values of ours, all of them from the start."""

import base64
import inspect
import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from mirror import errors
from mirror.applier import Step
from mirror.batch import Outcome, Reading
from mirror.config import load_settings
from mirror.daemon import Daemon
from mirror.doubt import doubt
from mirror.known import Known
from mirror.loop import Woken
from mirror.mapping import Mapping
from mirror.ops.knowledge import waiting
from mirror.ops.metrics import Metrics
from mirror.ops.schedule import next_run
from mirror.producers.findings import Finished, Order, TableReport
from mirror.target.key import LEGACY_RETIRED_AT, key_ends

NOT_OF_A_STANDBY = {
    "lag_seconds", "staleness_seconds", "doubts", "target_up", "primed", "doorbell_proven", "outbox_entries",
    "outbox_bytes",
    "channels_ready", "capture_faults", "reconcile_last_success_timestamp_seconds",
    "reconcile_due_timestamp_seconds", "parked_keys", "braked", "broken",
}  # fmt: skip


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """By name and labels, as in the text format."""
    found = {}
    for family in registry.collect():
        for sample in family.samples:
            labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def gauges(known: Known, **more: Any) -> dict[str, float]:
    """The gauges of the mirror, without its prefix."""
    found = samples(Metrics(lambda: known, **more).registry)
    return {name.removeprefix("mirror_"): value for name, value in found.items() if name.startswith("mirror_")}


def names(found: dict[str, float]) -> set[str]:
    return {name.partition("{")[0] for name in found}


def leader(proven_at: float | None = None, **more: Any) -> Known:
    facts: dict[str, Any] = {
        "role": "leader",
        "source_up": True,
        "target_up": True,
        "primed": True,
        "led_since": time.time(),
    }
    return Known(**(facts | {"channels": "ready", "proven_at": proven_at, "led_since": time.time()} | more))


def a_step(outcome: Outcome | None = None, *, finished: tuple[Finished, ...] = (), ages_s: Any = None) -> Step:
    reading = Reading(
        snapshot="", as_of="", scopes="", entries=0, backlog=False, wide=(), broken={}, slice=None,
        lag_s=0.0, ages_s=ages_s or {}, waiting=None, outbox_bytes=None, asleep=False, taken=None,
    )  # fmt: skip
    return Step(reading, outcome, position=False, began=0.0, read_s=0.1, apply_s=0.2, finished=finished)


def a_look(*, entries: int, backlog: bool = False, waiting: int | None = None) -> Step:
    step = a_step()
    return replace(step, reading=replace(step.reading, entries=entries, backlog=backlog, waiting=waiting))


def test_between_two_counts_a_backlog_is_not_taken_for_one_batch() -> None:
    assert waiting(a_look(entries=5000, backlog=True, waiting=400_000), 0) == 400_000
    assert waiting(a_look(entries=5000, backlog=True), 400_000) == 400_000
    assert waiting(a_look(entries=5000, backlog=True), 0) == 5000
    assert waiting(a_look(entries=12), 400_000) == 12


def test_a_leader_exports_everything() -> None:
    found = gauges(leader(proven_at=1.0), reconcile_when="15m")
    assert names(found) >= NOT_OF_A_STANDBY
    assert found["leader"] == found["target_up"] == found["primed"] == 1
    assert found["standby"] == 0


def test_a_standby_claims_nothing_that_it_cannot_know() -> None:
    found = gauges(leader(proven_at=1.0, role="standby", target_up=None), reconcile_when="15m")
    assert names(found) & NOT_OF_A_STANDBY == set()
    assert (found["leader"], found["standby"], found["source_up"]) == (0, 1, 1)


def test_before_anything_has_answered_only_the_ages_are_known() -> None:
    found = gauges(Known())
    assert names(found) & (NOT_OF_A_STANDBY | {"source_up"}) == {"lag_seconds", "staleness_seconds", "doubts"}
    assert found["staleness_seconds"] == float("inf")


def test_a_leader_that_lost_a_side_still_says_what_it_saw_last() -> None:
    lost = leader(parked={"users": 3}, role="starting", target_up=False)
    found = gauges(lost)
    assert (found["target_up"], found["source_up"], found["leader"]) == (0, 1, 0)
    assert found['parked_keys{table="users"}'] == 3
    found = gauges(replace(lost, source_up=False, target_up=None))
    assert found["source_up"] == 0
    assert "target_up" not in found, "nobody asks the target before the source is back"


def test_nothing_from_outside_becomes_a_label() -> None:
    doubts = tuple(doubt("unreadable", table, why="why") for table in ("trips", "evil"))
    doubts += tuple(doubt("brake", table, why="why") for table in ("trip_memberships", "evil"))
    known = leader(parked={"users": 1, "evil": 1}, doubts=doubts)
    metrics = Metrics(lambda: known)
    before = samples(metrics.registry).keys()
    counts = {"evil": {"upsert": 7}, "users": {"upsert": 2, "evil": 5}}
    metrics.observe(a_step(Outcome(counts=counts), ages_s={"evil": 1.0, "users": 1.0}))
    found = samples(metrics.registry)
    assert found.keys() == before, "all of them are there from the start, and no other comes"
    assert "evil" not in str(found)
    assert found['mirror_rows_applied_total{op="upsert",table="users"}'] == 2
    assert found['mirror_broken{table="trips"}'] == found['mirror_braked{table="trip_memberships"}'] == 1
    assert found['mirror_broken{table="users"}'] == found['mirror_braked{table="users"}'] == 0
    assert found['mirror_propagation_seconds_sum{table="users"}'] == pytest.approx(1.3)


def test_every_reason_to_wake_and_every_error_that_is_survived_has_a_counter() -> None:
    found = samples(Metrics(Known).registry)
    for woken in Woken:
        assert found[f'mirror_wakeups_total{{reason="{woken.value}"}}'] == 0
    tree = [e for _, e in inspect.getmembers(errors, inspect.isclass) if issubclass(e, errors.MirrorError)]
    survived = {e.__name__ for e in tree if e is not errors.MirrorError and not issubclass(e, errors.ConfigError)}
    assert survived == {name.split('"')[1] for name in found if name.startswith("mirror_errors_total")}


def test_drift_counts_once_when_it_is_repaired() -> None:
    metrics = Metrics(leader)

    def found(*, repaired: bool, expected: bool = False) -> Finished:
        report = TableReport(rows=10, missing=3, extra=1, repaired=repaired, expected=expected)
        return Finished(Order("resync"), "done", {"users": report}, None, None)

    for finished in (found(repaired=False), found(repaired=True), found(repaired=True, expected=True)):
        metrics.observe(a_step(finished=(finished,)))
    seen = samples(metrics.registry)
    assert seen['mirror_drift_rows_total{direction="missing",table="users"}'] == 3
    assert seen['mirror_drift_rows_total{direction="extra",table="users"}'] == 1
    assert seen['mirror_reconcile_rows_checked_total{table="users"}'] == 30


def test_the_process_is_visible() -> None:
    found = samples(Metrics(Known).registry)
    assert 1e6 < found["process_resident_memory_bytes"] < 1e9
    assert found["process_cpu_seconds_total"] > 0
    assert found["process_start_time_seconds"] <= time.time()


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("when", "proven", "due"),
    [
        ("*/15 * * * *", "2026-03-01T10:07:12", "2026-03-01T10:15:00"),
        ("0 3 * * mon-fri", "2026-03-06T03:00:09", "2026-03-09T03:00:00"),  # a weekend is not overdue
        ("30m", "2026-03-01T10:07:12", "2026-03-01T10:37:12"),
    ],
)
def test_the_next_proof_is_due_at_the_first_run_after_the_last_one(when: str, proven: str, due: str) -> None:
    assert gauges(leader(at(proven)), reconcile_when=when)["reconcile_due_timestamp_seconds"] == at(due)


def test_without_any_proof_it_is_due_after_the_lead_was_taken() -> None:
    found = gauges(leader(), reconcile_when="10m")
    assert found["reconcile_due_timestamp_seconds"] == pytest.approx(time.time() + 600, abs=5)
    assert "reconcile_last_success_timestamp_seconds" not in found
    assert "reconcile_due_timestamp_seconds" not in gauges(leader(), reconcile_when="off")
    assert next_run("0 0 30 2 *", 0.0) is None, "the 30th of February"


def jwt(claims: Any) -> SecretStr:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in ({"alg": "HS256"}, claims)
    ]
    return SecretStr(".".join([*parts, "c2lnbmF0dXJl"]))


@pytest.mark.parametrize(
    ("key", "ends"),
    [
        (jwt({"role": "service_role", "exp": 2_000_000_000}), {"expiry": 2e9, "retirement": LEGACY_RETIRED_AT}),
        (jwt({"role": "service_role"}), {"retirement": LEGACY_RETIRED_AT}),
        (jwt({"exp": "soon"}), {"retirement": LEGACY_RETIRED_AT}),
        (jwt([1]), {}),
        (SecretStr("sb_secret_abc"), {}),
        (SecretStr("a.b.c"), {}),
        (SecretStr("ä.ö.ü"), {}),
        (None, {}),
    ],
)
def test_a_legacy_key_says_when_it_ends(key: SecretStr | None, ends: dict[str, float]) -> None:
    assert key_ends(key) == ends
    found = gauges(Known(), key_ends=key_ends(key))
    assert {n: v for n, v in found.items() if n.startswith("target_key")} == {
        f'target_key_ends_timestamp_seconds{{why="{why}"}}': when for why, when in ends.items()
    }


def test_only_the_key_that_is_used_raises_an_alarm_as_it_ends() -> None:
    environ = {
        "MIRROR_SOURCE_URL": "postgresql://host/app",
        "SUPABASE_URL": "https://abcdefgh.supabase.co",
        "SUPABASE_SERVICE_ROLE_KEY": jwt({"role": "service_role"}).get_secret_value(),
    }
    ends = 'mirror_target_key_ends_timestamp_seconds{why="retirement"}'
    assert ends in samples(Daemon(load_settings(environ), Mapping()).knowledge.metrics.registry)
    direct = environ | {"MIRROR_TARGET_URL": "postgresql://host/mirror"}
    assert ends not in samples(Daemon(load_settings(direct), Mapping()).knowledge.metrics.registry), (
        "it is there for something else"
    )
