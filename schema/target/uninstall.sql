-- Takes away everything of the mirror but the three tables with their rows and row level security: chat may reference
-- them, and an adopted table was never ours: it gets back what was taken when it was adopted. What others have built on
-- our functions is not taken along.
do $mirror$
declare
  _ours record;
  _function regprocedure;
  _detail text;
  _undo text;
begin
  for _ours in select polname as name, polrelid::regclass as relation from pg_catalog.pg_policy where polname like 'mirror: %' loop
    execute format('drop policy %I on %s', _ours.name, _ours.relation);
  end loop;
  for _ours in select t.tgname as name, t.tgrelid::regclass as relation
               from pg_catalog.pg_trigger as t join pg_catalog.pg_proc as p on p.oid = t.tgfoid
               where p.pronamespace = to_regnamespace('mirror') and not t.tgisinternal and t.tgparentid = 0 loop
    execute format('drop trigger %I on %s', _ours.name, _ours.relation);
  end loop;
  for _function in
    select p.oid from pg_catalog.pg_proc as p left join (
{{functions}}) as f(name, callers) on f.name = p.proname and p.pronamespace = 'public'::regnamespace and (
  {{is_ours}})
    where p.pronamespace = to_regnamespace('mirror') or f.name is not null loop
    execute format('drop routine %s', _function);
  end loop;
  if to_regclass('mirror.taken') is not null then
    for _undo in execute 'select t.undo from mirror.taken as t order by t.step, t.undo' loop
      begin
        execute _undo;
      exception when undefined_table or undefined_column or undefined_object or wrong_object_type then
        raise notice 'mirror: not given back: % (%)', _undo, sqlerrm;  -- the table, column or role is gone
      end;
    end loop;
  end if;
  for _ours in select c.relname as name, case c.relkind when 'v' then 'view' else 'table' end as kind
               from pg_catalog.pg_class as c where c.relnamespace = to_regnamespace('mirror')
                 and c.relname in ('taken', 'state', 'parked', 'epochs') loop
    execute format('drop %s mirror.%I', _ours.kind, _ours.name);
  end loop;
  drop schema if exists mirror;
  drop index if exists public.users_subject_mirror, public.trip_memberships_user_mirror,
                       public.users_key_mirror, public.trips_key_mirror, public.trip_memberships_key_mirror;
exception when dependent_objects_still_exist then
  get stacked diagnostics _detail = pg_exception_detail;
  raise exception 'the mirror is still in use' using errcode = 'PT428',
    detail = replace(coalesce(nullif(_detail, ''), sqlerrm), E'\n', ', '),
    hint = 'Drop or change that first.';
end
$mirror$;
notify pgrst, 'reload schema';
