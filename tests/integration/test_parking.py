"""A row that cannot be applied is parked by its key, reported and tried again; nothing else waits for it."""

import json
from typing import Any

import psycopg
import pytest

import mirror.producers.parked
from mirror.daemon import Daemon
from mirror.mapping import Mapping
from tests.bed.daemons import NEVER, asleep, becomes_equal, environ, equal, install, leading, process, running, value
from tests.bed.eventually import eventually
from tests.bed.proofs import asked

pytestmark = pytest.mark.sql
Connection = psycopg.AsyncConnection[Any]
BEATING = NEVER | {"MIRROR_HEARTBEAT_INTERVAL": "200ms"}
REFUSE = (
    "create function refuse() returns trigger language plpgsql set search_path = '' as $$ begin "
    "if new.status = 'odd' then raise exception 'no odd ones here'; end if; return new; end $$; "
    "create trigger refuse before insert or update on trip_memberships for each row execute function refuse()"
)
# An expression of the mapping that raises for some rows.
POISON = Mapping.model_validate({"users": {"username": "(100 / (length(username) - 3))::text"}})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for the daemon's own pauses."""
    monkeypatch.setattr(mirror.producers.parked, "PAUSE_MIN_S", 0.1)
    monkeypatch.setattr(mirror.producers.parked, "PAUSE_MAX_S", 0.2)


async def populate(source: Connection) -> None:
    await source.execute(
        "insert into users (id, username) select gen_random_uuid(), 'u' || n from generate_series(1, 9) n"
    )
    await source.execute("insert into trips (id, name) values (gen_random_uuid(), 'Rome'), (gen_random_uuid(), 'Oslo')")
    await source.execute("insert into trip_memberships (trip_id, user_id) select t.id, u.id from trips t, users u")


async def parked(target: Connection) -> Any:
    return await value(target, "select count(*) from mirror.parked")


async def soon(target: Connection) -> None:
    """Let the pause be over."""
    await target.execute("update mirror.parked set retry_at = now()")


async def test_a_membership_that_the_target_refuses_is_parked_removed_and_tried_again(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await populate(source)
    install(source_url, target_url)
    await target.execute(REFUSE)
    async with running(source_url, target_url, BEATING) as daemon:
        await leading(daemon)
        assert await equal(source, target)
        # One bad row among good ones, in one transaction.
        await source.execute(
            "begin; update trip_memberships set status = case when id = 3 then 'odd' else 'PENDING' end; "
            "update users set username = 'changed'; commit"
        )
        await eventually(
            lambda: value(target, "select count(*) = 17 from trip_memberships where status = 'PENDING'"), 3.0
        )
        assert await value(target, "select count(*) from trip_memberships") == 17, "fail closed: it is not there"
        assert await value(target, "select count(*) from users where username = 'changed'") == 9
        assert "no odd ones here" in await value(target, "select reason from mirror.parked")
        await eventually(lambda: daemon.known.parked == {"trip_memberships": 1})
        assert await shown(daemon, "mirror_parked_keys", table="trip_memberships") == 1
        # Retried, refused again, with a longer pause; the position goes on.
        as_of = await value(target, "select as_of from mirror.state")
        await soon(target)
        await eventually(lambda: value(target, "select tries = 2 and retry_at > now() from mirror.parked"))
        await eventually(lambda: value(target, "select as_of > %s from mirror.state", as_of))
        # The cause is gone: so is the parking.
        await target.execute("drop trigger refuse on trip_memberships")
        await soon(target)
        assert await becomes_equal(source, target) < 3.0
        await eventually(lambda: not daemon.known.parked)
        assert await parked(target) == 0


async def shown(daemon: Daemon, name: str, **labels: str) -> float | None:
    return daemon.knowledge.metrics.registry.get_sample_value(name, labels)


async def test_a_parked_key_that_changes_or_goes_is_parked_no_more(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await populate(source)
    install(source_url, target_url)
    await target.execute(REFUSE)
    async with running(source_url, target_url, BEATING) as daemon:
        await leading(daemon)
        await source.execute("update trip_memberships set status = 'odd' where id in (1, 2)")
        await eventually(lambda: value(target, "select count(*) = 2 from mirror.parked"))
        await source.execute("update trip_memberships set status = 'even' where id = 1")
        await source.execute("delete from trip_memberships where id = 2")
        assert await becomes_equal(source, target) < 3.0
        await eventually(lambda: value(target, "select count(*) = 0 from mirror.parked"))


async def test_what_was_parked_and_truncated_is_forgotten_at_the_next_try(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await populate(source)
    install(source_url, target_url)
    await target.execute(REFUSE)
    async with running(source_url, target_url, BEATING) as daemon:
        await leading(daemon)
        await source.execute("update trip_memberships set status = 'odd' where id = 1")
        await eventually(lambda: value(target, "select count(*) = 1 from mirror.parked"))
        await source.execute("truncate trip_memberships")
        assert await becomes_equal(source, target) < 3.0
        await soon(target)
        await eventually(lambda: value(target, "select count(*) = 0 from mirror.parked"))


async def test_a_row_that_the_source_cannot_read_is_parked_while_the_others_go_on(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await populate(source)
    install(source_url, target_url, POISON)
    async with running(source_url, target_url, BEATING, POISON) as daemon:
        await leading(daemon)
        await asleep(source)
        assert await value(target, "select count(*) from users where username = '-100'") == 9
        await source.execute(
            "begin; update users set username = 'xyz' where username = 'u1'; "
            "update users set username = 'xyza' where username <> 'xyz'; commit"
        )
        await eventually(lambda: value(target, "select count(*) = 8 from users where username = '100'"), 3.0)
        await eventually(lambda: value(target, "select count(*) = 1 from mirror.parked"), 3.0)
        assert "division by zero" in await value(target, "select reason from mirror.parked")
        assert daemon.known.about("unreadable") == {}
        await source.execute("delete from trip_memberships where id = 1")
        await eventually(lambda: value(target, "select count(*) = 17 from trip_memberships"), 3.0)
        await source.execute("update users set username = 'xyza'")
        await eventually(lambda: value(target, "select count(*) = 9 from users where username = '100'"), 3.0)
        await eventually(lambda: value(target, "select count(*) = 0 from mirror.parked"))


async def test_a_poison_row_does_not_stop_a_first_load(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await populate(source)
    await source.execute("update users set username = 'xyz' where username = 'u5'")
    install(source_url, target_url, POISON)
    async with running(source_url, target_url, BEATING | {"MIRROR_BATCH_ROWS": "2"}, POISON) as daemon:
        await leading(daemon)
        assert await value(target, "select count(*) from users") == 8
        assert await value(target, "select count(*) from trip_memberships") == 18
        assert await parked(target) == 1


async def test_verify_and_resync_name_the_parked_rows_and_never_say_equal(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await populate(source)
    install(source_url, target_url)
    await target.execute(REFUSE)
    async with running(source_url, target_url, NEVER) as daemon:
        await leading(daemon)
        await source.execute("update trip_memberships set status = 'odd' where id in (3, 4)")
        await eventually(lambda: value(target, "select count(*) = 2 from mirror.parked"))
        trip, user = await keys(source)
        for command, more, code in (
            ("verify", (), 1), ("verify", ("--table", "trip_memberships"), 1), ("verify", ("--table", "users"), 0),
            ("resync", (), 1), ("resync", ("--table", "trip_memberships"), 1), ("resync", ("--rewrite",), 1),
            ("resync", ("--user", user), 1), ("resync", ("--trip", trip), 1),
        ):  # fmt: skip
            async with process(environ(source_url, target_url), command, *more) as said:
                assert await said.ended(20) == code, (command, more, said.output)
                if code == 0:
                    continue
                assert "no odd ones here" in said.output
                assert f"parked: {trip}/{user}: " in said.output
                rows = "1 parked row" if "--user" in more else "2 parked rows"
                says = f"equal but for {rows}" if command == "verify" else f"DONE BUT FOR {rows}"
                assert says in said.output, (command, more)
        async with process(environ(source_url, target_url), "verify", "--json") as said:
            assert await said.ended(20) == 1
            found = json.loads(said.output)["tables"]["trip_memberships"]
            assert (found["parked"], len(found["parked_rows"])) == (2, 2)
    async with process(environ(source_url, target_url), "verify") as said:
        assert await said.ended(20) == 1, "without a daemon, too"
        assert "equal but for 2 parked rows" in said.output


async def keys(source: Connection) -> tuple[str, str]:
    cursor = await source.execute("select trip_id::text, user_id::text from trip_memberships where id = 3")
    ((trip, user),) = await cursor.fetchall()
    return trip, user


@pytest.mark.parametrize("how", ["resync()", "resync('trip_memberships')", "resync(trip => %s)", "resync(usr => %s)"])
async def test_a_resync_tries_the_parked_keys_of_its_scope_at_once(
    source: Connection, target: Connection, source_url: str, target_url: str, how: str
) -> None:
    await populate(source)
    install(source_url, target_url)
    await target.execute(REFUSE)
    async with running(source_url, target_url, NEVER) as daemon:
        await leading(daemon)
        await source.execute("update trip_memberships set status = 'odd' where id = 3")
        await eventually(lambda: value(target, "select count(*) = 1 from mirror.parked"))
        await target.execute("update mirror.parked set retry_at = now() + interval '1 hour'")
        await target.execute("drop trigger refuse on trip_memberships")
        trip, user = await keys(source)
        state, result = await asked(source, how.replace("%s", f"'{trip if 'trip =>' in how else user}'"))
        assert state == "done"
        assert "parked_rows" in str(result)
        assert not any(found["parked"] for found in result.get("tables", {"": result}).values())
        assert await equal(source, target)
        assert await parked(target) == 0


async def test_a_first_load_goes_on_when_a_column_of_an_adopted_table_refuses_every_row(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """The column came after `mirror install target`. When it is put right everything arrives by itself."""
    await source.execute(
        "insert into users (id, username) select gen_random_uuid(), 'u' || n from generate_series(1, 6000) n;"
        "insert into trips (id, name) select gen_random_uuid(), 't' || n from generate_series(1, 100) n;"
        "insert into trip_memberships (trip_id, user_id) select t.id, u.id from trips t, users u "
        "where u.username like 'u1_'"
    )
    install(source_url, target_url)
    await target.execute("alter table users add column plan text not null; alter table trips add check (name <> 't1')")
    await target.execute("alter table trip_memberships add foreign key (trip_id) references trips")
    async with running(source_url, target_url, {"MIRROR_POLL_INTERVAL": "100ms"}) as daemon:
        await leading(daemon, 120.0)
        assert await value(target, "select count(*) from users") == 0
        assert await value(target, "select count(*) from trips") == 99
        await eventually(lambda: value(target, "select proof is not null from mirror.state"), 60.0)
        assert daemon.known.parked["users"] == 6000
        proof = await value(target, "select proof->'tables' from mirror.state")
        assert proof["users"]["parked"] == 6000
        status = await value(target, "select public.mirror_status()")
        assert (len(status["parked"]), status["parked_keys"]["users"]) == (100, 6000)
        # Live changes go on.
        await source.execute("update trips set name = 'live' where name = 't2'")
        await eventually(lambda: value(target, "select count(*) = 1 from trips where name = 'live'"))
        await target.execute("alter table users alter column plan drop not null")
        await target.execute("alter table trips drop constraint trips_name_check")
        await becomes_equal(source, target, timeout_s=60.0)
        await eventually(lambda: not any(daemon.known.parked.values()))
