-- The target side: policies. You see yourself, the trips you are in and their members; my_companion_profiles() tells
-- what those show of themselves, unless they show all. Only the mirror writes. They ask functions and never a table, so
-- none can recurse; array(select ...) is asked once per query, and the indexes on the keys answer it. Ours are known by
-- their names: whatever else there is stays as it is.
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
  create policy "mirror: you, and companions who show all" on public.users for select to authenticated
    using ({{seen_users}});
  create policy "mirror: your trips" on public.trips for select to authenticated
    using (id = any (array(select public.my_trips())));
  create policy "mirror: members of your trips" on public.trip_memberships as permissive for select to authenticated
    using (trip_id = any (array(select public.my_trips())) and {{is_active_row}});
end
$mirror$;
