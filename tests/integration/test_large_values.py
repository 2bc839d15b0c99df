"""A value that is too large is refused by the row it is in, before anything reads it as a whole: nobody else waits for it."""

import re
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mirror.mapping import Mapping
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
from tests.bed.source_side import role
from tests.bed.ways import Way

pytestmark = pytest.mark.sql
Connection = psycopg.AsyncConnection[Any]
BEATING = NEVER | {"MIRROR_HEARTBEAT_INTERVAL": "200ms"}
MEGABYTE = 1_000_000
# What is done to the tables, which keys that parks, and what the reason says.
ATTACKS = {
    "a name of 60 MB": ("update trips set name = repeat('x', 60000000) where name = 'trip 1'", 1, "name has 60000000 bytes"),
    "a name of 100 MB": ("update trips set name = repeat('é', 50000000) where name = 'trip 1'", 1, "name has 100000000 bytes"),
    "100 rows of 1 MB": (
        "insert into trips (id, name) select gen_random_uuid(), repeat('x', 1000000) from generate_series(1, 100)",
        100,
        "name has 1000000 bytes",
    ),
    "an email of 5 MB": ("update users set email = repeat('x', 5000000) where username = 'u1'", 1, "email has 5000000 bytes"),
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
        "insert into trip_memberships (trip_id, user_id, role) select t.id, u.id, 'r' from trips t, users u order by 1, 2"
    )


async def parked(target: Connection) -> int:
    return int(await value(target, "select count(*) from mirror.parked"))


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_large_value_delays_nobody(
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
            began = time.monotonic()
            closed = "select count(*) <= %s from trip_memberships"  # a parked membership is gone as well
            await eventually(lambda left=left: value(target, closed, left), 5.0)  # type: ignore[misc]
            assert time.monotonic() - began < 2.0
        await eventually(lambda: parked_are(target, keys), 5.0)
        assert reason in await value(target, "select reason from mirror.parked limit 1")
        assert daemon.vitals.broken == {}
        await eventually(lambda: sum(daemon.vitals.parked.values()) == keys)
        if "role" in attack:
            assert await value(target, "select count(*) = 95 from trip_memberships"), "fail closed"
        for small in SMALL.values():
            await source.execute(small)
        assert await becomes_equal(source, target) < 5.0
        assert await parked(target) == 0


async def parked_are(target: Connection, keys: int) -> bool:
    return await parked(target) == keys
