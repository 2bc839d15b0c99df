"""What the two sides must agree on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mirror.doctor.finding import Finding

_IGNORED = ("database", "snapshot")  # a database may be renamed


def examine(notes: dict[str, Any]) -> Iterator[Finding]:
    """Says nothing of what only one side could be asked for."""
    types, mirrored = notes.get("types"), notes.get("target types")
    if types and mirrored and types != mirrored:
        sentence = f"its keys are {_named(mirrored)}, those of the primary are {_named(types)}"
        yield Finding("target", "key types", "error", sentence, "Run `mirror install target`.")
    here, known = notes.get("identity"), notes.get("known")
    if not here or not known:
        return
    if {k: v for k, v in here.items() if k not in _IGNORED} != {k: v for k, v in known.items() if k not in _IGNORED}:
        sentence = "it mirrors another primary than MIRROR_SOURCE_URL names (another project, or a restored branch)"
        yield Finding(
            "target", "same source", "error", sentence, "Check both URLs; if it is meant, run `mirror adopt`."
        )
    elif notes.get("life") == notes.get("position life") and _xmax(here.get("snapshot")) < _xmax(notes.get("snapshot")):
        sentence = "the primary went back in time: it knows fewer transactions than its mirror"
        yield Finding("target", "same source", "error", sentence, "If it was restored on purpose, run `mirror adopt`.")
    else:
        yield Finding("target", "same source", "ok", "it mirrors this primary")


def _named(types: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in sorted(types.items()))


def _xmax(snapshot: str | None) -> int:
    return int(snapshot.split(":")[1]) if snapshot else 0
