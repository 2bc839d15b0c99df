-- The application's database of the compose file: its three tables with a few rows, as an application would have made
-- them, and the role that the daemon logs in as. `mirror install` adds to that role what it needs, and nothing else.
create table public.users (
  id        uuid primary key default gen_random_uuid(),
  email     text,
  username  text,
  last_seen timestamptz
);
create table public.trips (
  id         uuid primary key default gen_random_uuid(),
  name       text not null,
  created_by uuid references public.users on delete set null
);
create table public.trip_memberships (
  id      bigint generated always as identity primary key,
  trip_id uuid not null references public.trips on delete cascade,
  user_id uuid not null references public.users on delete cascade,
  role    text not null default 'MEMBER',
  status  text not null default 'ACTIVE',
  unique (trip_id, user_id)
);

insert into public.users (email, username) values
  ('ada@example.org', 'ada'), ('ben@example.org', 'ben'), ('cleo@example.org', 'cleo');
insert into public.trips (name, created_by) select 'Lisbon in May', id from public.users where username = 'ada';
insert into public.trip_memberships (trip_id, user_id, role)
select t.id, u.id, case u.username when 'ada' then 'OWNER' else 'MEMBER' end
from public.trips as t, public.users as u where u.username in ('ada', 'ben');

create role mirror_daemon login password 'mirror-demo';
