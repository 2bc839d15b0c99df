"""Wide scopes, worked off in slices, and what may go wrong in a backlog: everything arrives, revocations first, and the
position does not move before all of it is through."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

import mirror.applier
import mirror.producers.reconcile
from mirror.daemon import Daemon
from tests.bed.daemons import NEVER, SOFT, asleep, becomes_equal, equal, install, leading, running, value
from tests.bed.eventually import eventually
from tests.bed.proxy import Proxy

Connection = psycopg.AsyncConnection[Any]
SMALL = NEVER | {"MIRROR_BATCH_ROWS": "10"}
WATCH = """
create table batches (n bigint generated always as identity, epoch bigint, batch bigint, moved boolean,
                      users bigint, trips bigint, memberships bigint, gone bigint);
create function note() returns trigger language plpgsql security definer set search_path = 'public' as $$ begin
  insert into batches (epoch, batch, moved, users, trips, memberships, gone)
  select new.epoch, new.batch, new.as_of is distinct from old.as_of, (select count(*) from users),
         (select count(*) from trips), (select count(*) from trip_memberships),
         (select count(*) from trip_memberships where role = 'doomed');
  return null;
end $$;
create trigger note after update on mirror.state for each row when (new.epoch = old.epoch) execute function note();
"""


async def populate(source: Connection, users: int, trips: int) -> None:
    await source.execute(
        "insert into users (id, username) select gen_random_uuid(), 'u' || n from generate_series(1, %s) as n", [users]
    )
    await source.execute(
        "insert into trips (id, name) select gen_random_uuid(), 't' || n from generate_series(1, %s) as n", [trips]
    )
    await source.execute("insert into trip_memberships (trip_id, user_id) select t.id, u.id from trips t, users u")


async def ready(source: Connection, target: Connection, daemon: Daemon) -> None:
    await leading(daemon)
    await becomes_equal(source, target)
    await asleep(source)


async def test_a_first_load_in_slices_while_the_application_goes_on(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await populate(source, 60, 10)
    install(source_url, target_url)

    async def keep_changing() -> None:
        while True:
            await source.execute("update users set username = 'renamed' where id in (select id from users limit 1)")
            await source.execute(
                "with m as (delete from trip_memberships where id in (select id from trip_memberships limit 1) "
                "returning *) "
                "insert into trip_memberships (trip_id, user_id, role) select trip_id, user_id, 'again' from m"
            )
            await source.execute("delete from trip_memberships where id = (select max(id) from trip_memberships)")
            await asyncio.sleep(0.005)

    async with running(source_url, target_url, SMALL) as daemon:
        changing = asyncio.create_task(keep_changing())
        await eventually(lambda: value(target, "select count(*) > 300 from trip_memberships"), 30.0)
        assert not await value(target, "select primed_at is not null from mirror.state")
        changing.cancel()
        await asyncio.wait((changing,))
        await eventually(lambda: value(target, "select primed_at is not null from mirror.state"), 30.0)
        async with await psycopg.AsyncConnection.connect(source_url, autocommit=True) as again:
            await becomes_equal(again, target)
        assert not daemon._applier.walks


@pytest.mark.parametrize("statement", ["truncate trips cascade", "truncate trip_memberships", "truncate users"])
async def test_truncate(
    source: Connection, target: Connection, source_url: str, target_url: str, statement: str
) -> None:
    await populate(source, 12, 4)
    install(source_url, target_url)
    async with running(source_url, target_url, SMALL) as daemon:
        await ready(source, target, daemon)
        await source.execute(f"begin; {statement}; insert into users (id) values (gen_random_uuid()); commit")
        assert await becomes_equal(source, target) < 3.0
        await asleep(source)
        assert await value(source, "select count(*) from mirror.outbox") == 0


async def test_a_trip_of_more_memberships_than_a_batch_holds(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await populate(source, 35, 3)
    install(source_url, target_url, SOFT)
    async with running(source_url, target_url, SMALL, SOFT) as daemon:
        await leading(daemon)
        await becomes_equal(source, target, SOFT)
        for statement in (
            "update trips set deleted_at = now() where name = 't1'",
            "update trips set deleted_at = null where name = 't1'",
            "update trips set deleted_at = now()",
            "update trips set deleted_at = null",
        ):
            await source.execute(statement)
            assert await becomes_equal(source, target, SOFT) < 5.0, statement
        await asleep(source)
        assert await value(source, "select count(*) from mirror.outbox") == 0


async def test_more_large_trips_at_once_than_a_batch_has_entries(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await populate(source, 15, 25)
    install(source_url, target_url, SOFT)
    await source.execute("update trips set deleted_at = now()")
    async with running(source_url, target_url, SMALL, SOFT) as daemon:
        await leading(daemon, 20.0)
        await becomes_equal(source, target, SOFT)
        await source.execute("update trips set deleted_at = null")
        await becomes_equal(source, target, SOFT, timeout_s=20.0)
        await asleep(source)


async def test_a_mark_that_comes_during_a_walk_is_not_lost(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await populate(source, 40, 5)
    install(source_url, target_url)
    async with Proxy.to(target_url) as proxy, running(source_url, proxy.url(target_url), SMALL) as daemon:
        proxy.delay_s = 0.02
        walks = daemon._applier.walks
        await eventually(lambda: any(w.after[1] is not None for w in walks._walks))  # of the memberships
        # Behind the walk, and nothing but the mark of the whole table says so.
        await source.execute("alter table trip_memberships disable trigger mirror_update")
        await source.execute("update trip_memberships set role = 'silent'")
        await source.execute("alter table trip_memberships enable always trigger mirror_update")
        await source.execute("select mirror.mark_tables('{trip_memberships}')")
        proxy.delay_s = 0.0
        await becomes_equal(source, target, timeout_s=20.0)


async def test_a_walk_goes_on_where_it_was_after_a_lost_connection(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await populate(source, 40, 5)
    install(source_url, target_url)
    async with Proxy.to(target_url) as proxy, running(source_url, proxy.url(target_url), SMALL) as daemon:
        proxy.delay_s = 0.01
        await eventually(lambda: value(target, "select count(*) > 50 from trip_memberships"), 20.0)
        walked = daemon._applier.walks._walks[0]
        proxy.cut()
        await eventually(lambda: daemon.knowledge.metrics.batches.labels("failed")._value.get() == 1)
        assert any(w.wide == walked.wide and w.after[0] is not None for w in daemon._applier.walks._walks)
        proxy.delay_s = 0.0
        await leading(daemon, 20.0)
        await becomes_equal(source, target)


async def test_a_broken_table_does_not_hold_up_the_others(
    source: Connection, target: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.producers.outbox.BROKEN_RETRY_S", 0.5)
    await populate(source, 3, 2)
    install(source_url, target_url)
    async with running(source_url, target_url, NEVER | {"MIRROR_HEARTBEAT_INTERVAL": "300ms"}) as daemon:
        await ready(source, target, daemon)
        await source.execute("alter table users rename column username to nick")
        await source.execute("update users set nick = 'changed'")
        await source.execute("delete from trip_memberships where id = (select min(id) from trip_memberships)")
        await eventually(lambda: value(target, "select count(*) = 5 from trip_memberships"), 3.0)
        await eventually(lambda: "users" in daemon.known.about("unreadable"))
        assert any("users cannot be read" in reason for reason in daemon.known.why_not_ready())
        as_of = await value(target, "select as_of from mirror.state")
        turns = daemon._applier._pace._turns
        began = time.monotonic()
        await eventually(lambda: time.monotonic() - began > 1.5 or not daemon.known.about("unreadable"))
        assert daemon.known.about("unreadable"), "it stays broken"
        assert daemon.known.lag_s > 1.0, "and the lag says so"
        assert daemon._applier._pace._turns - turns < 50, "and nobody spins"
        assert await value(target, "select as_of from mirror.state") == as_of, "the position stands still"
        assert await value(target, "select count(*) from users where username = 'changed'") == 0
        await source.execute("alter table users rename column nick to username")
        assert await becomes_equal(source, target) < 3.0
        await eventually(lambda: not daemon.known.about("unreadable") and daemon.known.lag_s == 0)
        await eventually(lambda: value(target, "select as_of > %s from mirror.state", as_of))


async def backlog(source: Connection, renames: int, doomed: int) -> None:
    """Many renames in front, revocations behind them."""
    await source.execute("update users set username = username || '!'")
    await source.execute("delete from trip_memberships where role = 'doomed'")
    assert await value(source, "select count(*) from mirror.outbox") >= renames + doomed


async def test_in_a_backlog_revocations_go_first_and_the_position_waits(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await populate(source, 200, 2)
    install(source_url, target_url)
    async with running(source_url, target_url, NEVER) as daemon:
        await ready(source, target, daemon)
        await source.execute("update trip_memberships set role = 'doomed' where id % 20 = 0")
        await becomes_equal(source, target)
    await target.execute(WATCH)
    await backlog(source, 200, 20)
    async with running(source_url, target_url, SMALL):
        await becomes_equal(source, target)
        await asleep(source)
    cursor = await target.execute("select moved, gone from batches order by n")
    batches = await cursor.fetchall()
    assert [gone for _, gone in batches][:3] == [10, 0, 0], batches
    assert len(batches) > 15
    assert [moved for moved, _ in batches].index(True) >= 20, "not before the backlog is through"
    names = await value(target, "select count(*) from users where username like '%%!'")
    assert names == 200


UNDER_WAY: dict[str, tuple[str, Callable[[Daemon], Any]]] = {
    "walk": (
        "select mirror.mark_keys(0, array['trip_memberships'], array(select id::text from trips limit 1), null, null)",
        lambda daemon: len(daemon._applier.walks),
    ),
    "comparison": ("select mirror.resync()", lambda daemon: daemon._applier.reconcile.running),
    "resync": ("select mirror.resync(rewrite => true)", lambda daemon: daemon._applier.reconcile.running),
    "resync of a trip": (
        "select mirror.resync(trip => (select id::text from trips limit 1))",
        lambda daemon: daemon._applier.resync.known_requests,
    ),
}


@pytest.mark.parametrize(("begin", "is_under_way"), UNDER_WAY.values(), ids=UNDER_WAY)
async def test_a_revocation_waits_for_no_more_than_what_was_read_before_it(  # noqa: PLR0917 - fixtures
    source: Connection,
    target: Connection,
    source_url: str,
    target_url: str,
    monkeypatch: pytest.MonkeyPatch,
    begin: str,
    is_under_way: Callable[[Daemon], Any],
) -> None:
    """One batch is being applied, the next one may be read already: it is in the third at the latest."""
    monkeypatch.setattr(mirror.producers.reconcile, "SLICE_MIN", 10)
    monkeypatch.setattr(mirror.producers.reconcile, "SLICE_MAX", 10)
    await populate(source, 1500, 2)
    await source.execute("update trip_memberships set role = 'doomed' where id % 500 = 0")
    install(source_url, target_url)
    async with running(source_url, target_url, NEVER) as daemon:
        await ready(source, target, daemon)
    await target.execute(WATCH)
    async with running(source_url, target_url, SMALL) as daemon:
        await ready(source, target, daemon)
        await source.execute(begin)
        await eventually(lambda: is_under_way(daemon), interval_s=0.001)
        for change in ("status = 'LEFT', role = 'former'", "role = 'former'"):
            one = "(select min(id) from trip_memberships where role = 'doomed')"
            await source.execute(f"update trip_memberships set {change} where id = {one}")
            left = await value(source, "select count(*) from trip_memberships where role = 'doomed'")
            seen = await value(target, "select max(n) from batches")
            gone = "select min(n) from batches where gone <= %s"
            await eventually(lambda: value(target, gone, left), interval_s=0.001)  # noqa: B023
            assert await value(target, gone, left) - seen <= 3
        assert is_under_way(daemon), "it went on meanwhile"


@pytest.mark.parametrize(("size", "rows"), [(1_000, 6000), (16_384, 700)])
async def test_a_batch_is_bounded_in_bytes(
    source: Connection,
    target: Connection,
    source_url: str,
    target_url: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    size: int,
    rows: int,
) -> None:
    sent: list[int] = []
    apply = mirror.target.target.Target.apply

    async def note(self: Any, reading: Any, *rest: Any, **others: Any) -> Any:
        sent.append(len(reading.scopes))
        return await apply(self, reading, *rest, **others)

    monkeypatch.setattr(mirror.target.target.Target, "apply", note)
    install(source_url, target_url)
    async with running(source_url, target_url, NEVER) as daemon:
        await ready(source, target, daemon)
        await source.execute(
            "insert into trips (id, name) select gen_random_uuid(), repeat('x', %s) from generate_series(1, %s)",
            [size, rows],
        )
        await eventually(lambda: _same_names(source, target), 20.0)
        assert max(sent) < mirror.applier.BYTES_MAX + size
        await source.execute("select mirror.mark_tables('{trips}')")
        await source.execute("update trips set name = repeat('y', %s)", [size])
        await eventually(lambda: _same_names(source, target), 20.0)
        assert max(sent) < 2 * mirror.applier.BYTES_MAX + size


async def _same_names(source: Connection, target: Connection) -> bool:
    digest = "select count(*) || md5(coalesce(string_agg(id || md5(name), ',' order by id), '')) from trips"
    return bool(await value(source, digest) == await value(target, digest))


def share_of_reads_within(daemon: Daemon, limit: str) -> float:
    samples = {
        (s.name, s.labels.get("le")): s.value
        for metric in daemon.knowledge.metrics.registry.collect()
        for s in metric.samples
        if metric.name == "mirror_batch_seconds" and s.labels.get("phase") == "read"
    }
    return samples["mirror_batch_seconds_bucket", limit] / samples["mirror_batch_seconds_bucket", "+Inf"]


Pin = Callable[[Connection], Awaitable[object]]


async def read_something(connection: Connection) -> None:
    await connection.execute("begin isolation level repeatable read; select count(*) from users")


async def write_something(connection: Connection) -> None:
    await connection.execute("begin; insert into users (id) values (gen_random_uuid())")


@pytest.mark.slow
@pytest.mark.parametrize("pin", [read_something, write_something])
async def test_the_outbox_stays_small_while_somebody_pins_the_horizon(
    source: Connection,
    target: Connection,
    source_url: str,
    target_url: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    pin: Pin,
) -> None:
    """An idle transaction keeps VACUUM from working; the outbox tables take turns all the same. One that has written
    keeps the table of its turn, which is passed by from its next turn on. (The turns are twenty times shorter here.)"""
    monkeypatch.setattr("mirror.loop.TIDY_BYTES", 50_000)
    monkeypatch.setattr("mirror.source.primary.TIDY_BYTES", 50_000)
    monkeypatch.setattr("mirror.loop.TIDY_INTERVAL_S", 0.05)
    monkeypatch.setattr("mirror.pace.COUNT_INTERVAL_S", 0.05)
    await populate(source, 200, 1)
    install(source_url, target_url)
    slot = "mod(floor(date_part('epoch', pg_catalog.now()) * 4)::bigint, 4)::integer"
    await source.execute(
        f"create or replace function mirror.slot() returns int language sql stable as $$select {slot}$$"
    )
    sizes: list[int] = []
    async with (
        await psycopg.AsyncConnection.connect(source_url, autocommit=True) as idle,
        running(source_url, target_url, NEVER) as daemon,
    ):
        await ready(source, target, daemon)
        await pin(idle)
        entries, until = 0, time.monotonic() + 10.0
        while time.monotonic() < until:
            await source.execute("update users set username = 'n' || random()")
            entries += 200
            sizes.append(await value(source, "select mirror.outbox_bytes()"))
            await asyncio.sleep(0.01)
        assert entries > 10_000
        assert max(sizes[len(sizes) // 2 :]) < entries * 100 * 0.2, "of all that was ever in it"
        assert await value(source, "select count(*) from mirror.held") == (pin is write_something)
        assert share_of_reads_within(daemon, "0.1") > 0.95
        await idle.execute("rollback")
        await becomes_equal(source, target)
        assert await equal(source, target)
