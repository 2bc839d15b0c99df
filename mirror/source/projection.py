"""Looks at the source through the mapping: which relation, which types, which columns; refuses what does not fit.

The result is a frozen Projection per table, from which all SQL of the source side is rendered.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from mirror.errors import Incompatible
from mirror.mapping import Mapping
from mirror.proposal import narrowed, setting
from mirror.source.expression import Connection, Relation, look_at
from mirror.tables import MEMBERSHIPS, TABLES, TRIPS, USERS, Table

KEY_BYTES_MAX = 1_000  # of an id that is text; a row with a longer one is not mirrored: no index could hold it
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
    origin: Relation
    expressions: dict[str, str]
    where: str
    types: dict[str, str]  # of the keys and of created_by
    columns: tuple[str, ...]  # of the relation, that the mapping reads
    any_bytes: bool = False  # the database (SQL_ASCII) keeps whatever bytes it is given as text

    def key(self, i: int) -> str:
        """The i-th key as an expression over the relation's row."""
        return f"({self.expressions[self.table.keys[i]]}\n)"

    @property
    def has_key(self) -> str:
        """A row without a key is not mirrored (a null key in the outbox would mean the whole table), nor one whose key
        no index holds."""
        keys = [f"{self.key(i)} is not null" for i in range(len(self.table.keys))]
        keys += [
            f"pg_catalog.octet_length({self.key(i)}::pg_catalog.text) operator(pg_catalog.<=) {KEY_BYTES_MAX}"
            for i, key in enumerate(self.table.keys)
            if self.types[key] == "text"
        ]
        return f"{' and '.join(keys)} and ({self.where}\n)"

    @property
    def relation(self) -> str:
        return self.origin.sql

    @property
    def alias(self) -> str:
        return self.origin.alias

    @property
    def schema(self) -> str:
        return self.origin.schema


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


def look(connection: Connection, mapping: Mapping) -> Source:
    """Reads the catalog only; nothing of the application's is touched."""
    source = Source(*(_projection(connection, mapping, table) for table in TABLES))
    _check_relations(source)
    for column, other, key in (("user_id", USERS, "id"), ("trip_id", TRIPS, "id")):
        memberships = source.trip_memberships
        mine, theirs = memberships.types[column], source.of(other).types[key]
        if mine != theirs:
            cast = f"({memberships.expressions[column]})::{theirs}"
            raise Incompatible(
                f"trip_memberships.{column} is {mine}, {other.name}.{key} is {theirs}",
                hint=f"Make them the same, {setting('trip_memberships', column, cast)}",
            )
    return source


def _check_relations(source: Source) -> None:
    """A relation has one set of triggers."""
    seen: dict[int, Table] = {}
    for table in TABLES:
        p = source.of(table)
        if p.origin.oid in seen:
            raise Incompatible(
                f"[{seen[p.origin.oid].name}] and [{table.name}] both come from {p.relation}",
                hint="Each of the three needs a table of its own.",
            )
        seen[p.origin.oid] = table


def _projection(connection: Connection, mapping: Mapping, table: Table) -> Projection:
    relation = _relation(connection, mapping, table)
    expressions = {column: mapping.expression(table, column) for column in table.columns}
    where = mapping.where(table)
    absent = {c: "null" for c in table.values if c != "subject"}
    if table is MEMBERSHIPS:  # nothing counts as a member's status but these
        absent["status"] = sql.Literal(mapping.access.active[0]).as_string()
    looked = {
        c: look_at(connection, relation, table.name, c, text, absent.get(c, "")) for c, text in expressions.items()
    }
    filtered = look_at(connection, relation, table.name, "where", where)
    if filtered.type != "boolean":
        raise Incompatible(f"[{table.name}] where is of type {filtered.type}", hint="It must be true or false.")
    typed = [c for c in table.columns if c in (*table.keys, "created_by")]
    types = {c: _key_type(looked[c].type, table, c, expressions[c]) for c in typed}
    columns = filtered.columns.union(*(e.columns for e in looked.values()))
    keys = frozenset[str]().union(*(looked[k].columns for k in table.keys))
    _check_not_null(connection, relation, table, sorted(keys))
    any_bytes = connection.info.parameter_status("server_encoding") == "SQL_ASCII"
    projection = Projection(table, relation, expressions, where, types, tuple(sorted(columns)), any_bytes)
    _check_unique(connection, projection, sorted(keys))
    return projection


def _relation(connection: Connection, mapping: Mapping, table: Table) -> Relation:
    written = mapping.relation(table)
    try:
        row = connection.execute(
            "select c.oid, n.nspname, c.relname, c.relkind in ('r', 'p'), c.relkind = 'p' or c.relhassubclass "
            "from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where c.oid = coalesce(to_regclass(%(r)s), "
            "  case when cardinality(parse_ident(%(r)s)) = 1 then to_regclass('public.' || %(r)s) end)",
            {"r": written},
        ).fetchone()
    except psycopg.Error as error:
        if (error.sqlstate or "")[:2] not in ("42", "0A", "22"):
            raise
        raise Incompatible(
            f"[{table.name}] from = {written!r} is not a table's name: {error.diag.message_primary}", hint=_WHERE_IT_IS
        ) from error
    if row is None:
        raise Incompatible(f"the source has no table {written} for [{table.name}]", hint=_WHERE_IT_IS)
    oid, schema, name, is_table, has_children = row
    if not is_table:
        raise Incompatible(
            f"[{table.name}] {written} is not a table, so it cannot have triggers", hint="Map the table behind it."
        )
    if "$mirror$" in schema + name or "$slice$" in schema + name:
        raise Incompatible(f"[{table.name}] the table's name may not contain $mirror$ or $slice$")
    return Relation(oid, schema, name, has_children)


_WHERE_IT_IS = 'Say where it is in mirror.toml: from = "schema.table" (mixed case: from = \'public."Users"\').'


def _key_type(found: str, table: Table, column: str, expression: str) -> str:
    if found in KEY_TYPES:
        return KEY_TYPES[found]
    raise Incompatible(
        f"[{table.name}] {column} is of type {found}; ids are uuid, text, integer or bigint",
        hint=f"Cast it, {setting(table.name, column, f'({expression})::text')}",
    )


def _check_not_null(connection: Connection, relation: Relation, table: Table, columns: list[str]) -> None:
    row = connection.execute(
        "select attname from pg_attribute where attrelid = %s and attname = any(%s) and not attnotnull",
        [relation.oid, columns],
    ).fetchone()
    if row:
        raise Incompatible(
            f"the key column {row[0]} of [{table.name}] may be null",
            hint=f"alter table {relation.sql} alter column {sql.Identifier(row[0]).as_string()} set not null;",
        )


def _check_unique(connection: Connection, p: Projection, columns: list[str]) -> None:
    """A unique index over the key's columns, or over some of them; or one that PostgreSQL infers from the expressions
    and the row filter (a partial index whose condition the filter implies)."""
    row = connection.execute(
        "select exists (select from pg_index i where i.indrelid = %s and i.indisunique and i.indisvalid"
        "  and i.indexprs is null and i.indpred is null and ("
        "  select array_agg(a.attname::text) from pg_attribute a where a.attrelid = i.indrelid"
        "    and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1])) <@ %s::text[])",
        [p.origin.oid, columns],
    ).fetchone()
    if (row and row[0]) or _is_inferred(connection, p):
        return
    raise Incompatible(f"nothing makes the key of [{p.table.name}] unique", hint=_unique_cure(connection, p, columns))


def _unique_cure(connection: Connection, p: Projection, columns: list[str]) -> str:
    """A partial index means that only its rows count; the others may well have the same key more than once."""
    row = connection.execute(
        f"select indexrelid::regclass::text, pg_get_expr(indpred, indrelid) from ({_INDEXES}) as i "
        "where indpred is not null and columns <@ %(columns)s::text[] order by 1 limit 1",
        {"relation": p.origin.oid, "columns": columns},
    ).fetchone()
    if row:
        cure = setting(p.table.name, "where", narrowed(p.where, row[1]))
        return f"The index {row[0]} does for a part of the rows. If only these count, {cure}"
    names = ", ".join(sql.Identifier(c).as_string() for c in columns) or "..."
    row = connection.execute("select relkind = 'p' from pg_class where oid = %s", [p.origin.oid]).fetchone()
    concurrently = "" if row and row[0] else "concurrently "
    return f"create unique index {concurrently}on {p.relation} ({names});"


def _is_inferred(connection: Connection, p: Projection) -> bool:
    """What ON CONFLICT would find, asked of an empty table of our own with the same columns and indexes: the daemon's
    role may not insert into the application's. EXPLAIN executes nothing."""
    columns = connection.execute(
        "select string_agg(format('%%I %%s', attname, format_type(atttypid, atttypmod)), ', ' order by attnum) "
        "from pg_attribute where attrelid = %s and attnum > 0 and not attisdropped",
        [p.origin.oid],
    ).fetchone()
    indexes = connection.execute(
        f"select format('create unique index on pg_temp.mirror_probe (%%s) where %%s', parts, "
        f"coalesce(pg_get_expr(indpred, indrelid), 'true')) from ({_INDEXES}) as i",
        {"relation": p.origin.oid},
    ).fetchall()
    target = ", ".join(f"({p.expressions[key]}\n)" for key in p.table.keys)
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(f"create temporary table mirror_probe ({columns[0] if columns else ''})")
            for (index,) in indexes:
                connection.execute(index)
            connection.execute(
                f"explain insert into pg_temp.mirror_probe as {p.alias} default values "
                f"on conflict ({target}) where ({p.where}\n) do nothing"
            )
    except psycopg.Error as error:
        state = error.sqlstate or ""
        if state != "42501" and state[:2] in ("0A", "42"):
            return False
        raise
    return True


# The unique indexes of a relation: names of their columns, where all are columns, and what they are made of.
_INDEXES = """
    select i.*, parts, columns from pg_index as i, lateral (
      select string_agg(pg_get_indexdef(i.indexrelid, k + 1, true), ', ' order by k) as parts,
             array_agg(coalesce(a.attname, '')::text) as columns
      from generate_series(0, i.indnkeyatts - 1) as k
      left join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = nullif(i.indkey[k], 0)) as made
    where i.indrelid = %(relation)s and i.indisunique and i.indisvalid"""
