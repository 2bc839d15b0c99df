"""What a process has used so far, from /proc: the daemon has to be a small neighbour. Linux only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_peaks_mb: list[float] = []


@dataclass(frozen=True)
class Usage:
    cpu_s: float
    rss_mb: float


def usage(pid: int, since: Usage | None = None) -> Usage | None:
    """None where nobody knows."""
    process = Path("/proc", str(pid))
    if not process.exists():
        return None
    # The name in the second field may contain spaces; utime and stime are the 12th and 13th after it.
    ticks = process.joinpath("stat").read_text().rpartition(")")[2].split()[11:13]
    peak_kb = next(line.split()[1] for line in process.joinpath("status").read_text().splitlines() if "VmHWM" in line)
    cpu_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return Usage(cpu_s - (since.cpu_s if since else 0.0), int(peak_kb) / 1024)


def note_peak(pid: int) -> None:
    """Before a daemon ends: what it needed at most."""
    if used := usage(pid):
        _peaks_mb.append(used.rss_mb)


def take_peak_mb() -> float | None:
    """The most that any daemon needed since somebody asked."""
    highest = max(_peaks_mb, default=None)
    _peaks_mb.clear()
    return highest
