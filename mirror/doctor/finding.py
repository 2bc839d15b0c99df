"""What the doctor says: one sentence on one check of one side, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Side = Literal["here", "source", "target"]
Verdict = Literal["ok", "warning", "error", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    side: Side
    check: str
    verdict: Verdict
    sentence: str
    cure: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """What is certainly wrong outweighs what could not be asked."""
    verdicts = {finding.verdict for finding in findings}
    if "error" in verdicts:
        return 1
    return 3 if "unknown" in verdicts else 0
