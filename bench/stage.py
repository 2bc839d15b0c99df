"""The stage: two local clusters with default durability, and databases on them that are made anew for each round.

Nothing is tuned: the source's `wal_level` is what native replication demands, for everybody; the rest is as initdb left
it. Keys are uuids out of md5, so that pgbench can name a key by its number and indexes are hit as at random.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from mirror.demo.servers import Server, temporary_directory

Connection = psycopg.Connection[Any]
MEMBERS_PER_TRIP = 20
USERS = 10_000
FILE_COPY_ROWS = 200_000  # a template of more rows is copied as files: through the WAL it would take minutes
SOURCE_TABLES = f"""
create table public.users (id uuid primary key, email text, username text, last_seen timestamptz);
create table public.trips (id uuid primary key, name text not null, created_by uuid, deleted_at timestamptz);
create table public.trip_memberships (
  id bigint generated always as identity, trip_id uuid not null, user_id uuid not null, role text,
  status text not null default 'ACTIVE');
create function public.key(kind text, n bigint) returns uuid language sql immutable parallel safe
  return md5(kind || n::text)::uuid;
create function public.trip_of(n bigint) returns uuid language sql immutable parallel safe
  return public.key('trip', n / {MEMBERS_PER_TRIP});
"""
SOURCE_ROWS = """
insert into public.trips (id, name)
  select public.key('trip', n), 'trip ' || n from generate_series(0, %(rows)s / %(members_per_trip)s) as n;
insert into public.users (id, email, username)
  select public.key('user', n), n || '@example.org', 'user ' || n from generate_series(0, %(users)s - 1) as n;
insert into public.trip_memberships (trip_id, user_id, role)
  select public.trip_of(n), public.key('user', n), 'member' from generate_series(0, %(rows)s - 1) as n;
"""
SOURCE_KEYS = """
alter table public.trip_memberships add primary key (id), add unique (trip_id, user_id),
  add foreign key (trip_id) references public.trips on delete cascade;
"""


@dataclass(frozen=True)
class Databases:
    """One side each of a round."""

    source: str
    target: str


@dataclass
class Stage:
    source: Server
    target: Server
    drops: bool = True  # databases that are no longer needed; otherwise they stay until the clusters go
    _strategy: str = "wal_log"
    _made: int = 0
    _application: str = ""

    def fill(self, rows: int) -> None:
        """Makes the application's database, with so many memberships, from which each round gets its copy. Keys come
        last: ten millions of rows would take minutes otherwise."""
        if self._application and self.drops:
            _admin(self.source, f"drop database {self._application}")
        self._made += 1
        self._application = f"application_{self._made}"
        _admin(self.source, f"create database {self._application}")
        with connect(self.source.url(self._application)) as connection:
            connection.execute(SOURCE_TABLES)
            sizes = {"rows": rows, "users": USERS, "members_per_trip": MEMBERS_PER_TRIP}
            psycopg.ClientCursor(connection).execute(SOURCE_ROWS, sizes)
            connection.execute(SOURCE_KEYS)
            connection.execute("vacuum analyze")
        self._strategy = "file_copy" if rows > FILE_COPY_ROWS else "wal_log"

    @contextmanager
    def databases(self) -> Iterator[Databases]:
        """A fresh copy of the application, and an empty target."""
        self._made += 1
        name = f"bench_{self._made}"
        _admin(self.source, f"create database {name} template {self._application} strategy {self._strategy}")
        _admin(self.target, f"create database {name}")
        _admin(self.source, "checkpoint")
        _admin(self.target, "checkpoint")
        try:
            yield Databases(self.source.url(name), self.target.url(name))
        finally:
            if self.drops:
                _admin(self.source, f"drop database {name} with (force)")
                _admin(self.target, f"drop database {name} with (force)")


@contextmanager
def open_stage(
    source_major: int, target_major: int, parent: Path | None, settings: Mapping[str, str] | None = None
) -> Iterator[Stage]:
    """`settings`: for both sides, where somebody demands them."""
    with ExitStack() as stack:
        directory = stack.enter_context(temporary_directory("mirror-bench-", parent))
        sides = []
        for name, major in (("source", source_major), ("target", target_major)):
            demanded = {"wal_level": "logical"} if name == "source" else {}
            server = Server.start(major, directory / name, settings=demanded | dict(settings or {}))
            sides.append(stack.enter_context(server))
        yield Stage(sides[0], sides[1])


def connect(url: str) -> Connection:
    return psycopg.connect(url, autocommit=True)


def ask(connection: Connection, query: LiteralString, *arguments: object) -> object:
    row = connection.execute(query, arguments).fetchone()
    return row[0] if row else None


def _admin(server: Server, *statements: str) -> None:
    with connect(server.url()) as connection:
        for statement in statements:
            connection.execute(statement)
