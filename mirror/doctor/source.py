"""The primary's side: the address and the doorbell first (behind a pooler nothing else may be said to it), then what
the mapping finds, then the queries of schema/source/doctor*.sql."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg

from mirror.config import Settings
from mirror.doctor import address
from mirror.doctor.catalog import Connection, ask, checks, values
from mirror.doctor.clock import skew
from mirror.doctor.finding import Finding, Verdict
from mirror.errors import ConfigError, MirrorError, Refused, Unreachable
from mirror.mapping import Mapping
from mirror.postgres import connect_blocking, refuse_pooled_host
from mirror.render import digest
from mirror.source import capture
from mirror.source.doorbell import Doorbell
from mirror.source.install import read_install
from mirror.source.projection import Source, look
from mirror.source.triggers import strays, trigger_faults
from mirror.tables import TABLES
from mirror.translation import translated

INSTALL = "Run `mirror install source`."
LIMITS = {
    "long_seconds": "300",
    "long_transactions": "100000",
    "waits_seconds": "60",
    "outbox_bytes": "100000000",
    "queue_share": "0.5",
}
_RELATION = """
    select coalesce(to_regclass(%(r)s),
                    case when cardinality(parse_ident(%(r)s)) = 1 then to_regclass('public.' || %(r)s) end)::oid"""


def examine(settings: Settings, mapping: Mapping, notes: dict[str, Any]) -> Iterator[Finding]:
    """`notes`: what the two sides must agree on, for whoever sees both."""
    try:
        url = settings.source()
        refuse_pooled_host(url)
        yield from address.unverified(url, "source")
        yield from address.neon(url, settings)
        asyncio.run(Doorbell(url, asyncio.Event()).check())
        yield _said("doorbell", "ok", "a NOTIFY sent through one connection arrives at another")
        with connect_blocking(url, "source") as connection, translated("source"):
            yield from _connected(connection, mapping, notes)
    except Unreachable as error:
        yield _said("connection", "unknown", error.message, error.hint or address.cure(url, "source"))
    except MirrorError as error:
        yield _said("connection", "error", f"{error.message}; what comes after that was not asked", error.hint)


def _connected(connection: Connection, mapping: Mapping, notes: dict[str, Any]) -> Iterator[Finding]:
    yield skew(connection, "source")
    source, finding = _projected(connection, mapping)
    yield finding
    places = LIMITS | {
        "relations": values(_relations(connection, mapping), ("text", "oid", "text")),
        "columns": values(_columns(source), ("oid", "name")),
    }
    for check in checks("source/doctor.sql", places):
        yield from ask(connection, "source", check)
    yield from _installed(connection, mapping, source, places, notes)


def _relations(connection: Connection, mapping: Mapping) -> Iterator[tuple[str, int | None, str]]:
    for table in TABLES:
        row = None
        with suppress(psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError):
            # Where it is no name of a table at all, the check of the mapping says so.
            row = connection.execute(_RELATION, {"r": mapping.relation(table)}).fetchone()
        yield table.name, row[0] if row else None, mapping.where(table)


def _columns(source: Source | None) -> Iterator[tuple[int, str]]:
    if source is None:
        return
    for table in TABLES:
        yield from ((source.of(table).origin.oid, column) for column in source.of(table).columns)


def _projected(connection: Connection, mapping: Mapping) -> tuple[Source | None, Finding]:
    """What `mirror install` checks, too: tables, columns, types, keys."""
    try:
        with translated("source"):
            return look(connection, mapping), _said("mapping", "ok", "the mapping fits the tables")
    except ConfigError as error:
        return None, _said("mapping", "error", error.message, error.hint)
    except Refused as error:  # it takes the right to make temporary views
        verdict: Verdict = "error" if error.sqlstate == "42501" else "unknown"
        return None, _said("mapping", verdict, f"could not be looked at: {error.message}", error.hint)


def _installed(
    connection: Connection, mapping: Mapping, source: Source | None, places: dict[str, str], notes: dict[str, Any]
) -> Iterator[Finding]:
    row = connection.execute("select to_regclass('mirror.install') is not null").fetchone()
    if not (row and row[0]):
        yield _said("installed", "error", "the mirror is not installed here", INSTALL)
        return
    yield from _rendered(connection, mapping, source, notes)
    if source is not None:
        yield from _triggers(connection, source)
    places |= {"fingerprint": capture.fingerprint_sql(), "given": capture.given_sql()}
    for check in checks("source/doctor_installed.sql", places):
        yield from ask(connection, "source", check)


def _rendered(
    connection: Connection, mapping: Mapping, source: Source | None, notes: dict[str, Any]
) -> Iterator[Finding]:
    install = read_install(connection)
    if install is None:
        yield _said("installed", "error", "an install did not end", INSTALL)
        return
    notes["types"] = install["mapping"]["types"]
    identity = connection.execute("select mirror.identity(), split_part(mirror.token(), '/', 2)").fetchone()
    notes["identity"], notes["life"] = identity or (None, None)
    version = install["version"]
    if version != capture.VERSION:
        yield _said("installed", "error", f"its schema is version {version}, this mirror is {capture.VERSION}", INSTALL)
    elif install["mapping"]["mapping"] != mapping.source_part():
        yield _said("installed", "error", "its triggers were made from another mapping than mirror.toml", INSTALL)
    elif source is not None and install["rendered"] != digest(capture.functions_sql(source)):
        yield _said("installed", "warning", "its functions are of another release, or a table has changed", INSTALL)
    else:
        yield _said("installed", "ok", f"version {version}, made from the present mapping")


def _triggers(connection: Connection, source: Source) -> Iterator[Finding]:
    faults = [fault for table in TABLES for fault in trigger_faults(connection, source, table)]
    for fault in faults:
        yield _said("triggers", "error", f"{fault}: what it should see is only found by the reconcile", INSTALL)
    for relation in strays(connection, source):
        yield _said("triggers", "warning", f"{relation} still has triggers and is not mapped any more", INSTALL)
    if not faults:
        yield _said("triggers", "ok", "all triggers are there and always enabled")


def _said(check: str, verdict: Verdict, sentence: str, cure: str = "") -> Finding:
    return Finding("source", check, verdict, sentence, cure)
