  -- What adopting a table that is there already changes for others, in words, and the command that undoes it. Column
  -- rights go with the table's. What is given back comes last, row level security after it: nothing is open in between.
  with adopted as (
    select c.oid, format('public.%I', c.relname) as name, c.relowner, c.relacl, c.relrowsecurity, c.relforcerowsecurity
    from pg_catalog.pg_class as c
    where c.relnamespace = 'public'::regnamespace and c.relname in ('users', 'trips', 'trip_memberships')
      and c.relkind in ('r', 'p')
  ), granted as (
    select t.name, '' as columns, t.relowner, a.* from adopted as t cross join aclexplode(t.relacl) as a
    union all
    select t.name, format(' (%I)', c.attname), t.relowner, a.* from adopted as t
    join pg_catalog.pg_attribute as c on c.attrelid = t.oid and not c.attisdropped
    cross join aclexplode(c.attacl) as a
  ), theirs as (
    select g.name, g.columns, g.privilege_type as privilege, g.is_grantable,
           coalesce(quote_ident(r.rolname), 'public') as role
    from granted as g left join pg_catalog.pg_roles as r on r.oid = g.grantee
    where g.grantee <> g.relowner and (g.grantee = 0 or r.rolname in ('anon', 'authenticated', 'service_role'))
  ), readers as (
    select t.name, quote_ident(r.rolname) as role from adopted as t
    join pg_catalog.pg_roles as r on r.rolname in ('authenticated', 'service_role') and r.oid <> t.relowner
  ), lost as (
    select g.name, g.role, case when g.is_grantable then ' with grant option' else '' end as options,
           string_agg(lower(g.privilege) || g.columns, ', ' order by g.columns, g.privilege) as privileges
    from theirs as g
    where g.is_grantable or g.privilege <> 'SELECT' or g.columns <> ''
       or (g.name, g.role) not in (select r.name, r.role from readers as r)
    group by g.name, g.role, g.is_grantable
  )
  select 1 as step, r.name as tbl,
         format('%s may select on %s, as far as the policies let it', r.role, r.name) as change, false as is_loss,
         format('revoke select on %s from %s', r.name, r.role) as undo
  from readers as r
  where (r.name, r.role) not in (select g.name, g.role from theirs as g where g.columns = '' and g.privilege = 'SELECT')
  union all
  select 2, l.name, format('%s loses %s on %s', l.role, l.privileges, l.name), true,
         format('grant %s on %s to %s%s', l.privileges, l.name, l.role, l.options)
  from lost as l
  union all
  select 3, t.name, format('row level security of %s is switched on', t.name), true,
         format('alter table %s disable row level security', t.name)
  from adopted as t where not t.relrowsecurity
  union all
  select 3, t.name, format('row level security of %s holds for its owner, too', t.name), false,
         format('alter table %s no force row level security', t.name)
  from adopted as t
  where not t.relforcerowsecurity
    and (select r.rolsuper or r.rolbypassrls from pg_catalog.pg_roles as r where r.rolname = current_user)
  union all
  select 4, t.name, format('%s gets a policy of the mirror, and the columns and indexes that it lacks', t.name), false,
         null
  from adopted as t
