"""Looks at the source through the mapping: which relation, which types, which columns; refuses what does not fit.

The result is a frozen Projection per table, from which all SQL of the source side is rendered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from mirror.config import Mapping
from mirror.errors import Incompatible
from mirror.tables import TABLES, TRIPS, USERS, Table

KEY_TYPES = {
    "uuid": "uuid",
    "text": "text",
    "character varying": "text",
    "character": "text",
    "smallint": "integer",
    "integer": "integer",
    "bigint": "bigint",
}


@dataclass(frozen=True)
class Projection:
    """One table of the mirror, as it comes from the source."""

    table: Table
    schema: str
    name: str
    expressions: dict[str, str]
    where: str
    types: dict[str, str]  # of the keys, and of created_by
    columns: tuple[str, ...]  # of the relation, that the mapping reads

    @property
    def relation(self) -> str:
        return sql.Identifier(self.schema, self.name).as_string()

    @property
    def alias(self) -> str:
        return sql.Identifier(self.name).as_string()


@dataclass(frozen=True)
class Source:
    """The three projections, checked against each other."""

    users: Projection
    trips: Projection
    trip_memberships: Projection

    def of(self, table: Table) -> Projection:
        projection: Projection = getattr(self, table.name)
        return projection

    @property
    def types(self) -> dict[str, str]:
        return {
            "user_id": self.users.types["id"],
            "trip_id": self.trips.types["id"],
            "created_by": self.trips.types["created_by"],
        }


def look(connection: psycopg.Connection[Any], mapping: Mapping) -> Source:
    """Reads the catalog only; nothing of the application's is touched."""
    source = Source(*(_projection(connection, mapping, table) for table in TABLES))
    for column, other, key in (("user_id", USERS, "id"), ("trip_id", TRIPS, "id")):
        mine, theirs = source.trip_memberships.types[column], source.of(other).types[key]
        if mine != theirs:
            raise Incompatible(
                f"trip_memberships.{column} is {mine}, {other.name}.{key} is {theirs}",
                hint=f'Make them the same in mirror.toml: [trip_memberships] {column} = "{column}::{theirs}".',
            )
    return source


def _projection(connection: psycopg.Connection[Any], mapping: Mapping, table: Table) -> Projection:
    oid, schema, name = _relation(connection, mapping, table)
    expressions = {column: mapping.expression(table, column) for column in table.columns}
    where = mapping.where(table)
    for text in (*expressions.values(), where):
        if "$mirror$" in text or "$slice$" in text or "{{" in text:
            raise Incompatible(f"[{table.name}] an expression may not contain $mirror$, $slice$ or {{{{")
    relation = sql.Identifier(schema, name).as_string()
    alias = sql.Identifier(name).as_string()
    types = {
        column: _key_type(_type(connection, table, column, expression, relation=relation, alias=alias), table, column)
        if column in (*table.keys, "created_by")
        else _type(connection, table, column, expression, relation=relation, alias=alias)
        for column, expression in expressions.items()
    }
    _type(connection, table, "where", f"coalesce(({where}\n), true)", relation=relation, alias=alias)
    read = [*expressions.values(), where]
    columns = _columns(connection, oid, relation, alias, read)
    keys = _columns(connection, oid, relation, alias, [expressions[k] for k in table.keys])
    _check_keys(connection, oid, table, keys)
    return Projection(table, schema, name, expressions, where, types, columns)


def _relation(connection: psycopg.Connection[Any], mapping: Mapping, table: Table) -> tuple[int, str, str]:
    written = mapping.relation(table)
    try:
        row = connection.execute(
            "select c.oid, n.nspname, c.relname, c.relkind "
            "from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where c.oid = coalesce(to_regclass(%(r)s), to_regclass('public.' || %(r)s))",
            {"r": written},
        ).fetchone()
    except psycopg.Error as error:
        raise Incompatible(
            f"[{table.name}] from = {written!r} is not a table's name: {error.diag.message_primary}"
        ) from error
    if row is None:
        raise Incompatible(
            f"the source has no table {written} for [{table.name}]",
            hint=f'Say where it is in mirror.toml: [{table.name}] from = "schema.table" '
            "(mixed case: from = 'public.\"Users\"').",
        )
    oid, schema, name, kind = row
    if kind not in ("r", "p"):
        raise Incompatible(f"{written} is not a table, so it cannot have triggers", hint="Map the table behind it.")
    return oid, schema, name


def _type(
    connection: psycopg.Connection[Any], table: Table, column: str, expression: str, *, relation: str, alias: str
) -> str:
    try:
        cursor = connection.execute(f"select ({expression}\n) from {relation} as {alias} limit 0")
    except psycopg.Error as error:
        state, text = error.sqlstate, error.diag.message_primary or str(error)
        if state in ("42703", "42P01"):
            names = _column_names(connection, relation)
            hint = f'Say where it comes from: [{table.name}] {column} = "..." (an SQL expression; "null" for none). '
            hint += f"{relation} has: {', '.join(names)}."
        else:
            hint = f"Put [{table.name}] {column} right in mirror.toml; functions outside pg_catalog need their schema."
        raise Incompatible(f"[{table.name}] {column}: {text}", hint=hint) from error
    if cursor.description is None or len(cursor.description) != 1:
        raise Incompatible(f"[{table.name}] {column} must be one expression, not {expression!r}")
    row = connection.execute("select format_type(%s, null)", [cursor.description[0].type_code]).fetchone()
    return str(row[0]) if row else "text"


def _key_type(found: str, table: Table, column: str) -> str:
    if found in KEY_TYPES:
        return KEY_TYPES[found]
    raise Incompatible(
        f"[{table.name}] {column} is of type {found}; ids are uuid, text, integer or bigint",
        hint=f'Cast it: [{table.name}] {column} = "({column})::text".',
    )


def _column_names(connection: psycopg.Connection[Any], relation: str) -> list[str]:
    rows = connection.execute(
        "select attname from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped "
        "order by attnum",
        [relation],
    )
    return [name for (name,) in rows]


def _columns(
    connection: psycopg.Connection[Any], oid: int, relation: str, alias: str, expressions: list[str]
) -> tuple[str, ...]:
    """Which columns of the relation these expressions read: PostgreSQL itself says so, of a view that is never kept."""
    chosen = ", ".join(f"({expression}\n) as c{i}" for i, expression in enumerate(expressions))
    with connection.transaction(force_rollback=True):
        connection.execute(f"create temporary view mirror_probe as select {chosen} from {relation} as {alias}")
        rows = connection.execute(
            "select a.attname from pg_attribute a where a.attrelid = %(oid)s and a.attnum in ("
            "  select d.refobjsubid from pg_depend d"
            "  join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass"
            "  where r.ev_class = 'pg_temp.mirror_probe'::regclass and d.refobjid = %(oid)s and d.refobjsubid > 0)"
            " order by a.attnum",
            {"oid": oid},
        ).fetchall()
    return tuple(name for (name,) in rows)


def _check_keys(connection: psycopg.Connection[Any], oid: int, table: Table, keys: tuple[str, ...]) -> None:
    for (name,) in connection.execute(
        "select attname from pg_attribute where attrelid = %s and attname = any(%s) and not attnotnull",
        [oid, list(keys)],
    ):
        raise Incompatible(
            f"the key column {name} of [{table.name}] may be null",
            hint=f"alter table {_text(connection, oid)} alter column {sql.Identifier(name).as_string()} set not null;",
        )
    unique = connection.execute(
        "select 1 from pg_index i where i.indrelid = %s and i.indisunique and i.indisvalid and i.indexprs is null and ("
        "  select array_agg(a.attname::text) from pg_attribute a where a.attrelid = i.indrelid"
        "    and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1])) <@ %s::text[]",
        [oid, list(keys)],
    ).fetchone()
    if unique is None:
        names = ", ".join(sql.Identifier(k).as_string() for k in keys) or "..."
        raise Incompatible(
            f"nothing makes the key of [{table.name}] unique",
            hint=f"create unique index concurrently on {_text(connection, oid)} ({names});",
        )


def _text(connection: psycopg.Connection[Any], oid: int) -> str:
    row = connection.execute("select %s::oid::regclass::text", [oid]).fetchone()
    return str(row[0]) if row else "?"
