-- What `mirror doctor` needs to know before it plays a stranger: which rows there are, and what the API reaches.

-- query sample: a trip, and a mirrored user who is not in it
with trip as (select t.id, t.created_by from public.trips as t order by t.id limit 1)
select (select t.id::text from trip as t) as trip,
       (select u.subject::text from public.users as u
        where u.subject is not null and u.id::text is distinct from (select t.created_by::text from trip as t)
          and not exists (select from public.trip_memberships as m
                          where m.user_id::text = u.id::text and m.trip_id = (select t.id from trip as t))
        limit 1) as outsider,
       (select s.types->>'user_id' from mirror.state as s) as user_type,
       (select s.types->>'trip_id' from mirror.state as s) as trip_type

-- query relations: what the API may read that shows mirrored rows by their policies, or whose own policies ask
with recursive shown as materialized (
  select m.object, string_agg(distinct m.root::regclass::text, ', ') as shows, bool_or(m.past) as past
  from mirror.shown() as m
  where m.class = 'pg_class'::regclass group by m.object
), guarded (object) as (
  select p.polrelid from pg_policy as p
  where p.polrelid is distinct from mirror.messages()
    and concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
        ~ '\m(is_trip_member|my_trips|my_companions|is_topic_member|trip_memberships)\M'
  union
  select w.ev_class from guarded as g
  join pg_depend as d on d.refclassid = 'pg_class'::regclass and d.refobjid = g.object
  join pg_rewrite as w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
)
select c.oid, format('%%I.%%I', n.nspname, c.relname) as name, quote_ident(c.relname) as alias, c.relkind::text as kind,
       s.shows, r.roles, c.relrowsecurity as has_policies
from (
  select object, shows from shown where not past
  union all
  select g.object, 'what members write' from guarded as g where g.object not in (select object from shown)) as s
join pg_class as c on c.oid = s.object join pg_namespace as n on n.oid = c.relnamespace, lateral (
  select array_agg(r.rolname::text order by 1) as roles from pg_roles as r
  where r.rolname in ('anon', 'authenticated')
    and has_schema_privilege(r.oid, n.oid, 'usage') and has_any_column_privilege(r.oid, c.oid, 'select')) as r
where c.relkind in ('r', 'p', 'v', 'm') and n.oid in (select mirror.exposed()) and r.roles is not null
order by c.relkind in ('v', 'm'), s.shows = 'what members write', 2

-- query functions: what the API may call that reads mirrored rows past the policies, and the catalog cannot judge
select p.oid::regprocedure::text as signature, format('%%I.%%I', n.nspname, p.proname) as name,
       p.provolatile = 'v' as is_volatile, r.roles,
       array(select format_type(a, null) from unnest(p.proargtypes) with ordinality as x(a, i) order by i) as arguments
from (select m.object, bool_or(m.past) as past from mirror.shown() as m
      where m.class = 'pg_proc'::regclass group by m.object) as s
join pg_proc as p on p.oid = s.object join pg_namespace as n on n.oid = p.pronamespace
join pg_type as t on t.oid = p.prorettype, lateral (
  select array_agg(r.rolname::text order by 1) as roles from pg_roles as r
  where r.rolname in ('anon', 'authenticated')
    and has_schema_privilege(r.oid, n.oid, 'usage') and has_function_privilege(r.oid, p.oid, 'execute')) as r
where p.prosecdef and p.prokind = 'f' and n.oid in (select mirror.exposed()) and r.roles is not null
  and (p.proretset or t.typcategory in ('A', 'C', 'S', 'U') or t.typname = 'record')
  and not (s.past and (p.proretset or t.typcategory in ('A', 'C') or t.typname in ('record', 'json', 'jsonb', 'xml')))
order by 1

-- query policies: those of one table that a stranger meets, by the command that they are asked for
select quote_ident(p.polname) as name, p.polname like 'mirror: %%' as is_ours, p.polpermissive as is_permissive,
       v.command, v.expression,
       array(select r.rolname::text from pg_roles as r
             where r.rolname in ('anon', 'authenticated') and p.polroles && array[0::oid, r.oid]) as roles
from pg_policy as p join pg_class as c on c.oid = p.polrelid and c.relrowsecurity,
lateral (select pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) as e(qual, checks),
lateral (values ('r', e.qual), ('a', coalesce(e.checks, e.qual))) as v(command, expression)
where p.polrelid = %(oid)s and p.polcmd::text in (v.command, '*') and v.expression is not null
order by p.polname
