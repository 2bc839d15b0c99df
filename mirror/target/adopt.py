"""Could the mirror live in a table that is there already? Looks, and refuses with the reason and the cure what does
not fit; what fits is adopted with everything it has: columns, constraints, policies, rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from mirror.errors import ConfigError, Incompatible
from mirror.render import template
from mirror.tables import MEMBERSHIPS, USERS, Table

Connection = psycopg.Connection[Any]
Say = Callable[[str], None]
Types = dict[str, str]

_TABLE = """
    select c.oid, c.relkind in ('r', 'p'), pg_has_role(c.relowner, 'usage'),
           c.relowner::regrole, quote_ident(current_user),
           c.relforcerowsecurity
             and not exists (select from pg_roles where rolname = current_user and (rolsuper or rolbypassrls))
    from pg_class as c where c.oid = to_regclass(%s)"""
_COLUMNS = """
    select a.attname, format_type(a.atttypid, null), t.typcategory in ('S', 'E'), a.attnotnull,
           a.atthasdef or a.attidentity <> '', a.attgenerated <> ''
    from pg_attribute as a join pg_type as t on t.oid = a.atttypid
    where a.attrelid = %s and a.attnum > 0 and not a.attisdropped order by a.attnum"""
_UNIQUE = """
    select exists (select from pg_index as i
                   where i.indrelid = %s and i.indisunique and i.indisvalid and i.indpred is null
                     and (select array_agg(a.attname::text order by a.attname::text collate "C") from pg_attribute as a
                          where a.attrelid = i.indrelid
                            and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])) = %s)"""


@dataclass(frozen=True, slots=True)
class Column:
    type: str
    textual: bool
    notnull: bool
    default: bool
    generated: bool


def check(connection: Connection, table: Table, types: Types) -> None:
    found = connection.execute(_TABLE, [f"public.{table.name}"]).fetchone()
    if found is None:
        return
    oid, is_table, ours, owner, me, hidden = found
    if not is_table:
        raise _unfit(table, "is not a table", "Rename it, or move it to another schema.")
    if not ours:
        raise _unfit(table, f"belongs to {owner}", f"alter table public.{table.name} owner to {me};")
    if hidden:
        cure = f"alter table public.{table.name} no force row level security;"
        raise _unfit(table, "hides rows from its owner (force row level security)", cure)
    columns = {name: Column(*rest) for name, *rest in connection.execute(_COLUMNS, [oid])}
    for name in table.columns:
        _check_column(table, name, columns.get(name), _wanted(table, name, types))
    _check_others(table, columns)
    row = connection.execute(_UNIQUE, [oid, sorted(table.keys)]).fetchone()
    if not (row and row[0]):
        keys = ", ".join(table.keys)
        raise _unfit(table, f"has no unique key on ({keys})", f"alter table public.{table.name} add unique ({keys});")


def _wanted(table: Table, name: str, types: Types) -> str | None:
    """The type that a column must have; None: anything textual, since the source hands out text."""
    if table is MEMBERSHIPS or name == "created_by":
        return types.get(name)
    if name == "id":
        return types["user_id" if table is USERS else "trip_id"]
    return None


def is_there(connection: Connection, table: str) -> bool:
    return connection.execute("select where to_regclass(%s) is not null", [table]).fetchone() is not None


def say_what_changes(connection: Connection, say: Say, *, take_rights: bool, triggers: tuple[str, ...]) -> None:
    """Of tables that are there already, and only the first time: then they are ours to look after."""
    if is_there(connection, "mirror.state"):
        return
    query = f"{template('target/taken.sql')} order by tbl, step, change"
    rows = connection.execute(query.encode()).fetchall()
    changes, losses = [row[2] for row in rows], [row[2] for row in rows if row[3]]
    if losses and not take_rights:
        raise ConfigError(
            f"target: adopting the tables that are there already takes something away: {'; '.join(losses)}",
            hint="If that is meant: `mirror install target --take-rights`. `mirror uninstall target` gives it back.",
        )
    for change in changes:
        say(f"target: {change}")
    for table in triggers:
        if any(name == f"public.{table}" for _, name, *_ in rows):
            say(f"target: public.{table} gets the triggers mirror_deleted and mirror_updated")


def taken(connection: Connection) -> list[str]:
    """The commands that give back what adopting took."""
    if not is_there(connection, "mirror.taken"):
        return []
    return [undo for (undo,) in connection.execute("select undo from mirror.taken order by step, undo")]


def _check_column(table: Table, name: str, column: Column | None, wanted: str | None) -> None:
    alter = f"alter table public.{table.name} alter column {name}"
    if column is None:
        if name in table.keys:
            raise _unfit(table, f"has no column {name}", f"Rename its key column to {name}.")
        return  # the install adds it
    if column.generated:
        raise _unfit(table, f"generates {name} itself, which the mirror has to write", f"{alter} drop expression;")
    fits = column.textual if wanted is None else column.type == wanted
    if not fits and not (wanted == "text" and column.type == "character varying"):
        wanted = wanted or "text"
        cast = f"{name}::text" if wanted == "text" else f"{name}::text::{wanted}"
        raise _unfit(
            table,
            f"has {name} of type {column.type}, the source has {wanted}",
            f"{alter} type {wanted} using {cast};",
        )
    if name in table.keys and not column.notnull:
        raise _unfit(table, f"allows {name} to be null", f"{alter} set not null;")


def _check_others(table: Table, columns: dict[str, Column]) -> None:
    for name, column in columns.items():
        if column.notnull and not column.default and name not in table.columns:
            raise _unfit(
                table,
                f"has a column {name} that the mirror does not know and that must not be null",
                f"Give it a default, or: alter table public.{table.name} alter column {_quoted(name)} drop not null;",
            )


def _unfit(table: Table, what: str, cure: str) -> Incompatible:
    return Incompatible(f"target: the existing table public.{table.name} cannot be adopted: it {what}", hint=cure)


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()
