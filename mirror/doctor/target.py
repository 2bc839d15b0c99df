"""Supabase's side: the address, then the queries of schema/target/doctor*.sql, and a plan of every query that policies
could make fail. Through HTTPS only, what that way can tell (mirror/doctor/https.py)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from mirror.config import Settings
from mirror.doctor import address, holes, key
from mirror.doctor.catalog import Connection, ask, checks, rolled_back
from mirror.doctor.clock import skew
from mirror.doctor.finding import Finding, Verdict
from mirror.doctor.strangers import may_be
from mirror.errors import ConfigError, MirrorError, Refused, Unreachable
from mirror.https import Https
from mirror.mapping import Mapping
from mirror.postgres import connect_blocking
from mirror.render import digest, template
from mirror.target.access import is_active_status
from mirror.target.install import VERSION, schema_sql
from mirror.target.topics import CURE, ambiguity
from mirror.translation import translate, translated

INSTALL = "Run `mirror install target`."
TABLES_MAX = 30
FEW = 10  # memberships without a user: deleted and banned ones keep some for a while
_POLICED = """
select distinct c.oid::regclass::text from p join pg_class as c on c.oid = to_regclass(p.relation)
where c.relrowsecurity order by 1 limit %s"""
_FOREIGN = """
select exists (select from (select subject from public.users limit 10000) as u
               where u.subject !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')"""


def examine(settings: Settings, mapping: Mapping, notes: dict[str, Any]) -> Iterator[Finding]:
    try:
        way = settings.target_way()
    except ConfigError as error:
        yield _said("settings", "error", error.message, error.hint)
        return
    if isinstance(way, Https):
        from mirror.doctor import https  # noqa: PLC0415 - a third of a second, for those who go this way

        yield from key.examine(way)
        yield from https.examine(way, notes)
    else:
        yield from _direct(way, mapping, notes)
    if "target types" in notes:
        yield _topics(mapping, notes["target types"])


def _topics(mapping: Mapping, types: dict[str, str]) -> Finding:
    """A project may have been installed by a mirror that did not look yet."""
    found = ambiguity(mapping.access, types["trip_id"])
    if found is None:
        return _said("topics", "ok", "each topic means one trip, or one user")
    return _said("topics", "error", str(found), f"{CURE} Then: mirror install target.")


def _direct(url: str, mapping: Mapping, notes: dict[str, Any]) -> Iterator[Finding]:
    try:
        yield from address.unverified(url, "target")
        yield from address.ipv6_only(url)
        with connect_blocking(url, "target") as connection, translated("target"):
            yield from _connected(connection, mapping, notes)
    except Unreachable as error:
        yield _said("connection", "unknown", error.message, error.hint or address.cure(url, "target"))
    except MirrorError as error:
        own = isinstance(error, Refused) and error.sqlstate == "42501"  # the daemon calls functions and needs no more
        sentence = f"{error.message}; what comes after that was not asked"
        yield _said("connection", "unknown" if own else "error", sentence, error.hint)


def _connected(connection: Connection, mapping: Mapping, notes: dict[str, Any]) -> Iterator[Finding]:
    yield skew(connection, "target")
    foreign = _has_foreign_subjects(connection)
    places = {
        "policies": template("target/doctor_policies.sql"),
        "foreign_subjects": str(foreign).lower(),
        "status_filtered": str("status" in mapping.trip_memberships.where).lower(),
        "let_send": str(bool(mapping.access.send)).lower(),
    }
    for check in checks("target/doctor.sql", places):
        yield from ask(connection, "target", check)
    yield from _recursion(connection, places["policies"])
    if not _one(connection, "select to_regclass('mirror.state') is not null"):
        yield _said("installed", "error", "the mirror is not installed here", INSTALL)
        return
    places = {
        "is_active": is_active_status("status", mapping.access),
        "needs_user": str(not mapping.access.members_without_user).lower(),
        "few": str(FEW),
    }
    for check in checks("target/doctor_installed.sql", places):
        yield from ask(connection, "target", check)
    yield from holes.examine(connection, mapping, has_foreign_subjects=foreign)
    yield from _state(connection, mapping, notes)


def _one(connection: Connection, query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def _has_foreign_subjects(connection: Connection) -> bool:
    """Subjects of identity providers that do not use uuids."""
    asked = "select count(*) from pg_attribute where attrelid = to_regclass('public.users') and attname = 'subject'"
    return bool(_one(connection, asked)) and bool(_one(connection, _FOREIGN))


def _recursion(connection: Connection, policies: str) -> Iterator[Finding]:
    """Planned, not executed, as the role of the API: that is when PostgreSQL finds policies that lead back to
    themselves."""
    if not may_be(connection, "authenticated"):
        return
    with connection.transaction():
        tables = [name for (name,) in connection.execute((policies + _POLICED % TABLES_MAX).encode())]
    found = [finding for table in tables for finding in _planned(connection, table)]
    yield from found
    if not found:
        yield _said("policy recursion", "ok", "no policy leads back to its own table")


def _planned(connection: Connection, table: str) -> Iterator[Finding]:
    try:
        with rolled_back(connection, 5.0):
            connection.execute("set local role authenticated")
            connection.execute(f"explain select from {table}".encode())
    except psycopg.errors.InvalidObjectDefinition as error:
        sentence = f"every query of {table} fails: {error.diag.message_primary}"
        cure = "Let its policies ask a function instead of the table: public.is_trip_member(trip_id)."
        yield _said("policy recursion", "error", sentence, cure)
    except psycopg.errors.InsufficientPrivilege:
        return
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise
        reason = translate(error, "target").message.removeprefix("target: ")
        yield _said("policy recursion", "warning", f"{table} cannot be queried by authenticated: {reason}")


def _state(connection: Connection, mapping: Mapping, notes: dict[str, Any]) -> Iterator[Finding]:
    asked = (
        "select version, rendered, sealed, types, allow_cascade, source, snapshot, position_life, "
        "primed_at is not null from mirror.state"
    )
    row = connection.execute(asked).fetchone()
    if row is None:
        yield _said("installed", "error", "an install did not end", INSTALL)
        return
    version, rendered, sealed, types, allowed, source, snapshot, life, primed = row
    notes |= {"target types": types, "known": source, "snapshot": snapshot, "position life": life}
    if version != VERSION:
        yield _said("installed", "error", f"its schema is version {version}, this mirror is {VERSION}", INSTALL)
    elif allowed != list(mapping.target.allow_cascade):
        yield _said("installed", "warning", "[target] allow_cascade in mirror.toml was changed since", INSTALL)
    elif rendered != digest(schema_sql(types, mapping)):
        yield _said("installed", "warning", "its functions are of another release, or of another mapping", INSTALL)
    elif _one(connection, "select mirror.fingerprint()") != sealed:
        yield _said("installed", "error", "somebody has changed what the mirror made here", INSTALL)
    else:
        yield _said("installed", "ok", f"version {version}, as the mirror left it")
    if not primed:
        yield _said("loaded", "warning", "the first load is not complete", "Start the daemon: mirror run")


def _said(check: str, verdict: Verdict, sentence: str, cure: str = "") -> Finding:
    return Finding("target", check, verdict, sentence, cure)
