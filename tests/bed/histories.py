"""Random histories of the application, and what the source looked like in any snapshot.

Row triggers of the test's own write every change into a side table, with the transaction's id. A change that was rolled
back is not there. Writers of one row wait for each other, so the numbers of that table order the changes of each key;
the state in a snapshot is what the visible ones among them add up to, whatever order their transactions committed in.
"""

import asyncio
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from tests.bed.daemons import Rows, differences

Connection = psycopg.AsyncConnection[Any]
Keyed = dict[str, dict[Any, dict[str, Any]]]

AUDIT = """
create table public.audit (
  n bigint generated always as identity, xid xid8 not null default pg_current_xact_id(), tbl text, op text,
  old jsonb, new jsonb
);
create function public.audit() returns trigger language plpgsql as $$
begin
  insert into public.audit (tbl, op, old, new) values (tg_table_name, tg_op,
    case when tg_op in ('UPDATE', 'DELETE') then to_jsonb(old) end,
    case when tg_op in ('INSERT', 'UPDATE') then to_jsonb(new) end);
  return null;
end $$;
create function public.audit_truncate() returns trigger language plpgsql as $$
begin
  insert into public.audit (tbl, op) values (tg_table_name, tg_op);
  return null;
end $$;
do $$
declare _table text;
begin
  foreach _table in array array['users', 'trips', 'trip_memberships'] loop
    execute format('create trigger audit after insert or update or delete on %I for each row execute function audit()',
                   _table);
    execute format('create trigger audit_truncate after truncate on %I execute function audit_truncate()', _table);
  end loop;
end $$;
"""
# Every batch that is applied writes down what it leaves behind, and whether it claims a position for it.
POSITIONS = """
create table public.positions (n bigint generated always as identity, moved boolean, epoch bigint, batch bigint,
                               snapshot text, users jsonb, trips jsonb, trip_memberships jsonb);
create function public.note_position() returns trigger
language plpgsql security definer set search_path = 'public' as $$
begin
  insert into positions (moved, epoch, batch, snapshot, users, trips, trip_memberships)
  select new.as_of is distinct from old.as_of, new.epoch, new.batch, new.snapshot,
    (select coalesce(jsonb_agg(jsonb_build_array(id, subject, email, username)), '[]') from users),
    (select coalesce(jsonb_agg(jsonb_build_array(id, name, created_by)), '[]') from trips),
    (select coalesce(jsonb_agg(jsonb_build_array(trip_id, user_id, role, status)), '[]') from trip_memberships);
  return null;
end $$;
create trigger position after update on mirror.state for each row when (new.epoch = old.epoch)
  execute function note_position();
"""
INVITE = (
    "insert into trip_memberships (trip_id, user_id, role) values (%(trip)s, %(user)s, %(text)s) "
    "on conflict (trip_id, user_id) do update set role = excluded.role"
)
OPERATIONS = (
    "insert into users (id, email, username) values (%(user)s, %(text)s, %(text)s)",
    "update users set username = %(text)s where id = %(user)s",
    "update users set last_seen = now() where id = %(user)s",
    "update users set id = %(user2)s where id = %(user)s",
    "delete from users where id = %(user)s",
    "insert into trips (id, name, created_by) values (%(trip)s, %(text)s, %(user)s)",
    "insert into trips (id, name) values (%(trip)s, %(text)s) on conflict (id) do update set name = excluded.name",
    "update trips set name = %(text)s where id in (%(trip)s, %(trip2)s)",
    "update trips set deleted_at = now() where id = %(trip)s",
    "update trips set deleted_at = null where id = %(trip)s",
    "delete from trips where id = %(trip)s",
    *(INVITE, INVITE, INVITE, INVITE),
    "insert into trip_memberships (trip_id, user_id) select %(trip)s, id from users on conflict do nothing",
    "update trip_memberships set status = 'INACTIVE' where trip_id = %(trip)s and user_id = %(user)s",
    "update trip_memberships set status = 'ACTIVE' where trip_id = %(trip)s and user_id = %(user)s",
    "update trip_memberships set user_id = %(user2)s where trip_id = %(trip)s and user_id = %(user)s",
    "update trip_memberships set trip_id = %(trip2)s where trip_id = %(trip)s and user_id = %(user)s",
    "delete from trip_memberships where user_id = %(user)s",
)
TRUNCATES = ("truncate trips cascade", "truncate trip_memberships", "truncate users")


@dataclass(frozen=True)
class Snapshot:
    """A pg_snapshot: which transactions it sees."""

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> "Snapshot":
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(xid) for xid in running.split(",") if xid))

    def sees(self, xid: int) -> bool:
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)


@dataclass(frozen=True)
class Change:
    xid: int
    table: str
    op: str
    old: dict[str, Any] | None
    new: dict[str, Any] | None


async def watch(source: Connection, target: Connection) -> None:
    """From now on every change in the source and every batch in the target is written down."""
    await source.execute(AUDIT)
    await target.execute(POSITIONS)


async def changes(source: Connection) -> list[Change]:
    cursor = await source.execute("select xid::text::bigint, tbl, op, old, new from audit order by n")
    return [Change(*row) for row in await cursor.fetchall()]


def state_at(history: Iterable[Change], snapshot: Snapshot) -> Rows:
    """The three projections (of the mapping `daemons.SOFT`) as this snapshot sees them."""
    tables: Keyed = {"users": {}, "trips": {}, "trip_memberships": {}}
    for change in history:
        if not snapshot.sees(change.xid):
            continue
        rows = tables[change.table]
        if change.op == "TRUNCATE":
            rows.clear()
        if change.old is not None:
            del rows[change.old["id"]]
        if change.new is not None:
            rows[change.new["id"]] = change.new
    trips = {key: row for key, row in tables["trips"].items() if row["deleted_at"] is None}
    return {
        "users": _sorted((r["id"], r["id"], r["email"], r["username"]) for r in tables["users"].values()),
        "trips": _sorted((r["id"], r["name"], r["created_by"]) for r in trips.values()),
        "trip_memberships": _sorted(
            (r["trip_id"], r["user_id"], r["role"], r["status"])
            for r in tables["trip_memberships"].values()
            if r["status"] == "ACTIVE" and r["trip_id"] in trips
        ),
    }


async def check_positions(source: Connection, target: Connection, *, every_batch: bool) -> int:
    """Every position that was ever stored was the truth. `every_batch`: each batch must have stored one."""
    history = await changes(source)
    cursor = await target.execute(
        "select moved, epoch, batch, snapshot, users, trips, trip_memberships from positions order by n"
    )
    checked = 0
    for moved, epoch, batch, snapshot, *stored in await cursor.fetchall():
        assert moved or not every_batch, f"epoch {epoch} batch {batch} left the target at no position"
        if moved:
            found = {table: _sorted(map(tuple, rows)) for table, rows in zip(TABLES, stored, strict=True)}
            true = state_at(history, Snapshot.parse(snapshot))
            assert found == true, f"epoch {epoch} batch {batch} is not {snapshot}: {differences(true, found)}; " + str(
                [(c.xid, c.table) for c in history if c.op == "TRUNCATE"]
            )
            checked += 1
    return checked


TABLES = ("users", "trips", "trip_memberships")


def _sorted(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(rows, key=repr)


async def play(url: str, seed: int, seconds: float, *, writers: int = 5, truncates: bool = True) -> int:
    """Several writers for so long, all over the same few keys; how many transactions were committed."""
    until = time.monotonic() + seconds
    players = (_write(url, random.Random(seed * 1000 + n), until, truncates=truncates) for n in range(writers))
    return sum(await asyncio.gather(*players))


async def _write(url: str, dice: random.Random, until: float, *, truncates: bool) -> int:
    committed = 0
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("set lock_timeout = '200ms'")
        await connection.commit()
        while time.monotonic() < until:
            try:
                await _transaction(connection, dice, truncates=truncates)
            except psycopg.Error:  # a key that is there already, a lock that was not to be had: part of the game
                await connection.rollback()
                continue
            if dice.random() < 0.15:
                await connection.rollback()
            else:
                await connection.commit()
                committed += 1
            await asyncio.sleep(dice.choice((0, 0, 0.001, 0.01, 0.05)))
    return committed


async def _transaction(connection: Connection, dice: random.Random, *, truncates: bool) -> None:
    for _ in range(dice.randint(1, 5)):
        if truncates and dice.random() < 0.005:
            await connection.execute(dice.choice(TRUNCATES))
        elif dice.random() < 0.2:
            async with connection.transaction(force_rollback=dice.random() < 0.5):
                await _operation(connection, dice)
        else:
            await _operation(connection, dice)
        await asyncio.sleep(dice.choice((0, 0, 0, 0.002, 0.02, 0.15)))


async def _operation(connection: Connection, dice: random.Random) -> None:
    await connection.execute(
        dice.choice(OPERATIONS),
        {
            "user": UUID(int=dice.randint(1, 12)),
            "user2": UUID(int=dice.randint(1, 12)),
            "trip": UUID(int=dice.randint(101, 106)),
            "trip2": UUID(int=dice.randint(101, 106)),
            "text": f"t{dice.randint(1, 1000)}",
        },
    )
