-- A back end that does its own authorisation (FastAPI with BetterAuth, say) and writes with the service role; clients may
-- only subscribe. Run it once in Supabase's SQL editor, after `mirror install`; it is yours from then on.
--
-- Clients get a JWT from the back end, signed with the project's key: role "authenticated", sub = the user's id as text,
-- whatever it looks like. With it they join private channels and listen; they neither read the table nor send.
-- Ids are uuid here; where yours are not, replace the types.  [access] send = []  and topics = ["trip:{id}"].
begin;

create table public.messages (
  id      uuid primary key default gen_random_uuid(),
  trip_id uuid not null,
  sender  uuid not null,
  body    text not null check (length(body) between 1 and 10000),
  sent_at timestamptz not null default now()
);
create index on public.messages (trip_id, sent_at);

-- No policy: nobody but the service role, which row level security does not hold.
alter table public.messages enable row level security;
revoke all on public.messages from anon, authenticated;
grant all on public.messages to service_role;

create function public.broadcast_message() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform realtime.send(to_jsonb(new), 'message', 'trip:' || new.trip_id, true);
  return null;
end
$$;
revoke all on function public.broadcast_message() from public, anon, authenticated;
create trigger broadcast after insert on public.messages for each row execute function public.broadcast_message();

commit;
