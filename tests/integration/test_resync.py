"""Requests of operators: from SQL and from a terminal, whole and in part, taken back, and across a restart."""

import asyncio
import contextlib
import json
import secrets
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from mirror.daemon import Daemon
from tests.bed.daemons import asleep, becomes_equal, environ, equal, install, leading, process, value
from tests.bed.eventually import eventually
from tests.bed.proofs import ASKED_ONLY, an_id, asked, differences, ended, no_drift, quiet, seed, slices_of, verified

Connection = psycopg.AsyncConnection[Any]
NONE_PARKED: dict[str, Any] = {"parked": 0, "parked_rows": []}
SPOILED = (
    "update users set username = 'spoiled' where username is null",
    "delete from trips where name = 'trip 2'",
    f"insert into trips (id) values ({an_id('99')})",
    f"delete from trip_memberships where user_id in ({an_id('3')}, {an_id('7')})",
    f"update trip_memberships set role = 'owner' where trip_id = {an_id('1')}",
    f"insert into trip_memberships (trip_id, user_id) values ({an_id('1')}, {an_id('77')})",
)


async def spoil(target: Connection) -> None:
    for statement in SPOILED:
        await target.execute(statement)


async def mirror(source_url: str, target_url: str, *arguments: str) -> tuple[int, str]:
    """A command of its own: its exit code, and what it said."""
    async with process(environ(source_url, target_url), *arguments) as command:
        return await command.ended(20.0), command.output


def slowly(daemon: Daemon, rows_per_s: float) -> None:
    daemon._applier.reconcile._rows_per_s = rows_per_s


async def test_a_table_a_trip_and_a_user_are_repaired_and_nothing_else(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await spoil(target)
        whole = await differences(source, target)
        assert (await asked(source, "resync('users')"))[0] == "done"
        left = await differences(source, target)
        assert left == whole | {"users": no_drift()["users"]}
        trip = await value(source, f"select {an_id('1')}::text")
        state, result = await asked(source, f"resync(trip => '{trip}')")
        assert (state, result) == ("done", {"rows_changed": 30 + 1, **NONE_PARKED})
        left = await differences(source, target)
        assert left["trip_memberships"] == {"missing": 6, "extra": 0, "changed": 0}
        assert left["trips"] == whole["trips"]
        await target.execute(f"delete from users where id = {an_id('3')}")
        user = await value(source, f"select {an_id('3')}::text")
        state, result = await asked(source, f"resync(usr => '{user}')")
        assert (state, result) == ("done", {"rows_changed": 1 + 3, **NONE_PARKED})
        assert (await differences(source, target))["trip_memberships"] == {"missing": 3, "extra": 0, "changed": 0}
        assert (await asked(source, "resync()"))[0] == "done"
        assert await equal(source, target)


async def test_a_trip_that_is_larger_than_a_batch_and_one_that_is_gone(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await seed(source, users=60)
    install(source_url, target_url)
    async with quiet(source_url, target_url, MIRROR_BATCH_ROWS="7") as daemon:
        await leading(daemon)
        await becomes_equal(source, target)
        await target.execute(
            f"delete from trip_memberships where trip_id = {an_id('2')};"
            f"insert into trips (id) values ({an_id('50')});"
            f"insert into trip_memberships (trip_id, user_id) select {an_id('50')}, {an_id('n')} "
            "from generate_series(1, 40) as n"
        )
        for n in ("2", "50"):
            trip = await value(source, f"select {an_id(n)}::text")
            assert (await asked(source, f"resync(trip => '{trip}')"))[0] == "done"
        assert await equal(source, target)


@pytest.mark.parametrize("scope", ["trip", "usr"])
async def test_what_does_not_exist_changes_nothing_and_nonsense_is_said_to_be(
    source: Connection, target: Connection, source_url: str, target_url: str, scope: str
) -> None:
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        unknown = "00000000-0000-0000-0000-00000000abcd"
        assert await asked(source, f"resync({scope} => '{unknown}')") == ("done", {"rows_changed": 0, **NONE_PARKED})
        state, result = await asked(source, f"resync({scope} => 'nonsense')")
        assert state == "failed"
        assert "nonsense" in result["error"]
        assert daemon.known.about("unreadable") == {}
        assert await equal(source, target)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("resync('messages')", "there is no mirrored table messages"),
        ("resync('trips', trip => 'x')", "check constraint"),
        ("resync(trip => 'x', usr => 'y')", "check constraint"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_at_once(
    source: Connection, source_url: str, target_url: str, call: str, says: str
) -> None:
    install(source_url, target_url)
    with pytest.raises(psycopg.Error, match=says):
        await source.execute(f"select mirror.{call}")
    assert await value(source, "select count(*) from mirror.request") == 0


async def test_two_requests_at_once_are_done_one_after_the_other(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await spoil(target)
        trip = await value(source, f"select {an_id('1')}::text")
        calls = ("resync()", "resync()", "resync('users', rewrite => true)", f"resync(trip => '{trip}')",
                 "ask('verify', null, null, null, false, false)", "resync('trips')", "resync()")  # fmt: skip
        numbers = [await value(source, f"select mirror.{call}") for call in calls]
        assert [(await ended(source, n))[0] for n in numbers] == ["done"] * len(calls)
        assert await equal(source, target)


async def test_taken_back_while_it_waits_and_while_it_runs(
    source: Connection, target: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices_of(monkeypatch, 5)
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await target.execute("delete from trips")
        slowly(daemon, 10)
        first, second, third = [await value(source, "select mirror.resync()") for _ in range(3)]
        await eventually(lambda: daemon._applier.reconcile.running is not None)
        assert await value(source, "select mirror.cancel_resync(%s)", second)
        assert await value(source, "select state from mirror.request where id = %s", second) == "cancelled"
        await eventually(lambda: value(source, "select state = 'running' from mirror.request where id = %s", first))
        assert await value(source, "select progress->>'phase' from mirror.request where id = %s", first) == "compare"
        assert await value(source, "select mirror.cancel_resync(%s)", first)
        assert (await ended(source, first))[0] == "cancelled"
        assert await value(target, "select count(*) from trips") == 0
        slowly(daemon, 1e9)
        assert (await ended(source, third))[0] == "done"
        await eventually(lambda: not daemon._applier.reconcile.busy)
        assert await value(source, "select state from mirror.request where id = %s", second) == "cancelled"
        assert not await value(source, "select mirror.cancel_resync(%s)", third)
        assert not await value(source, "select mirror.cancel_resync(12345)")
        assert (await ended(source, third))[0] == "done"


async def test_a_request_survives_the_daemon(
    source: Connection, target: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is left while nobody runs, one is under way when the daemon is killed: the next one does both."""
    slices_of(monkeypatch, 5)
    await seed(source)
    install(source_url, target_url)
    settings = environ(source_url, target_url, MIRROR_RECONCILE_ROWS_PER_SECOND="20", **ASKED_ONLY)
    async with process(settings) as daemon:
        await daemon.says("leading")
        await becomes_equal(source, target)
        await spoil(target)
        running_one = await value(source, "select mirror.resync('users')")
        await eventually(
            lambda: value(source, "select started_at is not null from mirror.request where id = %s", running_one),
            60.0,  # after the first proof, at this rate
        )
    waiting = await value(source, "select mirror.resync(trip => '00000000-0000-0000-0000-000000000010')")
    async with quiet(source_url, target_url) as next_one:
        await leading(next_one)
        for number in (running_one, waiting):
            assert (await ended(source, number))[0] == "done"
        await becomes_equal(source, target)


async def test_the_target_is_never_empty_in_between(
    source: Connection, target: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices_of(monkeypatch, 10)
    await seed(source, users=200)
    install(source_url, target_url)
    async with quiet(source_url, target_url, MIRROR_BATCH_ROWS="20") as daemon:
        await leading(daemon)
        await becomes_equal(source, target)
        await asleep(source)
        smallest: list[int] = []

        async def poll() -> None:
            async with await psycopg.AsyncConnection.connect(target_url, autocommit=True) as conn:
                while True:
                    smallest.append(await value(conn, "select count(*) from trip_memberships"))

        polling = asyncio.create_task(poll())
        await target.execute("update trip_memberships set role = 'spoiled'")
        for call in ("resync()", "resync(rewrite => true)", "resync('trip_memberships', force => true)"):
            assert (await asked(source, call))[0] == "done"
        polling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await polling
        assert len(smallest) > 20
        assert set(smallest) == {800}
        assert await equal(source, target)


async def test_the_last_thousand_requests_are_kept(source: Connection, source_url: str, target_url: str) -> None:
    install(source_url, target_url)
    await source.execute("select mirror.resync() from generate_series(1, 1500)")
    assert await value(source, "select count(*) from mirror.request") == 1500, "what is open is never forgotten"
    await source.execute("select mirror.cancel_resync(id) from mirror.request where id <> 3")
    last = await value(source, "select mirror.resync()")
    assert 1000 <= await value(source, "select count(*) from mirror.request where id <> 3") <= 1002
    assert await value(source, "select min(id) from mirror.request where id > 3") >= last - 1001
    assert await value(source, "select state from mirror.resyncs where id = 3") == "waiting"


async def test_the_application_may_not_ask_and_the_daemons_role_may(
    source: Connection, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    name = f"app_{secrets.token_hex(4)}"
    await source.execute(f"create role {name} login")
    try:
        async with await psycopg.AsyncConnection.connect(make_conninfo(source_url, user=name), autocommit=True) as app:
            for call in (
                "select mirror.resync()",
                "select mirror.ask('resync', null, null, null, true, true)",
                "select mirror.cancel_resync(1)",
                "select mirror.report(1, 'done', '{}', null)",
                "select mirror.collapse(0)",
                "select * from mirror.resyncs",
                "insert into mirror.request (kind) values ('resync')",
                "update mirror.request set force = true",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await app.execute(call)
            await source.execute(f"grant mirror_daemon to {name}")
            number = await value(app, "select mirror.resync('trips')")
            assert await value(app, "select requested_by from mirror.resyncs where id = %s", number) == name
            assert await value(app, "select mirror.cancel_resync(%s)", number)
    finally:
        await source.execute(f"revoke mirror_daemon from {name}; drop role {name}")


async def test_from_a_terminal(source: Connection, target: Connection, source_url: str, target_url: str) -> None:
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await spoil(target)
        code, said = await mirror(source_url, target_url, "resync", "--table", "users")
        assert (code, said.splitlines()[0]) == (0, "DONE")
        assert "users: 30 rows compared; 5 changed, repaired" in said
        code, said = await mirror(source_url, target_url, "resync", "--json")
        assert code == 0
        document = json.loads(said)
        assert (document["state"], document["result"]["tables"]["trips"]["extra"]) == ("done", 1)
        assert await equal(source, target)
        trip = await value(source, f"select {an_id('1')}::text")
        assert await mirror(source_url, target_url, "resync", "--trip", trip) == (
            0, "DONE\n0 rows changed in Supabase\n"
        )  # fmt: skip
        code, said = await mirror(source_url, target_url, "resync", "--user", "nonsense")
        assert code == 1
        assert said.startswith("FAILED: ")
        assert "nonsense" in said
        code, said = await mirror(source_url, target_url, "resync", "--rewrite", "--no-wait", "--json")
        assert code == 0
        assert (await ended(source, json.loads(said)["request"]))[0] == "done"
        for wrong in (["--table", "messages"], ["--table", "users", "--trip", "x"], ["--trip"]):
            assert (await mirror(source_url, target_url, "resync", *wrong))[0] == 2
    code, said = await mirror(source_url, target_url, "resync", "--no-wait")
    assert (code, "is left for the daemon" in said) == (0, True)
    dead = "postgresql://postgres@127.0.0.1:1/x"
    assert (await mirror(dead, target_url, "resync"))[0] == 3


async def test_a_terminal_is_told_that_a_request_was_taken_back(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await seed(source)
    install(source_url, target_url)
    async with process(environ(source_url, target_url), "resync") as waiting:
        await eventually(lambda: "no daemon leads" in waiting.output)
        await eventually(lambda: value(source, "select mirror.cancel_resync(max(id)) from mirror.request"))
        assert await waiting.ended() == 1
        assert "CANCELLED" in waiting.output
    assert await value(target, "select count(*) from users") == 0


async def test_the_rows_of_both_sides_are_counted(source: Connection, source_url: str, target_url: str) -> None:
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await asked(source, "resync(rewrite => true, force => true)")
        tables = await verified(source)
        assert {name: (found["rows"], found["target_rows"]) for name, found in tables.items()} == {
            "users": (30, 30), "trips": (4, 4), "trip_memberships": (120, 120),
        }  # fmt: skip
