"""What a batch costs does not depend on how full the table is: a slice is read and written through the key's index."""

import json
from typing import Any

import pytest

from tests.bed.target_side import (
    BIGINTS,
    TEXTS,
    UUIDS,
    Connection,
    Row,
    Writer,
    an_id,
    membership,
    put_in_place,
    scope,
    span,
    trip,
    user,
)

pytestmark = pytest.mark.sql

TABLE = 100_000
SLICE = 1_000
MEMBERS = 50_000  # of each of two trips
FILL = """
insert into public.users (id) select {id} from generate_series(1, 100000) as i;
insert into public.trips (id) select {id} from generate_series(1, 100000) as i;
insert into public.trip_memberships (trip_id, user_id)
select {trip}, {id} from (select t, i from generate_series(1, 2) as t, generate_series(1, 50000) as i) as m;
"""
IDS = {
    "uuid": "lpad(to_hex({0}), 32, '0')::uuid",
    "text": "lpad({0}::text, 9, '0')",
    "bigint": "{0}::bigint",
}


def key(kind: str, number: int) -> Any:
    return {"uuid": an_id(number), "text": f"{number:09}", "bigint": number}[kind]


@pytest.fixture(params=[UUIDS, TEXTS, BIGINTS], ids=["uuid", "text", "bigint"])
async def filled(request: pytest.FixtureRequest, target_url: str, target: Connection) -> tuple[Writer, str]:
    """100,000 rows in each table, of which the planner has no statistics. Text is in an order of its own on purpose."""
    kind = request.param["user_id"]
    put_in_place(target_url, request.param)
    identity = IDS[kind].format("i")
    await target.execute(FILL.format(id=identity, trip=IDS[kind].format("t")))
    writer = Writer(target)
    await writer.claim()
    return writer, kind


async def cost(writer: Writer, *scopes: Row) -> tuple[Row, int]:
    """Full scans of the three tables in this batch, and the blocks that it touched."""
    writer.batch += 1
    document = {"epoch": writer.epoch, "batch": writer.batch, "position": None, "scopes": scopes}
    scans = "select coalesce(sum(seq_scan), 0) from pg_stat_xact_user_tables where schemaname = 'public'"
    async with writer.connection.transaction():
        before = await writer.one(scans)
        cursor = await writer.connection.execute(
            "explain (analyze, buffers, format json) select public.mirror_apply(%s)", [json.dumps(document)]
        )
        row = await cursor.fetchone()
        assert row is not None
        plan = row[0][0]["Plan"]
        assert await writer.one(scans) == before, "a full scan"
    return plan, plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


async def blocks_of_surplus(writer: Writer, wanted: Row) -> int:
    """What it costs to find the keys that a scope must lose."""
    query = "explain (analyze, buffers, format json) select mirror.surplus(%s)"
    (found,) = await writer.one(query, json.dumps(wanted))
    return int(found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"])


async def test_finding_what_a_slice_must_lose_touches_the_slices_own_blocks(filled: tuple[Writer, str]) -> None:
    """The rows lie in the order of their keys here, 1,000 of them in a dozen blocks of the table's thousand."""
    writer, kind = filled
    after, upto = [key(kind, 40_000)], [key(kind, 40_000 + SLICE)]
    first = [key(kind, 1)]
    scopes = [
        span("users", after=after, upto=upto),
        span("trips", after=after, upto=upto),
        span("trip_memberships", after=first + after, upto=first + upto),
        span("trip_memberships", after=first + after, upto=first + upto, trip=first[0]),
    ]
    await writer.connection.execute("select mirror.surplus(%s)", [json.dumps(scopes[0])])
    for wanted in scopes:
        assert await blocks_of_surplus(writer, wanted) < 150
    # With statistics, too: by the first column of its bounds alone, this slice is half of the table.
    await writer.connection.execute("analyze public.trip_memberships")
    assert await blocks_of_surplus(writer, scopes[2]) < 150
    assert await blocks_of_surplus(writer, scopes[3]) < 150


@pytest.mark.parametrize("table", ["users", "trips"])
async def test_a_slice_of_a_table_reads_only_the_slice(filled: tuple[Writer, str], table: str) -> None:
    writer, kind = filled
    rows = [(user if table == "users" else trip)(key(kind, i)) for i in range(70_001, 70_001 + SLICE - 1)]
    if table == "users":
        rows = [row | {"subject": None} for row in rows]
    _, blocks = await cost(writer, span(table, rows, after=[key(kind, 70_000)], upto=[key(kind, 70_000 + SLICE)]))
    # The row at the end of the slice is surplus; the others are equal, each found in a tree of three levels.
    assert await writer.one(f"select count(*) from public.{table}") == TABLE - 1
    assert blocks < 8 * SLICE


async def test_a_slice_across_trips_reads_only_the_slice(filled: tuple[Writer, str]) -> None:
    writer, kind = filled
    after, upto = (key(kind, 1), key(kind, MEMBERS - 500)), (key(kind, 2), key(kind, 500))
    _, blocks = await cost(writer, span("trip_memberships", after=after, upto=upto))
    assert await writer.one("select count(*) from public.trip_memberships") == TABLE - SLICE
    assert blocks < 16 * SLICE


async def test_a_slice_of_one_trip_reads_only_the_slice(filled: tuple[Writer, str]) -> None:
    writer, kind = filled
    first = key(kind, 1)
    after, upto = (first, key(kind, 40_000)), (first, key(kind, 40_000 + SLICE))
    kept = [membership(first, key(kind, i), None, None) for i in range(40_001, 40_000 + SLICE)]
    _, blocks = await cost(writer, span("trip_memberships", kept, trip=first, after=after, upto=upto))
    assert await writer.one("select count(*) from public.trip_memberships") == TABLE - 1
    assert blocks < 8 * SLICE


async def test_whole_trips_and_exact_keys_read_only_those(filled: tuple[Writer, str]) -> None:
    writer, kind = filled
    small = key(kind, 3)
    await writer.connection.execute(
        "insert into public.trip_memberships (trip_id, user_id) values (%s, %s), (%s, %s)",
        [small, key(kind, 1), small, key(kind, 2)],
    )
    gone = [{"trip_id": key(kind, 2), "user_id": key(kind, 7)}]
    blocks = 0
    for n in (5, 15):  # the second time the session knows the catalog, of whatever size that is by now
        _, blocks = await cost(
            writer,
            scope("trip_memberships", [membership(small, key(kind, 1))], trips=[str(small)]),
            scope("trip_memberships", [membership(key(kind, 1), key(kind, 9))], gone=gone),
            scope("users", [user(key(kind, n))], gone=[{"id": key(kind, n + 1)}]),
            scope("trips", [trip(key(kind, n), "Rome")], gone=[{"id": key(kind, n + 1)}]),
        )
    assert await writer.one("select count(*) from public.trip_memberships") == TABLE
    assert blocks < 500


async def test_a_table_that_fills_up_in_one_session_is_never_scanned(target_url: str, target: Connection) -> None:
    """A plan made while the table was empty must not stay when it is full."""
    put_in_place(target_url)
    writer = Writer(target)
    await writer.claim()
    for first in range(0, 20_000, SLICE):
        rows = [user(an_id(i)) for i in range(first + 1, first + SLICE + 1)]
        await cost(writer, span("users", rows, after=[an_id(first)], upto=[an_id(first + SLICE)]))
    assert await writer.one("select count(*) from public.users") == 20_000
