"""One expression of the mapping as PostgreSQL understands it: its type, and the columns it reads.

PostgreSQL itself says so, of a temporary view that is never kept. An expression must depend on its own row and on
nothing else: whatever changes without a write to that row (the time, another table) no trigger would ever see.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from mirror.errors import Incompatible
from mirror.proposal import setting

Connection = psycopg.Connection[Any]

# What the operator's SQL can get wrong; anything else (a lock, a right, the connection) is not about the mapping.
_MISTAKES = ("42", "22", "0A", "P0", "39", "54")
_ONE_ROW = re.compile(r":has(?:Aggs|WindowFuncs|TargetSRFs) true")
_NOT_A_COLUMN = re.compile(r":varattno (?:0|-\d+) ")
_FUNCTION = re.compile(r":(?:funcid|opfuncid) (\d+)")
_CLOCKS = ["now", "transaction_timestamp", "statement_timestamp", "current_setting"]


@dataclass(frozen=True)
class Relation:
    oid: int
    schema: str
    name: str
    has_children: bool  # partitions, or tables that inherit

    @property
    def sql(self) -> str:
        return sql.Identifier(self.schema, self.name).as_string()

    @property
    def alias(self) -> str:
        """Its name, so that an expression may say table.column; our own aliases begin with an underscore."""
        return sql.Identifier(f"of{self.name}" if self.name.startswith("_") else self.name).as_string()


@dataclass(frozen=True)
class Expression:
    type: str
    columns: frozenset[str]


def look_at(  # noqa: PLR0917 - a place of the mapping is two names and a text
    connection: Connection, relation: Relation, section: str, place: str, text: str, absent: str = ""
) -> Expression:
    """`[section] place = text`, checked. `absent`: what to write where the table has nothing of the kind."""
    name = f"[{section}] {place}"
    if any(mark in text for mark in ("$mirror$", "$slice$", "{{")):
        raise Incompatible(f"{name} may not contain $mirror$, $slice$ or {{{{")
    try:
        with connection.transaction(force_rollback=True):
            query = f"select ({text}\n) as c from {relation.sql} as {relation.alias}"  # noqa: S608 - the operator's SQL
            connection.execute(f"create temporary view mirror_probe as {query}")
            found = connection.execute("select * from pg_temp.mirror_probe limit 0").description or []
            if len(found) != 1:
                raise _not_one(name, text)
            _refuse_unsteady(connection, name)
            return Expression(_type_name(connection, found[0].type_code), _columns(connection, relation))
    except psycopg.Error as error:
        if (error.sqlstate or "")[:2] not in _MISTAKES or error.sqlstate == "42501":
            raise
        if error.sqlstate == "42P16":  # the view's column would be a row
            raise _not_one(name, text) from error
        said = (error.diag.message_primary or str(error)).splitlines()[0]
        raise Incompatible(
            f"{name}: {said}", hint=_cure(connection, error, relation, (section, place, text), absent)
        ) from error


def _not_one(name: str, text: str) -> Incompatible:
    return Incompatible(
        f"{name} must be one expression, not {text!r}", hint="Each column is one expression over its row."
    )


def _cure(
    connection: Connection, error: psycopg.Error, relation: Relation, written: tuple[str, str, str], absent: str
) -> str:
    section, place, text = written
    if error.sqlstate not in ("42703", "42P01"):
        return (
            f"Put [{section}] {place} right in mirror.toml; functions, types and operators outside pg_catalog need "
            "their schema: public.f(x), x::public.t, x operator(public.=) y."
        )
    names = _column_names(connection, relation)
    has = f"{relation.sql} has: {', '.join(names)}"
    meant = _respelled(text, names) or next((name for name in names if _plain(name) == _plain(place)), "")
    if meant:
        return f"{has}. This is probably meant: {setting(section, place, meant)}"
    if absent == "null":
        return f"{has}. Where one of them is meant, say which; without any, {setting(section, place, absent)}"
    if absent:
        return f"{has}. Where one of them is meant, say which; if every row counts, {setting(section, place, absent)}"
    return f"{has}. Say in mirror.toml, under [{section}], which one {place} is."


def _respelled(text: str, names: list[str]) -> str:
    """The expression with the columns as PostgreSQL knows them, when that changes anything: a name with capital letters
    needs its quotes."""
    quoted = {name.strip('"').lower(): name for name in names if name.startswith('"')}
    words = re.split(r"""('[^']*'|"[^"]*"|\w+)""", text)
    respelled = "".join(quoted.get(word.lower(), word) for word in words)
    return respelled if respelled != text else ""


def _plain(name: str) -> str:
    return name.strip('"').replace("_", "").lower()


def _refuse_unsteady(connection: Connection, name: str) -> None:
    row = connection.execute(
        "select ev_action::text from pg_rewrite where ev_class = 'pg_temp.mirror_probe'::regclass"
    ).fetchone()
    tree = str(row[0]) if row else ""
    if _ONE_ROW.search(tree):
        raise Incompatible(f"{name} is not an expression over one row", hint="No aggregates, windows or sets.")
    if ":hasSubLinks true" in tree:
        raise Incompatible(
            f"{name} reads other rows, and a change of those would go unnoticed",
            hint="Use the columns of the row itself.",
        )
    if _NOT_A_COLUMN.search(tree):
        raise Incompatible(f"{name} reads the whole row, or a system column", hint="Name the columns it reads.")
    clock = "a session or time value such as current_date" if "{SQLVALUEFUNCTION" in tree else None
    clock = clock or _unsteady_function(connection, [int(oid) for oid in _FUNCTION.findall(tree)])
    if clock:
        raise Incompatible(
            f"{name} calls {clock}: what it says may change without a change of the row, and no trigger sees that",
            hint="Keep what it says in a column (or declare a function IMMUTABLE that depends on its arguments only).",
        )


def _unsteady_function(connection: Connection, oids: list[int]) -> str | None:
    """Many functions of pg_catalog are merely stable because of a setting (a date's text); only its clocks matter."""
    row = connection.execute(
        "select oid::regprocedure::text from pg_proc where oid = any(%s) and (provolatile = 'v' "
        "or (provolatile = 's' and (pronamespace <> 'pg_catalog'::regnamespace or proname = any(%s)))) "
        "order by 1 limit 1",
        [oids, _CLOCKS],
    ).fetchone()
    return str(row[0]) if row else None


def _columns(connection: Connection, relation: Relation) -> frozenset[str]:
    rows = connection.execute(
        "select a.attname from pg_attribute a where a.attrelid = %(oid)s and a.attnum in ("
        "  select d.refobjsubid from pg_depend d"
        "  join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass"
        "  where r.ev_class = 'pg_temp.mirror_probe'::regclass and d.refobjid = %(oid)s and d.refobjsubid > 0)",
        {"oid": relation.oid},
    )
    return frozenset(name for (name,) in rows)


def _type_name(connection: Connection, oid: int) -> str:
    row = connection.execute("select format_type(%s, null)", [oid]).fetchone()
    return str(row[0]) if row else "text"


def _column_names(connection: Connection, relation: Relation) -> list[str]:
    """As they are written in an expression."""
    rows = connection.execute(
        "select quote_ident(attname) from pg_attribute where attrelid = %s and attnum > 0 and not attisdropped "
        "order by attnum",
        [relation.oid],
    )
    return [name for (name,) in rows]
