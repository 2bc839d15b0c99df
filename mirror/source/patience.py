"""Beside a busy application: short waits for locks, and an operator who is told whom we wait for.

Nothing can queue behind us for longer than LOCK_TIMEOUT_MS.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg

from mirror.errors import Refused

Say = Callable[[str], None]
Connection = psycopg.Connection[Any]

LOCK_TIMEOUT_MS = 2_000
LOCK_TRIES = 5
TURN_TIMEOUT_S = 10.0
SETTLE_TIMEOUT_S = 60.0
_WRITERS = ["RowExclusiveLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"]


# Who holds the lock of installs, and whether that role could install: only then is it one.
_INSTALLERS = """
    select l.pid, a.usesysid::regrole::text, a.application_name, pg_has_role(a.usesysid, coalesce(
             (select nspowner from pg_namespace where nspname = 'mirror'), current_user::regrole), 'member')
    from pg_locks as l join pg_stat_activity as a using (pid)
    where l.locktype = 'advisory' and l.classid = 1835627122 and l.objid = 3 and l.granted
      and l.database = (select oid from pg_database where datname = current_database())
"""


def take_turn(connection: Connection, say: Say) -> None:
    """One install or uninstall at a time; the lock ends with the session. Any role can take that lock, so one that
    could not install does not count."""
    deadline = time.monotonic() + TURN_TIMEOUT_S
    while True:
        row = connection.execute("select pg_try_advisory_lock(1835627122, 3), pg_sleep(0)").fetchone()
        if row and row[0]:
            return
        holders = connection.execute(_INSTALLERS).fetchall()
        named = ", ".join(_named(pid, role, application, None, None) for pid, role, application, _ in holders)
        if holders and not any(may_install for *_, may_install in holders):
            say(f"source: {named} holds the lock of installs and may not install: it is not waited for.")
            return
        if time.monotonic() > deadline:
            raise Refused("source", f"another install or uninstall is running: {named or 'it has just ended'}")
        connection.execute("select pg_sleep(0.1)")


def with_lock(connection: Connection, relation: str, statements: str, say: Say) -> None:
    """Runs the statements in one transaction; all of them or, when the relation stays locked, none."""
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
        f"{relation} could not be locked within {LOCK_TIMEOUT_MS / 1000:g} s, {LOCK_TRIES} times: {blockers}",
        hint="End that transaction (select pg_terminate_backend(pid)) or try again at a quieter time; "
        "nothing is half-done.",
    )


def _blockers(connection: Connection, relation: str) -> str:
    """Who holds a lock on it that keeps us out: writers before readers. Never the text of a query: it may carry
    people's data. What this role may not see of others is left out."""
    rows = connection.execute(
        "select l.pid, a.usename, a.application_name, a.state, "
        "  round(extract(epoch from clock_timestamp() - a.xact_start))::int "
        "from pg_locks l left join pg_stat_activity a using (pid) "
        "where l.relation = to_regclass(%s) and l.granted and l.pid is distinct from pg_backend_pid() "
        "order by l.mode = any(%s) desc, a.xact_start limit 5",
        [relation, _WRITERS],
    ).fetchall()
    named = [_named(*row) for row in rows]
    return ", ".join(dict.fromkeys(named)) or "a transaction that has ended since"


def _named(pid: int | None, user: str | None, application: str | None, state: str | None, age_s: int | None) -> str:
    if pid is None:
        return "a prepared transaction (see pg_prepared_xacts)"
    known = [str(part) for part in (user, application, state) if part]
    known += [f"for {age_s} s"] if age_s is not None else []
    return f"pid {pid} ({', '.join(known)})" if known else f"pid {pid}"


def settle(connection: Connection, relations: list[int], say: Say) -> None:
    """Waits for the transactions that are writing to these relations now. They may have captured with the functions of
    before; whoever takes a lock on one of them from now on has learned of the new ones. Locks nothing itself."""
    query = (
        "select array_agg(distinct virtualtransaction) from pg_locks where relation = any(%s::oid[]) and granted "
        "and database = (select oid from pg_database where datname = current_database()) "
        "and pid is distinct from pg_backend_pid() and mode = any(%s)"
    )
    row = connection.execute(query, [relations, _WRITERS]).fetchone()
    writing: set[str] = set(row[0] or ()) if row else set()
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while writing:
        if time.monotonic() > deadline:
            say(
                "source: a transaction that began before the new mapping is still open; what it changes is found by "
                "the next reconcile."
            )
            return
        connection.execute("select pg_sleep(0.05)")
        row = connection.execute(query, [relations, _WRITERS]).fetchone()
        writing &= set(row[0] or ()) if row else set()
