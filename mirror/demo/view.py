"""What the live demo shows, as lines of text: a frame for a terminal, plain lines for everything else."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from mirror.demo.gauges import Gauges
from mirror.demo.ink import Ink, between, pad
from mirror.demo.traffic import Happening
from mirror.demo.world import PRIMARY, SUPABASE, World

KEPT = 1000
BARS = "▁▂▃▄▅▆▇█"
BARS_SHOWN = 24
LABEL = 10
COLUMNS_MAX = 100  # a wider one tears the times away from what they belong to
FRAME_LINES = 12  # all but the happenings


@dataclass
class State:
    """All that has been seen so far."""

    world: World
    clock: Callable[[], float] = time.monotonic
    began: float = 0.0
    happenings: deque[Happening] = field(default_factory=lambda: deque(maxlen=200))
    times_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    counts: Counter[str] = field(default_factory=Counter)
    touches: int = 0
    touches_marked: int = 0
    gauges: Gauges | None = None

    def __post_init__(self) -> None:
        self.began = self.clock()

    def saw(self, happening: Happening) -> None:
        self.happenings.append(happening)
        self.counts[happening.kind] += 1
        if happening.after_s is not None:
            self.times_s.append(happening.after_s)

    def touched(self, *, marked: bool) -> None:
        self.touches += 1
        self.touches_marked += marked


def frame(state: State, ink: Ink, columns: int, rows: int) -> list[str]:
    columns = min(columns, COLUMNS_MAX)
    rule = ink("─" * columns, "dim")
    room = max(1, rows - FRAME_LINES)
    shown = [f" {line(happening, ink, columns - 2)}" for happening in list(state.happenings)[-room:]]
    title = between(
        f" {ink('permission mirror', 'bold')}", ink(f"Neon {PRIMARY} → mirror → Supabase {SUPABASE} ", "dim"), columns
    )
    return [
        title,
        rule,
        *[""] * (room - len(shown)),
        *shown,
        rule,
        *(f" {text}" for text in summary(state, ink)),
        rule,
        *(f" {text}" for text in doors(state.world, ink)),
        ink(" Ctrl-C stops everything and removes it", "dim"),
    ]


def line(happening: Happening, ink: Ink, columns: int) -> str:
    at = ink(f"{happening.at:%H:%M:%S}", "dim")
    return between(f"{at}  {happening.text}", f"  {pad(_answer(happening, ink), 11)} {_after(happening)}", columns)


def _answer(happening: Happening, ink: Ink) -> str:
    if happening.waited and happening.after_s is None:
        return ink("not known", "red", "bold")
    colour = (
        "green" if happening.answer.startswith("200") else "yellow" if happening.answer.startswith("403") else "cyan"
    )
    return ink(happening.answer, colour)


def _after(happening: Happening) -> str:
    if not happening.waited:
        return " " * 10
    return f"{'too late' if happening.after_s is None else milliseconds(happening.after_s):>10}"


def summary(state: State, ink: Ink) -> list[str]:
    told = {"joined": "joined", "left": "left", "trip": "trips created", "cancelled": "cancelled"}
    done = ", ".join(f"{state.counts[kind]} {words}" for kind, words in told.items())
    return [
        _labelled("known in", _known_in(state), ink),
        _labelled("now", _now(state.gauges), ink),
        _labelled("so far", done, ink),
        _labelled("touched", _touched(state, ink), ink),
    ]


def doors(world: World, ink: Ink) -> list[str]:
    daemon = world.daemon
    return [
        _labelled("page", f"http://127.0.0.1:{daemon.port}/   its token: {daemon.token}", ink),
        _labelled("Neon", f"psql {world.app_url}", ink),
        _labelled("Supabase", f"psql {world.supabase_url}", ink),
    ]


def _labelled(label: str, text: str, ink: Ink) -> str:
    return pad(ink(label, "dim"), LABEL) + text


def _touched(state: State, ink: Ink) -> str:
    if state.touches_marked:
        return ink(f"{state.touches:,} profiles, {state.touches_marked} of which gave the mirror work", "red", "bold")
    return f"{state.touches:,} profiles, none of which gave the mirror work"


def _known_in(state: State) -> str:
    p50, p99 = percentiles(state)
    return f"{pad(f'p50 {p50}   p99 {p99}', 30)}{bars(list(state.times_s)[-BARS_SHOWN:])}"


def percentiles(state: State) -> tuple[str, str]:
    times = sorted(state.times_s)
    if not times:
        return "-", "-"
    return milliseconds(times[len(times) // 2]), milliseconds(times[min(len(times) - 1, len(times) * 99 // 100)])


def bars(times_s: list[float]) -> str:
    """Doubling from 1 ms: the lowest is below 2 ms, the highest 128 ms and more."""
    return "".join(
        BARS[min(len(BARS) - 1, int(after_s * 1000).bit_length() - 1 if after_s >= 0.001 else 0)] for after_s in times_s
    )


def _now(gauges: Gauges | None) -> str:
    if gauges is None:
        return "the daemon does not answer"
    return (
        f"lag {milliseconds(gauges.lag_s)}   equal to Neon as of {gauges.staleness_s:.1f} s ago   "
        f"{gauges.rows_applied:,.0f} rows applied"
    )


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def farewell(state: State, ink: Ink) -> str:
    (p50, p99), seconds = percentiles(state), state.clock() - state.began
    return (
        f"{state.counts.total()} changes in {seconds:.0f} s; Supabase knew after {p50} (p50), {p99} (p99).\n"
        f"Touched {_touched(state, ink)}.\n"
        "Everything is stopped and removed."
    )
