"""The README's tables against the code: everything that exists is named, and nothing is named that does not exist."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from mirror.cli import parser
from mirror.config import setting_names
from mirror.doubt import SORTS
from mirror.known import Known
from mirror.mapping import Mapping, load_mapping
from mirror.ops.metrics import Metrics
from mirror.render import template

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return README.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def first_column(title: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)`", section(title), flags=re.MULTILINE)


def test_every_setting_is_in_the_table_and_no_other() -> None:
    assert sorted(first_column("Settings")) == sorted(setting_names())


def test_every_metric_is_in_the_table_and_no_other() -> None:
    exported: set[str] = set()
    for family in Metrics(Known).registry.collect():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        exported.add("process_…" if family.name.startswith("process_") else family.name + suffix)
    assert sorted(first_column("Metrics")) == sorted(exported)


def test_every_command_is_in_the_table_and_no_other() -> None:
    subparsers = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    named = {line.split()[1] for line in first_column("Commands")}
    assert named == set(subparsers.choices)


def test_every_option_of_a_command_is_in_the_table_and_no_other() -> None:
    subparsers = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    for line in first_column("Commands"):
        command = subparsers.choices[line.split()[1]]
        options = {o for a in command._actions for o in a.option_strings if o.startswith("--") and o != "--help"}
        assert set(re.findall(r"--[a-z-]+", line)) == options, line


def test_every_key_of_the_mapping_is_in_the_table_and_no_other() -> None:
    for name, field in Mapping.model_fields.items():
        row = next(line for line in section("Mapping").splitlines() if line.startswith(f"| `[{name}]`"))
        model = field.annotation
        assert model is not None
        keys = {f.alias or n for n, f in model.model_fields.items()}
        assert set(re.findall(r"`([a-z_]+)`", row.split("|")[2])) == keys


def test_the_examples_of_a_mapping_are_valid(tmp_path: Path) -> None:
    for n, example in enumerate(re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)):
        path = tmp_path / f"{n}.toml"
        path.write_text("\n".join(line.removeprefix("   ") for line in example.splitlines()), encoding="utf-8")
        load_mapping(path)


def test_every_function_for_policies_and_clients_is_in_the_table_and_no_other() -> None:
    """What only the daemon calls is nobody's business, but for the question about security."""
    functions = set(re.findall(r"\('(\w+)', '\{(.*?)\}'\)", template("target/functions.sql")))
    public = {name for name, callers in functions if callers != "service_role"}
    named = {line.partition("(")[0] for line in first_column("Let Realtime ask the mirror")}
    assert named - {"mirror_insecurities"} == public


def test_every_recipe_is_named() -> None:
    named = set(re.findall(r"`(\w+\.sql)`", section("Let Realtime ask the mirror")))
    assert named == {path.name for path in (ROOT / "schema" / "target" / "recipes").iterdir()}


def test_every_attack_in_the_table_names_tests_that_exist() -> None:
    table = (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("\n## Attacks that were tried\n")[2]
    _, _, *rows = re.findall(r"^\|(.*)\|$", table, flags=re.MULTILINE)
    assert "| attack | what happened | what holds now | test |" in table
    for row in rows:
        named = re.findall(r"(tests/[\w/]+\.py)(?:::([\w:]+))?", row.rpartition(" | ")[2])
        assert named, f"no test holds: {row}"
        for path, names in named:
            text = (ROOT / path).read_text(encoding="utf-8")
            assert all(re.search(rf"(?:def|class) {name}\b", text) for name in names.split("::") if name), (path, names)


def test_every_reason_is_in_the_table_in_the_words_of_all_surfaces() -> None:
    """What `mirror status` says for each (mirror/doubt.py)."""
    table = section("When something is wrong").split("### When it is not simply fresh", 1)[1].split("\n### ", 1)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\| `.*$", table, re.MULTILINE)
    ]
    places = dict.fromkeys(("about", "why", "age", "n"), "…")
    assert rows == [[f"`{kind}`", sort.says.format(**places), sort.means, sort.cure] for kind, sort in SORTS.items()]
