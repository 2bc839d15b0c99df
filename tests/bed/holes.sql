-- Holes, each for a project that is in order (tests/integration/test_doctor_holes.py): `-- hole NAME: what the doctor
-- says`, then what makes it. Ann and Bob are in Rome, Cid is in Oslo; there is a chat (the recipe trip_chat).

-- hole a view: may read public.v, which shows public.users
create view v as select id from users;
grant select on v to authenticated;

-- hole a view on a view: anon may read public.v, which shows public.users
create schema deep;
create view deep.inner_one as select * from users;
create view v as select id from deep.inner_one;
grant select on v to anon;

-- hole a view of the caller's on a view: authenticated may read public.v, which shows public.trips
create view w as select * from trips;
grant select on w to authenticated;
create view v with (security_invoker = on) as select name from w;
grant select on v to authenticated;

-- hole a materialized view: may read public.m, which shows public.trip_memberships
create materialized view m as select * from trip_memberships;
grant select on m to authenticated;

-- hole a view on a materialized view: may read public.v, which shows public.trips
create materialized view m as select * from trips;
create view v with (security_invoker = on) as select * from m;
grant select on m, v to authenticated;

-- hole a column of a view: may read public.v
create view v as select id, email from users;
grant select (email) on v to anon;

-- hole a view that can be written to: authenticated may write to public.v, and so to public.trip_memberships
create view v as select * from trip_memberships;
grant insert on v to authenticated;

-- hole a definer function: anon may call public.people(), which gives public.users
create function people() returns setof users language sql security definer as 'select * from public.users';

-- hole a definer function with a body of its own: may call public.people(), which gives public.users
create function people() returns table (n text)
  language sql stable security definer begin atomic select username from users;
end;

-- hole a definer function that makes json: may call public.list(uuid), which gives public.trip_memberships
create function list(t uuid) returns json language sql security definer
  as $$ select json_agg(m) from trip_memberships as m where m.trip_id = t $$;

-- hole a definer function that joins by a comma: may call public.list(), which gives public.trips
create function list() returns setof trips language sql security definer
  as $$ select t.* from messages as m, (trips as t join users as u on true) $$;

-- hole a definer function on a view: may call public.list(), which gives public.users
create view v as select * from users;
create function list() returns setof text language plpgsql security definer
  as $$ begin return query select username from public.v; end $$;

-- hole a definer function that asks, and does not heed: strangers are answered by public.list()
create function list() returns setof trips language sql stable security definer
  as $$ select t.* from public.trips as t where auth.jwt() ->> 'sub' is distinct from 'x' $$;

-- hole a definer function that tells one thing: strangers are answered by public.mail(text)
create function mail(t text) returns text language sql stable security definer
  as $$ select name from public.trips as t where t.id::text = $1 $$;

-- hole a definer function that writes: may call public.leave(uuid), which writes to public.trip_memberships
create function leave(t uuid) returns void language sql security definer
  as $$ delete from public.trip_memberships as m where m.trip_id = t and m.user_id = auth.uid() $$;

-- hole a function in another exposed schema: anon may call api.people(), which gives public.users
create schema api;
grant usage on schema api to anon;
create function api.people() returns setof users language sql security definer as 'select * from public.users';
do $$ begin
  execute format('alter role authenticator in database %I set pgrst.db_schemas = ''public, api''', current_database());
end $$;

-- hole a view of the caller's over a definer function: strangers read rows of public.v
create function list() returns setof trips language sql stable security definer
  as $$ select t.* from public.trips as t where coalesce(auth.jwt() ->> 'sub', '') <> 'x' $$;
create view v with (security_invoker = on) as select * from list();
grant select on v to authenticated;

-- hole using true: the policy p on public.users shows every row
create policy p on users for select to authenticated using (true);

-- hole using 1 = 1: strangers read rows of public.users
create policy p on users for select to authenticated using (1 = 1);

-- hole those who have the role: strangers read rows of public.trips
create policy p on trips for select using (auth.role() = 'authenticated');

-- hole those who have a uuid: strangers read rows of public.trip_memberships
create policy p on trip_memberships for select to authenticated using (auth.uid() is not null);

-- hole those who have any sub: strangers read rows of public.trips
create policy p on trips for select to authenticated using (coalesce(auth.jwt() ->> 'sub', '') <> '');

-- hole what a column says: strangers read rows of public.trips
create policy p on trips for select to authenticated using (name is not null);

-- hole those who have no sub: strangers read rows of public.trips
create policy p on trips for select to authenticated using ((auth.jwt() ->> 'sub') is null);

-- hole any mirrored user: strangers read rows of public.trips
create policy p on trips for select to authenticated
  using (exists (select from users as u where u.id = (select my_user_id())));

-- hole for all: strangers read rows of public.trip_memberships
create policy p on trip_memberships for all to authenticated using (true);

-- hole a function that says yes: strangers read rows of public.trips
create function fine(uuid) returns boolean language sql stable as 'select true';
create policy p on trips for select to authenticated using (fine(id));

-- hole a chat that every caller reads: strangers read rows of public.messages (what members write)
create policy p on messages for select to authenticated using (sent_at is not null);

-- hole a chat that has lost its policies: strangers read rows of public.messages
alter table messages disable row level security;

-- hole a view on a chat: strangers read rows of public.v (what members write)
create view v as select body from messages;
grant select on v to anon;

-- hole every channel: strangers may receive on a trip's channel
create policy p on realtime.messages for select to authenticated using (true);

-- hole every broadcast: the policy p on realtime.messages lets strangers receive on every channel
create policy p on realtime.messages for select to authenticated using (extension = 'broadcast');

-- hole everybody sends: strangers may send on a trip's channel
create policy p on realtime.messages for insert to authenticated with check (true);

-- hole a channel by its prefix: strangers may receive on a trip's channel
create policy p on realtime.messages for select to authenticated using (realtime.topic() like 'trip:%');

-- hole the mapping's second topic: strangers may receive on a trip's channel: anon
create policy p on realtime.messages to anon using (realtime.topic() like 'room:%');

-- hole presence for all who are signed in: strangers may send on a trip's channel
create policy p on realtime.messages for insert with check (extension = 'presence' and auth.role() = 'authenticated');

-- hole a policy of channels that raises on a Clerk id: a policy of realtime.messages raises
create policy p on realtime.messages for select to authenticated using (auth.uid() = realtime.topic()::uuid);

-- hole a policy of channels that raises on a strange topic: a policy of realtime.messages raises (SQLSTATE 22P02)
create policy p on realtime.messages for select to authenticated
  using (public.is_trip_member(split_part(realtime.topic(), ':', 2)::uuid));

-- hole anon reads: anon may select on public.trips
grant select on trips to anon;
create policy p on trips for select using (true);

-- hole no row level security: row level security of public.trips is off
alter table trips disable row level security;

-- hole a right to write: authenticated may insert on public.users
grant insert, update on users to authenticated;
create policy p on users for all to authenticated using (id = (select my_user_id()));

-- hole published: public.trip_memberships is in the publication
alter publication supabase_realtime add table trip_memberships;

-- hole a child: authenticated may use public.child, whose rows are rows of public.trips
create table child () inherits (trips);
grant select on child to authenticated;

-- hole a child that can be written to: authenticated may use public.child, whose rows are rows of public.trip_memberships
create table child () inherits (trip_memberships);
alter table child enable row level security;
grant insert on child to authenticated;
create policy p on child for insert to authenticated with check (true);

-- hole a foreign table of the same: anon may read public.back, which is public.users by its name
create foreign data wrapper w;
create server s foreign data wrapper w;
create foreign table back (id uuid) server s options (table_name 'users');
grant select on back to anon;

-- hole a copy that a trigger makes: authenticated may read public.copy, which a trigger fills from public.users
create table copy (id uuid);
grant select on copy to authenticated;
create function copies() returns trigger language plpgsql
  as $$ begin insert into public.copy values (new.id); return new; end $$;
create trigger copies after insert on users for each row execute function copies();

-- hole a copy that a trigger makes, and a policy that shows it: strangers read rows of public.copy
create table copy (id uuid);
grant select on copy to authenticated;
insert into copy select id from users;
alter table copy enable row level security;
create policy p on copy for select to authenticated using (auth.jwt() is not null);
create function copies() returns trigger language plpgsql
  as $$ begin insert into public.copy values (new.id); return new; end $$;
create trigger copies after insert on users for each row execute function copies();

-- hole another role's rights: authenticated is a member of service_role
grant service_role to authenticated;

-- hole all data: anon is a member of pg_read_all_data
grant pg_read_all_data to anon;

-- hole bypassing: no policy holds for authenticated
alter role authenticated bypassrls;

-- hole the daemon's functions: authenticated may call public.mirror_apply(jsonb)
grant execute on function mirror_apply(jsonb) to authenticated;
