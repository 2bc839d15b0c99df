-- The target side: ways around the policies, found by reading the catalog alone. `mirror doctor` also tries them, where
-- it has a direct connection (mirror/doctor/holes.py); through HTTPS this is all there is.

-- The schemas that the API serves: what the project's own configuration says, and public.
create or replace function mirror.exposed() returns setof oid
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  select n.oid from pg_catalog.pg_namespace as n
  where n.nspname = 'public' or n.nspname in (
    select trim(both ' "' from s) from pg_catalog.pg_db_role_setting as d
    join pg_catalog.pg_roles as r on r.oid = d.setrole and r.rolname = 'authenticator',
    unnest(d.setconfig) as c(setting),
    lateral regexp_split_to_table(substring(c.setting from '^pgrst\.db_schemas=(.*)$'), ',') as s
    where d.setdatabase in (0, (select b.oid from pg_catalog.pg_database as b where b.datname = current_database())))
$mirror$;

-- Sources of functions that are not ours, without their comments.
create or replace function mirror.sources() returns table (function oid, source text)
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  select p.oid, regexp_replace(coalesce(pg_get_function_sqlbody(p.oid), p.prosrc), '--[^\n]*|/\*.*?\*/', ' ', 'g')
  from pg_catalog.pg_proc as p
  join pg_catalog.pg_namespace as n on n.oid = p.pronamespace join pg_catalog.pg_language as l on l.oid = p.prolang
  where p.prokind in ('f', 'p') and l.lanname not in ('c', 'internal')
    and n.nspname not in ('mirror', 'pg_catalog', 'information_schema')
    and p.oid not in (select f.function from mirror.functions() as f)
$mirror$;

-- The relations that a source names, and after which words. One pattern for all of them: PostgreSQL takes milliseconds
-- to read a pattern, and less to use it.
create or replace function mirror.named(source text) returns table (is_write boolean, schema text, relation text)
language sql immutable set search_path = pg_catalog, pg_temp as $mirror$
  select distinct m[1] ~* '^(insert|merge|delete|truncate|update|copy)', mirror.folded(m[2]), mirror.folded(m[3])
  from regexp_matches(source, '(\m(?:insert\s+into|merge\s+into|delete\s+from|truncate(?:\s+table)?|update|copy'
                           || '|from|join|using|table)\s|,)'
                           || '\s*(?:only\s+)?\(*\s*(?:("[^"]+"|\w+)\s*\.\s*)?("[^"]+"|\w+)', 'gi') as m
$mirror$;

create or replace function mirror.folded(name text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $mirror$
  select case when name like '"%' then trim(both '"' from name) else lower(name) end
$mirror$;

-- Does an expression or a source ask who the caller is? That the caller is signed in says nothing about that.
create or replace function mirror.asks(expression text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp as $mirror$
  select regexp_replace(expression, '\mauth\.role\(\)|\(*(\s*select\s+)?auth\.(uid|jwt|email)\(\)(\s+as\s+\w+)?\)*'
                                 || '\s+is\s+not\s+null', ' ', 'gi')
         ~* ('\mauth\.(uid|jwt|email)\(|current_setting\('
          || '|\m(my_user_id|my_trips|my_companions|is_trip_member|is_topic_member|is_own_topic|current_topic)\(')
$mirror$;

-- Everything that shows mirrored rows, however many views, functions and children are between. past: without the
-- policies of the mirrored table; culprit: what first goes past them.
create or replace function mirror.shown() returns table (class oid, object oid, root oid, past boolean, culprit oid)
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  with recursive sources as materialized (
    select s.function, s.source, p.prosecdef, mirror.asks(s.source) as asks
    from mirror.sources() as s join pg_catalog.pg_proc as p on p.oid = s.function
  ), mentions as materialized (
    select s.function, c.oid as relation, bool_or(m.is_write) as is_write
    from sources as s, mirror.named(s.source) as m join pg_catalog.pg_class as c on c.relname = m.relation
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace and n.nspname = coalesce(m.schema, n.nspname)
    where c.relkind in ('r', 'p', 'v', 'm', 'f')
      and n.nspname not in ('pg_catalog', 'information_schema', 'mirror', 'pg_toast')
    group by 1, 2
  ), used (class, object, user_class, user_object) as materialized (
    select 'pg_class'::regclass::oid, i.inhparent, 'pg_class'::regclass::oid, i.inhrelid
    from pg_catalog.pg_inherits as i
    union all
    select d.refclassid, d.refobjid, 'pg_class'::regclass::oid, w.ev_class
    from pg_catalog.pg_depend as d
    join pg_catalog.pg_rewrite as w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
    where d.refclassid in ('pg_class'::regclass, 'pg_proc'::regclass)
      and (d.refclassid, d.refobjid) <> ('pg_class'::regclass::oid, w.ev_class)
    union all
    select 'pg_class'::regclass::oid, m.relation, 'pg_proc'::regclass::oid, m.function from mentions as m
    union all
    -- A trigger's function that writes to a table makes a copy of what it is given.
    select 'pg_class'::regclass::oid, t.tgrelid, 'pg_class'::regclass::oid, c.oid
    from pg_catalog.pg_trigger as t join sources as s on s.function = t.tgfoid
    join mentions as m on m.function = s.function and m.is_write
    join pg_catalog.pg_class as c on c.oid = m.relation and c.oid <> t.tgrelid and c.relkind in ('r', 'p')
    union all
    select d.refclassid, d.refobjid, d.classid, d.objid
    from pg_catalog.pg_depend as d join sources as s on s.function = d.objid
    where d.classid = 'pg_proc'::regclass and d.refclassid in ('pg_class'::regclass, 'pg_proc'::regclass)
  ), found (class, object, root, past, culprit) as (
    select 'pg_class'::regclass::oid, t.oid, t.oid, false, 0::oid
    from unnest(array['public.users', 'public.trips', 'public.trip_memberships']::regclass[]) as t(oid)
    union
    select u.user_class, u.user_object, f.root, n.past,
           case when n.past then coalesce(n.culprit, f.culprit) else 0 end
    from found as f join used as u on u.class = f.class and u.object = f.object, lateral (
      select f.past or case when c.relkind in ('m', 'f') then true
                            when c.relkind = 'v'
                              then not mirror.is_invoker(c.reloptions) and f.class = 'pg_class'::regclass
                            else not c.relrowsecurity end as past,
             case when not f.past or c.relkind = 'm' then c.oid end as culprit
      from pg_catalog.pg_class as c where u.user_class = 'pg_class'::regclass and c.oid = u.user_object
      union all
      select case when s.prosecdef then not s.asks else f.past end, case when s.prosecdef then s.function end
      from sources as s where u.user_class = 'pg_proc'::regclass and s.function = u.user_object) as n
  )
  select f.class, f.object, f.root, f.past, f.culprit from found as f
$mirror$;

create or replace function mirror.is_invoker(options text[]) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp as $mirror$
  select exists (select from pg_options_to_table(options) as o
                 where o.option_name = 'security_invoker' and o.option_value in ('true', 'on', '1', 'yes'))
$mirror$;

create or replace function mirror.holes() returns table (rule text, finding text, cure text)
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  with roles as (
    select r.oid, r.rolname as name, r.rolsuper, r.rolbypassrls from pg_catalog.pg_roles as r
    where r.rolname in ('anon', 'authenticated')
  ), tables as (
    select t.oid, t.oid::regclass::text as name
    from unnest(array['public.users', 'public.trips', 'public.trip_memberships']::regclass[]) as t(oid)
  ), shown as materialized (
    select s.* from mirror.shown() as s
  ), relations as (
    select c.oid, c.oid::regclass::text as name, c.relkind, s.root::regclass::text as shows, s.past, s.culprit,
           u.relkind as culprit_kind,
           exists (select from pg_catalog.pg_inherits as i where i.inhrelid = c.oid) as is_child
    from shown as s
    join pg_catalog.pg_class as c on s.class = 'pg_class'::regclass and c.oid = s.object and s.object <> s.root
    left join pg_catalog.pg_class as u on u.oid = s.culprit
  ), policies as (
    select p.oid, p.polname as name, p.polrelid as relation, t.name as table_name, p.polcmd as command,
           pg_get_expr(p.polqual, p.polrelid) as using, pg_get_expr(p.polwithcheck, p.polrelid) as checks,
           exists (select from pg_catalog.pg_depend as d
                   where d.classid = 'pg_policy'::regclass and d.objid = p.oid
                     and d.refclassid = 'pg_class'::regclass and d.refobjid = p.polrelid and d.refobjsubid > 0
           ) as is_of_row,
           exists (select from pg_catalog.pg_depend as d left join pg_catalog.pg_proc as f
                   on d.refclassid = 'pg_proc'::regclass and f.oid = d.refobjid
                   where d.classid = 'pg_policy'::regclass and d.objid = p.oid
                     and (d.refclassid = 'pg_class'::regclass and d.refobjid <> p.polrelid
                          or f.pronamespace not in (coalesce(to_regnamespace('auth'), 0),
                                                    coalesce(to_regnamespace('realtime'), 0)))) as looks_elsewhere
    from pg_catalog.pg_policy as p
    left join tables as t on t.oid = p.polrelid
    where p.polpermissive and (t.oid is not null or p.polrelid = mirror.messages())
      and (0 = any (p.polroles) or p.polroles && array(select r.oid from roles as r))
  )
  select distinct 'no view around the policies',
         format('%s may read %s, which shows %s past its policies', r.name, v.name, v.shows),
         case when v.relkind = 'v' and v.culprit_kind = 'v'
              then format('alter view %s set (security_invoker = true);', v.culprit::regclass)
              else format('revoke select on %s from public, %I;', v.name, r.name) end
  from relations as v, roles as r
  where v.past and v.relkind in ('v', 'm') and has_any_column_privilege(r.oid, v.oid, 'select')
  union all
  select distinct 'no view around the policies',
         format('%s may write to %s, and so to %s', r.name, v.name, v.shows),
         format('revoke insert, update, delete on %s from public, %I;', v.name, r.name)
  from relations as v, roles as r
  where v.past and v.relkind = 'v'
    and (has_any_column_privilege(r.oid, v.oid, 'insert, update') or has_table_privilege(r.oid, v.oid, 'delete'))
  union all
  select distinct 'no table around the policies',
         format(case when v.is_child then '%s may use %s, whose rows are rows of %s'
                     else '%s may read %s, which a trigger fills from %s' end, r.name, v.name, v.shows),
         format('revoke all on %s from public, %I;', v.name, r.name)
  from relations as v, roles as r
  where v.relkind in ('r', 'p', 'f') and (v.past and has_any_column_privilege(r.oid, v.oid, 'select')
     or v.is_child and (has_any_column_privilege(r.oid, v.oid, 'insert, update')
                        or has_table_privilege(r.oid, v.oid, 'delete, truncate')))
  union all
  select 'no table around the policies',
         format('%s may read %s, which is %s by its name, and a foreign table has no policies', r.name,
                f.ftrelid::regclass, t.name),
         format('revoke all on %s from public, %I;', f.ftrelid::regclass, r.name)
  from pg_catalog.pg_foreign_table as f, tables as t, roles as r
  where has_any_column_privilege(r.oid, f.ftrelid, 'select')
    and (select 'public.' || o.option_value from pg_options_to_table(f.ftoptions) as o
         where o.option_name = 'table_name') = t.name
    and coalesce((select o.option_value from pg_options_to_table(f.ftoptions) as o
                  where o.option_name = 'schema_name'), 'public') = 'public'
  union all
  -- The doctor tries the rest of them (or names them), those that ask who calls: what they answer cannot be read here.
  select distinct 'no function around the policies',
         format('%s may call %s, which gives %s past its policies', r.name, p.oid::regprocedure, s.root::regclass),
         format('revoke execute on function %s from public, %I;', p.oid::regprocedure, r.name)
  from shown as s join pg_catalog.pg_proc as p on s.class = 'pg_proc'::regclass and p.oid = s.object
  join pg_catalog.pg_type as t on t.oid = p.prorettype, roles as r
  where s.past and p.prosecdef and p.pronamespace in (select mirror.exposed()) and p.prokind = 'f'
    and (p.proretset or t.typtype = 'c'
         or t.typcategory in ('A', 'P') and t.typname not in ('trigger', 'event_trigger', 'void')
         or t.typname in ('json', 'jsonb', 'xml'))
    and has_function_privilege(r.oid, p.oid, 'execute') and has_schema_privilege(r.oid, p.pronamespace, 'usage')
  union all
  select distinct 'only the mirror writes',
         format('%s may call %s, which writes to %s', r.name, p.oid::regprocedure, t.name),
         format('revoke execute on %s %s from public, %I;',
                case p.prokind when 'p' then 'procedure' else 'function' end, p.oid::regprocedure, r.name)
  from mirror.sources() as s join pg_catalog.pg_proc as p on p.oid = s.function,
  mirror.named(s.source) as m join tables as t
    on t.name = 'public.' || m.relation and coalesce(m.schema, 'public') = 'public' and m.is_write, roles as r
  where p.prosecdef and p.pronamespace in (select mirror.exposed())
    and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
    and has_function_privilege(r.oid, p.oid, 'execute') and has_schema_privilege(r.oid, p.pronamespace, 'usage')
  union all
  select 'no policy for everybody',
         format(case when p.is_of_row then 'the policy %I on %s shows rows and does not ask who the caller is'
                     else 'the policy %I on %s shows every row' end, p.name, p.table_name),
         format('drop policy %I on %s;', p.name, p.table_name)
  from policies as p
  where p.table_name is not null and p.command in ('r', '*') and p.using <> 'false' and p.using !~ '\.\*'
    and not p.looks_elsewhere and not mirror.asks(p.using)
  union all
  select 'no policy for everybody',
         format('the policy %I on realtime.messages lets strangers %s on every channel', p.name, v.verb),
         format('drop policy %I on realtime.messages;', p.name)
  from policies as p,
  lateral (values ('r', 'receive', p.using), ('a', 'send', coalesce(p.checks, p.using))) as v(command, verb, expression)
  where p.table_name is null and p.command::text in (v.command, '*')
    and v.expression <> 'false' and v.expression !~* '\mtopic\M'
    and not p.looks_elsewhere and not mirror.asks(v.expression)
  union all
  select 'the API''s roles are no others', format('%s is a superuser', r.name),
         format('alter role %I nosuperuser;', r.name) from roles as r where r.rolsuper
  union all
  select 'the API''s roles are no others', format('no policy holds for %s: it may bypass row level security', r.name),
         format('alter role %I nobypassrls;', r.name) from roles as r where r.rolbypassrls
  union all
  select distinct 'the API''s roles are no others',
         format('%s is a member of %s, which may do more than a caller of the API', m.member::regrole, g.rolname),
         format('revoke %s from %s;', m.roleid::regrole, m.member::regrole)
  from pg_catalog.pg_auth_members as m join pg_catalog.pg_roles as g on g.oid = m.roleid
  join roles as r on pg_has_role(r.oid, m.member, 'member')
  where not r.rolsuper
    and (g.rolsuper or g.rolbypassrls or g.rolname in ('service_role', 'pg_read_all_data', 'pg_write_all_data')
         or exists (select from tables as t join pg_catalog.pg_class as c on c.oid = t.oid
                    where c.relowner = g.oid or has_any_column_privilege(g.oid, t.oid, 'insert, update')
                       or has_table_privilege(g.oid, t.oid, 'delete, truncate')))
$mirror$;
