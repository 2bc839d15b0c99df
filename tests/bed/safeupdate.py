"""What pg-safeupdate refuses on a hosted project, found by PostgreSQL's own parser: UPDATE and DELETE without WHERE,
also in the bodies of functions and in the strings that they execute. The extension itself cannot be had from Debian;
mirror/demo/supabase.sql refuses most of this at run time, and the parser reads all that the mirror installs."""

import re
from collections.abc import Iterator
from typing import Any

import pglast
from pglast import ast
from pglast.visitors import Visitor

# A string that is a statement (or the beginning of one), and not a word such as 'delete'.
_STATEMENT = re.compile(r"\bupdate\s+\S+.*\bset\b|\bdelete\s+from\b", re.IGNORECASE | re.DOTALL)
# The parser knows no types of schema mirror: a variable of a table's row type is a record to it.
_ROW = re.compile(r"(\n\s*(?:declare )?_\w+|\(\w+|, \w+|returns|setof) mirror\.(?:state|parked)\b")
_PLACE = re.compile(r"%(?:\d+\$)?([IsL])")


class _Finder(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.strings: list[str] = []

    def visit_UpdateStmt(self, _: Any, node: ast.UpdateStmt) -> None:  # noqa: N802 (the parser's name)
        self._check(node, "UPDATE")

    def visit_DeleteStmt(self, _: Any, node: ast.DeleteStmt) -> None:  # noqa: N802
        self._check(node, "DELETE")

    def visit_A_Const(self, _: Any, node: ast.A_Const) -> None:  # noqa: N802
        text = node.val.sval if isinstance(node.val, ast.String) else None
        if text and _STATEMENT.search(text):
            self.strings.append(text)

    def _check(self, node: Any, verb: str) -> None:
        if node.whereClause is None:
            self.found.append(f"{verb} requires a WHERE clause: {node.relation.relname}")


def unsafe(script: str) -> list[str]:
    """What would be refused of a script: of its statements, its functions and DO blocks, and what these execute."""
    return [
        line
        for raw in pglast.parse_sql(script)
        for line in _unsafe(raw.stmt, _slice(script, raw.stmt_location or 0, raw.stmt_len or 0))
    ]


def _slice(script: str, start: int, length: int) -> str:
    """Positions count bytes."""
    octets = script.encode()[start:]
    return (octets[:length] if length else octets).decode()


def _unsafe(statement: Any, source: str) -> Iterator[str]:
    finder = _Finder()
    finder(statement)
    yield from finder.found
    for text in finder.strings:
        yield from _unsafe_string(text)
    if isinstance(statement, ast.CreateFunctionStmt | ast.DoStmt):
        given = statement.args if isinstance(statement, ast.DoStmt) else statement.options
        options: dict[str, Any] = {option.defname: option.arg for option in given or ()}
        if "language" in options and options["language"].sval == "sql":
            yield from unsafe(options["as"][0].sval)
        else:
            for query in _queries(pglast.parse_plpgsql(_ROW.sub(r"\1 record", source))):
                yield from unsafe(query)


def _unsafe_string(text: str) -> Iterator[str]:
    filled = _PLACE.sub(lambda place: "'x'" if place[1] == "L" else "x", text)
    try:
        yield from unsafe(filled)
    except pglast.parser.ParseError as error:
        yield f"a string that is executed cannot be read ({error}): {text}"


def _queries(node: Any) -> Iterator[str]:
    """Every statement and expression of a parsed body; an expression and an assignment as the SELECT that it is."""
    if isinstance(node, list):
        for value in node:
            yield from _queries(value)
    elif isinstance(node, dict):
        if "query" in node and "parseMode" in node:
            query, mode = node["query"], node["parseMode"]
            yield query if mode == 0 else "select " + (query if mode == 2 else query.partition(":=")[2])
        else:
            for value in node.values():
                yield from _queries(value)
