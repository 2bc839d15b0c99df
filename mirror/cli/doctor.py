"""mirror doctor: what is wrong on either side, and what to do about it."""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from mirror.cli.words import show, veiled
from mirror.config import load_settings
from mirror.demo.ink import Ink
from mirror.doctor import here, pair, source, target
from mirror.doctor.finding import Finding, exit_code
from mirror.mapping import load_mapping
from mirror.plain import plain

WIDTH = 110
_STYLES = {"ok": "green", "warning": "yellow", "error": "red", "unknown": "cyan"}
_WORST_FIRST = ("error", "unknown", "warning", "ok")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")


def register(commands: Any) -> None:
    command = commands.add_parser("doctor", help="look for every known trap on both sides, with its cure")
    command.add_argument("side", nargs="?", choices=("source", "target"), help="only this side")
    command.add_argument("--json", action="store_true", help="for programs")
    command.set_defaults(act=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    settings = load_settings()
    mapping = load_mapping(settings.config)
    notes: dict[str, Any] = {}
    findings = list(here.examine())
    if arguments.side != "target":
        findings += source.examine(settings, mapping, notes)
    if arguments.side != "source":
        findings += target.examine(settings, mapping, notes)
    findings = [_discreet(finding) for finding in (*findings, *pair.examine(notes))]
    code = exit_code(findings)
    if arguments.json:
        show(json.dumps({"exit_code": code, "findings": [asdict(finding) for finding in findings]}))
    else:
        show("\n".join(_lines(findings, Ink.on(sys.stdout))))
    return code


def _discreet(finding: Finding) -> Finding:
    """What a database calls its things may be anything: an e-mail address as the name of a role, or a password."""
    sentence, cure = (plain(_EMAIL.sub("***", veiled(text))) for text in (finding.sentence, finding.cure))
    return replace(finding, sentence=sentence, cure=cure)


def _lines(findings: Sequence[Finding], ink: Ink) -> Iterator[str]:
    """Of each side what is wrong, the worst first, then the names of what is right."""
    for side in ("here", "source", "target"):
        mine = [finding for finding in findings if finding.side == side]
        if mine:
            yield ink(side, "bold")
            told = [finding for finding in mine if finding.verdict != "ok" or finding.cure]
            for finding in sorted(told, key=lambda f: _WORST_FIRST.index(f.verdict)):
                yield from _told(finding, ink)
            fine = sorted({f.check for f in mine} - {f.check for f in told})
            if fine:
                yield from _wrapped(ink("ok".ljust(9), "green"), ", ".join(fine), "  ")
    yield _summary(findings, ink)


def _told(finding: Finding, ink: Ink) -> Iterator[str]:
    verdict = ink(finding.verdict.ljust(9), _STYLES[finding.verdict])
    yield from _wrapped(verdict, f"{finding.check}: {finding.sentence}", "  ")
    if finding.cure:
        yield from _wrapped(" " * 9, f"-> {finding.cure}", "  ")


def _wrapped(head: str, text: str, indent: str) -> Iterator[str]:
    first, *more = textwrap.wrap(text, WIDTH - 11, break_long_words=False, break_on_hyphens=False) or [""]
    yield f"{indent}{head}{first}"
    yield from (f"{indent}{' ' * 9}{line}" for line in more)


def _summary(findings: Sequence[Finding], ink: Ink) -> str:
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in _WORST_FIRST}
    words = {"error": "error(s)", "unknown": "not asked", "warning": "warning(s)", "ok": "ok"}
    return ", ".join(ink(f"{counts[v]} {words[v]}", _STYLES[v]) for v in _WORST_FIRST if counts[v])
