-- The target side: policies. You see yourself, the trips you are in, their members and those members' users; nobody
-- writes. They ask functions and never a table, so none can recurse; array(select ...) is asked once per query, and the
-- indexes on the keys answer it. Ours are known by their names: whatever else there is stays as it is.
do $mirror$
declare _former text;
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
    return;
  end if;
  for _former in select format('drop policy %I on %s', p.polname, p.polrelid::regclass) from pg_catalog.pg_policy as p
                 where p.polname like 'mirror: %' and p.polrelid in (
                   'public.users'::regclass, 'public.trips'::regclass, 'public.trip_memberships'::regclass) loop
    execute _former;
  end loop;
  create policy "mirror: you and who travels with you" on public.users for select to authenticated
    using (id = any (array(select public.my_companions())));
  create policy "mirror: your trips" on public.trips for select to authenticated
    using (id = any (array(select public.my_trips())));
  create policy "mirror: members of your trips" on public.trip_memberships as permissive for select to authenticated
    using (trip_id = any (array(select public.my_trips())) and lower(status::text) = any ({{active}}));
end
$mirror$;

-- Private channels: to read realtime.messages is to receive, to insert is to send and to be present. Nothing is made in
-- schema realtime, where the mirror may not make anything, but policies on its table.
do $mirror$
declare _former text;
begin
  if mirror.messages() is null
     or not exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
    perform set_config('client_min_messages', 'notice', true);
    raise notice 'mirror: there is no realtime.messages here, so there are no policies for private channels';
    perform set_config('client_min_messages', 'warning', true);
    return;
  end if;
  for _former in select format('drop policy %I on realtime.messages', polname) from pg_catalog.pg_policy
                 where polrelid = mirror.messages() and polname like 'mirror: %' loop
    execute _former;
  end loop;
  if cardinality({{patterns}}) > 0 then
    create policy "mirror: members receive" on realtime.messages for select to authenticated
      using (extension in ('broadcast', 'presence') and (select public.is_topic_member(realtime.topic())));
  end if;
  if cardinality({{patterns}}) > 0 and cardinality({{send}}) > 0 then
    create policy "mirror: members send" on realtime.messages for insert to authenticated
      with check (extension = any ({{send}}) and (select public.is_topic_member(realtime.topic())));
  end if;
  if {{announces}} then
    create policy "mirror: you hear what you lose" on realtime.messages for select to authenticated
      using (extension = 'broadcast' and (select public.is_own_topic(realtime.topic())));
  end if;
exception when insufficient_privilege then
  raise exception 'policies on realtime.messages may not be made by this role' using errcode = 'PT428',
    detail = format('%s: %s', current_user, sqlerrm),
    hint = 'Install as the role postgres of the project, or set topics = [] in [access] and make them yourself.';
end
$mirror$;
