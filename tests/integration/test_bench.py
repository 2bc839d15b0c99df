"""The bench cannot rot: its smallest size runs, and what it says is complete and plausible."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.report import Result, percentile, table
from tests.bed.backends import _parent

RUN_TIMEOUT_S = 150
PEERS = {
    "commit to visible, 50 tx/s": {
        "floor: NOTIFY, select, durable commit",
        "mirror",
        "native replication",
        "native replication, durable apply",
    },
    "backlog, 2,000 single-row changes": {"mirror", "native replication"},
    "application's writes, 8 writers": {
        "without the mirror",
        "mirror",
        "native replication",
        "NOTIFY in every transaction",
    },
    "application's writes, 8 writers, nothing mapped changes": {"without the mirror", "mirror"},
    "first load, 2,000 memberships": {"COPY into COPY", "mirror"},
    "comparison, 2,000 memberships": {"digest scan of both sides", "mirror"},
    "p99 of a change": {"nothing else runs", "comparisons run"},
}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "bench", "--size", "small", "--output", str(directory)]
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
        numbers = [result["median"], *result["rounds"], *result["ratios"].values()]
        assert all(math.isfinite(number) and number > 0 for number in numbers), result
        if result["unit"] == "ms" and result["p99_ms"] is not None:
            assert result["median"] <= result["p99_ms"] < 10_000, result


@pytest.mark.slow
def test_ratios_are_those_of_the_medians(output: Path) -> None:
    results = json.loads(output.joinpath("bench.json").read_text())["results"]
    by = {(result["figure"], result["who"]): result for result in results}

    def ratio(figure: str, who: str, base: str) -> Any:
        return pytest.approx(by[figure, who]["median"] / by[figure, base]["median"])

    latency, backlog, writes, *_ = PEERS
    assert by[latency, "mirror"]["ratios"]["p50 / native"] == ratio(latency, "mirror", "native replication")
    assert by[backlog, "mirror"]["ratios"]["/ native"] == ratio(backlog, "mirror", "native replication")
    assert by[writes, "mirror"]["ratios"]["/ without the mirror"] == ratio(writes, "mirror", "without the mirror")


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
    assert table({"size": "x"}, [result]).splitlines()[-1] == "| f | w | 12,346 tx/s | 0.12 ms | / native 1.50 |  |"
