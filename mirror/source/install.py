"""`mirror install source` and `mirror uninstall source`: safe beside a busy application.

Looks at the catalog first and touches nothing that is already right. Functions and the outbox are ours and lock nothing
of the application's; only missing or wrong triggers need a lock on its tables, each table in its own short transaction
with a lock time-out, so that nothing can queue behind us for longer than that. Interrupted anywhere, the next run
completes it: whatever is not in the catalog is made, and what that makes dirty is marked in the same transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row

from mirror.errors import ConfigError, Refused
from mirror.mapping import Mapping
from mirror.render import digest, template
from mirror.source import capture
from mirror.source.dirty import together
from mirror.source.patience import Connection, Say, settle, take_turn, with_lock
from mirror.source.projection import Source, look
from mirror.source.triggers import strays, trigger_faults
from mirror.tables import MEMBERSHIPS, TABLES, TRIPS, Table
from mirror.translation import translated

LOOK_LOCK_TIMEOUT_MS = 5_000
ANEW = "Make it anew: `mirror uninstall source`, then `mirror install source`; the daemon then compares all tables."
_COLUMNS = "version, incarnation, mapping, rendered, fingerprint, unsettled"
# What an uninstall has to own and this role does not: the schema, and each table that has triggers of ours.
_NOT_MINE = """
    select distinct what, owner::regrole::text from (
      select 'schema mirror', nspowner from pg_namespace where nspname = 'mirror'
      union all
      select 'table ' || c.oid::regclass, c.relowner
      from pg_trigger as t join pg_proc as p on p.oid = t.tgfoid join pg_class as c on c.oid = t.tgrelid
      where p.pronamespace = to_regnamespace('mirror') and not t.tgisinternal) as w(what, owner)
    where not pg_has_role(owner, 'usage') order by 1"""


def script(connection: Connection, mapping: Mapping) -> str:
    """All of it as SQL, for people who run SQL themselves (psql -v ON_ERROR_STOP=1)."""
    with translated("source"):
        source = look(connection, mapping)
        after = _metadata(mapping, source)
        parts = ["begin;", capture.functions_sql(source), _metadata_sql(connection, after, source, []), "commit;"]
        leave = [drops for _, drops in strays(connection, source).items()]
    patience = "set local lock_timeout = '2s';"
    for drops in leave:
        parts += ["begin;", patience, drops, "commit;"]
    for table in TABLES:
        parts += ["begin;", patience, capture.triggers_sql(source, table), mark_sql(table), "commit;"]
    parts.append(template("source/former.sql"))
    return "\n".join(parts)


def install(connection: Connection, mapping: Mapping, say: Say) -> None:
    with translated("source"):
        _prepare(connection, say)
        row = connection.execute("select pg_is_in_recovery()").fetchone()
        if row and row[0]:
            raise ConfigError("MIRROR_SOURCE_URL is a read replica", hint="Use the primary: triggers live there.")
        source = look(connection, mapping)
        changed = _install_functions(connection, mapping, source, say)
        for relation, drops in strays(connection, source).items():
            with_lock(connection, relation, drops, say)
            say(f"source: triggers on {relation}, which is not mapped any more, are gone.")
        for table in TABLES:
            if trigger_faults(connection, source, table):
                _install_triggers(connection, source, table, say)
                changed.add(table)
        _drop_former(connection, source, say)
        _conclude(connection, changed, say)


def uninstall(connection: Connection, say: Say) -> None:
    """Leaves nothing behind. Triggers go first, table by table, each with the same patience as at install."""
    with translated("source"):
        _prepare(connection, say)
        _refuse_foreign(connection)
        for relation, drops in strays(connection, None).items():
            with_lock(connection, relation, drops, say)
        with_lock(connection, "mirror.outbox", template("source/uninstall.sql"), say)
        say("source: uninstalled.")


def _refuse_foreign(connection: Connection) -> None:
    """Before the first trigger goes: else the rest would stay, and nothing be captured."""
    found = connection.execute(_NOT_MINE).fetchall()
    if found:
        owned = ", ".join(f"{what} ({owner})" for what, owner in found)
        hint = f"Run it as a member of {' and '.join(sorted({owner for _, owner in found}))}, or as an administrator."
        raise Refused("source", f"this role does not own {owned}; nothing was changed", hint=hint)


def read_install(connection: Connection) -> dict[str, Any] | None:
    """The metadata row, or None where the mirror is not installed."""
    row = connection.execute("select to_regclass('mirror.install') is not null").fetchone()
    if not (row and row[0]):
        return None
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(f"select {_COLUMNS} from mirror.install").fetchone()  # noqa: S608 - our own list


def mark_sql(table: Table) -> str:
    """The mark of a whole table, in the transaction that makes it necessary: a crash cannot come between. The
    visibility of memberships depends on the trips."""
    return f"select mirror.mark_tables({together(table)});\n"


def _prepare(connection: Connection, say: Say) -> None:
    connection.execute(f"set lock_timeout = {LOOK_LOCK_TIMEOUT_MS}; set client_min_messages = warning")
    connection.add_notice_handler(lambda notice: say(f"source: {notice.message_primary}"))
    take_turn(connection, say)


def _install_functions(connection: Connection, mapping: Mapping, source: Source, say: Say) -> set[Table]:
    """Replaces the functions where they differ; returns the tables that must be loaded (again) because of it."""
    with _ours():
        before = read_install(connection)
    if before and before["version"] > capture.VERSION:
        raise ConfigError(
            f"the source was installed by a newer mirror (schema {before['version']}, this is {capture.VERSION})",
            hint="Use that version, or uninstall first.",
        )
    remapped: set[Table] = set()
    unsettled = set(before["unsettled"]) if before else set()
    is_same = before is not None and before["rendered"] == _digest(source)
    is_intact = before is not None and _is_intact(connection, before)
    if not (is_same and is_intact and _grants_are_right(connection, source)):
        after = _metadata(mapping, source)
        remapped = {table for table in TABLES if not before or _meant(before["mapping"], table) != _meant(after, table)}
        if is_same and not is_intact:  # changed by others, it may have missed what was written since
            remapped = set(TABLES)
        unsettled |= {table.name for table in remapped} if before else set()
        marks = "".join(mark_sql(table) for table in TABLES if table in remapped)
        with _ours(), connection.transaction():
            connection.execute("set local check_function_bodies = off")
            connection.execute(capture.functions_sql(source))
            connection.execute(_metadata_sql(connection, after, source, sorted(unsettled)))
            connection.execute(marks)
        say("source: schema mirror is up to date.")
    if unsettled:
        _settle(connection, source, unsettled, say)
    return remapped


def _settle(connection: Connection, source: Source, names: set[str], say: Say) -> None:
    """A transaction that is still writing may have captured with the old mapping, and a load that reads before it
    commits would miss what only the new one sees: so the marks are set once more when those have ended. Until then the
    metadata say so, for a next run when this one does not live to see it."""
    tables = [table for table in TABLES if table.name in names]
    settle(connection, [source.of(table).origin.oid for table in tables], say)
    with connection.transaction():
        connection.execute("".join(mark_sql(table) for table in tables))
        connection.execute("update mirror.install set unsettled = '{}'")


def _drop_former(connection: Connection, source: Source, say: Say) -> None:
    """A trigger function of before may be running, and would fail the application's statement without it."""
    row = connection.execute(
        "select exists (select from pg_proc where pronamespace = to_regnamespace('mirror') and proname = 'mark')"
    ).fetchone()
    if row and row[0]:
        settle(connection, [source.of(table).origin.oid for table in TABLES], say)
        connection.execute(template("source/former.sql"))


def _install_triggers(connection: Connection, source: Source, table: Table, say: Say) -> None:
    relation = source.of(table).origin
    try:
        with_lock(connection, relation.sql, capture.triggers_sql(source, table) + mark_sql(table), say)
    except psycopg.errors.DuplicateObject as error:  # a constraint trigger of that name, which is not ours to drop
        hint = "Rename it, or drop it, then run `mirror install source` again."
        raise Refused("source", str(error.diag.message_primary), hint=hint) from error
    say(f"source: triggers on {relation.sql} are in place.")
    if relation.has_children:
        say(
            f"source: a statement that names a partition of {relation.sql} directly fires no trigger; what it changes "
            "is found by the next reconcile."
        )


def _conclude(connection: Connection, changed: set[Table], say: Say) -> None:
    if not changed:
        say("source: everything is in place already.")
        return
    row = connection.execute(
        "select string_agg(quote_ident(pubname), ', ') from pg_publication where puballtables"
    ).fetchone()
    if row and row[0]:
        say(f"source: publication {row[0]} is FOR ALL TABLES: its subscribers need the tables of schema mirror, too.")
    names = [t.name for t in TABLES if t in changed or (t is MEMBERSHIPS and TRIPS in changed)]
    say(f"source: installed; the daemon will load {', '.join(names)}.")


def _metadata(mapping: Mapping, source: Source) -> dict[str, Any]:
    return {"mapping": mapping.source_part(), "types": source.types}


def _meant(metadata: dict[str, Any], table: Table) -> Any:
    """What of the metadata decides which keys and rows this table has."""
    columns = {"id": "user_id" if table.name == "users" else "trip_id"}
    types = {key: metadata["types"][columns.get(key, key)] for key in table.keys}
    return metadata["mapping"][table.name], types, table is TRIPS and metadata["types"]["created_by"]


def _metadata_sql(connection: Connection, metadata: dict[str, Any], source: Source, unsettled: list[str]) -> str:
    return psycopg.ClientCursor(connection).mogrify(
        "insert into mirror.install (version, mapping, rendered, unsettled, fingerprint) "  # noqa: S608 - our own file
        f"values (%s, %s::jsonb, %s, %s::text[], ({capture.fingerprint_sql()})) on conflict (one) do update set "
        "version = excluded.version, mapping = excluded.mapping, rendered = excluded.rendered, "
        "unsettled = excluded.unsettled, fingerprint = excluded.fingerprint, installed_at = now();",
        [capture.VERSION, json.dumps(metadata), _digest(source), unsettled],
    )


def _digest(source: Source) -> str:
    return digest(capture.functions_sql(source))


def _is_intact(connection: Connection, before: dict[str, Any]) -> bool:
    """The catalog is as the install left it."""
    row = connection.execute(capture.fingerprint_sql()).fetchone()
    return bool(row and row[0] == before["fingerprint"])


@contextmanager
def _ours() -> Iterator[None]:
    """What cannot be put right in place (a view where our table was, a column that is gone) can be made anew."""
    try:
        yield
    except psycopg.Error as error:
        state = error.sqlstate or ""
        if state == "42501" or state[:2] not in ("42", "23", "22", "0A", "2B", "55") or state == "55P03":
            raise
        said = error.diag.message_primary
        raise Refused("source", f"schema mirror is not as the mirror made it: {said}", hint=ANEW) from error


def _grants_are_right(connection: Connection, source: Source) -> bool:
    """Exactly the mapped columns: rights go with a table that is dropped and made again. Without the role there is
    nothing to grant, if we could not make it anyway."""
    row = connection.execute(
        "select to_regrole('mirror_daemon') is not null, rolsuper or rolcreaterole from pg_roles "
        "where rolname = current_user"
    ).fetchone()
    if row and not row[0]:
        return not row[1]
    wanted = {(source.of(table).origin.oid, column) for table in TABLES for column in source.of(table).columns}
    rows = connection.execute(
        "select a.attrelid, a.attname from pg_attribute a, aclexplode(a.attacl) g "
        "where g.grantee = 'mirror_daemon'::regrole and g.privilege_type = 'SELECT' and not a.attisdropped"
    )
    usage = connection.execute(
        "select bool_and(has_schema_privilege('mirror_daemon', s, 'usage')) from unnest(%s::text[]) s",
        [["mirror", *(source.of(table).schema for table in TABLES)]],
    ).fetchone()
    return {(oid, name) for oid, name in rows} == wanted and bool(usage and usage[0])
