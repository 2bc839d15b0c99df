"""The key of the HTTPS way, as far as it can be judged without asking anybody: its kind, its role, its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

from mirror.doctor.finding import Finding, Verdict
from mirror.https import Https
from mirror.target.key import claims

SOON_S = 30 * 86400
_CURE = "Set SUPABASE_SECRET_KEY to a secret key (sb_secret_...): Supabase, Project Settings, API Keys."


def examine(https: Https, now: float | None = None) -> Iterator[Finding]:
    key = https.key.get_secret_value()
    if key.startswith("sb_secret_"):
        yield _said("ok", "a secret key, which has no expiry")
    else:
        yield from _legacy(claims(key), https.url, time.time() if now is None else now)


def _legacy(said: dict[str, object] | None, url: str, now: float) -> Iterator[Finding]:
    if said is None:
        yield _said("error", "this is neither a secret key nor a legacy service_role key", _CURE)
        return
    role, expires, project = said.get("role"), said.get("exp"), said.get("ref")
    if role != "service_role":
        yield _said(
            "error", "this is not the service_role key (perhaps the anon key), which may do nothing here", _CURE
        )
    elif isinstance(expires, int | float) and expires < now + SOON_S:
        over = expires <= now
        day = datetime.fromtimestamp(expires, UTC).date()
        yield _said("error" if over else "warning", f"this key {'expired' if over else 'expires'} on {day}", _CURE)
    elif (
        isinstance(project, str)
        and (host := urlsplit(url).hostname or "").endswith(".supabase.co")
        and not host.startswith(f"{project}.")
    ):
        yield _said("error", "this key is of another project than SUPABASE_URL", _CURE)
    else:
        yield _said("warning", "a legacy service_role key: Supabase retires them at the end of 2026", _CURE)


def _said(verdict: Verdict, sentence: str, cure: str = "") -> Finding:
    return Finding("target", "key", verdict, sentence, cure)
