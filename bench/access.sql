-- A Supabase with bench.rows memberships of small trips and one of a large trip, the roles whose policies ours are
-- compared with, and a table of chat. Indexes are made when the rows are there: ten millions would take an hour otherwise.

create temporary table kept as
  select indexrelid::regclass::text as name, pg_get_indexdef(indexrelid) as definition from pg_index
  where indrelid = 'public.trip_memberships'::regclass and not indisprimary;
do $$
declare _i record;
begin
  for _i in select * from kept loop
    execute format('drop index %s', _i.name);
  end loop;
  alter table public.trip_memberships drop constraint trip_memberships_pkey;
  insert into public.trip_memberships (trip_id, user_id, role, status)
    select md5('trip' || n / 20)::uuid, md5('user' || n)::uuid, 'member', 'ACTIVE'
    from generate_series(0, current_setting('bench.rows')::bigint - 1) as n
    union all
    select md5('large')::uuid, md5('user' || n)::uuid, 'member', 'ACTIVE'
    from generate_series(0, current_setting('bench.large')::bigint - 1) as n;
  alter table public.trip_memberships add primary key (trip_id, user_id);
  insert into public.users (id) select md5('user' || n)::uuid
    from generate_series(0, greatest(current_setting('bench.rows')::bigint, current_setting('bench.large')::bigint) - 1) as n;
  for _i in select * from kept loop
    execute _i.definition;
  end loop;
end
$$;

create role bench_open;
create role bench_inline;
grant usage on schema public, realtime, auth to bench_open, bench_inline;
grant select, insert on realtime.messages to bench_open;
create policy "bench: receive" on realtime.messages for select to bench_open using (true);
create policy "bench: send" on realtime.messages for insert to bench_open with check (true);

create table public.chat (id bigint primary key, trip_id uuid not null, body text);
insert into public.chat values (1, md5('trip0')::uuid, 'small'), (2, md5('large')::uuid, 'large');
alter table public.chat enable row level security;
grant select on public.chat to authenticated, bench_inline;
create policy "members" on public.chat for select to authenticated using (public.is_trip_member(trip_id));
-- The same question inlined, by a role that may read all memberships and users: what remains is the question alone.
grant select on public.trip_memberships, public.users to bench_inline;
create policy "bench: all" on public.trip_memberships for select to bench_inline using (true);
create policy "bench: all" on public.users for select to bench_inline using (true);
create policy "bench: inlined" on public.chat for select to bench_inline using (exists (
  select from public.trip_memberships as m
  where m.trip_id = chat.trip_id and m.user_id = auth.uid() and lower(m.status) in ('active', 'accepted')
    and exists (select from public.users as u where u.id = m.user_id)));

-- As realtime.apply_rls does it: the row is asked for once per subscriber, with that subscriber's role and claims.
create function public.seen_by(as_role text, chat_id bigint, subscribers bigint) returns bigint language plpgsql as $$
declare
  _seen bigint := 0;
  _yes boolean;
  _claims text;
begin
  execute format('prepare one_row as select exists (select from public.chat where id = %s)', chat_id);
  for n in 0..subscribers - 1 loop
    _claims := format('{"sub": "%s", "role": "%s"}', md5('user' || n)::uuid, as_role);
    perform set_config('role', as_role, true), set_config('request.jwt.claims', _claims, true);
    execute 'execute one_row' into _yes;
    _seen := _seen + _yes::int;
  end loop;
  deallocate one_row;
  perform set_config('role', 'none', true);
  return _seen;
end
$$;
