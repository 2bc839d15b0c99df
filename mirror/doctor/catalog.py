"""Checks that are a query: schema/*/doctor*.sql. Each has a name and the sentence that holds when it finds nothing; a
row that it returns is a finding (verdict, sentence, cure).

Run one by one, read only, each for a few seconds at most: a doctor who makes the patient wait is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from mirror.doctor.finding import Finding, Side
from mirror.errors import Unreachable
from mirror.postgres import translate
from mirror.render import parts

Connection = psycopg.Connection[Any]

ROWS_MAX = 10
TESTED = {"oldest": "15", "newest": "18"}  # majors
_LIMITS = "set transaction read only; set local statement_timeout = '5s'; set local lock_timeout = '500ms'"
_ABSENT = ("42P01", "42883", "42703", "3F000")


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    fine: str
    query: str


def checks(file: str, places: Mapping[str, str]) -> Iterator[Check]:
    """`-- check NAME: what is true when there is no row`, then the query."""
    for name, fine, query in parts(file, {**TESTED, **places}):
        yield Check(name, fine, query)


def ask(connection: Connection, side: Side, check: Check) -> list[Finding]:
    try:
        with connection.transaction():
            connection.execute(_LIMITS)
            rows = connection.execute(check.query.encode()).fetchmany(ROWS_MAX + 1)
    except psycopg.Error as error:
        return [unanswered(side, check.name, error)]
    found = [Finding(side, check.name, verdict, sentence, cure or "") for verdict, sentence, cure in rows[:ROWS_MAX]]
    if len(rows) > ROWS_MAX:
        found.append(Finding(side, check.name, rows[-1][0], "... and more of the same", found[-1].cure))
    return found or [Finding(side, check.name, "ok", check.fine)]


def unanswered(side: Side, check: str, error: psycopg.Error) -> Finding:
    reason = translate(error, side)
    if isinstance(reason, Unreachable):
        raise reason from error
    if error.sqlstate in _ABSENT:
        cure = f"It was installed by another version: run `mirror install {side}`."
        return Finding(side, check, "unknown", f"could not be asked: {error.diag.message_primary}", cure)
    return Finding(side, check, "unknown", f"could not be asked: {reason.message}", reason.hint)


def values(rows: Iterable[Iterable[object]], types: tuple[str, ...]) -> str:
    """Rows as a table in FROM; none of them is a table without rows."""
    casts = [sql.SQL("{}::" + kind) for kind in types]
    lines = [sql.SQL(", ").join(c.format(sql.Literal(v)) for c, v in zip(casts, row, strict=True)) for row in rows]
    nothing = ", ".join(f"null::{kind}" for kind in types)
    listed = " union all ".join(f"select {line.as_string()}" for line in lines)
    return f"({listed or f'select {nothing} where false'})"
