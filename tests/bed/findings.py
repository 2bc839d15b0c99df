"""What the doctor finds, as tests ask for it."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from mirror.config import load_settings
from mirror.doctor import source, target
from mirror.doctor.finding import Finding
from mirror.mapping import Mapping

Found = dict[str, list[str]]
NOWHERE = "postgresql://postgres@127.0.0.1:1/postgres"


def examined_source(url: str, mapping: Mapping | None = None, **environ: str) -> list[Finding]:
    settings = load_settings({"MIRROR_SOURCE_URL": url, **environ})
    return list(source.examine(settings, mapping or Mapping(), {}))


def examined_target(url: str, mapping: Mapping | None = None, notes: dict[str, Any] | None = None) -> list[Finding]:
    settings = load_settings({"MIRROR_TARGET_URL": url})
    return list(target.examine(settings, mapping or Mapping(), {} if notes is None else notes))


def wrong(findings: Iterable[Finding]) -> Found:
    """Whatever is not ok, by check: `verdict: sentence -> cure`."""
    found: Found = defaultdict(list)
    for f in findings:
        if f.verdict != "ok":
            found[f.check].append(f"{f.verdict}: {f.sentence} -> {f.cure}")
    return dict(found)


def fired(found: Found, check: str, said: str) -> None:
    assert any(said in line for line in found.get(check, [])), f"{check} does not say {said!r}: {found.get(check)}"


def silent(findings: Iterable[Finding], *known: str) -> None:
    """Nothing is wrong but for these checks, which are."""
    found = wrong(findings)
    assert set(found) == set(known), found
