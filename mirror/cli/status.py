"""mirror status: what the target says of itself, and what still waits in the source."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

from mirror.cli.seen import Report
from mirror.cli.sides import Sides
from mirror.cli.words import show
from mirror.config import load_settings
from mirror.demo.ink import Ink
from mirror.plain import plain

EXIT_CODES = {"fresh": 0, "stale": 1, "not primed": 1, "not installed": 1, "unknown": 3}
_STYLES = {"fresh": "green", "stale": "red", "not primed": "yellow", "not installed": "yellow", "unknown": "red"}
WATCH_INTERVAL_S = 1.0
_REDRAW = "\x1b[H\x1b[J"  # from the upper left corner, over what was there


def register(commands: Any) -> None:
    command = commands.add_parser("status", help="is the copy fresh, and what waits")
    command.add_argument("--json", action="store_true", help="for programs: one document a line")
    command.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    command.set_defaults(act=_status)


def _status(arguments: argparse.Namespace) -> int:
    with Sides(load_settings()) as sides:
        if arguments.watch:
            return _watch(sides, as_json=arguments.json)
        report = sides.read()
        show(_text(report, as_json=arguments.json))
        return EXIT_CODES[report["verdict"]]


def _watch(sides: Sides, *, as_json: bool) -> int:
    """Whoever watches ends it with Ctrl-C, which is no failure."""
    before = _REDRAW if sys.stdout.isatty() and not as_json else ""
    try:
        while True:
            show(before + _text(sides.read(), as_json=as_json))
            time.sleep(WATCH_INTERVAL_S)
    except KeyboardInterrupt:
        return 0


def _text(report: Report, *, as_json: bool) -> str:
    return json.dumps(report, default=str) if as_json else "\n".join(_lines(report, Ink.on(sys.stdout)))


def _lines(report: Report, ink: Ink) -> Iterator[str]:
    target, source = report["target"], report["source"]
    verdict = report["verdict"]
    yield ink(plain(f"{verdict.upper()}: {report['sentence']}"), "bold", _STYLES[verdict])
    said = (
        _doubt_lines(report["doubts"]),
        _source_lines(source) if source else (),
        _target_lines(target) if target else (),
    )
    yield from map(plain, chain(*said, (f"error: {error}" for error in report["errors"])))


def _doubt_lines(doubts: list[Report]) -> Iterator[str]:
    """Parked rows are named one by one, further below."""
    for told in doubts:
        if told["kind"] != "parked":
            yield f"{told['kind']}: {told['reason']}. {told['cure']}"


def _source_lines(source: Report) -> Iterator[str]:
    if not source["installed"]:
        yield "source: the mirror is not installed."
        return
    leader = "a daemon leads" if source["leader"] else "NO daemon leads"
    yield (
        f"source: {leader}; {source['outbox_entries']} entries wait, the oldest for {source['lag_seconds']:.1f} s; "
        f"the outbox takes {source['outbox_bytes'] / 1024:.0f} kB."
    )
    if lead := source["lead"]:
        yield f"lead: {lead['name']}, session {lead['pid']} of the primary, since {lead['since']}."
    for stranger in source["strangers"]:
        yield (
            f"stranger: pid {stranger['pid']} (role {stranger['role']}, application {stranger['application']!r}) "
            f"holds the mirror's lock {stranger['lock']}; `mirror doctor` says what that costs, and the cure."
        )
    if resync := source["resync"]:
        rows = f"{resync['done_rows']} of {resync['total_rows'] or '?'} rows"
        where = f", {resync['phase']} {resync['table']}, {rows}" if resync["phase"] else ""
        yield f"{resync['reason']} {resync['id']}: {resync['state']}{where}."


def _target_lines(target: Report) -> Iterator[str]:
    if not target["installed"]:
        yield "target: the mirror is not installed."
        return
    yield f"target: epoch {target['epoch']}, batch {target['batch']}, snapshot {target['snapshot'] or 'none yet'}."
    if proof := target.get("proof"):
        tables = ", ".join(f"{name} {p['rows']} rows {p['digest']}" for name, p in proof["tables"].items())
        yield f"proof: equal at snapshot {proof['snapshot']} of the source, at {proof['at']}: {tables}."
    for parked in target["parked"]:
        key = "/".join(k for k in (parked["k1"], parked["k2"]) if k)
        yield f"parked: {parked['tbl']} {key}: {parked['reason']} (tried {parked['tries']} times)"
