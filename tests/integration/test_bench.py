"""The bench cannot rot: its smallest size runs, and what it says is complete and plausible."""

import html
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench import plot, scale
from bench.figures import SIZES, figures
from bench.report import Goal, Report, Result, percentile, table
from tests.bed.backends import _parent

RUN_TIMEOUT_S = 170
# Left out here: what differs from a figure that runs in nothing but what is written, or how fast (hot, bulk, busy);
# what must have been installed (the peers that are not in the box); and what has tests of its own (http).
LEFT_OUT = {"hot", "bulk", "busy", "pglogical", "slony", "http"}
WITHOUT, FLOOR, NATIVE = "without the mirror", "floor: NOTIFY, select, durable commit", "native replication"
DURABLE = "native replication, durable apply"
LATENCY, BACKLOG, WRITES = (
    "commit to visible, 50 tx/s",
    "backlog, 2,000 single-row changes",
    "application's writes, 8 writers",
)
TRIGGERS = {"floor: an empty trigger", "floor: a trigger that keeps the keys"}
SMALL, LARGE = "10,000 memberships, trips of 20", "10,000 memberships, trip of 5,000"
PEERS = {
    LATENCY: {FLOOR, "mirror", NATIVE, DURABLE},
    "commit to visible, 2 ms to each side": {FLOOR, "mirror", NATIVE, f"{NATIVE}, over both wires"},
    BACKLOG: {"mirror", NATIVE, "mirror through HTTPS"},
    "backlog, 2,000 single-row changes, 1 % revocations": {"mirror", NATIVE},
    "revocations of ten kinds, 2,000 grants in front": {"mirror"},
    "revocations of ten kinds, 2,000 changed roles in front": {"mirror"},
    WRITES: {WITHOUT, "mirror", NATIVE, "NOTIFY in every transaction", *TRIGGERS},
    f"{WRITES}, nothing mapped changes": {WITHOUT, "mirror", *TRIGGERS},
    "first load, 2,000 memberships": {"COPY into COPY", "mirror"},
    "comparison, 2,000 memberships": {"digest scan of both sides", "mirror"},
    "p99 of a change": {"nothing else runs", "comparisons run"},
    "keeping up, 8 writers at full speed, 1 s": {"mirror"},
    "cost of a change, 2,000 memberships": {"mirror", NATIVE},
    "cost of a change, 4,000 memberships": {"mirror", NATIVE},
    f"channel, {SMALL}": {"mirror", "using (true)"},
    f"channel, {LARGE}": {"mirror", "using (true)"},
    f"row for 1,000 subscribers, {SMALL}": {"mirror", "inlined exists"},
    f"row for 1,000 subscribers, {LARGE}": {"mirror", "inlined exists"},
    "idle, 0.5 s": {"mirror"},
    "daemon, memory without HTTP clients": {"mirror"},
}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bench")
    chosen = [name for name in figures(SIZES["small"]) if name not in LEFT_OUT]
    command = [sys.executable, "-m", "bench", "--size", "small", "--output", str(directory), "--figures", *chosen]
    if memory := _parent():  # here only the running matters, not the figures
        command += ["--directory", str(memory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.slow
def test_every_figure_is_measured_for_every_peer(output: Path) -> None:
    results = json.loads(output.joinpath("bench.json").read_text())["results"]
    found: dict[str, set[str]] = {}
    for result in results:
        found.setdefault(result["figure"], set()).add(result["who"])
    assert found == PEERS


@pytest.mark.slow
def test_numbers_are_plausible(output: Path) -> None:
    document = json.loads(output.joinpath("bench.json").read_text())
    assert document["environment"]["size"] == "small"
    for result in document["results"]:
        idle = result["unit"] == "% CPU"  # may be less than can be measured
        assert all(
            math.isfinite(number) and (number > 0 or idle) for number in [result["median"], *result["rounds"]]
        ), result
        assert all(map(math.isfinite, result["ratios"].values())), result
        if result["unit"] == "ms" and result["p99_ms"] is not None:
            assert result["median"] <= result["p99_ms"] < 10_000, result


@pytest.mark.slow
def test_ratios_are_those_of_the_medians(output: Path) -> None:
    results = json.loads(output.joinpath("bench.json").read_text())["results"]
    by = {(result["figure"], result["who"]): result for result in results}

    def ratio(figure: str, who: str, base: str) -> Any:
        return pytest.approx(by[figure, who]["median"] / by[figure, base]["median"])

    assert by[LATENCY, "mirror"]["ratios"]["p50 / native"] == ratio(LATENCY, "mirror", NATIVE)
    assert by[BACKLOG, "mirror through HTTPS"]["unit"] == "changes/s"
    assert by[WRITES, "mirror"]["ratios"][f"/ {WITHOUT}"] == ratio(WRITES, "mirror", WITHOUT)
    assert by[f"channel, {SMALL}", "mirror"]["ratios"]["/ using (true)"] == ratio(
        f"channel, {SMALL}", "mirror", "using (true)"
    )


@pytest.mark.slow
def test_every_goal_is_in_the_table_and_in_the_plot(output: Path) -> None:
    results = json.loads(output.joinpath("bench.json").read_text())["results"]
    goals = [goal for result in results for goal in result["goals"]]
    assert len(goals) >= 20
    lines, drawn = output.joinpath("bench.md").read_text(), output.joinpath("bench.svg").read_text()
    for goal in goals:
        assert f"| {goal['what']} |" in lines
        assert f">{html.escape(goal['what'])}<" in drawn


@pytest.mark.slow
def test_the_table_has_a_line_for_each_result(output: Path) -> None:
    lines = output.joinpath("bench.md").read_text().splitlines()
    shown = {tuple(cell.strip() for cell in line.split("|")[1:3]) for line in lines if line.startswith("|")}
    assert shown >= {(figure, who) for figure, peers in PEERS.items() for who in peers}


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 51), (99, 100), (100, 100)])
def test_percentile_of_the_sorted_values(percent: int, value: int) -> None:
    assert percentile([*range(100, 0, -1)], percent) == value


def test_small_values_keep_their_decimals_in_the_table() -> None:
    result = Result("f", "w", "tx/s", 12345.6, 0.123, [12345.6], {"/ native": 1.5})
    assert (
        table(Report({"size": "x"}, [result])).splitlines()[-1]
        == "| f | w | 12,346 tx/s | 0.12 ms | / native 1.50 |  |"
    )


def test_a_figure_that_failed_or_was_left_out_is_in_the_table() -> None:
    lines = table(Report({}, failed={"hot": "TimeoutError: late"}, left_out={"slony": "apt-get install"})).splitlines()
    assert "failed: hot: TimeoutError: late" in lines
    assert "left out: slony: apt-get install" in lines


@pytest.mark.parametrize(
    ("found", "wanted", "at_most", "score"), [(2, 4, True, 2), (8, 4, True, 0.5), (8, 4, False, 2), (2, 4, False, 0.5)]
)
def test_the_score_of_a_goal_is_how_many_times_as_good(
    found: float, wanted: float, at_most: bool, score: float
) -> None:
    goal = Goal("w", found, "u", wanted, at_most=at_most)
    assert goal.score == score
    assert goal.reached == (score >= 1)


def test_bars_end_beyond_the_line_when_and_only_when_the_goal_is_reached() -> None:
    def end(found: float) -> float:
        root = ET.fromstring(plot.svg([Goal("w", found, "u", 4)], "told"))  # noqa: S314 - our own
        bar = next(one for one in root.iter() if one.get("class") in ("reached", "missed"))
        line = next(one for one in root.iter() if one.get("class") == "wanted")
        return float(bar.get("x", "")) + float(bar.get("width", "")) - float(line.get("x1", ""))

    assert end(3.9) < 0
    assert end(4.0) == pytest.approx(0)
    assert end(0.0) < end(1.1) < end(4.1) < end(33) == end(400)


def test_the_scale_is_calculated_from_what_was_measured() -> None:
    backlog = Result(
        "backlog, 100 single-row changes", "mirror", "changes/s", 50_000, None, [], {}, {"CPU s per 100,000 rows": 0.2}
    )
    compared = Result("comparison, 1,000,000 memberships", "mirror", "s", 2.0, None, [], {})
    said = "\n".join(scale.sentences([backlog, compared]))
    assert "drains at 50,000 changes/s" in said
    assert "4,320 millions a day" in said
    assert "busy for 10% of one processor" in said
    assert "Comparing 10,000,000 memberships takes 20.00 s" in said
    assert scale.sentences([]) == []
