"""Who brings changes from the source to the target: the mirror's daemon, native logical replication, and the least
that anybody woken by NOTIFY has to do (the floor). Each runs, and has copied everything, when its block is entered."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from collections.abc import Mapping as AbcMapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO

from bench.stage import Connection, Databases, ask, connect
from bench.usage import note_peak
from mirror.mapping import Mapping
from mirror.postgres import connect_blocking
from mirror.source import install as source_side
from mirror.source.projection import look
from mirror.target import install as target_side

TIMEOUT_S = 300.0
POLL_INTERVAL_S = 0.01
STOP_TIMEOUT_S = 30.0
LAST_WORDS_BYTES = 2000
TARGET_TABLES = """
create table public.users (id uuid primary key, email text, username text);
create table public.trips (id uuid primary key, name text, created_by uuid);
create table public.trip_memberships (
  trip_id uuid not null, user_id uuid not null, role text, status text, primary key (trip_id, user_id));
create index on public.trip_memberships (user_id, trip_id);
"""
PUBLICATION = """
alter table public.trip_memberships replica identity using index trip_memberships_trip_id_user_id_key;
create publication bench for table public.users (id, email, username), public.trips (id, name, created_by),
  public.trip_memberships (trip_id, user_id, role, status);
"""
RINGING = """
create function public.ring() returns trigger language plpgsql as
  $$ begin perform pg_notify('bench', new.trip_id || ' ' || new.user_id); return null; end $$;
create trigger ring after insert or update on public.trip_memberships for each row execute function public.ring();
"""
RELAYED = "select trip_id, user_id, role, status from public.trip_memberships where trip_id = %s and user_id = %s"
RELAY = """
insert into public.trip_memberships (trip_id, user_id, role, status) values (%s, %s, %s, %s)
on conflict (trip_id, user_id) do update set role = excluded.role, status = excluded.status
"""

Peer = Callable[[Databases], AbstractContextManager[object]]


class LeftOutError(Exception):
    """This peer is not on this machine; the message says what is missing."""


def until(condition: Callable[[], object], timeout_s: float = TIMEOUT_S) -> float:
    """Waits, and returns when it was seen to be true (time.perf_counter)."""
    deadline = time.perf_counter() + timeout_s
    while not condition():
        if time.perf_counter() > deadline:
            raise TimeoutError(f"not within {timeout_s:.0f} s")
        time.sleep(POLL_INTERVAL_S)
    return time.perf_counter()


def install_mirror(databases: Databases, mapping: Mapping | None = None) -> None:
    mapping = mapping or Mapping()
    with connect_blocking(databases.source, "source") as source, connect_blocking(databases.target, "target") as target:
        source_side.install(source, mapping, lambda _: None)
        target_side.install(target, look(source, mapping).types, mapping, lambda _: None)


@dataclass(frozen=True)
class Daemon:
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def runs(self) -> bool:
        """True, or an error with its last words: nobody should wait for a daemon that has ended."""
        if self.process.poll() is not None:
            self.log.seek(0)
            said = self.log.read()[-LAST_WORDS_BYTES:].decode(errors="replace").strip()
            raise RuntimeError(f"the daemon ended with {self.process.returncode}: {said}")
        return True


@contextmanager
def daemon(databases: Databases, settings: AbcMapping[str, str] | None = None) -> Iterator[Daemon]:
    """`mirror run` as a process of its own, with default settings but for those given."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MIRROR_", "SUPABASE_"))}
    environ |= {"MIRROR_SOURCE_URL": databases.source, "MIRROR_TARGET_URL": databases.target, "MIRROR_HTTP_PORT": "0"}
    environ |= settings or {}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, "-m", "mirror", "run"], env=environ, stderr=log)
        running = Daemon(process, log)
        try:
            yield running
            running.runs()
            note_peak(process.pid)
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)


@contextmanager
def mirror(
    databases: Databases,
    *,
    via: Databases | None = None,
    settings: AbcMapping[str, str] | None = None,
    mapping: Mapping | None = None,
) -> Iterator[Daemon]:
    """`via`: the same databases, as the daemon reaches them."""
    install_mirror(databases, mapping)
    with daemon(via or databases, settings) as running, connect(databases.target) as target:
        until(lambda: running.runs() and ask(target, "select primed_at from mirror.state"))
        yield running


@contextmanager
def native(databases: Databases, *, durable: bool = False, via: str | None = None) -> Iterator[None]:
    """Publication and subscription, columns as in the mapping. A subscription's default is not to wait for the disk."""
    with connect(databases.source) as source, connect(databases.target) as target:
        source.execute(PUBLICATION)
        target.execute(TARGET_TABLES)
        options = " with (synchronous_commit = on)" if durable else ""
        target.execute(f"create subscription bench connection '{via or databases.source}' publication bench{options}")
        try:
            until(lambda: ask(target, "select bool_and(srsubstate = 'r') from pg_subscription_rel"))
            yield
        finally:
            target.execute("drop subscription bench")  # and the slot with it


native_durable: Peer = partial(native, durable=True)


@contextmanager
def relay(databases: Databases, *, via: Databases | None = None) -> Iterator[None]:
    """The floor: hear a NOTIFY, select one row by its key, put it into the target durably. Nothing else: one writer,
    nothing kept when the process dies, no batches, no deletes."""
    with connect(databases.source) as source, connect(databases.target) as target:
        source.execute(RINGING)
        target.execute(TARGET_TABLES)
        with target.cursor().copy("copy public.trip_memberships from stdin") as into:
            copied = "copy (select trip_id, user_id, role, status from public.trip_memberships) to stdout"
            with source.cursor().copy(copied) as out:
                for data in out:
                    into.write(data)
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_relay, args=(via or databases,), daemon=True)
        process.start()
        try:
            until(lambda: ask(source, "select count(*) from pg_stat_activity where query = 'listen bench'"))
            yield
        finally:
            process.terminate()
            process.join(STOP_TIMEOUT_S)


def _relay(databases: Databases) -> None:
    with (
        connect(databases.source) as listener,
        connect(databases.source) as source,
        connect(databases.target) as target,
    ):
        listener.execute("listen bench")
        for ring in listener.notifies():
            row = source.execute(RELAYED, ring.payload.split(), prepare=True).fetchone()
            target.execute(RELAY, row, prepare=True)


class Sentinel:
    """One last change, written after all others: when it is through, they are."""

    def __init__(self, source: Connection) -> None:
        self._name = secrets.token_hex(8)
        self._xid = ask(
            source,
            "update public.trips set name = %s where id = md5('trip0')::uuid returning pg_current_xact_id()::text",
            self._name,
        )

    def in_position(self, target: Connection) -> bool:
        """The mirror's promise: the target equals a snapshot in which everything up to here is visible."""
        return bool(
            ask(target, "select pg_visible_in_snapshot(%s::xid8, snapshot::pg_snapshot) from mirror.state", self._xid)
        )

    def is_visible(self, target: Connection) -> bool:
        """Native replication applies in commit order."""
        return bool(ask(target, "select name = %s from public.trips where id = md5('trip0')::uuid", self._name))
