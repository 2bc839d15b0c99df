"""Alert rules on a stage: daemons whose metrics are those that the code really exports, with a past written by hand,
and `promtool test rules` as the judge.

Time begins at 0 (1970) and goes on in minutes; values are written as promtool has them: `0x30` is thirty-one times 0,
`1+60x30` grows by 60 each time, `_` is a scrape that failed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mirror.known import Known
from mirror.ops.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
LENGTH = 240  # minutes
Past = Mapping[str, str]  # values by series; a series is named as in the text format, without job and instance

_SINCE_THEN = {
    "mirror_lag_seconds": f"0x{LENGTH}",
    "mirror_staleness_seconds": f"5x{LENGTH}",
    "mirror_reconcile_last_success_timestamp_seconds": f"0+60x{LENGTH}",
    "mirror_reconcile_due_timestamp_seconds": f"900+60x{LENGTH}",
    "process_start_time_seconds": f"-86400x{LENGTH}",
}


def missing_promtool() -> str:
    return "" if shutil.which("promtool") else "promtool is not on this machine (Debian: apt install prometheus)"


def rules() -> list[dict[str, object]]:
    found: list[dict[str, object]] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"][0]["rules"]
    return found


def leader() -> Past:
    """All is well, for ever, as far as every metric of a daemon says."""
    known = Known(
        role="leader", source_up=True, target_up=True, primed=True, led_since=0.0, proven_at=0.0, doorbell_proven=True,
        channels="ready", fresh_at=0.0,
    )  # fmt: skip
    return _exported(known) | _SINCE_THEN


def standby() -> Past:
    return _exported(Known(role="standby", source_up=True)) | {"process_start_time_seconds": f"-86400x{LENGTH}"}


def gone(minutes: int) -> Past:
    """A daemon that was a standby, and has not answered from this minute on."""
    return {name: values.replace(f"x{LENGTH}", f"x{minutes - 1} stale") for name, values in standby().items()} | {
        "up": f"1x{minutes - 1} 0x{LENGTH - minutes}"
    }


def _exported(known: Known) -> dict[str, str]:
    found = {"up": f"1x{LENGTH}"}
    for family in Metrics(lambda: known, "*/15 * * * *", {"expiry": 1e9}).registry.collect():
        for sample in family.samples:
            labels = ",".join(f"{name}={json.dumps(value)}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = f"{sample.value:.0f}x{LENGTH}"
    return found


@dataclass(frozen=True)
class Scene:
    """Some daemons, and which alerts fire at which minute: all of them, by name, and no other."""

    name: str
    daemons: Mapping[str, Past]
    fires: Mapping[int, Iterable[str]]
    job: str = field(default="mirror")

    def document(self) -> dict[str, object]:
        series = [
            {"series": _series(name, self.job, instance), "values": values}
            for instance, past in self.daemons.items()
            for name, values in past.items()
        ]
        return {
            "name": self.name,
            "interval": "1m",
            "input_series": series,
            "promql_expr_test": [_expectation(self.name, minute, names) for minute, names in self.fires.items()],
        }


def _series(name: str, job: str, instance: str) -> str:
    metric, _, labels = name.rstrip("}").partition("{")
    return f'{metric}{{job="{job}",instance="{instance}"{"," if labels else ""}{labels}}}'


def _expectation(scene: str, minute: int, names: Iterable[str]) -> dict[str, object]:
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)]
    firing = 'clamp_max(count by (alertname) (ALERTS{alertstate="firing"}), 1)'
    return {"expr": f"{firing} # {scene}", "eval_time": f"{minute}m", "exp_samples": samples}


def judged(scenes: Iterable[Scene], directory: Path) -> str:
    """What promtool says; empty when it is all as expected."""
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [scene.document() for scene in scenes],
    }
    path = directory / "scenes.yml"
    path.write_text(json.dumps(document), encoding="utf-8")  # which is YAML, too
    done = subprocess.run(
        ["promtool", "test", "rules", str(path)], check=False, capture_output=True, text=True, timeout=60
    )
    said = (done.stdout + done.stderr).splitlines()
    return "" if done.returncode == 0 else "\n".join(line for line in said if line.strip())
