"""A target that is only reached through HTTPS."""

from __future__ import annotations

from collections.abc import Iterator

from mirror.config import Settings
from mirror.doctor.finding import Finding


def examine(settings: Settings) -> Iterator[Finding]:
    del settings
    yield Finding("target", "connection", "unknown", "without MIRROR_TARGET_URL most of it cannot be asked")
