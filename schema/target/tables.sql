-- The target side, part 2: the three tables. Existing ones are adopted (mirror install looks at them first), extended by
-- the columns they lack, and never dropped or emptied.

create table if not exists public.users (id {{user_id}} primary key, subject text, email text, username text);
alter table public.users add column if not exists subject text, add column if not exists email text,
                         add column if not exists username text;

create table if not exists public.trips (id {{trip_id}} primary key, name text, created_by {{created_by}});
alter table public.trips add column if not exists name text, add column if not exists created_by {{created_by}};

create table if not exists public.trip_memberships (
  trip_id {{trip_id}} not null, user_id {{user_id}} not null, role text, status text, primary key (trip_id, user_id));
alter table public.trip_memberships add column if not exists role text, add column if not exists status text;

create index if not exists users_subject_mirror on public.users (subject);
create index if not exists trip_memberships_user_mirror on public.trip_memberships (user_id, trip_id);

alter table public.users enable row level security;
alter table public.trips enable row level security;
alter table public.trip_memberships enable row level security;
revoke all on public.users, public.trips, public.trip_memberships from public;
