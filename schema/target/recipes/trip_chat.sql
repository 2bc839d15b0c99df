-- Chat for trips: messages with reactions and read receipts, and who is there. For front ends that talk to Supabase
-- themselves. Run it once in Supabase's SQL editor, after `mirror install`; it is yours from then on.
--
-- Ids are uuid here; where yours are text or numbers, replace the type of trip_id, sender and user_id. There is no foreign
-- key to the mirrored tables on purpose: a chat must neither vanish with a mirrored row nor keep the mirror from removing
-- one. Who is no member sees nothing of it.
-- Topics: [access] topics = ["trip:{id}", "trip:{id}:messages"]. Messages arrive on the second one; typing and presence
-- are for the first.
begin;
set local lock_timeout = '5s';
do $$
begin
  if to_regclass('realtime.messages') is null then
    raise exception 'Realtime has not made its table yet: connect a client once, then run this again';
  end if;
end
$$;

create table public.messages (
  id        uuid primary key default gen_random_uuid(),
  trip_id   uuid not null,
  sender    uuid not null default public.my_user_id(),
  body      text not null check (length(body) between 1 and 10000),
  sent_at   timestamptz not null default now()
);
create index on public.messages (trip_id, sent_at);

create table public.reactions (
  message_id uuid not null references public.messages on delete cascade,
  user_id    uuid not null default public.my_user_id(),
  reaction   text not null check (length(reaction) between 1 and 40),
  primary key (message_id, user_id, reaction)
);

create table public.read_receipts (
  message_id uuid not null references public.messages on delete cascade,
  user_id    uuid not null default public.my_user_id(),
  read_at    timestamptz not null default now(),
  primary key (message_id, user_id)
);

create table public.presence (
  trip_id uuid not null,
  user_id uuid not null default public.my_user_id(),
  seen_at timestamptz not null default now(),
  primary key (trip_id, user_id)
);

alter table public.messages enable row level security;
alter table public.reactions enable row level security;
alter table public.read_receipts enable row level security;
alter table public.presence enable row level security;

revoke all on public.messages, public.reactions, public.read_receipts, public.presence from anon, authenticated;
grant select, insert, delete, update (body) on public.messages to authenticated;
grant select, insert, delete on public.reactions to authenticated;
grant select, insert on public.read_receipts to authenticated;
grant select, insert, delete, update (seen_at) on public.presence to authenticated;
grant all on public.messages, public.reactions, public.read_receipts, public.presence to service_role;

-- Reading asks once per query which trips are yours; writing asks about the one trip.
create policy "members read" on public.messages for select to authenticated
  using (trip_id = any (array(select public.my_trips())));
create policy "members write as themselves" on public.messages for insert to authenticated
  with check (sender = (select public.my_user_id()) and public.is_trip_member(trip_id));
create policy "senders correct" on public.messages for update to authenticated
  using (sender = (select public.my_user_id()) and public.is_trip_member(trip_id));
create policy "senders and owners delete" on public.messages for delete to authenticated
  using (sender = (select public.my_user_id()) and public.is_trip_member(trip_id)
         or public.is_trip_member(trip_id, array['owner', 'admin']));

-- "There is such a message" is answered by the policies of messages: only members find it.
create policy "members read" on public.reactions for select to authenticated
  using (exists (select from public.messages as m where m.id = message_id));
create policy "members react as themselves" on public.reactions for insert to authenticated
  with check (user_id = (select public.my_user_id()) and exists (select from public.messages as m where m.id = message_id));
create policy "they take it back" on public.reactions for delete to authenticated
  using (user_id = (select public.my_user_id()) and exists (select from public.messages as m where m.id = message_id));

create policy "members read" on public.read_receipts for select to authenticated
  using (exists (select from public.messages as m where m.id = message_id));
create policy "members have read for themselves" on public.read_receipts for insert to authenticated
  with check (user_id = (select public.my_user_id()) and exists (select from public.messages as m where m.id = message_id));

create policy "members see who is there" on public.presence for select to authenticated
  using (trip_id = any (array(select public.my_trips())));
create policy "members come" on public.presence for insert to authenticated
  with check (user_id = (select public.my_user_id()) and public.is_trip_member(trip_id));
create policy "they stay" on public.presence for update to authenticated
  using (user_id = (select public.my_user_id()) and public.is_trip_member(trip_id));
create policy "they leave" on public.presence for delete to authenticated
  using (user_id = (select public.my_user_id()));

-- New messages go to a private channel of their own, on which clients listen and only the database speaks: on trip:<id>
-- any member may send what looks like a message of another one. A restrictive policy holds whatever others allow.
create policy "only the database sends messages" on realtime.messages as restrictive for insert to anon, authenticated
  with check (topic not like 'trip:%:messages');

-- (Cheaper than postgres_changes, which asks the policy once per subscriber and row, and sends deletes to everybody.)
create function public.broadcast_message() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
  perform realtime.send(pg_catalog.to_jsonb(new), 'message', 'trip:' || new.trip_id || ':messages', true);
  return null;
end
$$;
revoke all on function public.broadcast_message() from public, anon, authenticated;
create trigger broadcast after insert on public.messages for each row execute function public.broadcast_message();

commit;
