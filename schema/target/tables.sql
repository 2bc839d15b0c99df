-- The target side, part 2: the three tables. Existing ones are adopted (mirror install looks at them first), extended by
-- the columns they lack, and never dropped or emptied.

-- Tables that are made here give no rights but ours (grants.sql), whatever the default privileges of this database say.
do $mirror$
begin
  perform set_config('mirror.made_here', (
    select coalesce(string_agg(t, ','), '') from unnest(array['users', 'trips', 'trip_memberships']) as t
    where to_regclass('public.' || t) is null), true);
end
$mirror$;

-- A tenth of each page is left free: an update that changes no key then writes no index.
create table if not exists public.users (id {{user_id}} primary key, subject text, email text, username text)
with (fillfactor = 90);
alter table public.users add column if not exists subject text, add column if not exists email text,
                         add column if not exists username text;

create table if not exists public.trips (id {{trip_id}} primary key, name text, created_by {{created_by}})
with (fillfactor = 90);
alter table public.trips add column if not exists name text, add column if not exists created_by {{created_by}};

create table if not exists public.trip_memberships (
  trip_id {{trip_id}} not null, user_id {{user_id}} not null, role text, status text, primary key (trip_id, user_id))
with (fillfactor = 90);
alter table public.trip_memberships add column if not exists role text, add column if not exists status text;

-- Ranges are in key order, and text is ordered by bytes on both sides. A primary key answers them, unless its text follows
-- the database's own collation, or an adopted unique key has its columns the other way round.
do $mirror$
declare _t record;
begin
  for _t in values ('users', '{id}'::text[], '{{user_order}}'), ('trips', '{id}', '{{trip_order}}'),
                   ('trip_memberships', '{trip_id,user_id}', '{{member_order}}') loop
    if not exists (
      select from pg_catalog.pg_index as i join pg_catalog.pg_class as c on c.oid = i.indexrelid
      join pg_catalog.pg_am as a on a.oid = c.relam and a.amname = 'btree'
      where i.indrelid = format('public.%I', _t.column1)::regclass and i.indisvalid and i.indpred is null
        and (select array_agg(k.attname::text order by n)
             from generate_series(0, cardinality(_t.column2) - 1) as n
             join pg_catalog.pg_attribute as k on k.attrelid = i.indrelid and k.attnum = i.indkey[n]
             where i.indcollation[n] in (0, 'pg_catalog."C"'::regcollation) and i.indoption[n] = 0) = _t.column2) then
      execute format('create index if not exists %I on public.%I (%s)', _t.column1 || '_key_mirror', _t.column1, _t.column3);
    end if;
  end loop;
end
$mirror$;

create index if not exists users_subject_mirror on public.users (subject);
create index if not exists trip_memberships_user_mirror on public.trip_memberships (user_id, trip_id);

alter table public.users enable row level security;
alter table public.trips enable row level security;
alter table public.trip_memberships enable row level security;
revoke all on public.users, public.trips, public.trip_memberships from public;
