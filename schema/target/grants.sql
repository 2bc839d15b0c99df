-- The target side, at the end: nobody but the mirror writes, nobody but the service role calls what the daemon calls.
-- Since October 2026 hosted Supabase grants nothing by default, so everything is said here.

-- The rights that others have on what is ours and that are not ours to give: default privileges of this database give
-- them to any role, whenever something is made anew, and a grant by hand to one.
create or replace function mirror.rights_of_others() returns table (grantee oid, finding text, cure text)
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  with ours as (
    select 'schema' as kind, n.nspname::text as name, '' as columns, n.nspowner as owner, n.nspacl as acl,
           '{}'::text[] as callers
    from pg_catalog.pg_namespace as n where n.nspname = 'mirror'
    union all
    select 'table', c.oid::regclass::text, '', c.relowner, c.relacl, '{}'
    from pg_catalog.pg_class as c
    where c.relnamespace = 'mirror'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S')
    union all
    select 'table', c.oid::regclass::text, format(' (%I)', a.attname), c.relowner, a.attacl, '{}'
    from pg_catalog.pg_class as c join pg_catalog.pg_attribute as a on a.attrelid = c.oid and not a.attisdropped
    where c.relnamespace = 'mirror'::regnamespace
    union all
    select 'routine', p.oid::regprocedure::text, '', p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)),
           coalesce(f.callers, '{}')
    from pg_catalog.pg_proc as p left join mirror.functions() as f on f.function = p.oid
    where p.pronamespace = 'mirror'::regnamespace or f.function is not null
  )
  select g.grantee,
         format('%s may %s %s%s', coalesce(r.rolname, 'public'),
                string_agg(lower(g.privilege_type), ', ' order by g.privilege_type), o.name, o.columns),
         format('revoke all%s on %s %s from %s cascade;', o.columns, o.kind, o.name,
                coalesce(quote_ident(r.rolname), 'public'))
  from ours as o cross join aclexplode(o.acl) as g left join pg_catalog.pg_roles as r on r.oid = g.grantee
  where g.grantee <> o.owner and (r.rolname = any (o.callers)) is not true
  group by g.grantee, r.rolname, o.kind, o.name, o.columns
$mirror$;

-- What is ours belongs to the role that installs: functions run with their owner's rights.
do $mirror$
declare
  _give text;
begin
  for _give in
    select format('alter routine %s owner to current_user', p.oid::regprocedure)
    from pg_catalog.pg_proc as p
    where p.proowner::regrole::text <> quote_ident(current_user)
      and (p.pronamespace = 'mirror'::regnamespace and p.prosrc like {{ours}} || '%'
           or p.oid in (select f.function from mirror.functions() as f))
    union all
    select format('alter table %s owner to current_user', c.oid::regclass) from pg_catalog.pg_class as c
    where c.relnamespace = 'mirror'::regnamespace and c.relkind = 'r'
      and c.relname in ('state', 'parked', 'epochs', 'taken') and c.relowner::regrole::text <> quote_ident(current_user)
  loop
    execute _give;
  end loop;
end
$mirror$;

do $mirror$
declare
  _role text;
  _f record;
  _revoke text;
begin
  for _revoke in
    select o.cure from mirror.rights_of_others() as o
    union all
    select format('revoke all on %s from %s cascade', c.oid::regclass,
                  case when g.grantee = 0 then 'public' else g.grantee::regrole::text end)
    from unnest(string_to_array(current_setting('mirror.made_here'), ',')) as made(name)
    join pg_catalog.pg_class as c on c.oid = to_regclass('public.' || made.name) cross join aclexplode(c.relacl) as g
    where g.grantee <> c.relowner
  loop
    execute _revoke;
  end loop;
  for _role in select rolname from pg_catalog.pg_roles where rolname in ('anon', 'authenticated', 'service_role') loop
    execute format('revoke all on public.users, public.trips, public.trip_memberships from %I', _role);
    if _role <> 'anon' then
      execute format('grant select on public.users, public.trips, public.trip_memberships to %I', _role);
    end if;
    for _f in select f.function from mirror.functions() as f where _role = any (f.callers) loop
      execute format('grant execute on function %s to %I', _f.function, _role);
    end loop;
  end loop;
  -- What an earlier version had in schema mirror and this one has not.
  for _revoke in select format('drop routine %s', p.oid::regprocedure) from pg_catalog.pg_proc as p
                 where p.pronamespace = 'mirror'::regnamespace and p.prosrc not like {{ours}} || '%' loop
    begin
      execute _revoke;
    exception when dependent_objects_still_exist then
      null;  -- a policy asks it
    end;
  end loop;
end
$mirror$;
notify pgrst, 'reload schema';
