"""A target that is reached through HTTPS only: what its API says of itself. Most of the catalog is out of sight."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from mirror.doctor.clock import judged
from mirror.doctor.finding import Finding, Verdict
from mirror.errors import MirrorError, Refused, Unreachable
from mirror.https import Https
from mirror.known import closed_channels
from mirror.target.once import Api, opened
from mirror.target.target import VERSION
from mirror.translation import UNDEFINED_FUNCTION

INSTALL = "Paste what `mirror install target --print` says into Supabase's SQL editor."


def examine(https: Https, notes: dict[str, Any]) -> Iterator[Finding]:
    try:
        with opened(https) as api:
            yield from _asked(api, notes)
    except Unreachable as error:
        yield _said("connection", "unknown", error.message, error.hint)
    except MirrorError as error:
        yield _said("connection", "error", error.message, error.hint)
    cure = "Set MIRROR_TARGET_URL as well, if only for this command, to have those looked at."
    untried = "not tried through HTTPS: what strangers read and which channels they enter, as the policies answer them"
    yield _said("strangers", "warning", untried, cure)
    yield _said("reach", "ok", "through HTTPS neither indexes nor other policies than the mirror's are in sight", cure)


def _asked(api: Api, notes: dict[str, Any]) -> Iterator[Finding]:
    before = time.time()
    status = api.status()
    after = time.time()
    yield _said("connection", "ok", "the API answers, exposes schema public and takes the key")
    yield judged("target", datetime.fromisoformat(status["clock"]).timestamp(), before, after)
    yield from _state(status, notes)
    yield from _channels(status)
    yield _written(api)
    yield from _insecurities(api)
    yield _closed(api)


def _state(status: dict[str, Any], notes: dict[str, Any]) -> Iterator[Finding]:
    notes |= {"target types": status["types"], "known": status["source"], "snapshot": status["snapshot"]}
    notes["position life"] = status.get("position_life")
    if status["version"] != VERSION:
        sentence = f"its schema is version {status['version']}, this mirror is {VERSION}"
        yield _said("installed", "error", sentence, INSTALL)
    else:
        yield _said("installed", "ok", f"version {VERSION}")
    if status["primed_at"] is None:
        yield _said("loaded", "warning", "the first load is not complete", "Start the daemon: mirror run")
    if status["parked"]:
        sentence = f"{len(status['parked'])} rows are refused"
        yield _said("parked", "warning", sentence, "See `mirror status` for the reasons.")
    for table in status["braked"]:
        sentence = f"a comparison of {table} would delete a large part of it, and did not"
        yield _said("brake", "warning", sentence, "Look at the primary, then `mirror resync --force`.")


def _channels(status: dict[str, Any]) -> Iterator[Finding]:
    """An older release cannot tell."""
    state = status.get("channels")
    if state == "ready":
        yield _said("channels", "ok", "the policies of private channels are in place")
    elif closed := closed_channels(state):
        yield _said("channels", "warning" if state == "missing" else "error", closed.reason, closed.cure)


def _written(api: Api) -> Finding:
    """Reading tells nothing of writing: the API refuses some statements, and only those of its own sessions."""
    try:
        api.attempt()
    except Unreachable:
        raise
    except MirrorError as error:
        if isinstance(error, Refused) and error.sqlstate == UNDEFINED_FUNCTION:
            return _said("writes", "warning", "an older release is installed, whose writes cannot be tried", INSTALL)
        return _said("writes", "error", f"the API refuses what the daemon writes: {error.message}", error.hint)
    return _said("writes", "ok", "the API takes what the daemon writes: all of it was tried, and undone")


def _insecurities(api: Api) -> Iterator[Finding]:
    found = api.insecurities()
    for insecurity in found:
        yield _said("security", "error", insecurity["finding"], insecurity["cure"])
    if not found:
        yield _said("security", "ok", "who may do what is as it must be")


def _closed(api: Api) -> Finding:
    """The API's own word for a schema that it does not serve is PGRST106."""
    try:
        api.call("fingerprint", schema="mirror")
    except Refused as error:
        if error.sqlstate == "PGRST106":
            return _said("exposed schemas", "ok", "schema mirror is not served by the API")
    cure = "Take mirror out of the exposed schemas: Project Settings, Data API."
    return _said("exposed schemas", "error", "schema mirror is served by the API", cure)


def _said(check: str, verdict: Verdict, sentence: str, cure: str = "") -> Finding:
    return Finding("target", check, verdict, sentence, cure)
