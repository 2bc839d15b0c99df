"""The brake, and everything else that must not be taken for "all of it is gone"."""

import logging
import secrets
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

import mirror.producers.outbox
import mirror.producers.reconcile
from mirror.producers.findings import Order
from tests.bed.daemons import asleep, becomes_equal, environ, equal, install, leading, process, value
from tests.bed.eventually import eventually
from tests.bed.proofs import an_id, asked, counted, quiet, seed, verified

Connection = psycopg.AsyncConnection[Any]
COUNT = "select count(*) from trip_memberships"
# 400 memberships: the brake allows 100 rows; 30 users and 4 trips never reach it.
USERS = 100


async def unseen(source: Connection, statement: str) -> None:
    """A change that the triggers do not see. (They are gone for a moment: disabled ones would be reported.)"""
    async with source.transaction():
        await source.execute("alter table trip_memberships disable trigger user")
        await source.execute(statement)
        for event in ("insert", "update", "delete", "truncate"):
            await source.execute(f"alter table trip_memberships enable always trigger mirror_{event}")


async def test_rows_that_seem_gone_stay_until_a_person_has_looked(
    source: Connection, target: Connection, source_url: str, target_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await seed(source, USERS)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        proof = await eventually(lambda: value(target, "select proof from mirror.state"))
        await unseen(source, f"delete from trip_memberships where trip_id in ({an_id('1')}, {an_id('2')})")
        await unseen(source, f"update trip_memberships set role = 'unseen' where user_id = {an_id('1')}")
        await target.execute("update users set username = 'drift'")
        with caplog.at_level(logging.ERROR):
            state, result = await asked(source, "resync()")
        found = result["tables"]
        assert (state, found["trip_memberships"]["extra"], found["trip_memberships"]["target_rows"]) == (
            "braked", 200, 400,
        )  # fmt: skip
        assert found["trip_memberships"]["braked"]
        assert not found["trip_memberships"]["repaired"]
        assert await value(target, COUNT) == 400
        assert await value(target, f"{COUNT} where role = 'unseen'") == 0, "nothing of that table is changed"
        assert await value(target, "select count(*) from users where username = 'drift'") == 0, (
            "the others are repaired"
        )
        reason = "trip_memberships differs and is not repaired: the brake is on, 200 of 400 rows would go"
        assert reason in daemon.known.why_not_ready()
        assert any(record.message == reason for record in caplog.records)
        assert await value(target, "select proof from mirror.state") == proof
        assert daemon.knowledge.metrics.resyncs.labels("braked")._value.get() == 1
        # What is certain goes on: exact keys, revocations first of all.
        await source.execute(f"delete from trip_memberships where trip_id = {an_id('3')} and user_id = {an_id('5')}")
        await eventually(lambda: value(target, f"select ({COUNT}) = 399"))
        assert reason in daemon.known.why_not_ready()
        await verified(source)
        assert reason in daemon.known.why_not_ready(), "looking does not let go of it"
        async with process(environ(source_url, target_url), "status") as status:
            await status.ended(20)
            assert f"STALE: {reason}." in status.output
        async with process(environ(source_url, target_url), "resync") as again:
            assert await again.ended(20) == 1
            assert again.output.startswith("BRAKED")
            assert "mirror resync --force" in again.output
            assert "this would delete 200 of 399 rows of trip_memberships" in again.output
        async with process(environ(source_url, target_url), "resync", "--force") as forced:
            assert await forced.ended(20) == 0
        assert await equal(source, target)
        assert daemon.known.about("brake") == {}
        await eventually(lambda: value(target, "select braked = '{}' from mirror.state"))
        await eventually(lambda: value(target, "select proof->'at' <> %s::jsonb->'at' from mirror.state", Jsonb(proof)))


@pytest.mark.parametrize("gone", ["truncate trip_memberships", "drop", "delete"])
async def test_an_empty_source_empties_nothing(  # noqa: PLR0917 (fixtures)
    source: Connection,
    target: Connection,
    source_url: str,
    target_url: str,
    monkeypatch: pytest.MonkeyPatch,
    gone: str,
) -> None:
    """TRUNCATE is seen and not believed; a table that was dropped and made anew, or emptied unseen, is noticed when
    comparing. When the rows come back the brake is let go, and the mark is settled."""
    await seed(source, USERS)
    install(source_url, target_url)
    await source.execute("create table saved as select * from trip_memberships")
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        wanted: list[Order] = []
        original = daemon._applier.reconcile.want

        def want(order: Order) -> None:
            wanted.append(order)
            original(order)

        monkeypatch.setattr(daemon._applier.reconcile, "want", want)
        if gone == "drop":
            await source.execute("alter table trip_memberships rename to old")
            await source.execute("create table trip_memberships (like old including all); drop table old")
        elif gone == "delete":
            await unseen(source, "delete from trip_memberships")
        else:
            await source.execute(gone)
        if gone != "truncate trip_memberships":
            assert (await asked(source, "resync()"))[0] == "braked"
        await eventually(lambda: "trip_memberships" in daemon.known.about("brake"))
        assert await value(target, COUNT) == 400
        await source.execute("update users set username = 'live'")
        await eventually(lambda: value(target, "select count(*) = 100 from users where username = 'live'"))
        assert len(wanted) == 1, "it compares once, not again and again"
        await source.execute("insert into trip_memberships overriding system value select * from saved")
        assert (await asked(source, "resync()"))[0] == "done"
        await eventually(lambda: daemon.known.about("brake") == {})
        assert await equal(source, target)
        await eventually(lambda: value(source, "select count(*) = 0 from mirror.outbox"))


async def test_under_the_brake_it_sleeps_and_a_refill_ends_it(
    source: Connection, target: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark stays in the outbox; that is no reason to look at it twenty times a second."""
    monkeypatch.setattr(mirror.producers.reconcile, "AGAIN_MIN_S", 2.0)
    await seed(source, USERS)
    install(source_url, target_url)
    await source.execute("create table saved as select * from trip_memberships")
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await source.execute("truncate trip_memberships")
        await eventually(lambda: "trip_memberships" in daemon.known.about("brake"))
        await asleep(source)
        looks = daemon.knowledge.metrics.wakeups.labels("awake")._value.get()
        await source.execute("update users set username = 'live'")
        await eventually(lambda: value(target, "select count(*) = 100 from users where username = 'live'"))
        await asleep(source)
        assert daemon.knowledge.metrics.wakeups.labels("awake")._value.get() - looks < 5
        assert daemon.known.about("brake"), "and nothing was compared meanwhile"
        assert await value(target, COUNT) == 400
        await source.execute("insert into trip_memberships overriding system value select * from saved")
        await eventually(lambda: daemon.known.about("brake") == {})
        assert await equal(source, target)
        await eventually(lambda: value(source, "select count(*) = 0 from mirror.outbox"))
        await eventually(lambda: value(target, "select braked = '{}' from mirror.state"))


async def test_a_table_that_was_empty_at_the_start_is_not_emptied_later(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """The first mark of an empty table means "load it", without a comparison; that must not hold for ever."""
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await seed(source, USERS)
        await becomes_equal(source, target)
        await asleep(source)
        await source.execute("truncate trip_memberships")
        await eventually(lambda: "trip_memberships" in daemon.known.about("brake"))
        assert await value(target, COUNT) == 400


async def test_a_restart_does_not_let_go_of_the_brake(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await seed(source, USERS)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await becomes_equal(source, target)
    await source.execute("truncate trip_memberships")
    for _ in range(2):
        async with quiet(source_url, target_url) as daemon:
            await eventually(lambda: "trip_memberships" in daemon.known.about("brake"))
            assert await value(target, COUNT) == 400
    async with quiet(source_url, target_url) as daemon:
        assert (await asked(source, "resync('trip_memberships', force => true)"))[0] == "done"
        assert await value(target, COUNT) == 0


@pytest.mark.parametrize(("percent", "state"), [("60", "done"), ("50", "done"), ("49.9", "braked"), ("0", "braked")])
async def test_its_share_is_a_setting(  # noqa: PLR0917 (fixtures)
    source: Connection, target: Connection, source_url: str, target_url: str, percent: str, state: str
) -> None:
    await seed(source, USERS)
    install(source_url, target_url)
    async with quiet(source_url, target_url, MIRROR_BRAKE_PERCENT=percent) as daemon:
        await leading(daemon)
        await unseen(source, f"delete from trip_memberships where trip_id in ({an_id('1')}, {an_id('2')})")
        assert (await asked(source, "resync()"))[0] == state
        assert await value(target, COUNT) == (200 if state == "done" else 400)


@pytest.mark.parametrize(
    ("hide", "says"),
    [
        ("alter table trip_memberships enable row level security", "row level security"),
        ("revoke select (trip_id, user_id, role, status) on trip_memberships from mirror_daemon", "may not read"),
    ],
    ids=["rls", "revoked"],
)  # fmt: skip
async def test_what_may_not_be_read_is_not_empty(  # noqa: PLR0917 (fixtures)
    source: Connection,
    target: Connection,
    source_url: str,
    target_url: str,
    monkeypatch: pytest.MonkeyPatch,
    hide: str,
    says: str,
) -> None:  # fmt: skip
    """The daemon logs in as a role of its own. Not one row is taken for gone, and nothing else stands still."""
    monkeypatch.setattr(mirror.producers.outbox, "BROKEN_RETRY_S", 0.1)
    await seed(source)
    install(source_url, target_url)
    name = f"daemon_{secrets.token_hex(4)}"
    await source.execute(f"create role {name} login in role mirror_daemon")
    try:
        async with quiet(make_conninfo(source_url, user=name), target_url) as daemon:
            await leading(daemon)
            assert await equal(source, target)
            await source.execute(hide)
            state, result = await asked(source, "resync()")
            found = result["tables"]["trip_memberships"]
            assert (state, found["extra"], found["missing"]) == ("failed", 0, 0)
            assert says in found["unreadable"]
            assert await value(target, COUNT) == 120
            await source.execute("update users set username = 'live'; update trip_memberships set role = 'waits'")
            await eventually(lambda: value(target, "select count(*) = 30 from users where username = 'live'"))
            assert counted(result["tables"])["users"] == dict.fromkeys(("missing", "extra", "changed"), 0)
            await eventually(lambda: "trip_memberships" in daemon.known.about("unreadable"))
            assert await value(target, COUNT) == 120
            await source.execute(
                "alter table trip_memberships disable row level security; "
                "grant select on trip_memberships to mirror_daemon"
            )
            await becomes_equal(source, target)
    finally:
        await source.execute(f"drop owned by {name}; drop role {name}")
