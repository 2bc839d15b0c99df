"""What a figure found, what was wanted of it, and the tables it is shown in."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A ratio, or a number, that was to be reached. `unit` is what stands after the number."""

    what: str
    found: float
    unit: str
    wanted: float
    at_most: bool = False

    @property
    def score(self) -> float:
        """1 is exactly what was wanted, more is better."""
        better, worse = (self.wanted, self.found) if self.at_most else (self.found, self.wanted)
        return better / worse if worse else float("inf")

    @property
    def reached(self) -> bool:
        return self.score >= 1

    @property
    def limit(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {shown(self.wanted)}"


@dataclass(frozen=True)
class Result:
    """One line: the median of the rounds, the p99 of what was measured in them (median of the rounds, too), the ratios
    that count, what else should be known, and what was wanted."""

    figure: str
    who: str
    unit: str
    median: float
    p99_ms: float | None
    rounds: list[float]
    ratios: dict[str, float]
    also: dict[str, float] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()


@dataclass
class Report:
    """A run. A figure that failed is a line of its own, and does not cost the others."""

    environment: dict[str, Any]
    results: list[Result] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def goals(self) -> list[Goal]:
        return [goal for result in self.results for goal in result.goals]


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def document(report: Report) -> dict[str, Any]:
    """Goals with their score, so that who reads the JSON need not compute it."""
    found = asdict(report)
    for shown_as, result in zip(found["results"], report.results, strict=True):
        shown_as["goals"] = [asdict(goal) | {"score": goal.score, "reached": goal.reached} for goal in result.goals]
    return found


def table(report: Report) -> str:
    lines = [", ".join(f"{name}: {value}" for name, value in report.environment.items()), ""]
    if report.goals:
        lines += ["| wanted | found | limit | |", "|---|---:|---:|---|"]
        lines += [
            f"| {goal.what} | {shown(goal.found)} {goal.unit} | {goal.limit} | {'yes' if goal.reached else 'NO'} |"
            for goal in report.goals
        ]
        lines += [""]
    lines += ["| figure | who | median | p99 | ratios | also |", "|---|---|---:|---:|---|---|"]
    for result in report.results:
        p99 = "" if result.p99_ms is None else f"{result.p99_ms:.2f} ms"
        cells = [result.figure, result.who, f"{shown(result.median)} {result.unit}", p99]
        lines.append("| " + " | ".join([*cells, _list(result.ratios), _list(result.also)]) + " |")
    lines += [f"\nfailed: {figure}: {reason}" for figure, reason in report.failed.items()]
    lines += [f"\nleft out: {what}: {reason}" for what, reason in report.left_out.items()]
    return "\n".join(lines) + "\n"


def _list(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in values.items())


def shown(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3f}"
