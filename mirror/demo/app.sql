-- The primary of a trip planning app, as they are: profiles instead of users, soft deletes that leave memberships as they
-- were, enums, a surrogate key on memberships, columns that the mirror has no business with.

create type public.membership_status as enum ('PENDING', 'ACTIVE', 'INACTIVE');
create type public.membership_role as enum ('OWNER', 'EDITOR', 'VIEWER');

create table public.user_profiles (
  id           uuid primary key default gen_random_uuid(),
  username     text not null unique,
  email        text not null,
  full_name    text not null,
  preferences  jsonb not null default '{}',
  last_seen_at timestamptz not null default now()
);

create table public.trips (
  id          uuid primary key default gen_random_uuid(),
  name        text not null,
  description text not null default '',
  created_by  uuid,
  created_at  timestamptz not null default now(),
  deleted_at  timestamptz
);

create table public.trip_memberships (
  id         bigint generated always as identity primary key,
  trip_id    uuid not null references public.trips on delete cascade,
  user_id    uuid not null,
  role       public.membership_role not null default 'VIEWER',
  status     public.membership_status not null default 'PENDING',
  created_at timestamptz not null default now(),
  unique (trip_id, user_id)
);
create index on public.trip_memberships (user_id);
