"""mirror why: may this user enter this trip now? The answer first, then what each side says."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from mirror.cli.words import show
from mirror.config import load_settings
from mirror.demo.ink import Ink
from mirror.mapping import load_mapping
from mirror.plain import plain
from mirror.why.answer import Answer, connected, enters, judge
from mirror.why.evidence import Channel, Evidence, Mirror, Primary, Row
from mirror.why.look import look

EXIT_CODES = {"yes": 0, "no": 1, "unknown": 3}
WIDTH = 110
_STYLES = {"yes": "green", "no": "red", "unknown": "yellow"}


def register(commands: Any) -> None:
    command = commands.add_parser("why", help="why this user can, or cannot, enter this trip now")
    command.add_argument("user", metavar="USER", help="id, e-mail address or username")
    command.add_argument("trip", metavar="TRIP", help="id")
    command.add_argument("--topic", help="the channel, when it is not the first of [access] topics")
    command.add_argument("--json", action="store_true", help="for programs")
    command.set_defaults(act=_why)


def _why(arguments: argparse.Namespace) -> int:
    settings = load_settings()
    mapping = load_mapping(settings.config)
    evidence = look(settings, mapping, arguments.user, arguments.trip, arguments.topic)
    answer = judge(evidence, mapping.access.max_staleness)
    still = connected(enters(evidence.mirror) if evidence.mirror else None, mapping.access)
    if arguments.json:
        document = {"answer": asdict(answer), "connected": still, **asdict(evidence)}
        show(json.dumps(document, default=str))
    else:
        show("\n".join(_lines(evidence, answer, still, Ink.on(sys.stdout))))
    return EXIT_CODES[answer.verdict]


def _lines(evidence: Evidence, answer: Answer, still: str, ink: Ink) -> Iterator[str]:
    may = {"yes": "may enter", "no": "may not enter", "unknown": "may perhaps enter"}[answer.verdict]
    sentence = f"{answer.verdict.upper()}: {evidence.person} {may} trip {evidence.trip}: {answer.because}."
    first, *more = textwrap.wrap(plain(sentence), WIDTH, break_long_words=False, break_on_hyphens=False)
    yield ink(first, "bold", _STYLES[answer.verdict])
    yield from (ink(line, "bold", _STYLES[answer.verdict]) for line in more)
    yield from map(plain, _details(evidence, answer, still))


def _details(evidence: Evidence, answer: Answer, still: str) -> Iterator[str]:
    if answer.cure:
        yield f"-> {answer.cure}"
    yield from (f"{name:<10}{what:<12}{said}" for name, what, said in _rows(evidence))
    if still:
        yield from textwrap.wrap(f"connected {still}", WIDTH, subsequent_indent=" " * 10, break_long_words=False)
    yield from (f"not asked {error}" for error in evidence.errors)


def _rows(evidence: Evidence) -> Iterator[tuple[str, str, str]]:
    """The name of a side stands on its first line alone."""
    for name, rows in (
        ("primary", list(_primary(evidence.primary)) if evidence.primary else []),
        ("supabase", list(_mirror(evidence.mirror)) if evidence.mirror else []),
    ):
        yield from ((name if n == 0 else "", what, said) for n, (what, said) in enumerate(rows))


def _primary(primary: Primary) -> Iterator[tuple[str, str]]:
    for table, what, row in (
        ("users", "user", primary.user),
        ("trips", "trip", primary.trip),
        ("trip_memberships", "membership", primary.membership),
    ):
        yield (
            what,
            "none" if row is None else f"{_said(row)}{'' if row['mirrored'] else f': {_left_out(primary, table)}'}",
        )
    leads = "a daemon leads" if primary.leads else "NO daemon leads"
    if not primary.waiting:
        yield "outbox", f"nothing waits; {leads}"
    for entry in primary.waiting:
        yield "outbox", f"{entry['scope']} of {entry['table']} waits for {entry['seconds']:.1f} s; {leads}"


def _left_out(primary: Primary, table: str) -> str:
    return f"NOT mirrored, since [{table}] where ({primary.filters[table]}) is not true"


def _mirror(mirror: Mirror) -> Iterator[tuple[str, str]]:
    for what, row in (("user", mirror.user), ("trip", mirror.trip), ("membership", mirror.membership)):
        yield what, "none" if row is None else _said(row)
    for parked in mirror.parked:
        yield "parked", f"{parked['table']}: {parked['reason']} (tried {parked['tries']} times)"
    yield "position", _position(mirror.position)
    yield "member", f"is_trip_member says {_yes(mirror.is_member)}"
    if mirror.channel is not None:
        yield "channel", mirror.channel.topic
        yield from _channel(mirror.channel)


def _position(position: Row) -> str:
    if position["snapshot"] is None:
        return "none yet: the first load is not complete"
    applied = f"applied {position['applied_at']:%Y-%m-%d %H:%M:%S}"
    age_s = position["staleness_seconds"]
    age = "not fresh" if age_s is None else f"{age_s:.1f} s old"
    return f"snapshot {position['snapshot']} of the primary, {applied}, {age}"


def _channel(channel: Channel) -> Iterator[tuple[str, str]]:
    if channel.trouble:
        yield "", f"could not be asked: {channel.trouble}"
        return
    for way, verdicts in (("receive", channel.receives), ("send", channel.sends)):
        yield way, ", ".join(f"{extension} {_yes(verdict)}" for extension, verdict in verdicts.items())


def _said(row: Row) -> str:
    if "role" in row:
        return f"role {row['role']}, status {row['status']}"
    return ", ".join(str(row[name]) for name in ("id", "username", "name") if row.get(name) is not None)


def _yes(verdict: bool | None) -> str:
    return {True: "yes", False: "no", None: "nothing"}[verdict]
