"""`mirror install target`: looks first, adopts what fits, refuses with the reason what does not, never drops a row."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg

from mirror.config import Mapping
from mirror.errors import ConfigError, Incompatible
from mirror.postgres import translated
from mirror.render import digest, render, template
from mirror.tables import TABLES, Table

Say = Callable[[str], None]
Connection = psycopg.Connection[Any]
Types = dict[str, str]

VERSION = 1
_TEXTUAL = ("text", "character varying", "character", "citext")


def schema_sql(types: Types, *, subject_is_id: bool) -> str:
    places = dict(types)
    for name, column, kind in (
        ("user_c", "t.id", "user_id"),
        ("trip_c", "t.id", "trip_id"),
        ("member_trip_c", "t.trip_id", "trip_id"),
        ("member_user_c", "t.user_id", "user_id"),
    ):
        places[name] = f'{column} collate "C"' if types[kind] == "text" else column
    order = {name: places[name].replace("t.", "", 1) for name in places if name.endswith("_c")}
    places["user_order"], places["trip_order"] = order["user_c"], order["trip_c"]
    places["member_order"] = f"{order['member_trip_c']}, {order['member_user_c']}"
    by_subject = "m.user_id in (select u.id from public.users as u where u.subject = mirror.caller())"
    places["is_caller"] = "m.user_id::text = mirror.caller()" if subject_is_id else by_subject
    files = ("base", "tables", "write", "api", "grants")
    return "\n".join(render(f"target/{name}.sql", places) for name in files)


def script(types: Types, mapping: Mapping) -> str:
    """The whole of it as one migration."""
    sql = _schema(types, mapping)
    allow = ", ".join("'" + name.replace("'", "''") + "'" for name in mapping.target.allow_cascade)
    state = (
        "insert into mirror.state (version, rendered, types, allow_cascade) values "
        f"({VERSION}, '{digest(sql)}', '{json.dumps(types, sort_keys=True)}', array[{allow}]::text[]) "
        "on conflict (one) do update set version = excluded.version, rendered = excluded.rendered, "
        "types = excluded.types, allow_cascade = excluded.allow_cascade;"
    )
    return f"begin;\nset local check_function_bodies = off;\n{sql}\n{state}\ncommit;"


def install(connection: Connection, types: Types, mapping: Mapping, say: Say) -> None:
    with translated("target"):
        if _is_right(connection, types, mapping):
            say("target: everything is in place already.")
        else:
            for table in TABLES:
                _check(connection, table, types)
            connection.execute("set lock_timeout = '5s'")
            connection.execute(script(types, mapping))
            say("target: tables, state and functions are in place.")
        reasons = [reason for (reason,) in connection.execute("select mirror.obstacles()")]
    if reasons:
        raise Incompatible("; ".join(reasons))


def uninstall(connection: Connection, say: Say) -> None:
    """Takes the mirror's functions and state away. The three tables stay: chat may reference them, and an adopted table
    was never ours."""
    with translated("target"):
        connection.execute(template("target/uninstall.sql"))
    say("target: functions and state are gone; the tables users, trips and trip_memberships stay, with their rows.")


def _schema(types: Types, mapping: Mapping) -> str:
    return schema_sql(types, subject_is_id=mapping.users.subject is None)


def _is_right(connection: Connection, types: Types, mapping: Mapping) -> bool:
    row = connection.execute("select to_regclass('mirror.state') is not null").fetchone()
    if not (row and row[0]):
        return False
    state = connection.execute("select version, rendered, allow_cascade from mirror.state").fetchone()
    if state is None:
        return False
    if state[0] > VERSION:
        raise ConfigError("the target was installed by a newer mirror", hint="Use that version.")
    there = connection.execute(
        "select count(*) from pg_proc where proname in ('mirror_claim', 'mirror_apply', 'mirror_status')"
    ).fetchone()
    tables = connection.execute(
        "select count(*) from pg_class where oid in (to_regclass('public.users'), to_regclass('public.trips'), "
        "to_regclass('public.trip_memberships')) and relrowsecurity"
    ).fetchone()
    wanted = (digest(_schema(types, mapping)), list(mapping.target.allow_cascade))
    return (
        (state[1], state[2]) == wanted and there is not None and there[0] == 3 and tables is not None and tables[0] == 3
    )


def _check(connection: Connection, table: Table, types: Types) -> None:
    """Is there a table of this name already, and could the mirror live in it?"""
    found = connection.execute(
        "select c.oid, c.relkind, pg_has_role(c.relowner, 'usage') from pg_class c where c.oid = to_regclass(%s)",
        [f"public.{table.name}"],
    ).fetchone()
    if found is None:
        return
    oid, kind, ours = found
    if kind not in ("r", "p"):
        raise _incompatible(table, "is not a table", "Rename it, or move it to another schema.")
    if not ours:
        raise _incompatible(table, "belongs to another role", f"alter table public.{table.name} owner to current_user;")
    columns = {
        name: (kind, notnull, default, generated)
        for name, kind, notnull, default, generated in connection.execute(
            "select attname, format_type(atttypid, null), attnotnull, "
            "       atthasdef or attidentity <> '', attgenerated <> '' "
            "from pg_attribute where attrelid = %s and attnum > 0 and not attisdropped",
            [oid],
        )
    }
    _check_columns(table, types, columns)
    unique = connection.execute(
        "select 1 from pg_index i where i.indrelid = %s and i.indisunique and i.indisvalid and i.indpred is null "
        "and i.indexprs is null and (select array_agg(a.attname::text order by 1) from pg_attribute a "
        "where a.attrelid = i.indrelid and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1])) = %s::text[]",
        [oid, sorted(table.keys)],
    ).fetchone()
    if unique is None:
        keys = ", ".join(table.keys)
        raise _incompatible(
            table, f"has no unique key on ({keys})", f"alter table public.{table.name} add unique ({keys});"
        )


def _check_columns(table: Table, types: Types, columns: dict[str, tuple[str, bool, bool, bool]]) -> None:
    kinds = {"trip_id": types["trip_id"], "user_id": types["user_id"], "created_by": types["created_by"]}
    kinds["id"] = types["user_id"] if table.name == "users" else types["trip_id"]
    for name in table.columns:
        if name not in columns:
            if name in table.keys:
                raise _incompatible(table, f"has no column {name}", f"Rename its key column to {name}.")
            continue
        found, _, _, generated = columns[name]
        wanted = kinds.get(name, "text")
        if generated:
            raise _incompatible(table, f"has a generated column {name}", "The mirror has to write it.")
        if found != wanted and not (wanted == "text" and found in _TEXTUAL):
            cure = f"alter table public.{table.name} alter column {name} type {wanted} using {name}::{wanted};"
            raise _incompatible(table, f"has {name} of type {found}, the source has {wanted}", cure)
    for name, (_, notnull, default, _) in columns.items():
        if notnull and not default and name not in table.columns:
            cure = f"alter table public.{table.name} alter column {name} drop not null;"
            raise _incompatible(table, f"has a column {name} that the mirror does not know and may not be null", cure)


def _incompatible(table: Table, what: str, cure: str) -> Incompatible:
    return Incompatible(f"target: the existing table public.{table.name} cannot be adopted: it {what}", hint=cure)
