"""A stand-in for pg-safeupdate, which hosted projects preload for `authenticator` and which cannot be had here: would
it refuse something that this function does? By reading bodies with PostgreSQL's own parser, so what is put together at
run time passes, and so do triggers."""

import re
from collections.abc import Iterator
from typing import Any

import psycopg
from pglast import ast, parse_plpgsql, parse_sql
from pglast.parser import ParseError
from pglast.visitors import Visitor

_BODIES = """
    select p.proname, l.lanname, pg_get_functiondef(p.oid), p.prosrc
    from pg_proc as p join pg_language as l on l.oid = p.prolang
    where p.pronamespace in ('public'::regnamespace, to_regnamespace('mirror')) and p.prokind = 'f'
      and l.lanname in ('sql', 'plpgsql')
"""

_SCHEMA = re.compile(r"\b(mirror|realtime|auth|extensions)\.")  # of types; libpg_query knows pg_catalog and public


class _Look(Visitor):
    def __init__(self) -> None:
        self.bare: list[str] = []
        self.calls: set[str] = set()

    def visit_UpdateStmt(self, _: Any, node: ast.UpdateStmt) -> None:  # noqa: N802 - pglast's names
        if node.whereClause is None:
            self.bare.append("UPDATE")

    def visit_DeleteStmt(self, _: Any, node: ast.DeleteStmt) -> None:  # noqa: N802
        if node.whereClause is None:
            self.bare.append("DELETE")

    def visit_FuncCall(self, _: Any, node: ast.FuncCall) -> None:  # noqa: N802
        self.calls.add((node.funcname or ())[-1].sval)


def refuses(connection: psycopg.Connection[Any], function_name: str) -> str | None:
    """What it would say; None if nothing is to be said."""
    bodies: dict[str, list[tuple[str, str, str]]] = {}
    for name, *body in connection.execute(_BODIES).fetchall():
        bodies.setdefault(name, []).append(tuple(body))
    seen, todo = set[str](), {function_name}
    while todo:
        name = todo.pop()
        seen.add(name)
        for language, definition, source in bodies.get(name, ()):
            look = _Look()
            for query in [source] if language == "sql" else _queries(parse_plpgsql(_SCHEMA.sub("public.", definition))):
                _parse(query, look)
            if look.bare:
                return f"{look.bare[0]} requires a WHERE clause"
            todo |= look.calls & bodies.keys() - seen
    return None


def _parse(query: str, look: _Look) -> None:
    for text in (query, f"select {query}"):  # an expression stands without its SELECT
        try:
            look(parse_sql(text))
        except ParseError:
            continue
        return


def _queries(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "PLpgSQL_expr" in node:
            yield node["PLpgSQL_expr"]["query"]
        for value in node.values():
            yield from _queries(value)
    elif isinstance(node, list):
        for value in node:
            yield from _queries(value)
