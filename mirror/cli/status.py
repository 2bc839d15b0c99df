"""mirror status: what the target says of itself, and what still waits in the source."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from mirror.config import Settings, load_settings
from mirror.errors import MirrorError, Refused
from mirror.postgres import connect_blocking, translated


def register(commands: Any) -> None:
    command = commands.add_parser("status", help="is the copy fresh, and what waits")
    command.add_argument("--json", action="store_true", help="for programs")
    command.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    command.set_defaults(act=_status)


def _status(arguments: argparse.Namespace) -> int:
    settings = load_settings()
    while True:
        report = read(settings)
        if arguments.json:
            print(json.dumps(report, default=str))
        else:
            print("\n".join(_lines(report)))
        if not arguments.watch:
            break
        sys.stdout.flush()
        time.sleep(1)
    if report["errors"]:
        return 3
    return 0 if report["fresh"] else 1


def read(settings: Settings) -> dict[str, Any]:
    """Either side may be away; what can be told is told."""
    report: dict[str, Any] = {"errors": []}
    try:
        report["target"] = _target(settings)
    except MirrorError as error:
        report["errors"].append(str(error))
    try:
        report["source"] = _source(settings)
    except MirrorError as error:
        report["errors"].append(str(error))
    target = report.get("target", {})
    report["fresh"] = target.get("primed_at") is not None and float(target.get("staleness_seconds") or 1e9) < 60
    return report


def _target(settings: Settings) -> dict[str, Any]:
    with translated("target"), connect_blocking(settings.target(), "target") as connection:
        row = connection.execute("select to_regproc('public.mirror_status') is not null").fetchone()
        row = connection.execute("select public.mirror_status()").fetchone() if row and row[0] else None
        if row is None or row[0] is None:
            raise Refused("target", "the mirror is not installed", hint="Run `mirror install target`.")
        status: dict[str, Any] = row[0]
        return status


def _source(settings: Settings) -> dict[str, Any]:
    with translated("source"), connect_blocking(settings.source(), "source") as connection:
        row = connection.execute("select to_regclass('mirror.outbox') is not null").fetchone()
        if not (row and row[0]):
            raise Refused("source", "the mirror is not installed", hint="Run `mirror install source`.")
        waiting = connection.execute(
            "select count(*), extract(epoch from now() - min(at))::float8, "
            "exists (select from pg_locks where locktype = 'advisory' and classid = 1835627122 and objid = 2 and granted "
            "        and database = (select oid from pg_database where datname = current_database())) from mirror.outbox"
        ).fetchone()
        if waiting is None:
            raise AssertionError("an aggregate has a row")
        return {"outbox_entries": waiting[0], "lag_seconds": waiting[1] or 0.0, "leader": waiting[2]}


def _lines(report: dict[str, Any]) -> list[str]:
    lines = []
    target, source = report.get("target"), report.get("source")
    if target and target["primed_at"] is None:
        lines.append("NOT PRIMED: the first load is not complete.")
    elif target:
        word = "FRESH" if report["fresh"] else "STALE"
        lines.append(f"{word}: the target equals the source as of {float(target['staleness_seconds']):.1f} s ago.")
    if source:
        leader = "a daemon leads" if source["leader"] else "NO daemon leads"
        lines.append(
            f"source: {leader}; {source['outbox_entries']} entries wait, the oldest for {source['lag_seconds']:.1f} s."
        )
    if target:
        lines.append(
            f"target: epoch {target['epoch']}, batch {target['batch']}, snapshot {target['snapshot'] or 'none yet'}."
        )
        for parked in target["parked"]:
            key = "/".join(k for k in (parked["k1"], parked["k2"]) if k)
            lines.append(f"parked: {parked['tbl']} {key}: {parked['reason']} (tried {parked['tries']} times)")
    lines += [f"error: {error}" for error in report["errors"]]
    return lines
