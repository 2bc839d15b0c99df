"""A table that others have locked, on either side: its rows wait, the others go on, and it ends by itself."""

from typing import Any

import psycopg
import pytest

from mirror.daemon import Daemon
from tests.bed.daemons import NEVER, asleep, becomes_equal, equal, install, leading, running, value
from tests.bed.eventually import eventually
from tests.bed.ways import WAYS, Way

pytestmark = [pytest.mark.sql, pytest.mark.slow]
Connection = psycopg.AsyncConnection[Any]
A_USER, A_TRIP = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-0000000000a1"
SEED = (
    f"insert into users (id, username) values ('{A_USER}', 'old'); "
    f"insert into trips (id, name, created_by) values ('{A_TRIP}', 'old', '{A_USER}'); "
    f"insert into trip_memberships (trip_id, user_id, role, status) values ('{A_TRIP}', '{A_USER}', 'member', 'ACTIVE')"
)
CHANGE = {
    "users": "update users set username = 'new'",
    "trips": "update trips set name = 'new'",
    "trip_memberships": "update trip_memberships set role = 'admin'",
}
OTHERS = {"users": "trip_memberships", "trips": "users", "trip_memberships": "trips"}
LOCKS = ["lock table public.{} in access exclusive mode", "select from public.{} for update"]


def failures(daemon: Daemon) -> float:
    return float(daemon.knowledge.metrics.batches.labels("failed")._value.get())


@pytest.mark.parametrize("way", WAYS, indirect=True)
@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("table", ["users", "trip_memberships"])
async def test_a_table_that_is_locked_in_the_target_stops_only_its_own_rows(  # noqa: PLR0917 (fixtures)
    source: Connection, target: Connection, source_url: str, target_url: str, way: Way, table: str, lock: str
) -> None:
    install(source_url, target_url)
    await source.execute(SEED)
    other = OTHERS[table]
    async with running(source_url, way.url, NEVER) as daemon:
        await leading(daemon)
        await becomes_equal(source, target)
        await asleep(source)
        epoch = await value(target, "select epoch from mirror.state")
        async with await psycopg.AsyncConnection.connect(target_url, application_name="chat") as busy:
            await busy.execute(lock.format(table))
            await source.execute(f"{CHANGE[table]}; {CHANGE[other]}")
            seen = f"select bool_or(to_jsonb(t)::text ~ 'new|admin') from public.{other} as t"
            await eventually(lambda: value(target, seen), 5.0)
            assert f"locked by pid {busy.info.backend_pid} (role postgres, chat)" in daemon.known.about("locked")[table]
            assert any(f"{table} cannot be written in the target" in why for why in daemon.known.why_not_ready())
            snapshot = "select snapshot from mirror.state"
            before = await value(target, snapshot)
            await source.execute(f"{CHANGE[other].replace('new', 'newer').replace('admin', 'newer')}")
            await eventually(lambda: value(target, seen.replace("new|admin", "newer")), 5.0)
            assert await value(target, snapshot) == before, "the target equals no snapshot now"
            assert not await value(target, "select exists (select from mirror.parked)")
        assert await becomes_equal(source, target) < 8.0
        await eventually(lambda: not daemon.known.about("locked"))
        await eventually(lambda: value(target, "select snapshot <> %s from mirror.state", before))
        assert failures(daemon) == 0
        assert await value(target, "select epoch from mirror.state") == epoch


async def test_a_lock_in_the_midst_of_a_first_load_ends_by_itself(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """What was read ahead is thrown away, once; the walk goes on where it was."""
    install(source_url, target_url)
    await source.execute(SEED)
    await source.execute("insert into users (id) select gen_random_uuid() from generate_series(1, 3000)")
    async with await psycopg.AsyncConnection.connect(target_url) as busy:
        await busy.execute("lock table public.users in share mode")
        async with running(source_url, target_url, NEVER | {"MIRROR_BATCH_ROWS": "100"}) as daemon:
            await eventually(lambda: value(target, "select exists (select from public.trip_memberships)"), 10.0)
            await eventually(lambda: daemon.known.about("locked"))
            assert failures(daemon) <= 2
            await busy.rollback()
            await becomes_equal(source, target, timeout_s=15.0)
            await leading(daemon)
            assert failures(daemon) <= 2


@pytest.mark.parametrize("table", ["users", "trip_memberships"])
async def test_a_table_that_is_locked_in_the_source_stops_only_its_own_rows(
    source: Connection, target: Connection, source_url: str, target_url: str, *, table: str
) -> None:
    """A migration of the application that takes its time."""
    install(source_url, target_url)
    await source.execute(SEED)
    other = OTHERS[table]
    async with running(source_url, target_url, NEVER) as daemon:
        await leading(daemon)
        await becomes_equal(source, target)
        await asleep(source)
        async with await psycopg.AsyncConnection.connect(source_url) as busy:
            await busy.execute(f"lock table public.{table} in access exclusive mode")
            await source.execute(
                f"insert into mirror.outbox (tbl, k1, k2) values ('{table}', '{A_TRIP}', "
                f"{'null' if table == 'users' else repr(A_USER)})"
            )
            await source.execute(CHANGE[other])
            seen = f"select bool_or(to_jsonb(t)::text ~ 'new|admin') from public.{other} as t"
            await eventually(lambda: value(target, seen), 5.0)
            await eventually(lambda: table in daemon.known.about("unreadable"))
            assert "lock timeout" in daemon.known.about("unreadable")[table]
        await eventually(lambda: not daemon.known.about("unreadable"))
        assert await equal(source, target)
        assert failures(daemon) == 0
