"""What a figure found, and the one table it is shown in."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """One line: the median of the rounds, the p99 of what was measured in them (median of the rounds, too), the ratios
    that count, and what else should be known."""

    figure: str
    who: str
    unit: str
    median: float
    p99_ms: float | None
    rounds: list[float]
    ratios: dict[str, float]
    also: dict[str, float] = field(default_factory=dict)


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def document(environment: dict[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    return {"environment": environment, "results": [asdict(result) for result in results]}


def table(environment: dict[str, Any], results: Sequence[Result]) -> str:
    lines = [", ".join(f"{name}: {value}" for name, value in environment.items()), ""]
    lines += ["| figure | who | median | p99 | ratios | also |", "|---|---|---:|---:|---|---|"]
    for result in results:
        p99 = "" if result.p99_ms is None else f"{result.p99_ms:.2f} ms"
        cells = [result.figure, result.who, f"{_shown(result.median)} {result.unit}", p99]
        lines.append("| " + " | ".join([*cells, _list(result.ratios), _list(result.also)]) + " |")
    return "\n".join(lines) + "\n"


def _list(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in values.items())


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
