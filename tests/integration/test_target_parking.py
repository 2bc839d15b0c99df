"""Rows that the target refuses: found by halving, parked with the reason, retried with growing pauses; they hold up
nobody else, and a membership that is parked is no membership."""

import asyncio
import json
from typing import Any

import psycopg
import pytest

from tests.bed.eventually import eventually
from tests.bed.target_side import (
    Connection,
    Row,
    Writer,
    an_id,
    membership,
    peopled,
    position,
    put_in_place,
    scope,
    span,
    trip,
    user,
)

pytestmark = pytest.mark.sql


@pytest.fixture
async def writer(target_url: str, target: Connection) -> Writer:
    put_in_place(target_url)
    writer = Writer(target)
    await writer.claim()
    return writer


async def parked(writer: Writer) -> dict[tuple[str, ...], str]:
    rows = await writer.rows("select tbl, k1, k2, reason from mirror.parked order by tbl, k1, k2")
    return {(table, k1, k2) if k2 else (table, k1): reason for table, k1, k2, reason in rows}


async def pauses(writer: Writer) -> list[tuple[int, float]]:
    """Tries so far, and seconds until the next one, of every parked key."""
    rows = await writer.rows("select tries, extract(epoch from retry_at - now()) from mirror.parked order by k1")
    return [(tries, float(seconds)) for tries, seconds in rows]


async def due_now(writer: Writer) -> None:
    await writer.connection.execute("update mirror.parked set retry_at = now()")


async def ids(writer: Writer, table: str) -> list[str]:
    return [str(key) for (key,) in await writer.rows(f"select id from public.{table} order by id")]


TRIGGER = """create function public.objects() returns trigger language plpgsql as $$
begin
  if new.username = 'bad' then
    {statement}
  end if;
  return new;
end $$;
create trigger objects before insert or update on public.users for each row execute function public.objects()"""

TAKEN = f"""create unique index on public.users (username);
insert into public.users (id, username) values ('{an_id(999)}', 'bad')"""
ENUM = """create type public.name as enum ('ok');
alter table public.users alter column username type public.name using null"""
INDEX = "create index on public.users (username); alter table public.users alter column username set storage plain"
DEFERRED = (
    TRIGGER.format(statement="raise exception 'not this one';")
    .replace("create trigger objects before", "create constraint trigger objects after")
    .replace("for each row", "deferrable initially deferred for each row")
)

# What makes the target refuse the row whose name is `bad`, and the SQLSTATE that stands in the reason.
OBJECTIONS = {
    "unique": (TAKEN, "23505"),
    "too long": ("alter table public.users alter column username type varchar(2) using null", "22001"),
    "check": ("alter table public.users add check (username <> 'bad')", "23514"),
    "enum": (ENUM, "22P02"),
    "trigger": (TRIGGER.format(statement="raise exception 'not this one';"), "P0001"),
    "trigger with its own code": (TRIGGER.format(statement="raise sqlstate 'PT403' using message = 'no';"), "PT403"),
    "division": (TRIGGER.format(statement="perform 1 / 0;"), "22012"),
    "deferred": (DEFERRED, "P0001"),
    "too large for an index": (INDEX, "54000"),
}


def names_of(case: str) -> tuple[str, str]:
    """A name that fits, and the one that does not."""
    return "ok", "x" * 8_000 if case == "too large for an index" else "bad"


@pytest.mark.parametrize("case", OBJECTIONS)
async def test_a_refused_row_is_isolated_and_everything_else_applied(writer: Writer, case: str) -> None:
    statement, sqlstate = OBJECTIONS[case]
    await writer.connection.execute(statement)
    good, bad = names_of(case)
    nobody = None if case == "unique" else good
    rows = [user(an_id(i), nobody) for i in range(1, 101)]
    rows[41] |= {"username": bad}
    reply = await writer.apply(
        scope("users", rows),
        scope("trips", [trip(an_id(1))]),
        scope("trip_memberships", [membership(an_id(1), an_id(42))]),
        position=position("5:5:"),
    )
    assert reply["counts"] == {"users": {"upsert": 99}, "trips": {"upsert": 1}, "trip_memberships": {"upsert": 1}}
    assert reply["parked"] == {"users": 1}
    ((key, reason),) = (await parked(writer)).items()
    assert key == ("users", an_id(42))
    assert reason.startswith(f"the target refuses it ({sqlstate}): ")
    assert an_id(42) not in await ids(writer, "users")
    assert await writer.one("select snapshot from mirror.state") == "5:5:"
    fits = rows[41] | {"username": nobody}
    reply = await writer.apply(scope("users", [fits]))
    assert (reply["counts"], reply["parked"], await parked(writer)) == ({"users": {"upsert": 1}}, {}, {})


async def test_a_refused_update_leaves_the_row_as_it_was(writer: Writer) -> None:
    await writer.apply(scope("users", [user(an_id(1), "old"), user(an_id(2), "two")]))
    await writer.connection.execute("alter table public.users add check (username <> 'bad')")
    await writer.apply(scope("users", [user(an_id(1), "bad"), user(an_id(2), "deux")]))
    assert await writer.rows("select username from public.users order by id") == [("old",), ("deux",)]
    assert list(await parked(writer)) == [("users", an_id(1))]


async def test_several_refused_rows_are_all_found(writer: Writer) -> None:
    await writer.connection.execute("alter table public.trips add check (name <> 'bad')")
    bad = {1, 2, 50, 51, 99, 128}
    reply = await writer.apply(scope("trips", [trip(an_id(i), "bad" if i in bad else "good") for i in range(1, 129)]))
    assert reply["counts"] == {"trips": {"upsert": 128 - len(bad)}}
    assert list(await parked(writer)) == [("trips", an_id(i)) for i in sorted(bad)]


async def test_a_refused_membership_is_removed(writer: Writer) -> None:
    await writer.apply(scope("trip_memberships", [membership(an_id(1), an_id(u)) for u in (1, 2, 3)]))
    await writer.connection.execute("alter table public.trip_memberships add check (role <> 'bad')")
    await writer.apply(scope("trip_memberships", [membership(an_id(1), an_id(2), "bad")]))
    unread = {"k1": an_id(1), "k2": an_id(3), "reason": "the source cannot read it (22012): division by zero"}
    await writer.apply(scope("trip_memberships", refused=[unread]))
    assert await writer.rows("select user_id::text from public.trip_memberships") == [(an_id(1),)]
    found = await parked(writer)
    assert set(found) == {("trip_memberships", an_id(1), an_id(2)), ("trip_memberships", an_id(1), an_id(3))}
    assert found["trip_memberships", an_id(1), an_id(3)] == unread["reason"]


async def test_a_membership_without_its_user_waits_for_the_user(writer: Writer) -> None:
    await writer.connection.execute(
        "alter table public.trip_memberships add foreign key (user_id) references public.users"
    )
    await writer.apply(scope("trip_memberships", [membership(an_id(1), an_id(1))]))
    assert list(await parked(writer)) == [("trip_memberships", an_id(1), an_id(1))]
    reply = await writer.apply(
        scope("trip_memberships", [membership(an_id(1), an_id(1))]), scope("users", [user(an_id(1))])
    )
    assert reply["parked"] == {}
    await writer.apply(
        scope("users", gone=[{"id": an_id(1)}]),
        scope("trip_memberships", gone=[{"trip_id": an_id(1), "user_id": an_id(1)}]),
    )
    assert await ids(writer, "users") == []
    assert await parked(writer) == {}


async def test_pauses_grow_up_to_half_a_minute_and_then_it_fits(writer: Writer) -> None:
    await writer.connection.execute("alter table public.users add constraint no check (username <> 'bad')")
    seen = []
    for _ in range(12):
        reply = await writer.apply(scope("users", [user(an_id(1), "bad")]))
        assert reply["due"] == [], "not before its pause is over"
        seen += await pauses(writer)
    assert [tries for tries, _ in seen] == list(range(1, 13))
    assert [round(seconds) for _, seconds in seen[:5]] == [5, 10, 20, 30, 30]
    assert [round(seconds) for _, seconds in seen[-2:]] == [30, 30]
    await due_now(writer)
    assert (await writer.apply())["due"] == [{"table": "users", "k1": an_id(1), "k2": None}]
    await writer.connection.execute("alter table public.users drop constraint no")
    assert (await writer.apply())["parked"] == {"users": 1}, "nobody asks before somebody sends it"
    assert (await writer.apply(scope("users", [user(an_id(1), "bad")])))["parked"] == {}


async def test_what_is_due_names_the_keys_with_the_longest_wait_first_and_one_of_each_reason(writer: Writer) -> None:
    unread: list[Row] = [{"k1": an_id(i), "k2": an_id(i), "reason": "r"} for i in range(3, 150)]
    unread += [{"k1": an_id(i), "k2": an_id(i), "reason": f"reason {i}"} for i in range(3)]
    await writer.apply(scope("trip_memberships", refused=unread))
    await writer.connection.execute(
        "update mirror.parked set retry_at = now() - interval '1 s' * ('x' || right(k1, 4))::bit(16)::int"
    )

    def keys(*numbers: int) -> list[Row]:
        return [{"table": "trip_memberships", "k1": an_id(i), "k2": an_id(i)} for i in numbers]

    due = (await writer.apply(due={"trip_memberships": 10, "users": 10}))["due"]
    assert [key for key in due if key not in keys(2, 1, 0)][:10] == keys(*range(149, 139, -1))
    assert [key for key in due if key in keys(2, 1, 0)] == keys(2, 1, 0)
    assert len(due) <= 14
    assert len((await writer.apply(due={"trip_memberships": 120}))["due"]) == 120
    assert (await writer.apply(due={"users": 10}))["due"] == []
    assert len((await writer.apply())["due"]) >= 100, "to an older daemon, which does not ask"


async def test_what_is_parked_is_counted_when_it_changes_or_is_asked_for(writer: Writer) -> None:
    """A live batch must not count a hundred thousand keys."""
    unread: list[Row] = [{"k1": an_id(i), "k2": None, "reason": "r"} for i in range(150)]
    first = await writer.apply(scope("users", refused=unread), due={})
    assert first["parked"] == {"users": 150}
    assert first["refused"]["users"]["n"] == 150
    assert first["refused"]["users"]["rows"] == [{"k1": an_id(i), "k2": None, "reason": "r"} for i in range(100)]
    quiet = await writer.apply(scope("trips", [trip(an_id(1))]), due={})
    assert (quiet["parked"], quiet["refused"], quiet["due"]) == (None, {}, [])
    assert (await writer.apply(due={"users": 1}))["parked"] == {"users": 150}
    cured = await writer.apply(scope("users", [user(an_id(1)), user(an_id(2))]), due={})
    assert (cured["parked"], cured["refused"]) == ({"users": 148}, {})
    status = await writer.status()
    assert (len(status["parked"]), status["parked_keys"]) == (100, {"users": 148})


@pytest.mark.parametrize("table", ["users", "trips"])
async def test_a_parked_key_that_is_gone_is_forgotten(writer: Writer, table: str) -> None:
    await writer.apply(scope(table, refused=[{"k1": an_id(1), "k2": None, "reason": "r"}]))
    other = "trips" if table == "users" else "users"
    await writer.apply(scope(table, gone=[{"id": an_id(2)}]), scope(other, gone=[{"id": an_id(1)}]))
    assert list(await parked(writer)) == [(table, an_id(1))]
    await writer.apply(scope(table, gone=[{"id": an_id(1)}]))
    assert await parked(writer) == {}


async def test_a_parked_membership_that_is_gone_is_forgotten_and_only_that(writer: Writer) -> None:
    keys = [(1, 1), (1, 2), (2, 1)]
    refused = [{"k1": an_id(t), "k2": an_id(u), "reason": "r"} for t, u in keys]
    await writer.apply(scope("trip_memberships", refused=refused))
    await writer.apply(scope("trip_memberships", gone=[{"trip_id": an_id(1), "user_id": an_id(2)}]))
    await writer.apply(scope("users", gone=[{"id": an_id(1)}]), scope("trips", gone=[{"id": an_id(1)}]))
    assert [key[1:] for key in await parked(writer)] == [(an_id(1), an_id(1)), (an_id(2), an_id(1))]


CHAT = "create table public.chat (trip_id uuid, user_id uuid, foreign key ({}) references public.{} ({}))"


@pytest.mark.parametrize("how", ["gone", "range"])
async def test_a_delete_that_chat_forbids_is_parked(writer: Writer, how: str) -> None:
    await writer.apply(scope("trips", [trip(an_id(i)) for i in (1, 2, 3)]))
    await writer.connection.execute(CHAT.format("trip_id", "trips", "id"))
    await writer.connection.execute("insert into public.chat values (%s)", [an_id(2)])
    away = [scope("trips", gone=[{"id": an_id(i)} for i in (1, 2, 3)])] if how == "gone" else [span("trips")]
    reply = await writer.apply(*away)
    assert reply["counts"] == {"trips": {"delete": 2}}
    assert await ids(writer, "trips") == [an_id(2)]
    assert list(await parked(writer)) == [("trips", an_id(2))]
    await writer.connection.execute("delete from public.chat")
    reply = await writer.apply(scope("trips", gone=[{"id": an_id(2)}]))
    assert (reply["counts"], reply["parked"]) == ({"trips": {"delete": 1}}, {})


async def may_enter(writer: Writer, trip_id: str, user_id: str) -> Any:
    claims = json.dumps({"sub": user_id})
    async with writer.connection.transaction():
        await writer.connection.execute("select set_config('request.jwt.claims', %s, true)", [claims])
        return await writer.one("select public.is_trip_member(%s)", trip_id)


async def test_a_member_who_may_not_be_deleted_loses_role_and_status(writer: Writer) -> None:
    await writer.apply(*peopled(*[membership(an_id(1), an_id(u)) for u in (1, 2)]))
    await writer.connection.execute(CHAT.format("trip_id, user_id", "trip_memberships", "trip_id, user_id"))
    await writer.connection.execute("insert into public.chat values (%s, %s)", [an_id(1), an_id(1)])
    gone = [{"trip_id": an_id(1), "user_id": an_id(1)}]
    assert await may_enter(writer, an_id(1), an_id(1))
    await writer.apply(scope("trip_memberships", gone=gone))
    assert list(await parked(writer)) == [("trip_memberships", an_id(1), an_id(1))]
    asked = "select role, status from public.trip_memberships order by user_id"
    assert await writer.rows(asked) == [(None, None), ("MEMBER", "ACTIVE")]
    assert not await may_enter(writer, an_id(1), an_id(1))
    assert await may_enter(writer, an_id(1), an_id(2))


async def test_a_member_whose_row_cannot_be_touched_at_all_may_not_enter(writer: Writer) -> None:
    await writer.apply(*peopled(membership(an_id(1), an_id(1))))
    frozen = "create function public.frozen() returns trigger language plpgsql as $$ begin raise 'frozen'; end $$"
    await writer.connection.execute(frozen)
    await writer.connection.execute(
        "create trigger frozen before update or delete on public.trip_memberships "
        "for each row execute function public.frozen()"
    )
    await writer.apply(scope("trip_memberships", trips=[an_id(1)]))
    assert await writer.rows("select status from public.trip_memberships") == [("ACTIVE",)]
    assert not await may_enter(writer, an_id(1), an_id(1))
    await writer.apply(scope("trip_memberships", [membership(an_id(1), an_id(1))]))
    assert await may_enter(writer, an_id(1), an_id(1)), "a member again, and nothing had to be written"


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 1, 3)])
async def test_unique_names_that_are_handed_on_arrive_at_once(writer: Writer, order: tuple[int, ...]) -> None:
    """One batch holds the end of several transactions: a name may go round in a circle."""
    await writer.connection.execute("create unique index on public.users (username)")
    before, after = {1: "a", 2: "b", 3: "c"}, {1: "b", 2: "c", 3: "a"}
    await writer.apply(scope("users", [user(an_id(i), name) for i, name in before.items()]))
    reply = await writer.apply(scope("users", [user(an_id(i), after[i]) for i in order]))
    assert (reply["counts"], reply["parked"]) == ({"users": {"upsert": 3}}, {})
    assert await writer.rows("select username from public.users order by id") == [("b",), ("c",), ("a",)]


async def test_a_name_that_somebody_else_keeps_is_parked_among_names_that_are_handed_on(writer: Writer) -> None:
    await writer.connection.execute("create unique index on public.users (username)")
    await writer.apply(scope("users", [user(an_id(i), name) for i, name in ((1, "a"), (2, "b"), (3, "kept"))]))
    rows = [user(an_id(1), "b"), user(an_id(2), "a"), user(an_id(4), "kept"), user(an_id(5), "new")]
    reply = await writer.apply(scope("users", rows))
    assert reply["counts"] == {"users": {"upsert": 3}}
    assert list(await parked(writer)) == [("users", an_id(4))]


@pytest.mark.parametrize("table", ["users", "trip_memberships"])
async def test_a_batch_in_which_every_row_is_refused_takes_no_longer_than_a_request_may(
    writer: Writer, table: str
) -> None:
    """Through PostgREST it has 8 s. It is applied, and so is everything else in it."""
    await writer.apply(scope("trip_memberships", [membership(an_id(1), an_id(i)) for i in range(5000)]))
    await writer.connection.execute("set statement_timeout = '8s'")
    await writer.connection.execute(f"alter table public.{table} add column theirs text not null default 'old'")
    await writer.connection.execute(f"alter table public.{table} alter column theirs drop default")
    await writer.connection.execute("alter table public.trip_memberships add check (role <> 'NEW')")
    rows = [user(an_id(i)) if table == "users" else membership(an_id(1), an_id(i), "NEW") for i in range(5000)]
    reply = await writer.apply(scope("trips", [trip(an_id(1))]), scope(table, rows), position=position("5:5:"))
    assert reply["counts"] == {"trips": {"upsert": 1}}
    assert reply["parked"] == {table: 5000}
    assert await writer.one("select snapshot from mirror.state") == "5:5:"
    assert await writer.one("select count(*) from public.trip_memberships") == (5000 if table == "users" else 0)


TRANSIENT = {
    "lock timeout": ("raise sqlstate '55P03';", "PT423"),
    "statement timeout": ("raise sqlstate '57014';", "57014"),
    "disk": ("raise sqlstate '53100';", "53100"),
    "memory": ("raise sqlstate '53200';", "53200"),
    "deadlock": ("raise sqlstate '40P01';", "PT423"),
    "serialization": ("raise sqlstate '40001';", "PT423"),
    "input or output": ("raise sqlstate '58030';", "58030"),
    "a mistake in a trigger": ("perform nowhere.nothing();", "3F000"),
    "a right that is missing": ("raise sqlstate '42501';", "42501"),
}


@pytest.mark.parametrize("case", TRANSIENT)
async def test_what_is_not_about_the_row_is_not_parked(writer: Writer, case: str) -> None:
    statement, sqlstate = TRANSIENT[case]
    await writer.apply(scope("users", [user(an_id(9))]))
    await writer.connection.execute(TRIGGER.format(statement=statement))
    with pytest.raises(psycopg.Error) as raised:
        await writer.apply(scope("users", [user(an_id(1), "good"), user(an_id(2), "bad")], gone=[{"id": an_id(9)}]))
    assert raised.value.sqlstate == sqlstate
    assert await ids(writer, "users") == [an_id(9)]
    assert await parked(writer) == {}


async def test_a_row_that_somebody_has_locked_is_waited_for_and_not_parked(writer: Writer, target_url: str) -> None:
    await writer.apply(scope("users", [user(an_id(1), "old")]))
    await writer.connection.execute("alter function public.mirror_apply(jsonb) set lock_timeout = '50ms'")
    async with await psycopg.AsyncConnection.connect(target_url) as busy:
        await busy.execute("select from public.users for update")
        with pytest.raises(psycopg.Error) as locked:
            await writer.apply(scope("users", [user(an_id(1), "new")]))
        assert (locked.value.sqlstate, locked.value.diag.message_detail) == ("PT423", "users")
        assert f"locked by pid {busy.info.backend_pid} (role postgres, " in str(locked.value.diag.message_hint)
        assert await parked(writer) == {}
        await writer.connection.execute("alter function public.mirror_apply(jsonb) set lock_timeout = '5s'")
        applying = asyncio.create_task(writer.apply(scope("users", [user(an_id(1), "new")])))
        await eventually(lambda: _is_waiting(busy, writer))
        await busy.rollback()
        assert (await applying)["counts"] == {"users": {"upsert": 1}}


async def _is_waiting(watcher: Connection, writer: Writer) -> bool:
    query = "select wait_event_type = 'Lock' from pg_stat_activity where pid = %s"
    row = await (await watcher.execute(query, [writer.connection.info.backend_pid])).fetchone()
    return bool(row and row[0])


async def test_parking_keeps_who_waits_and_since_when(writer: Writer) -> None:
    await writer.connection.execute("alter table public.users add check (username <> 'bad')")
    await writer.apply(scope("users", [user(an_id(1), "bad")]))
    since = await writer.one("select since from mirror.parked")
    await writer.apply(scope("users", [user(an_id(1), "bad"), user(an_id(2), "bad")]))
    rows = await writer.rows("select since, tries from mirror.parked order by k1")
    assert rows[0] == (since, 2)
    assert rows[1][0] > since
