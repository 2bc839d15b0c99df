"""mirror resync: make Supabase equal to the primary again, wholly or in part. The leading daemon does it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from mirror.cli.asking import ask, open_source, watch
from mirror.cli.words import show
from mirror.config import load_settings
from mirror.plain import plain
from mirror.tables import TABLES


def register(commands: Any) -> None:
    command = commands.add_parser("resync", help="compare with the primary and repair, wholly or in part")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--table", choices=[t.name for t in TABLES], help="only this table")
    what.add_argument("--trip", metavar="ID", help="this trip and its memberships")
    what.add_argument("--user", metavar="ID", help="this user and their memberships")
    command.add_argument("--rewrite", action="store_true", help="send every row, also where the digests are equal")
    command.add_argument("--force", action="store_true", help="past the brake")
    command.add_argument("--no-wait", action="store_true", help="only leave the request")
    command.add_argument("--json", action="store_true", help="the result for programs")
    command.set_defaults(act=_resync)


def _resync(arguments: argparse.Namespace) -> int:
    with open_source(load_settings()) as source:
        request = ask(
            source,
            "resync",
            tbl=arguments.table,
            trip=arguments.trip,
            usr=arguments.user,
            rewrite=arguments.rewrite,
            force=arguments.force,
        )
        if arguments.no_wait:
            show(json.dumps({"request": request}) if arguments.json else f"request {request} is left for the daemon")
            return 0
        state = watch(source, request)
    if arguments.json:
        show(json.dumps({"request": request, "state": state["state"], "result": state["result"]}))
    else:
        show("\n".join(map(plain, _lines(state))))
    return 0 if state["state"] == "done" and not _parked(state["result"] or {}) else 1


def _parked(result: dict[str, Any]) -> int:
    return sum(found.get("parked", 0) for found in (result, *result.get("tables", {}).values()))


def _lines(state: dict[str, Any]) -> list[str]:
    result = state["result"] or {}
    parked = _parked(result)
    but = f" BUT FOR {rows_parked(parked)}" if parked else ""
    lines = [f"{state['state'].upper()}{but}{': ' + result['error'] if 'error' in result else ''}"]
    if "rows_changed" in result:
        lines += [f"{result['rows_changed']} rows changed in Supabase", *parked_lines(result)]
    for name, found in result.get("tables", {}).items():
        lines.append(f"{name}: {found['rows']} rows compared; {summary(found)}")
        lines += parked_lines(found)
        if found["braked"]:
            lines.append(
                f"  the brake: this would delete {found['extra']} of {found['target_rows']} rows of {name}; "
                "nothing of it was changed. Look at the primary; if it is right, run `mirror resync --force`."
            )
    return lines


def summary(found: dict[str, Any]) -> str:
    if found["unreadable"]:
        return f"NOT COMPARED: {found['unreadable']}"
    parked = rows_parked(found["parked"])
    differ = ", ".join(f"{found[way]} {way}" for way in ("missing", "extra", "changed") if found[way])
    if not differ:
        return f"equal but for {parked}" if found["parked"] else "equal"
    return f"{differ}{', repaired' if found['repaired'] else ''}{', and ' + parked if found['parked'] else ''}"


def rows_parked(n: int) -> str:
    return f"{n} parked row{'s' if n != 1 else ''}"


def parked_lines(found: dict[str, Any]) -> list[str]:
    """Which rows one of the sides refuses, and why: the first of them by key."""
    rows = found.get("parked_rows", [])
    lines = [f"  parked: {'/'.join(k for k in (row['k1'], row['k2']) if k)}: {row['reason']}" for row in rows]
    more = found.get("parked", 0) - len(rows)
    return [*lines, f"  and {more} more parked"] if more > 0 else lines
