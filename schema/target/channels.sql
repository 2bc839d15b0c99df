-- The target side: policies for private channels. To read realtime.messages is to receive, to insert is to send and to
-- be present. Nothing is made in schema realtime, where the mirror may not make anything, but policies on its table.
--
-- A new project has no such table before its first client connects. So the daemon asks now and then, and makes the
-- policies as the role that installed the mirror: the only one, besides Supabase's own, that may.

create or replace function mirror.channel_policies() returns table (name text, command text)
language sql immutable set search_path = pg_catalog, pg_temp as $mirror$
  select 'mirror: members receive', $policy$
    create policy "mirror: members receive" on realtime.messages for select to authenticated
      using (extension in ('broadcast', 'presence') and (select public.is_topic_member(realtime.topic())))$policy$
  where cardinality({{patterns}}) > 0
  union all
  select 'mirror: members send', $policy$
    create policy "mirror: members send" on realtime.messages for insert to authenticated
      with check (extension = any ({{send}}) and (select public.is_topic_member(realtime.topic())))$policy$
  where cardinality({{patterns}}) > 0 and cardinality({{send}}) > 0
  union all
  select 'mirror: you hear what you lose', $policy$
    create policy "mirror: you hear what you lose" on realtime.messages for select to authenticated
      using (extension = 'broadcast' and (select public.is_own_topic(realtime.topic())))$policy$
  where {{announces}}
$mirror$;

-- ready: all policies that [access] asks for are there (none, perhaps); missing: the table is not there yet; closed: it
-- is, and policies of ours are not.
create or replace function mirror.channels() returns text
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  select case
    when not exists (select from mirror.channel_policies()) then 'ready'
    when mirror.messages() is null then 'missing'
    when exists (select from mirror.channel_policies() as w where w.name not in (
           select p.polname::text from pg_catalog.pg_policy as p where p.polrelid = mirror.messages())) then 'closed'
    else 'ready' end
$mirror$;

create or replace function mirror.open_channels() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
declare _command text;
begin
  for _command in
    select format('drop policy %I on realtime.messages', p.polname) from pg_catalog.pg_policy as p
    where p.polrelid = mirror.messages() and p.polname like 'mirror: %'
    union all
    select w.command from mirror.channel_policies() as w
  loop
    execute _command;
  end loop;
end
$mirror$;

-- Once for each table: where our policies were made already and are gone, a person wanted that. Never raises: what
-- stands in the way is the answer. A client that uses a channel holds a lock on the table, so this waits for it, but
-- not for long: batches and new clients wait meanwhile. The state is locked first, as a batch does it that announces a
-- revocation in the same table.
create or replace function public.mirror_open_channels() returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $mirror$
begin
  if mirror.channels() = 'closed' then
    perform from mirror.state as s where s.messages is distinct from mirror.messages()::oid for update;
    if found then
      perform mirror.open_channels();
      update mirror.state as s
      set messages = mirror.messages(), sealed = split_part(s.sealed, ' ', 1) || ' ' || mirror.channel_seal()
      where s.one;
    end if;
  end if;
  return jsonb_build_object('clock', clock_timestamp(), 'channels', mirror.channels(), 'reason', null);
exception when others then
  return jsonb_build_object('clock', clock_timestamp(), 'channels', mirror.channels(), 'reason', sqlerrm);
end
$mirror$;

do $mirror$
begin
  if mirror.messages() is null
     or not exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
    perform set_config('client_min_messages', 'notice', true);
    raise notice 'mirror: there is no realtime.messages here, so there are no policies for private channels';
    perform set_config('client_min_messages', 'warning', true);
    return;
  end if;
  perform mirror.open_channels();
exception when insufficient_privilege then
  raise exception 'policies on realtime.messages may not be made by this role' using errcode = 'PT428',
    detail = format('%s: %s', current_user, sqlerrm),
    hint = 'Install as the role postgres of the project, or set topics = [] in [access] and make them yourself.';
end
$mirror$;
