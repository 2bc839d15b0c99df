"""What the product is made of: declared, bounded, locked with hashes, and listed."""

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.audit import verdict
from tests.bed.compose import PYTHON_IMAGE

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = [Requirement(one) for one in PROJECT["project"]["dependencies"]]
EXTRAS = [Requirement(one) for extra in PROJECT["project"]["optional-dependencies"].values() for one in extra]
BUILD = [Requirement(one) for one in PROJECT["build-system"]["requires"]]
DECLARED = [one for one in RUNTIME + EXTRAS + BUILD if one.name != "permission-mirror"]
UNBOUNDED = {"packaging"}  # numbered by years
LOCKS = ("requirements.lock", "deploy/build.lock", "tests/requirements.lock")
NODE = ROOT / "tests" / "node"

Pins = dict[str, Version]


def locked(name: str) -> dict[Requirement, int]:
    """Each pin of a lock, with how many hashes it has."""
    text = re.sub(r"^ *#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split("--hash=sha256:") for line in text.splitlines()]
    return {Requirement(pin): len([one for one in hashes if len(one.strip()) == 64]) for pin, *hashes in lines}


def pins(name: str) -> Pins:
    return {canonicalize_name(one.name): Version(next(iter(one.specifier)).version) for one in locked(name)}


def unmet(wanted: list[Requirement], found: Pins) -> list[str]:
    versions = [(one, found.get(canonicalize_name(one.name))) for one in wanted]
    return [str(one) for one, version in versions if version is None or version not in one.specifier]


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [("requirements.lock", RUNTIME), ("deploy/build.lock", BUILD), ("tests/requirements.lock", DECLARED)],
)
def test_a_lock_keeps_to_what_the_project_asks_for(lock: str, wanted: list[Requirement]) -> None:
    assert not unmet(wanted, pins(lock)), f"{lock} is out of date: make lock"


def test_a_lock_that_does_not_is_found() -> None:
    found = {"httpx": Version("1.0")}
    assert unmet([Requirement("httpx<1"), Requirement("H11"), Requirement("httpx>=1")], found) == ["httpx<1", "H11"]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_one_release_with_hashes_and_no_place_to_take_it_from(lock: str) -> None:
    for one, hashes in locked(lock).items():
        assert [clause.operator for clause in one.specifier] == ["=="], one
        assert one.url is None, one
        assert hashes, f"{one} has no hash"
    assert "://" not in (ROOT / lock).read_text()


@pytest.mark.parametrize("lock", ["requirements.lock", "deploy/build.lock"])
def test_what_is_tested_is_what_runs(lock: str) -> None:
    assert pins(lock).items() <= pins("tests/requirements.lock").items()


def test_a_changed_file_on_the_index_is_not_installed(tmp_path: Path) -> None:
    """A release that the lock names, with what an attacker wrote: pip asks for hashes because the lock has some."""
    name, release = "h11", pins("requirements.lock")["h11"]
    with zipfile.ZipFile(tmp_path / f"{name}-{release}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "raise SystemExit('attacked')")
        for file, text in (("METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n"), ("RECORD", "")):
            wheel.writestr(f"{name}-{release}.dist-info/{file}", text)
        wheel.writestr(f"{name}-{release}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    entry = re.search(rf"^{name}==.*?(?=^\S)", (ROOT / "requirements.lock").read_text(), re.MULTILINE | re.DOTALL)
    assert entry is not None
    lock, place = tmp_path / "lock.txt", tmp_path / "place"
    pip = [sys.executable, "-m", "pip", "install", "--no-index", f"--find-links={tmp_path}", f"--target={place}"]
    for text, refused in ((entry[0], True), (f"{name}=={release}\n", False)):
        lock.write_text(text)
        done = subprocess.run([*pip, "--requirement", str(lock)], check=False, capture_output=True, text=True)
        assert ("DO NOT MATCH THE HASHES" in done.stderr) is refused, done.stderr
        assert (place / name).exists() is not refused


def test_what_is_not_tried_yet_is_not_installed() -> None:
    open_ended = {one.name for one in DECLARED if not any(clause.operator == "<" for clause in one.specifier)}
    assert open_ended == UNBOUNDED


def imported(package: str) -> set[str]:
    trees = [ast.parse(path.read_text()) for path in (ROOT / package).rglob("*.py")]
    return {name.partition(".")[0] for tree in trees for node in ast.walk(tree) for name in _names(node)}


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module


def test_what_is_imported_is_declared() -> None:
    """And not only there because something else needs it for now."""
    modules = imported("mirror") - set(sys.stdlib_module_names) - {"mirror"}
    owners = packages_distributions()
    distributions = {canonicalize_name(owner) for module in modules for owner in owners.get(module, [module])}
    assert distributions <= {canonicalize_name(one.name) for one in RUNTIME}


def test_npm_packages_are_checked_against_the_lock_and_no_host_stands_in_it() -> None:
    wanted = json.loads((NODE / "package.json").read_text())
    lock: dict[str, dict[str, Any]] = json.loads((NODE / "package-lock.json").read_text())["packages"]
    root = lock.pop("")
    for kind in ("dependencies", "optionalDependencies"):
        assert root[kind] == wanted[kind]
        for name, version in wanted[kind].items():
            assert lock[f"node_modules/{name}"]["version"] == version
    assert all(one["integrity"].startswith("sha512-") for one in lock.values())
    assert not [name for name, one in lock.items() if "resolved" in one]


def test_images_have_an_exact_tag_and_can_be_set() -> None:
    compose, dockerfile = ((ROOT / name).read_text() for name in ("docker-compose.yml", "Dockerfile"))
    images = re.findall(r"image: (.+)$", compose, flags=re.MULTILINE)
    defaults = [re.fullmatch(r"\$\{\w+_IMAGE:-(.+)\}", image) for image in images]
    assert all(defaults), images
    named = {found[1] for found in defaults if found} - {"permission-mirror"}  # ours, built from here
    assert all(re.search(r":v?\d+\.\d+", image) for image in named), named
    assert set(re.findall(r"^FROM (\S+)", dockerfile, flags=re.MULTILINE)) == {"${PYTHON_IMAGE}"}
    assert f"ARG PYTHON_IMAGE={PYTHON_IMAGE}\n" in dockerfile
    assert f"${{PYTHON_IMAGE:-{PYTHON_IMAGE}}}" in compose


@pytest.mark.slow
def test_the_bill_of_materials_is_valid_and_names_what_runs(tmp_path: Path) -> None:
    made = tmp_path / "sbom.json"
    # The environment that the tests run in is not made anew.
    command = ["make", "--old-file=.venv/.installed", "sbom", f"SBOM={made}"]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made.read_text()) is None
    bill = json.loads(made.read_text())
    assert bill["metadata"]["component"]["name"] == PROJECT["project"]["name"]
    assert {canonicalize_name(one["name"]): Version(one["version"]) for one in bill["components"]} == pins(
        "requirements.lock"
    )


FINE: dict[str, Any] = {"name": "fine", "version": "1", "vulns": []}
BAD: dict[str, Any] = {"name": "bad", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
UNSEEN: dict[str, Any] = {"name": "unseen", "skip_reason": "not found on PyPI"}


class TestAudit:
    def test_nothing_known(self) -> None:
        assert verdict({"dependencies": [FINE]}) == (0, ["No known vulnerability in 1 packages."])

    def test_what_is_known_is_said_with_its_cure(self) -> None:
        assert verdict({"dependencies": [FINE, BAD]}) == (1, ["bad 1: CVE-1, cured in 2"])

    def test_an_index_that_did_not_answer_is_not_called_fine(self) -> None:
        code, said = verdict({"dependencies": [FINE, UNSEEN]})
        assert (code, said) == (3, ["Could not tell for 1 of 2 packages: PyPI did not answer for unseen."])
        assert verdict({"dependencies": [BAD, UNSEEN]})[0] == 1
