"""The alert rules against pasts of every kind: each alert fires, does not fire in the good case beside it, and never
fires for a standby, a restart, or a primary that scales to zero."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.bed.alerts import LENGTH, RULES, Past, Scene, gone, judged, leader, missing_promtool, rules, standby

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
NONE: tuple[str, ...] = ()
ALERTS = [str(rule["alert"]) for rule in rules()]
FOREVER = f"x{LENGTH}"
SOURCE_GONE = {
    "mirror_source_up": f"1x9 0{FOREVER}", "mirror_target_up": "1x9 stale", "mirror_leader": f"1x9 0{FOREVER}",
    "mirror_doorbell_proven": f"1x9 0{FOREVER}", "mirror_staleness_seconds": f"5x9 60+60{FOREVER}",
    "mirror_lag_seconds": f"0x9 60+60{FOREVER}", 'mirror_errors_total{kind="Unreachable"}': f"0x9 12+12{FOREVER}",
}  # fmt: skip
TARGET_GONE = SOURCE_GONE | {"mirror_source_up": f"1{FOREVER}", "mirror_target_up": f"1x9 0{FOREVER}"}

pytestmark = pytest.mark.skipif(bool(missing_promtool()), reason=missing_promtool())


def but(**changes: str) -> Past:
    """A leader that is well, but for these."""
    return with_series({f"mirror_{name}": values for name, values in changes.items()})


def with_series(changes: Past) -> Past:
    well = leader()
    unknown = changes.keys() - well.keys()
    assert not unknown, f"not exported: {unknown}"
    return {**well, **changes}


def fires(alert: str, minute: int, past: Past, *others: str) -> Scene:
    return Scene(f"{alert} fires", {"a": past}, {minute: (alert, *others)})


def silent(alert: str, past: Past, *minutes: int) -> Scene:
    return Scene(f"{alert} does not fire", {"a": past}, dict.fromkeys(minutes, NONE))


PARKED = 'mirror_parked_keys{table="users"}'
BROKEN, BRAKED = 'mirror_broken{table="trips"}', 'mirror_braked{table="trips"}'
DRIFT = 'mirror_drift_rows_total{direction="extra",table="users"}'
ERRORS = 'mirror_errors_total{kind="Superseded"}'
KEY = 'mirror_target_key_ends_timestamp_seconds{why="expiry"}'
STARTED = "process_start_time_seconds"
DAY = 86400
# Each alert: what makes it fire, and the good case beside it.
PAIRS = [
    Scene("MirrorAbsent fires", {"a": gone(10)}, {11: NONE, 12: ["MirrorAbsent"]}),
    silent("MirrorAbsent", {**leader(), "up": f"1x9 0 1{FOREVER}"}, 10, 13),
    Scene("MirrorDaemonDown fires", {"a": leader(), "b": gone(10)}, {15: NONE, 21: ["MirrorDaemonDown"]}),
    Scene("MirrorDaemonDown fires for one that cannot reach the primary", {
        "a": leader(), "b": {**standby(), "mirror_source_up": f"1x9 0{FOREVER}", "mirror_standby": f"1x9 0{FOREVER}"},
    }, {15: NONE, 21: ["MirrorDaemonDown"]}),
    Scene("MirrorDaemonDown does not fire", {"a": leader(), "b": standby()}, {30: NONE}),
    fires("MirrorNoLeader", 12, but(leader=f"1x9 0{FOREVER}")),
    Scene("MirrorNoLeader fires when all stand by", {"a": standby(), "b": standby()}, {12: ["MirrorNoLeader"]}),
    silent("MirrorNoLeader", but(leader=f"1x9 0x1 1{FOREVER}"), 11, 13),
    fires("MirrorStale", 13, but(staleness_seconds=f"5x9 30+30{FOREVER}")),
    fires("MirrorStale", 2, but(staleness_seconds="Inf " * 30)),
    silent("MirrorStale", but(staleness_seconds=f"59{FOREVER}"), 30),
    silent("MirrorStale", but(staleness_seconds=f"5000{FOREVER}", stale_after_seconds=f"10800{FOREVER}"), 30),
    silent("MirrorStale", but(staleness_seconds="Inf " * 30, primed=f"0{FOREVER}"), 20),
    fires("MirrorLagging", 13, but(lag_seconds=f"0x9 31{FOREVER}")),
    silent("MirrorLagging", but(lag_seconds="0x9 60 60 0 60 60 0 29x90"), 11, 14, 60),
    silent("MirrorLagging", but(lag_seconds=f"1+60{FOREVER}", primed=f"0{FOREVER}"), 20),
    fires("MirrorNotPrimed", 31, but(primed=f"0{FOREVER}")),
    silent("MirrorNotPrimed", but(primed=f"0x25 1{FOREVER}"), 29, 60),
    fires("MirrorSourceDown", 13, with_series(SOURCE_GONE), "MirrorStale", "MirrorLagging"),
    silent("MirrorSourceDown", but(source_up=f"1x9 0 0 1{FOREVER}"), 11, 13),
    fires("MirrorTargetDown", 15, with_series(TARGET_GONE), "MirrorStale", "MirrorLagging"),
    silent("MirrorTargetDown", but(target_up=f"1x9 0 0 1{FOREVER}"), 11, 13),
    fires("MirrorTableUnreadable", 11, with_series({BROKEN: f"0x9 1{FOREVER}"})),
    silent("MirrorTableUnreadable", with_series({BROKEN: f"0x9 1 0{FOREVER}"}), 10, 11, 20),
    fires("MirrorCaptureFault", 11, but(capture_faults=f"0x9 12{FOREVER}")),
    silent("MirrorCaptureFault", but(capture_faults=f"0x9 12 0{FOREVER}"), 10, 11, 20),
    fires("MirrorChannelsClosed", 20, but(channels_ready=f"1x9 0{FOREVER}")),
    silent("MirrorChannelsClosed", but(channels_ready=f"0x8 1{FOREVER}"), 8, 11, 60),
    fires("MirrorBrake", 11, with_series({BRAKED: f"0x9 1{FOREVER}"})),
    silent("MirrorBrake", with_series({BRAKED: f"0x9 1 0{FOREVER}"}), 11, 20),
    fires("MirrorDoorbellDeaf", 16, but(doorbell_proven=f"1x9 0{FOREVER}")),
    silent("MirrorDoorbellDeaf", but(doorbell_proven=f"1x9 0x3 1{FOREVER}"), 13, 16),
    fires("MirrorParked", 16, with_series({PARKED: f"0x9 3{FOREVER}"})),
    silent("MirrorParked", with_series({PARKED: f"0x9 3x3 0{FOREVER}"}), 13, 16),
    fires("MirrorDrift", 11, with_series({DRIFT: f"0x9 2{FOREVER}"})),
    Scene("MirrorDrift fires when it was found before the first scrape, and ends", {
        "a": with_series({DRIFT: f"7{FOREVER}", STARTED: f"0{FOREVER}"})}, {1: ["MirrorDrift"], 61: NONE}),
    silent("MirrorDrift", with_series({DRIFT: f"7{FOREVER}"}), 1, 30),
    silent("MirrorDrift", with_series({STARTED: f"0{FOREVER}"}), 1, 30),
    fires("MirrorReconcileOverdue", 61, but(reconcile_due_timestamp_seconds=f"900{FOREVER}")),
    silent("MirrorReconcileOverdue", but(reconcile_due_timestamp_seconds=f"900x50 3900{FOREVER}"), 50, 60, 90),
    fires("MirrorOutboxGrowing", 25, but(outbox_entries=f"20000+500{FOREVER}")),
    silent("MirrorOutboxGrowing", but(outbox_entries=f"9000000-20000{FOREVER}"), 25, 60),
    fires("MirrorOutboxLarge", 16, but(outbox_bytes=f"300000000{FOREVER}")),
    silent("MirrorOutboxLarge", but(outbox_bytes=f"260000000{FOREVER}"), 30),
    fires("MirrorKeyEnds", 61, with_series({KEY: f"{44 * DAY}{FOREVER}"})),
    silent("MirrorKeyEnds", with_series({KEY: f"{46 * DAY}{FOREVER}"}), 61, 90),
    fires("MirrorRestartLoop", 16, with_series({ERRORS: f"0+3{FOREVER}"})),
    fires("MirrorRestartLoop", 12, with_series({STARTED: f"0 0 0 180 180 300 300 420 420 540{FOREVER}"})),
    silent("MirrorRestartLoop", with_series({ERRORS: f"0+1{FOREVER}"}), 16, 60),
    silent("MirrorRestartLoop", with_series({STARTED: f"-1000x5 360x3 600{FOREVER}"}), 8, 16),
]  # fmt: skip

LOST_THE_LEAD = {name: f"{values.split('x')[0]}x9 stale" for name, values in leader().items() if name not in standby()}
STORIES = [
    Scene("a leader with a standby: nothing fires", {"a": leader(), "b": standby()}, dict.fromkeys((1, 30, 200), NONE)),
    Scene("the lead goes over: nothing fires", {
        "a": {**standby(), **LOST_THE_LEAD, "mirror_leader": f"1x9 0{FOREVER}", "mirror_standby": f"0x9 1{FOREVER}"},
        "b": {**leader(), **{name: f"_x10 {values}" for name, values in leader().items() if name not in standby()},
              "mirror_leader": f"0x10 1{FOREVER}", "mirror_standby": f"1x10 0{FOREVER}",
              "mirror_reconcile_due_timestamp_seconds": f"_x10 900+60{FOREVER}"},
    }, dict.fromkeys((9, 10, 11, 12, 15, 30), NONE)),
    Scene("a daemon that hangs beside one that took over: the copy is fresh, nothing fires", {
        "a": but(lag_seconds=f"0x9 0+60{FOREVER}", staleness_seconds=f"5x9 5+60{FOREVER}"), "b": leader(),
    }, dict.fromkeys((15, 30), NONE)),
    Scene("a restart: stale for a moment, unknown for another, nothing fires", {"a": with_series({
        "up": f"1x9 0 1{FOREVER}", "mirror_leader": f"1x9 _ 0 1{FOREVER}", "mirror_source_up": f"1x9 _x1 1{FOREVER}",
        "mirror_target_up": f"1x9 _x1 1{FOREVER}", "mirror_staleness_seconds": f"5x9 _ Inf 5{FOREVER}",
        "mirror_lag_seconds": f"0x9 _ 2 0{FOREVER}", "mirror_primed": f"1x9 _x1 1{FOREVER}",
        "mirror_doorbell_proven": f"1x9 _x1 1{FOREVER}", STARTED: f"-1000x9 _ 600{FOREVER}",
    })}, dict.fromkeys((9, 10, 11, 12, 15), NONE)),
    # Every five minutes the primary goes to sleep and cuts everybody; the daemon wakes it up again within a minute.
    Scene("a primary that scales to zero: nothing fires", {"a": with_series({
        "mirror_source_up": "1x4 0 " * 40, "mirror_leader": "1x4 0 " * 40, "mirror_doorbell_proven": "1x4 0 " * 40,
        "mirror_target_up": "1x4 stale " * 40, "mirror_staleness_seconds": "5 65 125 185 245 305 " * 40,
        "mirror_stale_after_seconds": f"900{FOREVER}", "mirror_lag_seconds": "0x4 20 " * 40,
        'mirror_errors_total{kind="Unreachable"}': " ".join(f"{2 * n}x5" for n in range(40)),
    })}, dict.fromkeys((4, 5, 6, 30, 60, 200), NONE)),
    # Each finds the target dead in turn and stands by while the other tries: nobody says 0 for two minutes on end.
    Scene("two daemons whose target is dead", {
        "a": with_series({**TARGET_GONE, "mirror_target_up": "1x9 " + "0 stale " * 60}),
        "b": {**standby(), "mirror_target_up": "_x9 " + "stale 0 " * 60},
    }, {15: ["MirrorTargetDown", "MirrorStale", "MirrorLagging"]}),
]  # fmt: skip


def test_every_alert_fires_and_does_not_fire_beside_it(tmp_path: Path) -> None:
    assert judged(PAIRS, tmp_path) == ""


def test_nothing_fires_for_what_is_ordinary(tmp_path: Path) -> None:
    assert judged(STORIES, tmp_path) == ""


def test_the_judge_judges(tmp_path: Path) -> None:
    assert "MirrorStale" in judged([fires("MirrorStale", 30, leader())], tmp_path)
    assert "MirrorBrake" in judged([silent("MirrorBrake", with_series({BRAKED: f"1{FOREVER}"}), 30)], tmp_path)


def test_no_alert_is_left_out() -> None:
    assert {name for scene in PAIRS for names in scene.fires.values() for name in names} == set(ALERTS)
    assert {scene.name.split()[0] for scene in PAIRS if "does not fire" in scene.name} == set(ALERTS)


def test_promtool_finds_nothing_wrong_with_the_files() -> None:
    for what, path in (("rules", RULES), ("config", RULES.with_name("prometheus.yml"))):
        done = subprocess.run(["promtool", "check", what, str(path)], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"}), rule
        assert set(rule["annotations"]) == {"summary", "runbook", "runbook_url"}, rule  # type: ignore[call-overload]


def test_the_runbook_in_the_readme_is_that_of_the_alerts() -> None:
    runbook = README.split("\n### Runbook\n", 1)[1]
    found = re.findall(r'^\| <a id="(\w+)"></a>`(\w+)` \| (\w+) \| (.*) \|$', runbook, flags=re.MULTILINE)
    expected = []
    for rule in rules():
        name, labels, notes = rule["alert"], rule["labels"], rule["annotations"]
        assert isinstance(name, str)
        assert isinstance(labels, dict)
        assert isinstance(notes, dict)
        assert notes["runbook_url"] == f"README.md#{name.lower()}"
        expected.append((name.lower(), name, labels["severity"], notes["runbook"]))
    assert found == expected
