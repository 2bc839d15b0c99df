-- Chat rooms (rooms, participants, messages) where each trip is a room. For front ends and chat libraries that speak of
-- rooms. Run it once in Supabase's SQL editor, after `mirror install`; it is yours from then on.
--
-- Rooms and participants are the mirrored tables under other names, so there is nothing to keep up to date; with
-- security_invoker a view shows what its reader may see. Ids are uuid here; where yours are not, replace the types.
-- Topics: [access] topics = ["room:{id}", "room:{id}:*"]. Messages arrive on room:<id>:messages.
begin;
set local lock_timeout = '5s';
do $$
begin
  if to_regclass('realtime.messages') is null then
    raise exception 'Realtime has not made its table yet: connect a client once, then run this again';
  end if;
end
$$;

create view public.rooms with (security_invoker = true) as
  select t.id, t.name, t.created_by from public.trips as t;
create view public.participants with (security_invoker = true) as
  select m.trip_id as room_id, m.user_id, lower(m.role::text) as role, u.username
  from public.trip_memberships as m left join public.my_companion_profiles() as u on u.id = m.user_id
  where m.user_id = any (array(select public.my_companions()));

create table public.messages (
  id      bigint generated always as identity primary key,
  room_id uuid not null,
  sender  uuid not null default public.my_user_id(),
  body    text not null check (length(body) between 1 and 10000),
  sent_at timestamptz not null default now()
);
create index on public.messages (room_id, id);
alter table public.messages enable row level security;

revoke all on public.rooms, public.participants, public.messages from anon, authenticated;
grant select on public.rooms, public.participants to authenticated;
grant select, insert (room_id, body) on public.messages to authenticated;
grant all on public.messages to service_role;

create policy "participants read" on public.messages for select to authenticated
  using (room_id = any (array(select public.my_trips())));
create policy "participants write as themselves" on public.messages for insert to authenticated
  with check (sender = (select public.my_user_id()) and public.is_trip_member(room_id));

-- New messages go to a private channel of their own, on which clients listen and only the database speaks: on room:<id>
-- any member may send what looks like a message of another one. A restrictive policy holds whatever others allow.
create policy "only the database sends messages" on realtime.messages as restrictive for insert to anon, authenticated
  with check (topic not like 'room:%:messages');

create function public.broadcast_message() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
  perform realtime.send(pg_catalog.to_jsonb(new), 'message', 'room:' || new.room_id || ':messages', true);
  return null;
end
$$;
revoke all on function public.broadcast_message() from public, anon, authenticated;
create trigger broadcast after insert on public.messages for each row execute function public.broadcast_message();

commit;
