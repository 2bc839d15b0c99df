"""mirror verify: is Supabase equal to the primary? Compares, repairs nothing, names what differs.

Beside a running daemon the daemon answers, since only it knows at which snapshot the target is; without one, this
command takes the leader's place for the time it looks."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from typing import Any

from mirror.cli.asking import ask, open_source, somebody_leads, watch
from mirror.cli.resync import parked_lines, summary
from mirror.cli.words import show
from mirror.compare import compare
from mirror.config import Settings, load_settings
from mirror.errors import Incompatible, Refused
from mirror.plain import plain
from mirror.source.lead import Holder
from mirror.source.primary import Primary
from mirror.tables import TABLES
from mirror.target.target import Target
from mirror.target.ways import check, open_transport

PATIENCE_S = 60.0  # a slice takes milliseconds; whoever asks for a proof should not wait for ever


def register(commands: Any) -> None:
    command = commands.add_parser("verify", help="compare both sides, repair nothing")
    command.add_argument("--table", choices=[t.name for t in TABLES], help="only this table")
    command.add_argument("--json", action="store_true", help="for programs")
    command.set_defaults(act=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    settings = load_settings()
    check(settings)
    result = _ask_the_daemon(settings, arguments.table) or asyncio.run(_look(settings, arguments.table))
    show(json.dumps(result) if arguments.json else "\n".join(map(plain, _lines(result))))
    found = result["tables"].values()
    if any(table["unreadable"] for table in found):
        return 3
    return 1 if any(table[way] for table in found for way in ("missing", "extra", "changed", "parked")) else 0


def _ask_the_daemon(settings: Settings, table: str | None) -> dict[str, Any] | None:
    with open_source(settings) as source:
        if not somebody_leads(source):
            return None
        state = watch(source, ask(source, "verify", tbl=table), PATIENCE_S)
    result: dict[str, Any] = state["result"] or {}
    if "tables" not in result:
        raise Refused("source", f"the daemon could not compare: {result.get('error', state['state'])}")
    return result


async def _look(settings: Settings, table: str | None) -> dict[str, Any]:
    source = await Primary.open(settings.source(), Holder("verify"))
    try:
        if not await source.lead():
            raise Refused("source", "a daemon took the lead this moment", hint="Ask again.")
        transport = await open_transport(settings)
        try:
            target = Target(transport)
            await _check_identity(source, target)
            finished = await compare(source, target, (table,) if table else tuple(t.name for t in TABLES))
            return finished.document()
        finally:
            await transport.close()
    finally:
        await source.close()


async def _check_identity(source: Primary, target: Target) -> None:
    identity = await source.identity()
    known = (await target.status())["source"]
    ignored = ("database", "snapshot")
    if known is not None and {k: v for k, v in known.items() if k not in ignored} != {
        k: v for k, v in identity.items() if k not in ignored
    }:
        raise Incompatible("the target mirrors another source", hint="Check MIRROR_SOURCE_URL and MIRROR_TARGET_URL.")


def _lines(result: dict[str, Any]) -> Iterator[str]:
    for name, found in result["tables"].items():
        yield f"{name}: {found['rows']} rows, digest {found['digest']}: {summary(found)}"
        for row in found["differences"]:
            yield from _difference(row)
        yield from parked_lines(found)
    yield f"compared at snapshot {result['snapshot']} of the primary"


def _difference(row: dict[str, Any]) -> Iterator[str]:
    key = "/".join(k for k in (row["k1"], row["k2"]) if k)
    source, target = row["source"], row["target"]
    if source is None or target is None:
        yield f"  {row['direction']}: {key}"
        return
    for column, value in source.items():
        if target.get(column) != value:
            here, there = json.dumps(value), json.dumps(target.get(column))
            yield f"  changed: {key} {column}: the primary has {here}, Supabase has {there}"
