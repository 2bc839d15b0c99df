"""`mirror install source` and `mirror uninstall source`: safe beside a busy application.

Looks at the catalog first and touches nothing that is already right. Functions and the outbox are ours and lock nothing
of the application's; only missing or wrong triggers need a lock on its tables, each table in its own short transaction
with a lock time-out, so that nothing can queue behind us for longer than that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import psycopg

from mirror.config import Mapping
from mirror.errors import ConfigError, Refused
from mirror.postgres import translated
from mirror.render import digest, template
from mirror.source import capture
from mirror.source.projection import Source, look
from mirror.tables import MEMBERSHIPS, TABLES, TRIPS, Table

Say = Callable[[str], None]
Connection = psycopg.Connection[Any]

LOCK_TIMEOUT_MS = 2_000
LOCK_TRIES = 5
SETTLE_TIMEOUT_S = 60.0
_INSTALL_LOCK = "select pg_advisory_lock(1835627122, 3)"


def script(connection: Connection, mapping: Mapping) -> str:
    """All of it as SQL, for people who run SQL themselves."""
    source = look(connection, mapping)
    parts = ["begin;", capture.functions_sql(source), _metadata_sql(connection, mapping, source), "commit;"]
    for table in TABLES:
        parts += ["begin;", f"set local lock_timeout = '{LOCK_TIMEOUT_MS}ms';"]
        parts += [capture.triggers_sql(source, table), mark_sql(table), "commit;"]
    return "\n".join(parts)


def install(connection: Connection, mapping: Mapping, say: Say) -> None:
    with translated("source"):
        connection.execute("set lock_timeout = 0")
        connection.execute(_INSTALL_LOCK)
        _refuse_replica(connection)
        source = look(connection, mapping)
        before = _installed(connection)
        changed = _install_functions(connection, mapping, source, before, say)
        for table in TABLES:
            if _triggers_are_right(connection, source, table):
                continue
            _install_triggers(connection, source, table, say)
            changed.add(table)
        if changed:
            names = [t.name for t in TABLES if t in changed or (t is MEMBERSHIPS and TRIPS in changed)]
            say(f"source: installed; the daemon will load {', '.join(names)}.")
        else:
            say("source: everything is in place already.")


def uninstall(connection: Connection, say: Say) -> None:
    """Leaves nothing behind. Triggers go first, table by table, each with the same patience as at install."""
    with translated("source"):
        connection.execute(_INSTALL_LOCK)
        rows = connection.execute(
            "select tgrelid::regclass::text, array_agg(quote_ident(tgname)) "
            "from pg_trigger t join pg_proc p on p.oid = t.tgfoid "
            "where p.pronamespace = to_regnamespace('mirror') and not tgisinternal group by tgrelid"
        ).fetchall()
        for relation, triggers in rows:
            drops = "; ".join(f"drop trigger {name} on {relation}" for name in triggers)
            _with_lock(connection, relation, drops, say)
        connection.execute(template("source/uninstall.sql"))
        say("source: uninstalled.")


def read_install(connection: Connection) -> dict[str, Any] | None:
    """The metadata row, or None where the mirror is not installed."""
    return _installed(connection)


def _refuse_replica(connection: Connection) -> None:
    row = connection.execute("select pg_is_in_recovery()").fetchone()
    if row and row[0]:
        raise ConfigError("MIRROR_SOURCE_URL is a read replica", hint="Use the primary: triggers live there.")


def _installed(connection: Connection) -> dict[str, Any] | None:
    row = connection.execute("select to_regclass('mirror.install') is not null").fetchone()
    if not (row and row[0]):
        return None
    found = connection.execute("select version, incarnation, mapping, rendered from mirror.install").fetchone()
    return dict(zip(("version", "incarnation", "mapping", "rendered"), found, strict=True)) if found else None


def _metadata(mapping: Mapping, source: Source) -> dict[str, Any]:
    return {"mapping": mapping.source_part(), "types": source.types}


def _metadata_sql(connection: Connection, mapping: Mapping, source: Source) -> str:
    cursor = psycopg.ClientCursor(connection)
    return cursor.mogrify(
        "insert into mirror.install (version, mapping, rendered) values (%s, %s::jsonb, %s) "
        "on conflict (one) do update set version = excluded.version, mapping = excluded.mapping, "
        "rendered = excluded.rendered, installed_at = now();",
        [capture.VERSION, json.dumps(_metadata(mapping, source)), _digest(source)],
    )


def _digest(source: Source) -> str:
    return digest(capture.functions_sql(source))


def _install_functions(
    connection: Connection, mapping: Mapping, source: Source, before: dict[str, Any] | None, say: Say
) -> set[Table]:
    """Replaces the functions where they differ; returns the tables that must be loaded (again) because of it."""
    if before and before["version"] > capture.VERSION:
        raise ConfigError(
            f"the source was installed by a newer mirror: schema {before['version']}, this one knows {capture.VERSION}",
            hint="Use that version, or uninstall first.",
        )
    if before and before["rendered"] == _digest(source) and _functions_are_there(connection):
        return set()
    after = _metadata(mapping, source)["mapping"]
    old = before["mapping"]["mapping"] if before else {}
    remapped = {table for table in TABLES if old.get(table.name) != after[table.name]}
    marks = "".join(mark_sql(table) for table in TABLES if table in remapped)
    with connection.transaction():
        connection.execute("set local check_function_bodies = off")
        connection.execute(capture.functions_sql(source))
        connection.execute(_metadata_sql(connection, mapping, source))
        connection.execute(marks)
        row = connection.execute("select pg_current_xact_id()::text").fetchone()
    say("source: schema mirror is up to date.")
    if before and remapped and row:
        _wait_for_older_writers(connection, str(row[0]), say)
        connection.execute(marks)
    return remapped


def mark_sql(table: Table) -> str:
    """The mark of a whole table, in the transaction that makes it necessary: a crash cannot come between. The
    visibility of memberships depends on the trips."""
    moved = "array[null]" if table is TRIPS else "null"
    return f"select mirror.mark('{table.name}', array[null], array[null], {moved});\n"


def _wait_for_older_writers(connection: Connection, xid: str, say: Say) -> None:
    """A transaction that is still running may have captured with the old mapping; a load that read before it committed
    would miss what only the new one sees. So the marks wait for it, without locking anything."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while time.monotonic() < deadline:
        row = connection.execute(
            "select pg_snapshot_xmin(pg_current_snapshot()) > %s::xid8, pg_sleep(0.05)", [xid]
        ).fetchone()
        if row and row[0]:
            return
    say(
        "source: a transaction older than the new mapping is still open; what it changes under the old mapping is "
        "found by the next reconcile."
    )


def _functions_are_there(connection: Connection) -> bool:
    wanted = [
        f"{t.name}_{e}" for t in TABLES for e in (*capture.EVENTS, "truncate", "keys", "slice", "gone", "possible")
    ]
    wanted += [
        "drain",
        "look",
        "take",
        "mark",
        "rings",
        "token",
        "identity",
        "tidy",
        "read_entries",
        "trip_memberships_of",
    ]
    row = connection.execute(
        "select count(distinct proname) from pg_proc "
        "where pronamespace = to_regnamespace('mirror') and proname = any(%s)",
        [wanted],
    ).fetchone()
    tables = connection.execute(
        "select count(*) from pg_class where oid in (to_regclass('mirror.outbox'), to_regclass('mirror.outbox_twin'))"
    ).fetchone()
    return bool(row and tables and row[0] == len(wanted) and tables[0] == 2)


_TYPES = {"insert": 4, "delete": 8, "update": 16, "truncate": 32}  # pg_trigger.tgtype of AFTER ... STATEMENT triggers


def trigger_faults(connection: Connection, source: Source, table: Table) -> list[str]:
    """What is wrong with the triggers of one table, in words."""
    rows = connection.execute(
        "select tgname, tgenabled, tgtype, p.proname, coalesce(tgoldtable, ''), coalesce(tgnewtable, '') "
        "from pg_trigger t join pg_proc p on p.oid = t.tgfoid "
        "where tgrelid = %s::regclass and p.pronamespace = to_regnamespace('mirror')",
        [source.of(table).relation],
    ).fetchall()
    found = {name: (enabled, kind, function, old, new) for name, enabled, kind, function, old, new in rows}
    faults = []
    for event, kind in _TYPES.items():
        old = "old_rows" if event in ("update", "delete") else ""
        new = "new_rows" if event in ("update", "insert") else ""
        have = found.get(f"mirror_{event}")
        if have is None:
            faults.append(f"no trigger mirror_{event} on {table.name}")
        elif have[1:] != (kind, f"{table.name}_{event}", old, new):
            faults.append(f"trigger mirror_{event} on {table.name} is not ours")
        elif have[0] not in ("A", b"A"):
            faults.append(f"trigger mirror_{event} on {table.name} is not enabled always")
    return faults


def _triggers_are_right(connection: Connection, source: Source, table: Table) -> bool:
    return not trigger_faults(connection, source, table)


def _install_triggers(connection: Connection, source: Source, table: Table, say: Say) -> None:
    statements = capture.triggers_sql(source, table) + mark_sql(table)
    _with_lock(connection, source.of(table).relation, statements, say)
    say(f"source: triggers on {source.of(table).relation} are in place.")


def _with_lock(connection: Connection, relation: str, statements: str, say: Say) -> None:
    blockers = ""
    for _ in range(LOCK_TRIES):
        try:
            with connection.transaction():
                connection.execute(f"set local lock_timeout = {LOCK_TIMEOUT_MS}")
                connection.execute(statements)
                return
        except psycopg.errors.LockNotAvailable:
            blockers = _blockers(connection, relation)
            say(f"source: {relation} is in use by {blockers}; trying again.")
        connection.execute("select pg_sleep(0.5)")  # let those who queued behind us through
    raise Refused(
        "source",
        f"{relation} could not be locked within {LOCK_TIMEOUT_MS // 1000} s, {LOCK_TRIES} times: {blockers}",
        hint="End that transaction (select pg_terminate_backend(pid)), or come back later; nothing is half-done.",
    )


def _blockers(connection: Connection, relation: str) -> str:
    """Who holds a lock on it. Never the text of a query: it may carry people's data."""
    rows: Iterable[tuple[Any, ...]] = connection.execute(
        "select a.pid, a.usename, a.application_name, a.state, round(extract(epoch from now() - a.xact_start))::int "
        "from pg_locks l join pg_stat_activity a using (pid) "
        "where l.relation = %s::regclass and l.granted and a.pid <> pg_backend_pid() order by a.xact_start limit 5",
        [relation],
    ).fetchall()
    named = [f"pid {pid} ({user}, {app or 'no name'}, {state}, for {age} s)" for pid, user, app, state, age in rows]
    return ", ".join(named) or "a transaction that has ended since"
