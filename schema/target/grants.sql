-- The target side, part 6: nobody but the mirror writes, nobody but the service role calls what the daemon calls.
-- Since October 2026 hosted Supabase grants nothing by default, so everything is said here.
revoke all on function public.mirror_claim(jsonb), public.mirror_apply(jsonb), public.mirror_status(), public.mirror_adopt(jsonb), public.mirror_compare(jsonb),
                       public.is_trip_member(text) from public;
revoke all on all functions in schema mirror from public;
revoke all on all tables in schema mirror from public;
do $mirror$
declare _role text;
begin
  foreach _role in array array['anon', 'authenticated'] loop
    if exists (select from pg_catalog.pg_roles where rolname = _role) then
      execute format('revoke all on public.users, public.trips, public.trip_memberships from %I', _role);
      execute format('revoke all on function public.mirror_claim(jsonb), public.mirror_apply(jsonb), public.mirror_status(), public.mirror_adopt(jsonb), public.mirror_compare(jsonb) from %I', _role);
    end if;
  end loop;
  if exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
    grant select on public.users, public.trips, public.trip_memberships to authenticated;
    grant execute on function public.is_trip_member(text) to authenticated;
  end if;
  if exists (select from pg_catalog.pg_roles where rolname = 'anon') then
    grant execute on function public.is_trip_member(text) to anon;
  end if;
  if exists (select from pg_catalog.pg_roles where rolname = 'service_role') then
    revoke all on public.users, public.trips, public.trip_memberships from service_role;
    grant select on public.users, public.trips, public.trip_memberships to service_role;
    grant execute on function public.mirror_claim(jsonb), public.mirror_apply(jsonb), public.mirror_status(), public.mirror_adopt(jsonb), public.mirror_compare(jsonb),
                              public.is_trip_member(text) to service_role;
  end if;
end
$mirror$;
notify pgrst, 'reload schema';
