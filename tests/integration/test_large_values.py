"""A value that is too large is refused by the row it is in, before anything reads it as a whole: no other row waits."""

import asyncio
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mirror.batch import Request
from mirror.mapping import Mapping
from mirror.source.lead import Holder
from mirror.source.primary import Primary
from tests.bed.daemons import (
    NEVER,
    asleep,
    becomes_equal,
    environ,
    install,
    leading,
    process,
    running,
    value,
)
from tests.bed.eventually import eventually
from tests.bed.proofs import quiet, verified
from tests.bed.source_side import install as install_source
from tests.bed.ways import Way

pytestmark = [pytest.mark.sql, pytest.mark.slow]
Connection = psycopg.AsyncConnection[Any]
BEATING = NEVER | {"MIRROR_HEARTBEAT_INTERVAL": "200ms"}
# What is done to the tables, which keys that parks, and what the reason says.
ATTACKS = {
    "a name of 60 MB": (
        "update trips set name = repeat('x', 60000000) where name = 'trip 1'",
        1,
        "name has 60000000 bytes",
    ),
    "a name of 100 MB": (
        "update trips set name = repeat('é', 50000000) where name = 'trip 1'",
        1,
        "name has 100000000 bytes",
    ),
    "100 rows of 1 MB": (
        "insert into trips (id, name) select gen_random_uuid(), repeat('x', 1000000) from generate_series(1, 100)",
        100,
        "name has 1000000 bytes",
    ),
    "an email of 5 MB": (
        "update users set email = repeat('x', 5000000) where username = 'u1'",
        1,
        "email has 5000000 bytes",
    ),
    "a role of 2 MB": (
        "update trip_memberships set role = repeat('x', 2000000) where id = 1",
        1,
        "role has 2000000 bytes, at most 16384 are mirrored",
    ),
}
SMALL = {
    "trips": "update trips set name = 'small' where length(name) > 9",
    "users": "update users set email = 'small' where length(email) > 9",
    "trip_memberships": "update trip_memberships set role = 'small' where length(role) > 9",
}


async def populate(source: Connection) -> None:
    await source.execute(
        "insert into users (id, username) select gen_random_uuid(), 'u' || n from generate_series(1, 20) n;"
        "insert into trips (id, name) select gen_random_uuid(), 'trip ' || n from generate_series(1, 5) n;"
        "insert into trip_memberships (trip_id, user_id, role) select t.id, u.id, 'r' from trips t, users u"
    )


async def parked(target: Connection) -> int:
    return int(await value(target, "select count(*) from mirror.parked"))


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_large_value_delays_no_other_row(
    source: Connection, target: Connection, source_url: str, target_url: str, way: Way, *, attack: str
) -> None:
    await populate(source)
    install(source_url, target_url)
    statement, keys, reason = ATTACKS[attack]
    async with running(source_url, way.url, BEATING) as daemon:
        await leading(daemon)
        assert await becomes_equal(source, target) < 5.0
        await asleep(source)
        for n in range(2, 6):  # with it, and after it
            async with source.transaction():
                await source.execute("delete from trip_memberships where id = %s", [n])
                if n == 2:
                    await source.execute(statement)
            left = 100 - n + 1
            # (A parked membership is gone as well.)
            closed = f"select count(*) <= {left} from trip_memberships"
            await eventually(lambda closed=closed: value(target, closed), 2.0)  # type: ignore[misc]
        await eventually(lambda: parked_are(target, keys), 5.0)
        assert reason in await value(target, "select reason from mirror.parked limit 1")
        assert daemon.known.about("unreadable") == {}
        await eventually(lambda: sum(daemon.known.parked.values()) == keys)
        if "role" in attack:  # fail closed
            await eventually(lambda: value(target, "select count(*) = 95 from trip_memberships"))
        for small in SMALL.values():
            await source.execute(small)
        assert await becomes_equal(source, target) < 5.0
        assert await parked(target) == 0


async def parked_are(target: Connection, keys: int) -> bool:
    return await parked(target) == keys


async def test_large_values_among_many_changes_hold_up_no_other_row(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """A backlog, and more large ones than may be refused for other reasons: any user can make them."""
    await populate(source)
    install(source_url, target_url)
    async with running(source_url, target_url, BEATING) as daemon:
        await leading(daemon)
        await becomes_equal(source, target)
        async with source.transaction():
            await source.execute(
                "insert into trips (id, name) select gen_random_uuid(), "
                "case when mod(n, 10) = 0 then repeat('x', 16385) else repeat('y', 20) end "
                "from generate_series(1, 15000) as n"
            )
            await source.execute("delete from trip_memberships where id <= 50")
        await eventually(lambda: value(target, "select count(*) = 50 from trip_memberships"), 2.0)
        await eventually(lambda: parked_are(target, 1500), 20.0)
        assert await value(target, "select count(*) = 13505 from trips")
        await eventually(lambda: value(target, "select now() - as_of < interval '2 seconds' from mirror.state"), 5.0)


async def test_a_large_value_is_no_drift_and_never_in_the_copy(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """Before the first load, in a comparison, and at a resync: parked. The old row stays, but for a membership."""
    await populate(source)
    await source.execute("update trips set name = repeat('x', 3000000) where name = 'trip 1'")
    await source.execute("update trip_memberships set role = repeat('x', 16385) where id = 100")
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await eventually(lambda: parked_are(target, 2), 5.0)
        assert await value(target, "select count(*) = 4 from trips")
        assert await value(target, "select count(*) = 99 from trip_memberships")
        await source.execute("update trips set name = repeat('x', 16385) where name = 'trip 2'")
        await source.execute("update trips set name = repeat('y', 16384) where name = 'trip 3'")
        await eventually(lambda: parked_are(target, 3), 5.0)
        names = "select string_agg(left(name, 6), ',' order by name) = 'trip 2,trip 4,trip 5,yyyyyy' from trips"
        await eventually(lambda: value(target, names), 5.0)
        for _ in range(2):
            tables = await verified(source)
            assert {name: (t["missing"], t["extra"], t["changed"], t["parked"]) for name, t in tables.items()} == {
                "users": (0, 0, 0, 0),
                "trips": (0, 0, 0, 2),
                "trip_memberships": (0, 0, 0, 1),
            }
            await value(source, "select mirror.resync()")
        for small in SMALL.values():
            await source.execute(small)
        assert await becomes_equal(source, target) < 5.0
        await eventually(lambda: parked_are(target, 0), 5.0)


async def test_memory_stays_bounded(source: Connection, target: Connection, source_url: str, target_url: str) -> None:
    """Of the daemon, and of the sessions that read for it: nothing builds the value."""
    await populate(source)
    install(source_url, target_url)
    async with process(environ(source_url, target_url)) as daemon:
        await daemon.says("leading")
        await becomes_equal(source, target)
        await source.execute("update trips set name = repeat('x', 100000000) where name = 'trip 1'")
        await eventually(lambda: parked_are(target, 1), 5.0)
        session = await value(source, "select pid from mirror.leader()")
        for pid in (daemon.pid, session):
            status = await asyncio.to_thread(Path(f"/proc/{pid}/status").read_text)
            peak = re.search(r"VmHWM:\s+(\d+) kB", status)
            assert peak is not None
            assert int(peak[1]) < 150_000, f"process {pid}"


async def test_an_expression_of_the_mapping_is_bounded_as_well(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await populate(source)
    mapping = Mapping.model_validate({"trips": {"name": "repeat(name, 5000)"}})
    install(source_url, target_url, mapping)
    await source.execute("update trips set name = 't' where name = 'trip 1'")
    async with running(source_url, target_url, BEATING, mapping) as daemon:
        await leading(daemon)
        await eventually(lambda: parked_are(target, 4), 5.0)
        assert await value(target, "select array_agg(length(name)) = '{5000}' from trips")


GARBAGE = {
    "an unknown table": "'garbage', 'x', null",
    "a whole unknown table": "'garbage', null, null",
    "half a key": "'trip_memberships', null, 'x'",
    "half a key of a user": "'users', null, 'x'",
    "a key of 70 MB": "'trips', repeat('x', 70000000), null",
    "a second key of 70 MB": "'trip_memberships', gen_random_uuid()::text, repeat('x', 70000000)",
    "a table's name of 70 MB": "repeat('x', 70000000), null, null",
}


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_an_entry_that_is_about_nothing_is_dropped_and_counted(
    source: Connection, target: Connection, source_url: str, target_url: str, *, garbage: str
) -> None:
    """However it got there: a mirror of yesterday may have written it."""
    await populate(source)
    install(source_url, target_url)
    async with running(source_url, target_url, BEATING) as daemon:
        await leading(daemon)
        await becomes_equal(source, target)
        async with source.transaction():
            await source.execute(f"insert into mirror.outbox (tbl, k1, k2) values ({GARBAGE[garbage]})")
            await source.execute("delete from trip_memberships where id = 1")
        await eventually(lambda: value(target, "select count(*) = 99 from trip_memberships"), 2.0)
        await eventually(lambda: value(source, "select count(*) = 0 from mirror.outbox"), 5.0)
        assert daemon.knowledge.metrics.errors.labels("UnreadableEntry")._value.get() == 1
        await eventually(lambda: not daemon.known.why_not_ready())


async def test_a_backlog_of_such_entries_is_dropped_too(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await populate(source)
    install(source_url, target_url)
    await source.execute(
        "insert into mirror.outbox (tbl, k1, k2, gone) "
        "select case mod(n, 2) when 0 then 'trip_memberships' else 'no' end, null, 'x', mod(n, 3) = 0 "
        "from generate_series(1, 200) as n"
    )
    async with running(source_url, target_url, BEATING | {"MIRROR_BATCH_ROWS": "10"}) as daemon:
        await leading(daemon)
        assert await becomes_equal(source, target) < 5.0
        await eventually(lambda: value(source, "select count(*) = 0 from mirror.outbox"), 5.0)


async def test_half_a_key_is_no_mark(source: Connection, source_url: str) -> None:
    """Neither for the drain, which would have the table compared, nor for a target that has to be loaded."""
    install_source(source_url)
    await source.execute("truncate mirror.outbox")
    await source.execute("insert into mirror.outbox (tbl, k1, k2, gone) values ('users', null, 'x', true)")
    primary = await Primary.open(source_url, Holder("run"))
    try:
        reading = await primary.drain(Request(rows=1, bytes=1000, backlog=True, seek=True))
        assert (reading.dropped, reading.wide) == (1, ())
        await primary.mark_unmarked()
        reading = await primary.drain(Request(rows=1, bytes=1000, backlog=True, seek=True))
        assert {wide.table for wide in reading.wide} == {"users", "trips", "trip_memberships"}
    finally:
        await primary.close()
