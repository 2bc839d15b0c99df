"""mirror.state is the mirror's own: what others do to it is found and said, nothing is claimed from it, no token is
answered yes too early, and the daemon repairs it by comparing."""

from typing import Any

import psycopg
import pytest

from mirror.daemon import Daemon
from tests.bed.daemons import NEVER, becomes_equal, environ, install, leading, process, running, value
from tests.bed.eventually import eventually
from tests.bed.target_side import Writer, an_id, position, put_in_place, scope, user

pytestmark = pytest.mark.sql
Connection = psycopg.AsyncConnection[Any]
SETTINGS = NEVER | {"MIRROR_HEARTBEAT_INTERVAL": "200ms"}
GARBAGE = {
    "text": "'garbage'",
    "bigint": "9223372036854775807",
    "integer": "2147483647",
    "timestamp with time zone": "'infinity'",
    "jsonb": "'\"garbage\"'",
    "text[]": "'{garbage}'",
    "oid": "4294967295",
}
UNCLAIMED = {
    "one",
    "rendered",
    "sealed",
    "messages",
}  # what the installation keeps there: `mirror install target` looks
ATTACKS = {
    "a snapshot of the future": "update mirror.state set snapshot = '1:999999999:'",
    "fresh for ever": "update mirror.state set fresh_at = 'infinity', known_at = 'infinity'",
    "nothing left": "update mirror.state set snapshot = null, source = null, life = null, seal = null",
    "another source": "update mirror.state set source = jsonb_set(source, '{install}', '\"another\"')",
    "deleted": "delete from mirror.state",
    "truncated": "truncate mirror.state",
}


async def columns(target: Connection) -> dict[str, str]:
    """Each column of the row, and how it is attacked."""
    query = """
        select attname::text, format_type(atttypid, atttypmod) from pg_attribute
        where attrelid = 'mirror.state'::regclass and attnum > 0 and not attisdropped
    """
    found = await (await target.execute(query)).fetchall()
    return {
        f"column {name}": f"update mirror.state set {name} = {GARBAGE[kind]}"
        for name, kind in found
        if name not in UNCLAIMED
    }


async def claims_nothing(target: Connection) -> bool:
    answers = (
        await value(target, "select public.mirror_is_fresh('1000 years')"),
        await value(target, "select public.mirror_staleness()") < float("inf"),
        await value(target, "select (public.mirror_status()->>'equal')::boolean"),
        await value(target, "select public.mirror_status()->>'snapshot'") is not None,
    )
    doubts = await value(target, "select public.mirror_status()->'doubts'")
    return answers == (False,) * 4 and [doubt["kind"] for doubt in doubts] == ["tampered"]


async def test_no_attack_is_believed_and_each_is_repaired_by_the_next_claim(
    target_url: str, target: Connection
) -> None:
    put_in_place(target_url)
    writer = Writer(target)
    epochs = [(await writer.claim())["epoch"]]
    for name, attack in (ATTACKS | await columns(target)).items():
        await writer.apply(position=position("10:10:"))
        assert await value(target, "select public.mirror_has('8c7d/-/10:10:')") is True, name
        await target.execute(attack)
        assert await claims_nothing(target), name
        assert await value(target, "select public.mirror_has('8c7d/-/10:10:')") is False, name
        with pytest.raises(psycopg.Error) as raised:
            await writer.apply(scope("users", [user(an_id(1), "late")]))
        assert (raised.value.sqlstate, raised.value.diag.message_primary) == ("PT409", "superseded"), name
        assert "changed by others" in str(raised.value.diag.message_detail)
        reply = await writer.claim()
        assert (reply["tampered"], reply["primed"], reply["version"]) == (True, False, 1), name
        epochs.append(reply["epoch"])
        assert (await writer.claim())["tampered"] is False
        epochs.append(writer.epoch)
    assert epochs == sorted(set(epochs)), "no epoch is handed out twice, nor one that is older"
    assert await value(target, "select count(*) from public.users") == 0


async def test_what_is_none_of_its_claims_may_change(target_url: str, target: Connection) -> None:
    put_in_place(target_url)
    writer = Writer(target)
    await writer.claim()
    await writer.apply(position=position("10:10:"))
    await target.execute("update mirror.state set rendered = 'x', sealed = 'x'")
    assert await value(target, "select public.mirror_has('8c7d/-/10:10:')") is True
    assert "target: tables, state and functions are in place." in put_in_place(target_url)
    assert await value(target, "select public.mirror_has('8c7d/-/10:10:')") is True


async def test_under_a_running_daemon(source: Connection, target: Connection, source_url: str, target_url: str) -> None:
    install(source_url, target_url)
    async with running(source_url, target_url, SETTINGS) as daemon:
        await leading(daemon)
        for n, (name, attack) in enumerate((ATTACKS | await columns(target)).items()):
            epoch = await value(target, "select epoch from mirror.state")
            await target.execute(attack)
            key = an_id(n + 1)
            token = await write(source, key)
            await eventually(lambda t=token, k=key: never_too_early(target, t, k), 20)  # type: ignore[misc]
            await is_right(daemon, source, target)
            assert await value(target, "select epoch from mirror.state") > min(epoch, 10**12), name
            assert daemon.known.leader


@pytest.mark.parametrize("attack", ["a snapshot of the future", "deleted", "another source"])
async def test_while_no_daemon_runs(
    source: Connection, target: Connection, source_url: str, target_url: str, attack: str
) -> None:
    install(source_url, target_url)
    async with running(source_url, target_url, SETTINGS) as daemon:
        await leading(daemon)
    token = await write(source, an_id(1))
    await target.execute(ATTACKS[attack])
    assert await claims_nothing(target)
    assert await value(target, "select public.mirror_has(%s)", token) is False
    async with process(environ(source_url, target_url, **SETTINGS)) as started:
        await started.says("mirror.state was changed by others than the mirror: all tables are compared")
        await eventually(lambda: never_too_early(target, token, an_id(1)), 20)
        await becomes_equal(source, target)
        await eventually(lambda: value(target, "select public.mirror_is_fresh('10 s')"))


async def write(source: Connection, key: str) -> str:
    async with source.transaction():
        await source.execute("insert into public.users (id) values (%s)", [key])
        return str(await value(source, "select mirror.token()"))


async def never_too_early(target: Connection, token: str, key: str) -> bool:
    query = "select public.mirror_has(%s), exists (select from public.users where id = %s)"
    row = await (await target.execute(query, [token, key])).fetchone()
    assert row in {(False, False), (False, True), (True, True)}, "yes before the row is there"
    return bool(row == (True, True))


async def is_right(daemon: Daemon, source: Connection, target: Connection) -> None:
    await becomes_equal(source, target)
    await eventually(lambda: value(target, "select public.mirror_is_fresh('10 s')"), 20)
    assert await value(target, "select public.mirror_status()->'doubts'") == []
    await leading(daemon)
