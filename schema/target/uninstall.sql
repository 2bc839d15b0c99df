-- Takes away everything of the mirror but the three tables with their rows, row level security and policies: chat may
-- reference them, and an adopted table was never ours. What somebody else has built on our functions is not taken along.
do $mirror$
declare
  _function regprocedure;
  _detail text;
begin
  for _function in
    select p.oid from pg_catalog.pg_proc as p
    where p.pronamespace = to_regnamespace('mirror')
       or p.oid in (to_regprocedure('public.mirror_claim(jsonb)'), to_regprocedure('public.mirror_apply(jsonb)'), 
                    to_regprocedure('public.mirror_status()'), to_regprocedure('public.mirror_adopt(jsonb)'),
                    to_regprocedure('public.mirror_compare(jsonb)'), to_regprocedure('public.is_trip_member(text)')) loop
    execute format('drop function %s', _function);
  end loop;
  drop table if exists mirror.state, mirror.parked;
  drop schema if exists mirror;
  drop index if exists public.users_subject_mirror, public.trip_memberships_user_mirror,
                       public.users_key_mirror, public.trips_key_mirror, public.trip_memberships_key_mirror;
exception when dependent_objects_still_exist then
  get stacked diagnostics _detail = pg_exception_detail;
  raise exception 'the mirror is still in use: %', replace(coalesce(nullif(_detail, ''), sqlerrm), E'\n', ', ')
    using errcode = 'PT428', hint = 'Drop or change that first.';
end
$mirror$;
notify pgrst, 'reload schema';
