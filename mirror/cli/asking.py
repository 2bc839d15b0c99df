"""Requests to the daemon that leads: put into the source, watched until they are done."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import psycopg

from mirror.cli.words import say
from mirror.config import Settings
from mirror.errors import Refused, Unreachable
from mirror.plain import plain
from mirror.postgres import connect_blocking, refuse_pooled_host
from mirror.translation import translated

Connection = psycopg.Connection[Any]

WATCH_INTERVAL_S = 0.2
BAR = 24
_LEADER = "select exists (select from mirror.leader())"


def open_source(settings: Settings) -> Connection:
    url = settings.source()
    refuse_pooled_host(url)
    connection = connect_blocking(url, "source")
    with translated("source"):
        row = connection.execute("select to_regclass('mirror.request') is not null").fetchone()
    if not (row and row[0]):
        connection.close()
        raise Refused("source", "the mirror is not installed", hint="Run `mirror install source`.")
    return connection


def somebody_leads(connection: Connection) -> bool:
    with translated("source"):
        row = connection.execute(_LEADER).fetchone()
    return bool(row and row[0])


def ask(connection: Connection, kind: str, **scope: Any) -> int:
    names = ("tbl", "trip", "usr", "rewrite", "force")
    values = [
        scope.get("tbl"),
        scope.get("trip"),
        scope.get("usr"),
        scope.get("rewrite", False),
        scope.get("force", False),
    ]
    places = ", ".join(f"{name} => %s" for name in names)
    with translated("source"):
        row = connection.execute(f"select mirror.ask(%s, {places})", [kind, *values]).fetchone()
    if row is None:
        raise AssertionError("a function returns a row")
    return int(row[0])


def watch(connection: Connection, request: int, patience_s: float = math.inf) -> dict[str, Any]:
    """Until it is done, with a progress bar on a terminal. Ctrl-C leaves it running and says how to end it; when no
    request has made progress for longer than `patience_s` it is taken back."""
    bar = sys.stderr.isatty()
    said_waiting = False
    before, since = None, time.monotonic()
    try:
        while True:
            state = _state(connection, request)
            if state["everybodys"] != before:
                before, since = state["everybodys"], time.monotonic()
            elif time.monotonic() - since > patience_s:
                raise _taken_back(connection, request, patience_s)
            if bar:
                print(f"\r\x1b[K{plain(_line(state))}", end="", file=sys.stderr, flush=True)
            if state["done_at"] is not None:
                return state
            if state["state"] == "waiting" and not said_waiting and not somebody_leads(connection):
                said_waiting = True
                say("no daemon leads at the moment: the request waits for one")
            time.sleep(WATCH_INTERVAL_S)
    except KeyboardInterrupt:
        say("")
        say(f"request {request} goes on; to end it: select mirror.cancel_resync({request});")
        raise
    finally:
        if bar:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _taken_back(connection: Connection, request: int, after_s: float) -> Unreachable:
    with translated("source"):
        connection.execute("select mirror.cancel_resync(%s)", [request])
    return Unreachable(
        "source",
        f"the daemon made no progress with this for {after_s:.0f} s",
        hint="It may be gone, or have a backlog that does not end: `mirror status` says which. Ask again then.",
    )


def _state(connection: Connection, request: int) -> dict[str, Any]:
    with translated("source"):
        row = connection.execute(
            """
            select r.state, r.progress, r.result, r.done_at,
                   (select jsonb_agg(jsonb_build_array(o.state, o.progress) order by o.id)
                    from mirror.request as o where o.done_at is null)
            from mirror.request as r where r.id = %s
            """,
            [request],
        ).fetchone()
    if row is None:
        raise Refused("source", f"request {request} is gone")
    return dict(zip(("state", "progress", "result", "done_at", "everybodys"), row, strict=True))


def _line(state: dict[str, Any]) -> str:
    progress = state["progress"]
    if not progress:
        return str(state["state"])
    checked, total = progress["rows_checked"], max(1, progress["rows_expected"], progress["rows_checked"])
    filled = BAR * checked // total
    bar = "#" * filled + "." * (BAR - filled)
    return f"[{bar}] {progress['phase']} {progress['table']}, {checked} rows"
