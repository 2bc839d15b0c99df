"""What every test finds in its databases. Built once per session, then cloned per test."""

from pathlib import Path

import psycopg

import mirror.demo

SUPABASE = Path(mirror.demo.__file__).with_name("supabase.sql")

APPLICATION = """
create table public.users (
  id        uuid primary key,
  email     text,
  username  text,
  last_seen timestamptz
);
create table public.trips (
  id         uuid primary key,
  name       text not null,
  created_by uuid,
  deleted_at timestamptz
);
create table public.trip_memberships (
  id      bigint generated always as identity primary key,
  trip_id uuid not null references public.trips on delete cascade,
  user_id uuid not null,
  role    text,
  status  text not null default 'ACTIVE',
  unique (trip_id, user_id)
);
"""


async def prepare_source(conn: psycopg.AsyncConnection) -> None:
    """The application's own tables, with the default names."""
    await conn.execute(APPLICATION)


async def prepare_target(conn: psycopg.AsyncConnection) -> None:
    """An empty Supabase project."""
    await conn.execute(SUPABASE.read_text())
