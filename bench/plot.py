"""The plot: one bar per goal, as long as it is good, and one line where each was wanted to be.

The scale is logarithmic, so that twice as good is as far to the right of the line as half as good is to its left.
Written by hand: bars are a handful of rectangles; a plotting library would be the largest dependency of this package.
Colours follow the reader's theme, on a panel of its own, so that it can be read wherever it is embedded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from bench.report import Goal, shown

WIDTH, LABEL, ROW, TOP, BOTTOM, RIGHT = 1100, 470, 26, 64, 40, 260
LEAST, MOST = 0.25, 8.0  # what is better or worse than this is drawn at the edge
AXIS = {0.25: "¼", 0.5: "½", 1: "as wanted", 2: "2 ×", 4: "4 ×", 8: "8 × as good"}
STYLE = """
  text { font: 13px ui-sans-serif, system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 } .small { font-size: 12px; fill: #59636e }
  .panel { fill: #ffffff; stroke: #d1d9e0 } .grid { stroke: #d1d9e0 } .wanted { stroke: #1f2328; stroke-width: 2 }
  .reached { fill: #2da44e } .missed { fill: #e16f24 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .small { fill: #9198a1 }
    .panel { fill: #0d1117; stroke: #3d444d } .grid { stroke: #3d444d } .wanted { stroke: #f0f6fc }
    .reached { fill: #3fb950 } .missed { fill: #f0883e }
  }
"""


def svg(goals: Sequence[Goal], told: str) -> str:
    """`told`: one line on what was measured on what."""
    height = TOP + ROW * len(goals) + BOTTOM
    bottom = TOP + ROW * len(goals)
    box = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{_summary(goals)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="panel" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        f'<text class="title" x="20" y="28">{_summary(goals)}</text>',
        f'<text class="small" x="20" y="48">{escape(told)}</text>',
    ]
    for times, name in AXIS.items():
        x = _x(times)
        kind = "wanted" if times == 1 else "grid"
        parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="small" x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{name}</text>')
    for row, goal in enumerate(goals):
        parts += _bar(goal, TOP + ROW * row)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(goal: Goal, y: int) -> list[str]:
    kind = "reached" if goal.reached else "missed"
    length = _x(goal.score) - LABEL
    found = f"{shown(goal.found)} {goal.unit} ({goal.limit})"
    return [
        f'<text x="{LABEL - 10}" y="{y + 17}" text-anchor="end">{escape(goal.what)}</text>',
        f'<rect class="{kind}" x="{LABEL}" y="{y + 5}" width="{length:.1f}" height="{ROW - 10}" rx="2"/>',
        f'<text class="small" x="{WIDTH - 12}" y="{y + 17}" text-anchor="end">{escape(found)}</text>',
    ]


def _x(score: float) -> float:
    share = math.log(min(max(score, LEAST * 1.02), MOST) / LEAST) / math.log(MOST / LEAST)
    return LABEL + share * (WIDTH - LABEL - RIGHT)


def _summary(goals: Sequence[Goal]) -> str:
    return f"The permission mirror: {sum(goal.reached for goal in goals)} of {len(goals)} goals reached"
