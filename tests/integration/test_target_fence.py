"""Who may write the target, and how its position moves: (epoch, batch) is checked in the target, under a lock."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from mirror.mapping import Mapping
from mirror.target.access import told
from tests.bed.eventually import eventually
from tests.bed.target_side import SOURCE, Connection, Row, Writer, an_id, position, put_in_place, scope, user

pytestmark = pytest.mark.sql


@pytest.fixture
async def writer(target_url: str, target: Connection) -> Writer:
    put_in_place(target_url)
    return Writer(target)


@pytest.fixture
async def rival(target_url: str) -> AsyncIterator[Writer]:
    """Another daemon, with a connection of its own."""
    async with await psycopg.AsyncConnection.connect(target_url, autocommit=True) as connection:
        yield Writer(connection)


async def refused(call: Awaitable[Any]) -> psycopg.Error:
    """The error with which the target answers on purpose."""
    with pytest.raises(psycopg.Error) as raised:
        await call
    return raised.value


async def names(writer: Writer) -> list[str]:
    return [name for (name,) in await writer.rows("select username from public.users order by 1")]


def named(name: str) -> Row:
    return scope("users", [user(an_id(1), name)])


async def test_each_claim_takes_the_next_epoch_and_batches_begin_anew(writer: Writer, rival: Writer) -> None:
    assert [(await writer.claim())["epoch"], (await rival.claim())["epoch"]] == [1, 2]
    await rival.apply(named("new"))
    assert (await rival.claim())["epoch"] == 3
    await rival.send(3, 1, named("newer"))
    assert await names(writer) == ["newer"]


@pytest.mark.parametrize(("epoch", "batch"), [(2, 5), (2, 4), (1, 99), (3, 1), (0, 0), (None, 6), (2, None)])
async def test_only_something_newer_of_this_epoch_is_applied(
    writer: Writer, epoch: int | None, batch: int | None
) -> None:
    await writer.claim()
    await writer.claim()
    await writer.send(2, 5, named("there"))
    before = await writer.rows("select to_jsonb(s) from mirror.state as s")
    error = await refused(writer.send(epoch, batch, named("late"), position=position("5:5:")))  # type: ignore[arg-type]
    assert error.sqlstate == "PT409"
    assert "superseded" in str(error)
    assert await writer.rows("select to_jsonb(s) from mirror.state as s") == before
    assert await names(writer) == ["there"]


async def test_batches_may_be_left_out(writer: Writer) -> None:
    """A fence is taken before the snapshot is read, and what was read may turn out to be nothing."""
    await writer.claim()
    await writer.send(1, 1, named("first"))
    await writer.send(1, 17, named("second"))
    assert await names(writer) == ["second"]


async def waits_for_a_lock(watcher: Writer, connection: Connection) -> bool:
    pid = connection.info.backend_pid
    return bool(
        await watcher.one("select coalesce(wait_event_type = 'Lock', false) from pg_stat_activity where pid = %s", pid)
    )


@pytest.mark.usefixtures("writer")
async def test_concurrent_claims_get_different_epochs(target_url: str) -> None:
    connections = [await psycopg.AsyncConnection.connect(target_url, autocommit=True) for _ in range(8)]
    try:
        replies = await asyncio.gather(*(Writer(connection).claim() for connection in connections))
    finally:
        for connection in connections:
            await connection.close()
    assert sorted(reply["epoch"] for reply in replies) == list(range(1, 9))


async def test_a_batch_waits_for_a_claim_and_is_refused(target_url: str, writer: Writer, rival: Writer) -> None:
    await writer.claim()
    await writer.apply(named("before"))
    async with await psycopg.AsyncConnection.connect(target_url, autocommit=True) as watching:
        async with rival.connection.transaction():
            await rival.claim()
            late = asyncio.create_task(refused(writer.apply(named("late"))))
            await eventually(lambda: waits_for_a_lock(Writer(watching), writer.connection))
        assert (await late).sqlstate == "PT409"
    await rival.apply(named("after"))
    assert await names(writer) == ["after"]


async def test_a_claim_waits_for_a_batch_and_sees_all_of_it(target_url: str, writer: Writer, rival: Writer) -> None:
    await writer.claim()
    async with await psycopg.AsyncConnection.connect(target_url, autocommit=True) as watching:
        async with writer.connection.transaction():
            await writer.apply(named("in time"), position=position("7:7:"))
            claim = asyncio.create_task(rival.claim())
            await eventually(lambda: waits_for_a_lock(Writer(watching), rival.connection))
        assert (await claim)["snapshot"] == "7:7:"
    assert (await refused(writer.apply(named("late")))).sqlstate == "PT409"
    assert await names(writer) == ["in time"]


async def test_the_same_batch_twice_at_once_is_applied_once(writer: Writer, rival: Writer) -> None:
    await writer.claim()
    for batch in range(1, 21):
        sent = [w.send(1, batch, named(f"{batch} {who}")) for who, w in (("a", writer), ("b", rival))]
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        errors = [o for o in outcomes if isinstance(o, psycopg.Error)]
        assert [error.sqlstate for error in errors] == ["PT409"]
        assert await names(writer) == [f"{batch} {'b' if isinstance(outcomes[0], psycopg.Error) else 'a'}"]


@pytest.mark.parametrize("changed", ["system", "timeline", "oid"])
async def test_another_source_is_refused(writer: Writer, changed: str) -> None:
    await writer.claim()
    error = await refused(writer.claim(SOURCE | {changed: "another"}))
    assert error.sqlstate == "PT412"
    assert "another source" in str(error)
    assert error.diag.message_hint == (
        "Check MIRROR_SOURCE_URL and MIRROR_TARGET_URL; if it is meant, run `mirror adopt`."
    )
    await writer.send(1, 1, named("the first one goes on"))
    assert await writer.one("select source from mirror.state") == SOURCE


async def test_the_same_source_installed_anew_is_taken_up_and_compared(writer: Writer) -> None:
    """The server says that it is the same database; where it cannot say which one it is, a person must."""
    await writer.claim()
    await writer.apply(named("before"), position=position("9:12:10"))
    anew = SOURCE | {"install": "anew"}
    error = await refused(writer.claim(anew | {"snapshot": "9:11:"}))
    assert (error.sqlstate, "went back in time" in str(error)) == ("PT412", True)
    reply = await writer.claim(anew | {"snapshot": "13:13:"})
    assert (reply["snapshot"], reply["primed"], reply["proof"]) == (None, False, None)
    assert await writer.one("select fresh_at is null from mirror.state")
    assert (await writer.status())["source"] == anew
    assert await names(writer) == ["before"]
    error = await refused(writer.claim({"system": None, "timeline": None, "install": "a third"}))
    assert error.sqlstate == "PT412"


async def test_of_two_sources_at_once_one_is_refused(target_url: str, writer: Writer, rival: Writer) -> None:
    async with await psycopg.AsyncConnection.connect(target_url, autocommit=True) as watching:
        async with rival.connection.transaction():
            await rival.claim()
            late = asyncio.create_task(refused(writer.claim(SOURCE | {"system": "another"})))
            await eventually(lambda: waits_for_a_lock(Writer(watching), writer.connection))
        assert (await late).sqlstate == "PT412"
    assert (await rival.status())["source"] == SOURCE


async def test_a_source_whose_database_was_renamed_is_the_same(writer: Writer) -> None:
    await writer.claim()
    renamed = SOURCE | {"database": "app_2"}
    assert (await writer.claim(renamed))["epoch"] == 2
    assert (await writer.status())["source"] == renamed


async def test_a_source_must_say_who_it_is(writer: Writer) -> None:
    for nobody in ("null", '"app"', "[]"):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            await writer.connection.execute("select public.mirror_claim(%s)", [nobody])
    assert (await writer.claim())["epoch"] == 1


async def test_a_claim_tells_what_a_daemon_must_know(writer: Writer) -> None:
    before = await writer.one("select clock_timestamp()")
    first = await writer.claim()
    assert before <= datetime.fromisoformat(first.pop("clock")) <= await writer.one("select clock_timestamp()")
    types = {"user_id": "uuid", "trip_id": "uuid", "created_by": "uuid"}
    assert first == {
        "epoch": 1,
        "version": 1,
        "types": types,
        "snapshot": None,
        "primed": False,
        "empty": ["users", "trips", "trip_memberships"],
        "walks": [],
        "proof": None,
        "channels": "ready",
        "life": None,
        "compared": True,
        "tampered": False,
        "doubts": [],
        "told": told(Mapping()),
    }
    await writer.apply(position=position("9:12:10"))
    second = await writer.claim()
    assert (second["snapshot"], second["primed"]) == ("9:12:10", True)


async def test_a_position_does_not_go_back_within_an_epoch(writer: Writer) -> None:
    await writer.claim()
    await writer.apply(position=position("10:20:10,15", "2026-05-01T10:00:00Z"))
    for older in ("10:19:10", "9:20:9"):
        before = await writer.rows("select to_jsonb(s) from mirror.state as s")
        error = await refused(writer.apply(named("overtaken"), position=position(older)))
        assert error.sqlstate == "PT409"
        assert await writer.rows("select to_jsonb(s) from mirror.state as s") == before
    assert await names(writer) == []
    await writer.apply(position=position("10:20:10"))
    await writer.apply(position=position("20:20:"))
    assert (await writer.status())["snapshot"] == "20:20:"


async def test_times_do_not_go_back_while_the_snapshot_goes_on(writer: Writer) -> None:
    """A clock that was set back, or a new daemon with a more cautious guess: what was known stays known."""
    await writer.claim()
    await writer.apply(position=position("10:10:", "2026-05-01T10:00:00Z", "2026-04-01T10:00:00Z"))
    times = await writer.rows("select as_of, fresh_at from mirror.state")
    await writer.apply(position=position("11:11:", "2026-05-01T09:00:00Z", "2026-04-01T09:00:00Z"))
    assert await writer.rows("select as_of, fresh_at from mirror.state") == times
    await writer.claim()
    await writer.apply(position=position("11:11:", "2026-05-01T09:00:00Z", "2026-04-01T09:00:00Z"))
    assert await writer.rows("select as_of, fresh_at from mirror.state") == times


async def test_a_restored_source_may_be_older_for_whoever_claims_anew(writer: Writer) -> None:
    await writer.claim()
    await writer.apply(position=position("100:100:", "2026-05-02T00:00:00Z", "2026-05-02T00:00:00Z"))
    await writer.claim()
    await writer.apply(position=position("50:50:", "2026-05-01T00:00:00Z", "2026-05-01T00:00:00Z"))
    older = datetime(2026, 5, 1, tzinfo=UTC)
    assert await writer.rows("select snapshot, as_of, fresh_at from mirror.state") == [("50:50:", older, older)]


async def test_nothing_is_fresher_than_now(writer: Writer) -> None:
    await writer.claim()
    ahead = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    await writer.apply(position=position("1:1:", ahead, ahead))
    assert await writer.one("select fresh_at <= clock_timestamp() from mirror.state")
    assert (await writer.status())["staleness_seconds"] >= 0


async def test_the_status_before_and_after_a_first_batch(writer: Writer) -> None:
    first = await writer.status()
    assert first["epoch"] == first["batch"] == 0
    assert first["staleness_seconds"] is first["snapshot"] is first["primed_at"] is None
    await writer.claim()
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    refusal = {"k1": an_id(3), "k2": None, "reason": "division by zero"}
    await writer.apply(named("ann") | {"refused": [refusal]}, position=position("4:4:", long_ago, long_ago))
    status = await writer.status()
    assert 3600 <= status["staleness_seconds"] < 3700
    assert (status["epoch"], status["batch"], status["snapshot"]) == (1, 1, "4:4:")
    (parked,) = status["parked"]
    assert {key: parked[key] for key in ("tbl", "k1", "k2", "reason", "tries")} == {
        "tbl": "users", "k1": an_id(3), "k2": "", "reason": "division by zero", "tries": 1,
    }  # fmt: skip
    assert set(status) == {
        "version", "types", "allow_cascade", "source", "epoch", "batch", "snapshot", "as_of", "fresh_at", "applied_at",
        "primed_at", "proof", "braked", "walks", "clock", "staleness_seconds", "parked", "channels", "life",
        "position_life", "doubts", "equal", "parked_keys",
    }  # fmt: skip
