"""Which policy it is: each expression, asked by itself. A table tells only what all of its policies say together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from mirror.doctor.catalog import Connection
from mirror.doctor.strangers import Answer, Stranger, Try, answers
from mirror.render import parts

Row = Mapping[str, Any]


def queries() -> dict[str, str]:
    return {name: query for name, _, query in parts("target/doctor_holes.sql")}


def rows(connection: Connection, query: str, **values: object) -> Sequence[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), values).fetchall()


def of_table(connection: Connection, oid: int, command: str) -> list[Row]:
    return [p for p in rows(connection, queries()["policies"], oid=oid) if p["command"] == command]


def on_made_up_row(table: str, alias: str, expression: str, row: Mapping[str, str]) -> str:
    """A query of one row that is not there: what a policy would say of it."""
    relation = (
        f"pg_catalog.jsonb_populate_record(null::{table}, {quoted(json.dumps(row))}::pg_catalog.jsonb) as {alias}"
    )
    return f"select exists (select from {relation} where {expression})"


def quoted(text: str) -> str:
    return sql.Literal(text).as_string()


def together(policies: Sequence[Row], role: str) -> str | None:
    """As PostgreSQL joins them; None where no policy lets this role see anything."""
    mine = [p for p in policies if role in p["roles"]]
    letting = [f"({p['expression']})" for p in mine if p["is_permissive"]]
    keeping = [f" and ({p['expression']})" for p in mine if not p["is_permissive"]]
    return f"({' or '.join(letting)}){''.join(keeping)}" if letting else None


def one_by_one(
    connection: Connection,
    policies: Sequence[Row],
    caller: Stranger,
    queries: Sequence[Callable[[str], str]],
    topic: str = "",
) -> Iterator[tuple[Row, Answer]]:
    """What each policy says to this caller; the mirror's own ask, and are never to blame."""
    asked = [
        (policy, Try(caller, query(policy["expression"]), topic))
        for policy in policies
        if caller.role in policy["roles"] and not policy["is_ours"]
        for query in queries
    ]
    said = answers(connection, [one for _, one in asked])
    return zip((policy for policy, _ in asked), said, strict=True)


def letting_in(said: Iterable[tuple[Row, Answer]]) -> list[str]:
    return _names(policy for policy, answer in said if answer is True and policy["is_permissive"])


def raising(said: Iterable[tuple[Row, Answer]]) -> list[str]:
    return _names(policy for policy, answer in said if isinstance(answer, str))


def _names(policies: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(policy["name"] for policy in policies))


def drops(names: Sequence[str], table: str) -> str:
    return " ".join(f"drop policy {name} on {table};" for name in names)
