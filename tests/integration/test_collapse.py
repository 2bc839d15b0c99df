"""An outbox that grew beyond its bound while no daemon ran is compared instead of being replayed."""

from typing import Any

import psycopg
import pytest

import mirror.takeover
from tests.bed.daemons import asleep, becomes_equal, install, leading, value
from tests.bed.eventually import eventually
from tests.bed.proofs import an_id, drift, quiet, seed

Connection = psycopg.AsyncConnection[Any]
MARKS = "select count(*) from mirror.outbox where k1 is null"


async def loaded(source: Connection, source_url: str, target_url: str) -> None:
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await asleep(source)


async def grow(source: Connection) -> None:
    """Beyond a bound of 200, on the same rows again and again, and some of them gone."""
    for n in range(20):
        await source.execute("update users set username = %s", [f"name {n}"])
    await source.execute(
        f"delete from trip_memberships where user_id = {an_id('4')}; delete from trips where name = 'trip 2'"
    )


@pytest.mark.parametrize("writer", [False, True], ids=["nobody writes", "somebody writes"])
async def test_three_marks_say_the_same_and_no_open_transaction_is_lost(  # noqa: PLR0917 (fixtures)
    source: Connection,
    target: Connection,
    source_url: str,
    target_url: str,
    monkeypatch: pytest.MonkeyPatch,
    writer: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(mirror.takeover, "COLLAPSE_ENTRIES", 200)
    await loaded(source, source_url, target_url)
    async with await psycopg.AsyncConnection.connect(source_url) as other:
        if writer:
            await other.execute(
                f"update trip_memberships set role = 'late' where user_id = {an_id('9')} and trip_id = {an_id('1')}"
            )
            await other.execute(f"insert into trips (id, name) values ({an_id('70')}, 'late')")
        await grow(source)
        assert await value(source, "select count(*) from mirror.outbox") > 600
        entries = 0
        async with quiet(source_url, target_url) as daemon:
            settle = daemon._applier.outbox.settle

            def count(reading: Any) -> None:
                nonlocal entries
                entries += reading.entries
                settle(reading)

            monkeypatch.setattr(daemon._applier.outbox, "settle", count)
            await leading(daemon)
            await becomes_equal(source, target)
            assert await value(target, "select count(*) from users where username = 'name 19'") == 30
            assert entries == 0, "nothing was replayed key by key"
            await other.commit()
            if writer:
                await eventually(lambda: value(target, "select exists (select from trips where name = 'late')"))
                assert entries == 3, "the membership, the trip, and that trip's memberships"
            await becomes_equal(source, target)
            assert sum(ways["changed"] for ways in drift(daemon).values()) == 0, "what marks explain is no drift"
            await asleep(source)
            assert await value(source, "select count(*) from mirror.outbox") == 0


async def test_at_the_bound_it_is_replayed(source: Connection, source_url: str, target_url: str) -> None:
    await loaded(source, source_url, target_url)
    await grow(source)
    entries = await value(source, "select count(*) from mirror.outbox")
    assert not await value(source, "select mirror.collapse(%s)", entries)
    assert await value(source, "select count(*) from mirror.outbox") == entries
    assert await value(source, "select mirror.collapse(%s)", entries - 1)
    assert await value(source, "select count(*) from mirror.outbox") == await value(source, MARKS) == 3


async def test_a_first_load_that_was_interrupted_and_then_collapsed_is_exact(
    source: Connection, target: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load is under way, its daemon gone; rows that it has behind it change, and those entries are collapsed."""
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url, MIRROR_BATCH_ROWS="1") as daemon:
        await eventually(lambda: value(target, "select count(*) between 5 and 25 from users"), interval_s=0.001)
    assert await value(target, "select primed_at is null from mirror.state")
    assert await value(target, "select jsonb_array_length(walks) > 0 from mirror.state")
    assert daemon
    await grow(source)
    monkeypatch.setattr(mirror.takeover, "COLLAPSE_ENTRIES", 200)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await becomes_equal(source, target)
