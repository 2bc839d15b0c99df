-- The target side: the contract about who sees and does what, as questions to the catalog. Everything that the mirror put
-- there keeps it; what comes later (a publication, a grant, a view, a policy) may break it. `mirror doctor` asks this.

-- RLS also for the tables' owner, where the functions do not need the owner to see everything: where they bypass it anyway.
do $mirror$
begin
  if (select rolsuper or rolbypassrls from pg_catalog.pg_roles where rolname = current_user) then
    alter table public.users force row level security;
    alter table public.trips force row level security;
    alter table public.trip_memberships force row level security;
  end if;
end
$mirror$;

create or replace function mirror.insecurities() returns table (rule text, finding text, cure text)
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  with tables as (
    select c.oid, c.oid::regclass::text as name, c.relrowsecurity, c.relforcerowsecurity, c.relowner, c.relacl
    from pg_catalog.pg_class as c
    where c.oid in ('public.users'::regclass, 'public.trips'::regclass, 'public.trip_memberships'::regclass)
  ), roles as (
    select r.oid, r.rolname as name from pg_catalog.pg_roles as r where r.rolname in ('anon', 'authenticated')
  ), grants as (
    select t.oid, t.name, a.grantee, a.privilege_type as privilege, '' as columns from tables as t, aclexplode(t.relacl) as a
    where a.grantee <> t.relowner
    union all
    select t.oid, t.name, a.grantee, a.privilege_type, format('(%I)', c.attname)
    from tables as t join pg_catalog.pg_attribute as c on c.attrelid = t.oid and not c.attisdropped,
         aclexplode(c.attacl) as a
    where a.grantee <> t.relowner
  )
  select 'not published', format('%s is in the publication supabase_realtime: deletes go to every subscriber', t.name),
         case when p.puballtables or exists (select from pg_catalog.pg_publication_namespace as n where n.pnpubid = p.oid)
              then 'Make the publication anew, for the tables that are meant.'
              else format('alter publication supabase_realtime drop table %s;', t.name) end
  from pg_catalog.pg_publication as p, tables as t
  where p.pubname = 'supabase_realtime'
    and t.oid in (select r.relid from pg_get_publication_tables(p.pubname) as r)
  union all
  select 'nobody writes, anon reads nothing',
         format('%s may %s on %s%s', coalesce(r.rolname, 'public'), lower(g.privilege), g.name, g.columns),
         format('revoke %s%s on %s from %s;', g.privilege, g.columns, g.name, coalesce(quote_ident(r.rolname), 'public'))
  from grants as g left join pg_catalog.pg_roles as r on r.oid = g.grantee
  where g.privilege <> 'SELECT' or g.grantee = 0 or r.rolname = 'anon'
  union all
  select 'row level security', format('row level security of %s is off', t.name),
         format('alter table %s enable row level security;', t.name)
  from tables as t where not t.relrowsecurity
  union all
  select 'row level security', format('row level security of %s does not hold for its owner', t.name),
         format('alter table %s force row level security;', t.name)
  from tables as t
  where not t.relforcerowsecurity
    and (select r.rolsuper or r.rolbypassrls from pg_catalog.pg_proc as p join pg_catalog.pg_roles as r on r.oid = p.proowner
         where p.oid = to_regprocedure('public.mirror_apply(jsonb)'))
  union all
  select 'row level security', 'row level security of realtime.messages is off: every channel is open to everybody',
         'alter table realtime.messages enable row level security;'
  from pg_catalog.pg_class as c where c.oid = mirror.messages() and not c.relrowsecurity
  union all
  select 'the schema mirror is closed', format('%s may use the schema mirror', r.name),
         format('revoke all on schema mirror from public, %I;', r.name)
  from roles as r where has_schema_privilege(r.oid, 'mirror', 'usage')
  union all
  select 'only the service role speaks for the mirror', format('%s may call %s', r.name, p.oid::regprocedure),
         format('revoke all on function %s from public, %I;', p.oid::regprocedure, r.name)
  from roles as r, pg_catalog.pg_proc as p left join mirror.functions() as f on f.function = p.oid
  where (p.pronamespace = 'mirror'::regnamespace or f.function is not null)
    and has_function_privilege(r.oid, p.oid, 'execute') and (r.name = any (f.callers)) is not true
  union all
  select h.rule, h.finding, h.cure from mirror.holes() as h
$mirror$;

-- The same, for whoever comes through PostgREST.
create or replace function public.mirror_insecurities() returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $mirror$
  select jsonb_build_object('clock', clock_timestamp(), 'insecurities', coalesce(jsonb_agg(to_jsonb(i)), '[]')) from mirror.insecurities() as i
$mirror$;
