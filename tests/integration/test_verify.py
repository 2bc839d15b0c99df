"""mirror verify: the answer beside a daemon and without one, its exit codes, and that it changes nothing; and the
certificate that a comparison of everything leaves behind."""

import argparse
import asyncio
import json
import time
from typing import Any

import psycopg
import pytest

import mirror.cli.verify
import mirror.compare
import mirror.producers.outbox
from mirror.errors import Unreachable
from tests.bed.daemons import (
    MIRRORED,
    SOFT,
    asleep,
    becomes_equal,
    environ,
    install,
    leading,
    process,
    rows,
    value,
)
from tests.bed.eventually import eventually
from tests.bed.proofs import an_id, asked, quiet, seed, verified

Connection = psycopg.AsyncConnection[Any]


async def verify(source_url: str, target_url: str, *arguments: str) -> tuple[int, str]:
    async with process(environ(source_url, target_url), "verify", *arguments) as command:
        return await command.ended(20.0), command.output


async def everything(target: Connection) -> Any:
    """All that the mirror keeps in the target."""
    state = await (await target.execute("select to_jsonb(s)::text from mirror.state as s")).fetchall()
    parked = await (await target.execute("select * from mirror.parked order by tbl, k1, k2")).fetchall()
    return state, parked, await rows(target, MIRRORED), await value(target, "select pg_current_xact_id_if_assigned()")


async def loaded(source: Connection, target: Connection, source_url: str, target_url: str) -> None:
    await seed(source)
    install(source_url, target_url, SOFT)
    async with quiet(source_url, target_url, SOFT) as daemon:
        await leading(daemon)
        await becomes_equal(source, target, SOFT)
        await asleep(source)


DRIFT = (
    f"update users set username = 'é|~' where id = {an_id('2')};"
    f"delete from trips where id = {an_id('1')};"
    f"insert into trip_memberships (trip_id, user_id) values ({an_id('4')}, {an_id('0')})"
)


async def test_without_a_daemon_it_names_what_differs_and_writes_nowhere(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await loaded(source, target, source_url, target_url)
    assert (await verify(source_url, target_url))[0] == 0
    await target.execute(DRIFT)
    # What waits in the outbox is lag: changed, new, gone, and a whole trip.
    await source.execute(
        f"update users set username = 'pending' where id = {an_id('5')};"
        f"insert into users (id) values ({an_id('40')});"
        f"delete from trip_memberships where user_id = {an_id('6')};"
        f"delete from trips where id = {an_id('3')};"
        f"update trips set deleted_at = now() where id = {an_id('2')}"  # marked as a whole: its memberships go
    )
    waiting = await (await source.execute("select ctid, * from mirror.outbox order by id")).fetchall()
    before = await everything(target)
    code, said = await verify(source_url, target_url)
    assert code == 1
    assert "users: 31 rows" in said
    assert "  changed: 00000000-0000-0000-0000-000000000020 username: the primary has " in said
    assert '"\\u00e9|~"' in said
    assert "  missing: 00000000-0000-0000-0000-000000000010" in said
    assert "  extra: 00000000-0000-0000-0000-000000000040/00000000-0000-0000-0000-000000000000" in said
    assert said.count("missing:") == said.count("extra:") == said.count("changed:") == 1
    assert (await verify(source_url, target_url, "--table", "users"))[0] == 1
    code, said = await verify(source_url, target_url, "--json")
    found = json.loads(said)["tables"]
    assert code == 1
    assert [(found[t]["missing"], found[t]["extra"], found[t]["changed"]) for t in found] == [
        (0, 0, 1), (1, 0, 0), (0, 1, 0),
    ]  # fmt: skip
    assert await everything(target) == before
    assert await (await source.execute("select ctid, * from mirror.outbox order by id")).fetchall() == waiting
    assert await value(source, "select count(*) from mirror.request") == 0


async def test_beside_a_daemon_it_names_what_differs_and_repairs_nothing(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await target.execute(DRIFT)
        before = await rows(target, MIRRORED)
        code, said = await verify(source_url, target_url)
        assert (code, said.count("missing:"), said.count("extra:"), said.count("changed:")) == (1, 1, 1, 1)
        code, said = await verify(source_url, target_url, "--table", "trips", "--json")
        assert (code, list(json.loads(said)["tables"])) == (1, ["trips"])
        assert await rows(target, MIRRORED) == before
        await asked(source, "resync()")
        code, said = await verify(source_url, target_url)
        assert code == 0
        assert said.count(": equal") == 3


async def test_it_could_not_tell_is_exit_code_3(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await loaded(source, target, source_url, target_url)
    dead = "postgresql://postgres@127.0.0.1:1/x"
    assert (await verify(dead, target_url))[0] == 3
    assert (await verify(source_url, dead))[0] == 3
    await source.execute("alter table users rename column email to mail")
    for pending in (False, True):
        if pending:
            await source.execute("update users set last_seen = now(), username = 'x'")
        code, said = await verify(source_url, target_url)
        assert code == 3
        assert "users: 0 rows" in said
        assert "NOT COMPARED" in said
        assert "trips: 4 rows" in said
    await source.execute("truncate users")  # marked as a whole: nobody knows what of it is lag
    await source.execute("alter table users rename column mail to email")
    code, said = await verify(source_url, target_url)
    assert (code, "marked as changed as a whole" in said) == (3, True)


async def test_beside_a_daemon_that_cannot_read_a_table_it_is_exit_code_3(
    source: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror.producers.outbox, "BROKEN_RETRY_S", 0.1)
    await seed(source)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await source.execute("update users set username = 'x'; alter table users rename column email to mail")
        code, said = await verify(source_url, target_url)
        assert (code, "NOT COMPARED" in said) == (3, True)


async def test_a_daemon_that_makes_no_progress_is_not_waited_for_for_ever(
    source: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(source_url, target_url)
    leads = "select mirror.lead(gen_random_uuid(), 60, 'one that does nothing', pg_backend_pid())"
    assert await value(source, leads)
    monkeypatch.setattr(mirror.cli.verify, "PATIENCE_S", 0.3)
    for name, value_ in environ(source_url, target_url).items():
        monkeypatch.setenv(name, value_)
    with pytest.raises(Unreachable, match="no progress"):
        await asyncio.to_thread(mirror.cli.verify._verify, argparse.Namespace(table=None, json=False))
    assert await value(source, "select state from mirror.request") == "cancelled"


async def test_of_another_source_nothing_is_compared(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await loaded(source, target, source_url, target_url)
    await source.execute("update mirror.install set incarnation = gen_random_uuid()")
    code, said = await verify(source_url, target_url)
    assert (code, "mirrors another source" in said) == (2, True)


async def test_too_many_waiting_changes_are_said_to_be(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await loaded(source, target, source_url, target_url)
    await source.execute(
        "insert into mirror.outbox (tbl, k1) select 'users', gen_random_uuid() from generate_series(1, 50001)"
    )
    code, said = await verify(source_url, target_url)
    assert (code, "too many changes wait" in said) == (1, True)


async def test_verify_by_a_daemon_takes_its_backlog_for_lag(
    source: Connection, source_url: str, target_url: str
) -> None:
    """Asked in the same transaction that changes everything: the request is seen together with a backlog."""
    await seed(source)
    install(source_url, target_url, SOFT)
    async with quiet(source_url, target_url, SOFT, MIRROR_BATCH_ROWS="10") as daemon:
        await leading(daemon)
        async with source.transaction():
            await source.execute("update users set username = 'all of them'")
            await source.execute("update trips set deleted_at = now() where name <> 'trip 4'")
            await source.execute("update trip_memberships set status = 'INACTIVE' where mod(id, 2) = 0")
            request = await value(source, "select mirror.ask('verify', null, null, null, false, false)")
        await eventually(lambda: value(source, "select done_at is not null from mirror.request where id = %s", request))
        result = await value(source, "select result from mirror.request where id = %s", request)
        assert [(t["missing"], t["extra"], t["changed"]) for t in result["tables"].values()] == [(0, 0, 0)] * 3


async def test_the_certificate_says_when_everything_was_proven_equal(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await seed(source)
    install(source_url, target_url)
    began = time.time()
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        first = await eventually(lambda: value(target, "select proof from mirror.state"))
        await verified(source, "users")
        assert await value(target, "select proof from mirror.state") == first, "one table is not everything"
        before = await value(source, "select pg_current_snapshot()::text")
        await verified(source)
        changed = "select proof from mirror.state where proof->>'reason' = 'verify'"
        proof = await eventually(lambda: value(target, changed))
        tables = proof["tables"]
        assert {name: found["rows"] for name, found in tables.items()} == {
            "users": 30, "trips": 4, "trip_memberships": 120,
        }  # fmt: skip
        digest = await value(
            source, "select mirror.read_digest('{\"table\":\"users\",\"rows\":1000}')->'check'->>'digest'"
        )
        assert tables["users"]["digest"] == f"{int(digest) & (2**64 - 1):016x}"
        for snapshot in (proof["since"], proof["snapshot"]):
            assert await value(
                source,
                "select pg_snapshot_xmax(%s::pg_snapshot) >= pg_snapshot_xmax(%s::pg_snapshot)",
                snapshot,
                before,
            )
        assert (daemon.known.proven_at or 0) >= began
        # Drift that is only looked at proves nothing; repaired, it does.
        await target.execute(DRIFT)
        await verified(source)
        assert await value(target, "select proof from mirror.state") == proof
        await asked(source, "resync()")
        await eventually(lambda: value(target, "select proof->>'snapshot' <> %s from mirror.state", proof["snapshot"]))
    async with process(environ(source_url, target_url), "status") as status:
        assert await status.ended() in {0, 1}
        assert f"users 30 rows {tables['users']['digest']}" in status.output
