"""Drift of every kind is found, explained, counted and repaired; and what is not drift is left alone."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

import mirror.producers.outbox
import mirror.watch
from mirror.daemon import Daemon
from tests.bed.daemons import SOFT, asleep, becomes_equal, equal, install, leading, value
from tests.bed.eventually import eventually
from tests.bed.proofs import (
    an_id,
    asked,
    counted,
    differences,
    drift,
    ended,
    no_drift,
    quiet,
    seed,
    slices_of,
    verified,
    versions,
)

Connection = psycopg.AsyncConnection[Any]

# What somebody might do to the target by hand. `first`, `last` and the gaps are where slices begin and end.
LAST = "'ffffffff-ffff-ffff-ffff-ffffffffffff'"
DRIFT = {
    "users": [
        f"delete from users where id in ({an_id('1')}, {an_id('2')}, {an_id('15')}, {an_id('30')})",
        f"insert into users (id, subject) values ({an_id('0')}, 'x'), ({LAST}, null)",
        "insert into users (id, username) select overlay(id::text placing '5' from 36)::uuid, '?' from users offset 9",
        f"update users set email = null where id = {an_id('6')}",  # '~' -> null
        f"update users set email = '~' where id = {an_id('5')}",  # null -> '~'
        f"update users set email = username, username = email where id = {an_id('8')}",
        f"update users set username = left(username, 9999) || 'y' where id = {an_id('4')}",
        f"update users set username = normalize(username, nfd) where id = {an_id('3')}",
        f"update users set username = username || ' ' where id = {an_id('7')}",
        f"update users set subject = null where id = {an_id('9')}",
    ],
    "trips": [
        f"delete from trips where id = {an_id('1')}",
        f"insert into trips (id) values ({LAST})",
        f"update trips set created_by = null where id = {an_id('2')}",
        f"update trips set name = name || '|' where id = {an_id('3')}",
    ],
    "trip_memberships": [
        f"delete from trip_memberships where trip_id = {an_id('2')}",
        f"delete from trip_memberships where user_id = {an_id('30')}",
        f"insert into trip_memberships values ({an_id('0')}, {an_id('1')}), ({LAST}, {LAST})",
        f"insert into trip_memberships values ({an_id('1')}, {LAST}), ({an_id('3')}, {an_id('0')})",
        f"update trip_memberships set role = '' where role is null and trip_id = {an_id('1')}",
        f"update trip_memberships set role = status, status = role where user_id = {an_id('9')}",
    ],
}


@pytest.mark.sql
@pytest.mark.parametrize("slice_rows", [None, 7, 1], ids=["one slice", "slices of 7", "slices of 1"])
async def test_drift_of_every_kind_is_found_explained_counted_and_repaired(  # noqa: PLR0917 (fixtures)
    source: Connection,
    target: Connection,
    source_url: str,
    target_url: str,
    monkeypatch: pytest.MonkeyPatch,
    slice_rows: int | None,
) -> None:
    if slice_rows:
        slices_of(monkeypatch, slice_rows)
    settings = {"MIRROR_BATCH_ROWS": "5"} if slice_rows else {}
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url, **settings) as daemon:
        await leading(daemon)
        assert counted(await verified(source)) == no_drift()
        for statements in DRIFT.values():
            for statement in statements:
                await target.execute(statement)
        drifted, before = await differences(source, target), set(await versions(target))
        assert all(n > 0 for ways in drifted.values() for n in ways.values())
        tables = await verified(source)
        assert counted(tables) == drifted
        assert set(await versions(target)) == before, "verify repairs nothing"
        assert drift(daemon) == no_drift(), "it counts when it is repaired, or it would count twice"
        state, result = await asked(source, "resync()")
        assert state == "done"
        assert counted(result["tables"]) == drifted == drift(daemon)
        assert await equal(source, target)
        explained = {
            (name, row["k1"], row["k2"]) for name, found in result["tables"].items() for row in found["differences"]
        }
        touched = {row[:3] for row in set(await versions(target)) ^ before}
        assert touched == explained, "equal rows are left alone"
        assert counted(await verified(source)) == no_drift()


async def test_every_difference_is_explained_with_both_rows(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await target.execute(f"update trips set name = 'x' where id = {an_id('1')}")
        await target.execute(f"delete from trips where id = {an_id('2')}")
        await target.execute(f"insert into trips (id, name) values ({LAST}, 'ghost')")
        found = (await verified(source, "trips"))["trips"]
        keys = [f"00000000-0000-0000-0000-0000000000{n}0" for n in (1, 2)]
        assert found["differences"] == [
            {"k1": keys[0], "k2": None, "direction": "changed",
             "source": {"id": keys[0], "name": "trip 1", "created_by": None},
             "target": {"id": keys[0], "name": "x", "created_by": None}},
            {"k1": keys[1], "k2": None, "direction": "missing",
             "source": {"id": keys[1], "name": "trip 2", "created_by": keys[1]}, "target": None},
            {"k1": LAST.strip("'"), "k2": None, "direction": "extra", "source": None,
             "target": {"id": LAST.strip("'"), "name": "ghost", "created_by": None}},
        ]  # fmt: skip


async def test_rewrite_sends_every_row_and_leaves_equal_ones_alone(
    source: Connection, target: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices_of(monkeypatch, 7)
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url, MIRROR_BATCH_ROWS="5") as daemon:
        await leading(daemon)
        before = set(await versions(target))
        sent = 0
        original = daemon._applier.reconcile.settle

        def settle(asked_for: Any, reading: Any, outcome: Any, spent_s: float) -> None:
            nonlocal sent
            sent += reading.slice["rows"] if asked_for.want == "rows" else 0
            original(asked_for, reading, outcome, spent_s)

        monkeypatch.setattr(daemon._applier.reconcile, "settle", settle)
        assert (await asked(source, "resync('trip_memberships', rewrite => true)"))[0] == "done"
        assert sent == 120
        assert set(await versions(target)) == before


@contextlib.asynccontextmanager
async def hammering(source_url: str, *statements: str) -> AsyncIterator[list[int]]:
    """One writer per statement, as fast as it can, until the block is left; how often each has written. They leave the
    outbox a moment without a backlog now and then, for nobody can compare without."""
    done = [0] * len(statements)

    async def write(i: int, statement: str) -> None:
        async with await psycopg.AsyncConnection.connect(source_url, autocommit=True) as conn:
            while True:
                with contextlib.suppress(psycopg.errors.DeadlockDetected):
                    await conn.execute(statement)
                done[i] += 1
                await eventually(lambda: value(conn, "select count(*) < 100 from mirror.outbox"))

    writers = [asyncio.create_task(write(i, s)) for i, s in enumerate(statements)]
    try:
        yield done
        failed = [w for w in writers if w.done()]
        assert not failed, failed
    finally:
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)


WRITERS = (
    f"update users set username = gen_random_uuid()::text where id = {an_id('1 + floor(random() * 298)::int')}",
    """with gone as (delete from trip_memberships where ctid = (select ctid from trip_memberships
    offset floor(random() * 1000)::int limit 1) returning trip_id, user_id)
    insert into trip_memberships (trip_id, user_id, role) select trip_id, gen_random_uuid(), 'new' from gone""",
    f"update trips set deleted_at = case when deleted_at is null then now() end where id = {an_id('2')}",
    "update trip_memberships set role = random()::text where mod(id, 3) = 0",
)


async def test_a_comparison_is_exact_while_everybody_writes(
    source: Connection, target: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bulk updates larger than a batch make backlogs, a trip that comes and goes moves its members: no false drift, and
    one row that did drift is not lost in the noise."""
    slices_of(monkeypatch, 150)
    await seed(source, users=300)
    install(source_url, target_url, SOFT)
    async with quiet(source_url, target_url, SOFT, MIRROR_BATCH_ROWS="200") as daemon:
        await leading(daemon)
        async with hammering(source_url, *WRITERS) as written:
            for _ in range(4):
                assert counted(await verified(source)) == no_drift()
            await target.execute(f"update users set email = 'drift' where id = {an_id('299')}")
            state, result = await asked(source, "resync()")
            assert (state, result["tables"]["users"]["changed"]) == ("done", 1)
            assert counted(await verified(source)) == no_drift()
        assert min(written) > 3, written
        await becomes_equal(source, target, SOFT)
        assert sum(n for ways in drift(daemon).values() for n in ways.values()) == 1


async def test_changes_that_disabled_triggers_missed_are_found(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await source.execute(
            "begin; alter table trip_memberships disable trigger user; alter table users disable trigger user;"
            f"delete from trip_memberships where user_id = {an_id('3')};"
            "update users set username = 'unseen' where email is null;"
            "insert into users (id) values (gen_random_uuid());"
            "commit"
        )
        assert not await equal(source, target)
        state, result = await asked(source, "resync()")
        assert (state, counted(result["tables"])["trip_memberships"]["extra"]) == ("done", 4)
        assert await equal(source, target)


async def test_parked_keys_are_no_drift_and_hide_none(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """The target refuses one user and one membership; what else differs in these tables is found all the same."""
    await seed(source)
    install(source_url, target_url)
    await target.execute(
        f"alter table users add check (id <> {an_id('3')}); "
        f"alter table trip_memberships add check (user_id <> {an_id('3')} or trip_id <> {an_id('1')})"
    )
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        assert await value(target, "select count(*) from mirror.parked") == 2
        assert counted(await verified(source)) == no_drift()
        await target.execute(f"update users set email = 'drift' where id = {an_id('4')}")
        await target.execute(f"delete from trip_memberships where user_id = {an_id('4')}")
        state, result = await asked(source, "resync()")
        found = counted(result["tables"])
        assert (state, found["users"]["changed"], found["trip_memberships"]["missing"]) == ("done", 1, 4)
        assert sum(n for ways in found.values() for n in ways.values()) == 5
        assert {name: d["parked"] for name, d in result["tables"].items()} == {
            "users": 1, "trips": 0, "trip_memberships": 1,
        }  # fmt: skip
        proof = await value(target, "select proof from mirror.state")
        assert proof["tables"]["users"]["parked"] == 1, "the certificate does not claim more than is so"


async def test_a_row_that_the_source_cannot_read_does_not_blind_the_comparison(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """The projection raises on one row: it alone is refused, the others of its table are compared, and live changes of
    the table do not wait."""
    from mirror.mapping import Mapping  # noqa: PLC0415

    mapping = Mapping.model_validate({"users": {"username": "(1 / (length(username) - 3))::text"}})
    await source.execute(
        "insert into users (id, email, username) select gen_random_uuid(), n, 'user' from generate_series(1, 5) as n"
    )
    install(source_url, target_url, mapping)
    async with quiet(source_url, target_url, mapping) as daemon:
        await leading(daemon)
        await source.execute("update users set username = 'bad' where email = '3'")
        await eventually(lambda: value(target, "select count(*) = 1 from mirror.parked"))
        await target.execute("update users set email = 'drift' where email = '4'")
        tables = await verified(source)
        assert tables["users"]["unreadable"] == ""
        assert counted(tables)["users"] == {"missing": 0, "extra": 0, "changed": 1}
        assert daemon.known.about("unreadable") == {}
        assert (await asked(source, "resync()"))[0] == "done"
        assert await value(target, "select count(*) from users where email = 'drift'") == 0
        assert await value(target, "select count(*) from users") == 5


@pytest.mark.parametrize("pending", [False, True], ids=["idle", "with changes waiting"])
async def test_a_renamed_column_is_reported_and_nothing_is_deleted(  # noqa: PLR0917 (fixtures)
    source: Connection,
    target: Connection,
    source_url: str,
    target_url: str,
    monkeypatch: pytest.MonkeyPatch,
    pending: bool,
) -> None:
    monkeypatch.setattr(mirror.producers.outbox, "BROKEN_RETRY_S", 0.1)
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await target.execute(f"insert into users (id) values ({LAST}), ({an_id('0')})")
        await target.execute(f"insert into trips (id) values ({LAST})")
        before = await value(target, "select count(*) from users")
        await source.execute(
            ("update users set username = 'waits'; " if pending else "")
            + "alter table users rename column email to mail"
        )
        state, result = await asked(source, "resync()")
        assert state == "failed"
        assert "email" in result["tables"]["users"]["unreadable"]
        assert result["tables"]["trips"]["extra"] == 1
        assert result["tables"]["trips"]["repaired"]
        assert await value(target, "select count(*) from users") == before
        await source.execute("update trips set name = 'live'")
        await eventually(lambda: value(target, "select count(*) = 4 from trips where name = 'live'"))
        if pending:
            assert any("email" in reason for reason in daemon.known.why_not_ready())
        await source.execute("alter table users rename column mail to email")
        await eventually(lambda: not daemon.known.about("unreadable"), 5.0)
        assert (await asked(source, "resync()"))[0] == "done"
        assert await equal(source, target)


async def test_it_compares_at_the_start(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await asleep(source)
    await target.execute("delete from trips")
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await becomes_equal(source, target)
        await eventually(lambda: drift(daemon)["trips"]["missing"] == 4)


async def test_it_compares_on_schedule(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await seed(source)
    install(source_url, target_url)
    settings = {"MIRROR_RECONCILE_CRON": "300ms"}
    async with quiet(source_url, target_url, **settings) as daemon:
        await leading(daemon)
        for missing in (4, 8):
            await target.execute("delete from trips")
            await becomes_equal(source, target)
            await eventually(lambda: drift(daemon)["trips"]["missing"] == missing)  # noqa: B023


async def test_a_disabled_trigger_is_reported_and_what_it_missed_is_found(  # noqa: PLR0917 (fixtures)
    source: Connection,
    target: Connection,
    source_url: str,
    target_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(mirror.watch, "FAULTS_INTERVAL_S", 0.1)
    await seed(source)
    install(source_url, target_url)
    settings = {"MIRROR_POLL_INTERVAL": "100ms"}
    async with quiet(source_url, target_url, **settings) as daemon:
        await leading(daemon)
        assert daemon.known.about("capture") == {}
        with caplog.at_level(logging.ERROR):
            await source.execute(
                "drop trigger mirror_truncate on trips; alter table users disable trigger mirror_update"
            )
            await eventually(lambda: len(daemon.known.about("capture")) == 2)
        assert any("mirror_update" in reason for reason in daemon.known.why_not_ready())
        assert any("are not captured" in record.message for record in caplog.records)
        await eventually(lambda: not daemon._applier.reconcile.busy)
        await source.execute("update users set username = 'unseen'")
        await source.execute("alter table users enable always trigger mirror_update")
        await eventually(lambda: len(daemon.known.about("capture")) == 1)
        await becomes_equal(source, target)


async def test_live_changes_flow_while_a_comparison_runs(
    source: Connection, target: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 10,000 rows/s these 4,000 memberships keep it busy for most of a second, eight slices long."""
    slices_of(monkeypatch, 500)
    await seed(source, users=1000)
    install(source_url, target_url)
    async with quiet(source_url, target_url, MIRROR_RECONCILE_ROWS_PER_SECOND="5000") as daemon:
        await leading(daemon)
        await asleep(source)
        request = await value(source, "select mirror.resync()")
        await eventually(lambda: daemon._applier.reconcile.running is not None)
        took: list[float] = []
        while daemon._applier.reconcile.running:
            began = time.monotonic()
            await source.execute("update users set username = %s where id = (select max(id::text)::uuid from users)", [
                f"live {len(took)}"
            ])  # fmt: skip
            told = f"select exists (select from users where username = 'live {len(took)}')"
            await eventually(lambda: value(target, told), interval_s=0.002)  # noqa: B023
            took.append(time.monotonic() - began)
        assert (await ended(source, request))[0] == "done"
        assert len(took) > 10
        assert sorted(took)[len(took) * 9 // 10] < 0.2, took


async def test_a_source_that_comes_back_without_a_trigger_is_found_out_at_once(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """After a crash or a failover that lost what was committed last; not a minute later."""
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await asleep(source)
        await source.execute("drop trigger mirror_delete on users")
        await source.execute("delete from users")
        await source.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'mirror' "
            "and datname = current_database()"
        )
        await eventually(lambda: "mirror_delete" in "".join(daemon.known.about("capture").values()))
        await becomes_equal(source, target)


async def test_a_table_that_cannot_be_read_is_not_asked_for_all_the_time(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """The comparison at the start waits for it; that is no reason to turn as fast as possible."""
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await becomes_equal(source, target)
    await source.execute("alter table users rename column email to mail")
    async with quiet(source_url, target_url) as daemon:
        await eventually(lambda: "users" in daemon.known.about("unreadable"))
        turns, began = _turns(daemon), time.monotonic()
        await eventually(lambda: time.monotonic() - began > 1.0)
        assert _turns(daemon) - turns < 20


def _turns(daemon: Daemon) -> float:
    """How often it has read."""
    return sum(float(bucket.get()) for bucket in daemon.knowledge.metrics.batch_seconds.labels("read")._buckets)


async def test_a_mark_that_comes_during_a_comparison_is_not_lost(
    source: Connection, target: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes behind it, and only the mark of the whole table says so, is found by another one; it is no drift."""
    slices_of(monkeypatch, 20)
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        mark = "select mirror.mark_tables('{trip_memberships}')"
        daemon._applier.reconcile._rows_per_s = 200
        await source.execute(mark)
        await eventually(lambda: (daemon._applier.reconcile.progress() or {}).get("rows_checked", 0) >= 40)
        async with source.transaction():
            await source.execute("alter table trip_memberships disable trigger mirror_update")
            await source.execute(f"update trip_memberships set role = 'silent' where trip_id = {an_id('1')}")
            await source.execute("alter table trip_memberships enable always trigger mirror_update")
            await source.execute(mark)
        assert daemon._applier.reconcile.running is not None
        await becomes_equal(source, target)
        await asleep(source)
        assert drift(daemon) == no_drift()


@pytest.mark.parametrize("users", [0, 30])
async def test_the_first_proof_comes_right_after_the_first_load(
    source: Connection, target: Connection, source_url: str, target_url: str, users: int
) -> None:
    """Also of tables that were empty from the start."""
    await seed(source, users, users and 4)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        proof = await eventually(lambda: value(target, "select proof from mirror.state"))
        assert {name: table["rows"] for name, table in proof["tables"].items()} == {
            "users": users,
            "trips": users and 4,
            "trip_memberships": users * 4,
        }
        assert proof["reason"] == "start"
        await eventually(lambda: daemon.known.proven_at is not None)
        assert drift(daemon) == no_drift()
