-- The target side, at the end: nobody but the mirror writes, nobody but the service role calls what the daemon calls.
-- Since October 2026 hosted Supabase grants nothing by default, so everything is said here.
revoke all on all functions in schema mirror from public;
revoke all on all tables in schema mirror from public;
do $mirror$
declare
  _role text;
  _f record;
begin
  for _f in select f.function from mirror.functions() as f loop
    execute format('revoke all on function %s from public', _f.function);
  end loop;
  for _role in select rolname from pg_catalog.pg_roles where rolname in ('anon', 'authenticated', 'service_role') loop
    execute format('revoke all on public.users, public.trips, public.trip_memberships from %I', _role);
    if _role <> 'anon' then
      execute format('grant select on public.users, public.trips, public.trip_memberships to %I', _role);
    end if;
    for _f in select f.function, _role = any (f.callers) as may_call from mirror.functions() as f loop
      execute format('revoke all on function %s from %I', _f.function, _role);
      if _f.may_call then
        execute format('grant execute on function %s to %I', _f.function, _role);
      end if;
    end loop;
  end loop;
end
$mirror$;
notify pgrst, 'reload schema';
