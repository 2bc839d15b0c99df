"""What the application writes while nobody brings it over. Server-side, one transaction per change, so that half
a million of them take seconds to write: only what was written matters here, so it does not wait for the disk either."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import LiteralString

from bench.peers import Sentinel, until
from bench.stage import Databases, ask, connect

WRITERS = 4
HOT_KEYS = 1_000
REVOKED_EVERY = 100
BULK_ROWS = 10_000
COUNTED_TIMEOUT_S = 20.0
SINGLY = """
create or replace procedure public.change_singly(first bigint, upto bigint, keys bigint, gone_every bigint)
language plpgsql as $$
begin
  for n in first..upto loop
    if n % gone_every = gone_every - 1 then
      delete from public.trip_memberships
      where trip_id = public.trip_of(n % keys) and user_id = public.key('user', n % keys);
    else
      update public.trip_memberships set role = 'role ' || n
      where trip_id = public.trip_of(n % keys) and user_id = public.key('user', n % keys);
    end if;
    commit;
  end loop;
end $$;
"""
UPDATE_MANY = "update public.trip_memberships set role = 'role ' || id where id > %s and id <= %s"
INSERT_MANY = """
insert into public.trip_memberships (trip_id, user_id, role)
select public.trip_of(n), public.key('guest', n), 'guest' from generate_series(%s + 1, %s) as n
"""
Write = Callable[[Databases, int], None]


@dataclass(frozen=True)
class Kind:
    """`wanted`: as many times as fast as native replication."""

    title: str
    write: Write
    wanted: float | None


def singly(databases: Databases, n: int, keys: int | None = None, gone_every: int | None = None) -> None:
    with connect(databases.source) as connection:
        connection.execute(SINGLY)
    bounds = [n * writer // WRITERS for writer in range(WRITERS + 1)]

    def write(part: int) -> None:
        with connect(databases.source) as connection:
            connection.execute("set synchronous_commit = off")
            call = "call public.change_singly(%s, %s, %s, %s)"
            connection.execute(call, [bounds[part], bounds[part + 1] - 1, keys or n, gone_every or 2 * n])

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(write, range(WRITERS)))


def _hot(databases: Databases, n: int) -> None:
    singly(databases, n, keys=min(n, HOT_KEYS))


def _with_revocations(databases: Databases, n: int) -> None:
    singly(databases, n, gone_every=REVOKED_EVERY)


def _bulk(databases: Databases, n: int, statement: LiteralString) -> None:
    with connect(databases.source) as connection:
        for first in range(0, n, BULK_ROWS):
            connection.execute(statement, [first, min(n, first + BULK_ROWS)])


def _updates(databases: Databases, n: int) -> None:
    _bulk(databases, n, UPDATE_MANY)


def _inserts(databases: Databases, n: int) -> None:
    _bulk(databases, n, INSERT_MANY)


SINGLE = Kind("single-row changes", singly, 1.6)
HOT = Kind(f"changes of {HOT_KEYS:,} hot keys", _hot, 8)
BULK_UPDATES = Kind("bulk updates", _updates, 1.1)
BULK_INSERTS = Kind("bulk inserts", _inserts, 0.7)
REVOCATIONS = Kind("single-row changes, 1 % revocations", _with_revocations, None)


def write(databases: Databases, kind: Kind, n: int) -> Sentinel:
    """A checkpoint puts everybody at the same start."""
    with connect(databases.source) as source:
        before = _changed(databases)
        kind.write(databases, n)
        until(lambda: _changed(databases) - before >= n, COUNTED_TIMEOUT_S)  # sessions count as they end
        if _changed(databases) - before != n:
            raise RuntimeError(f"{_changed(databases) - before} rows were changed, not {n}")
        sentinel = Sentinel(source)
        source.execute("checkpoint")
    return sentinel


def _changed(databases: Databases) -> int:
    with connect(databases.source) as source:
        source.execute("select pg_stat_force_next_flush()")
        changes = "select n_tup_ins + n_tup_upd + n_tup_del from pg_stat_user_tables where relname = 'trip_memberships'"
        return int(str(ask(source, changes)))
