"""Checks that are a query: schema/*/doctor*.sql. Each has a name and the sentence that holds when it finds nothing; a
row that it returns is a finding (verdict, sentence, cure).

Run one by one, read only, each for a few seconds at most: a doctor who makes the patient wait is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from mirror.doctor.finding import Finding, Side
from mirror.errors import Unreachable
from mirror.render import parts
from mirror.translation import translate

Connection = psycopg.Connection[Any]

ROWS_MAX = 10
TESTED = {"oldest": "15", "newest": "18"}  # majors
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
        with rolled_back(connection, 5.0):
            rows = connection.execute(check.query.encode()).fetchmany(ROWS_MAX + 1)
    except psycopg.Error as error:
        return [unanswered(side, check.name, error)]
    found = [Finding(side, check.name, verdict, sentence, cure or "") for verdict, sentence, cure in rows[:ROWS_MAX]]
    if len(rows) > ROWS_MAX:
        found.append(Finding(side, check.name, rows[-1][0], "... and more of the same", found[-1].cure))
    return found or [Finding(side, check.name, "ok", check.fine)]


@contextmanager
def rolled_back(connection: Connection, seconds: float = 1.0, *, read_only: bool = True) -> Iterator[None]:
    """Nothing stays, and the application does not wait: each statement ends soon, and waits for no lock for long."""
    mode = "set transaction read only; " if read_only else ""
    with connection.transaction(force_rollback=True):
        connection.execute(
            f"{mode}set local statement_timeout = '{seconds:g}s'; set local lock_timeout = '300ms'".encode()
        )
        yield


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
