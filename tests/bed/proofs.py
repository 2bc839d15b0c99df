"""Asking for proofs and repairs, drift made by hand, and an oracle that counts it without the mirror's help."""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import psycopg
import pytest

import mirror.producers.reconcile as producer
from mirror.daemon import Daemon
from mirror.mapping import Mapping
from tests.bed.daemons import MIRRORED, NEVER, projections, rows, running, value
from tests.bed.eventually import eventually

Connection = psycopg.AsyncConnection[Any]
# Only what a test asks for is compared; nothing but rings and the test itself wakes the daemon.
ASKED_ONLY = NEVER | {"MIRROR_RECONCILE_CRON": "off"}
DIRECTIONS = ("missing", "extra", "changed")
KEYS = {"users": 1, "trips": 1, "trip_memberships": 2}


def an_id(n: str) -> str:
    """SQL: a uuid in the order of the numbers, with room for others in between, before and behind."""
    return f"lpad(to_hex(({n}) * 16), 32, '0')::uuid"


def quiet(source_url: str, target_url: str, *mapping: Mapping, **settings: str) -> AbstractAsyncContextManager[Daemon]:
    """A daemon that compares at the start of a session, and when it is asked."""
    return running(source_url, target_url, ASKED_ONLY | settings, *mapping)


async def seed(source: Connection, users: int = 30, trips: int = 4) -> None:
    """Everybody is in every trip. Among the values are those that tempt a digest or a comparison to be wrong."""
    await source.execute(
        f"""
        insert into public.users (id, email, username)
        select {an_id("n")},
               case mod(n, 5) when 0 then null when 1 then '~' when 2 then '' when 3 then '1:~' else n || '@x' end,
               case mod(n, 6) when 0 then null when 1 then 'a|b' when 2 then 'O''Brien "x" \\' when 3 then 'é😀'
                              when 4 then repeat('x', 10000) else 'u' || n end
        from generate_series(1, {users}) as n;
        insert into public.trips (id, name, created_by)
        select {an_id("n")}, 'trip ' || n, case when mod(n, 2) = 0 then {an_id("n")} end
        from generate_series(1, {trips}) as n;
        insert into public.trip_memberships (trip_id, user_id, role)
        select t.id, u.id, case when mod(get_byte(uuid_send(u.id), 15), 32) = 0 then null else 'editor' end
        from public.trips as t, public.users as u
        """
    )


async def asked(source: Connection, call: str, timeout_s: float = 15.0) -> tuple[str, dict[str, Any]]:
    """A request through SQL: its final state and result."""
    return await ended(source, await value(source, f"select mirror.{call}"), timeout_s)


async def verified(source: Connection, table: str | None = None) -> dict[str, Any]:
    """What each table's comparison says; nothing is repaired."""
    name = f"'{table}'" if table else "null"
    state, result = await asked(source, f"ask('verify', {name}, null, null, false, false)")
    assert state in {"done", "failed"}, (state, result)
    tables: dict[str, Any] = result["tables"]
    return tables


async def ended(source: Connection, request: int, timeout_s: float = 15.0) -> tuple[str, dict[str, Any]]:
    async def is_done() -> Any:
        return await value(source, "select done_at is not null from mirror.request where id = %s", request)

    await eventually(is_done, timeout_s)
    cursor = await source.execute("select state, result from mirror.request where id = %s", [request])
    state, result = (await cursor.fetchall())[0]
    return state, result or {}


async def differences(source: Connection, target: Connection, mapping: Mapping | None = None) -> dict[str, Any]:
    """How many rows differ, by table and direction: counted here, in Python, while nobody writes."""
    here, there = await rows(source, projections(mapping)), await rows(target, MIRRORED)
    return {table: _differ(here[table], there[table], KEYS[table]) for table in here}


def _differ(here: list[Any], there: list[Any], keys: int) -> dict[str, int]:
    ours, theirs = ({row[:keys]: row[keys:] for row in side} for side in (here, there))
    both = ours.keys() & theirs.keys()
    return {
        "missing": len(ours.keys() - theirs.keys()),
        "extra": len(theirs.keys() - ours.keys()),
        "changed": sum(ours[key] != theirs[key] for key in both),
    }


def counted(tables: dict[str, Any]) -> dict[str, Any]:
    """The same numbers, as the mirror has found them."""
    return {table: {way: found[way] for way in DIRECTIONS} for table, found in tables.items()}


def drift(daemon: Daemon) -> dict[str, Any]:
    """The same numbers, as the metrics have them."""
    labels = daemon.knowledge.metrics.drift.labels
    return {table: {way: int(labels(table, way)._value.get()) for way in DIRECTIONS} for table in KEYS}


def no_drift() -> dict[str, Any]:
    return {table: dict.fromkeys(DIRECTIONS, 0) for table in KEYS}


def slices_of(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Comparisons cut a table into slices of exactly so many rows, whatever their speed."""
    for name in ("SLICE_MIN", "SLICE_START", "SLICE_MAX"):
        monkeypatch.setattr(producer, name, rows)


async def versions(target: Connection) -> Iterator[tuple[Any, ...]]:
    """Which transaction has written each row: a rewritten one has another."""
    cursor = await target.execute(
        "select 'users', id::text, null, xmin::text from public.users union all "
        "select 'trips', id::text, null, xmin::text from public.trips union all "
        "select 'trip_memberships', trip_id::text, user_id::text, xmin::text from public.trip_memberships"
    )
    return iter(await cursor.fetchall())
