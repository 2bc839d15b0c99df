-- What `mirror doctor` asks of a primary that the mirror is installed in.

-- check outbox rights: it may work on the outbox
select 'error', format('%I may not %s %s', current_user, w.verb, w.name),
       'Run `mirror install source` as the owner of the tables: it grants what is missing to mirror_daemon.'
from (select c.oid::regclass::text, v.verb
      from pg_class as c, unnest(array['select', 'delete', 'truncate']) as v(verb)
      where c.relnamespace = to_regnamespace('mirror') and c.relkind = 'r' and c.relname ~ '^outbox'
      union all
      values ('mirror.request', 'update'), ('mirror.lead', 'update'), ('mirror.install', 'select')) as w(name, verb)
where not has_schema_privilege('mirror', 'usage') or not has_table_privilege(w.name, w.verb)
union all
select 'error', format('%I may not call mirror.drain', current_user), 'Run `mirror install source` as the owner of the tables.'
where not exists (select from pg_proc as p where p.pronamespace = to_regnamespace('mirror') and p.proname = 'drain'
                    and has_function_privilege(p.oid, 'execute'))

-- check token rights: the application may ask for a token
select 'warning', 'PUBLIC may not call mirror.token(): the application cannot wait for what it wrote',
       'Run `mirror install source`.'
where not exists (select from pg_proc as p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as g
                  where p.oid = to_regprocedure('mirror.token()') and g.grantee = 0)
   or not exists (select from pg_namespace as n, aclexplode(n.nspacl) as g
                  where n.nspname = 'mirror' and g.grantee = 0 and g.privilege_type = 'USAGE')

-- check rights of others: only the mirror's own roles may touch what is the mirror's
select 'error', format('%s may %s %s', coalesce(quote_ident(r.rolname), 'PUBLIC'),
                       string_agg(distinct lower(g.privilege_type), ', '), g.object),
       'Run `mirror install source`: it takes that away. (alter default privileges, without IN SCHEMA, gives it again '
       'at each install.)'
from ({{given}}) as g left join pg_roles as r on r.oid = g.grantee
where g.grantee not in (select oid from pg_roles where rolname in ('mirror_daemon', 'mirror_capture'))
  and (g.grantee <> 0 or g.object not in ('mirror', 'mirror.token()'))
group by r.rolname, g.object order by 2 limit 20

-- check capture role: the triggers run as a role that can write entries and nothing else
select 'warning', format('the triggers run as %I: the owners of the mapped tables could run code as that role',
                         p.proowner::regrole::text),
       'Let an administrator `create role mirror_capture;` and grant it to the role that installs, then '
       '`mirror install source`.'
from pg_proc as p where p.pronamespace = to_regnamespace('mirror') and p.prorettype = 'trigger'::regtype
  and p.proowner is distinct from to_regrole('mirror_capture') limit 1

-- check functions: nobody has changed what the mirror made
select 'error', 'something in schema mirror is not as the mirror left it', 'Run `mirror install source`: it puts it right.'
from mirror.install as i where i.fingerprint is distinct from ({{fingerprint}})

-- check outbox logged: the outbox survives a crash
select 'error', format('%s is unlogged: a crash loses changes', c.oid::regclass), format('alter table %s set logged;', c.oid::regclass)
from pg_class as c
where c.relnamespace = to_regnamespace('mirror') and c.relkind = 'r' and c.relname ~ '^outbox' and c.relpersistence = 'u'

-- check outbox: nothing waits for long
select case when age > 3600 or n >= 100000 then 'error' else 'warning' end,
       format('%s entries wait, the oldest for %s s, and %s', case when n >= 100000 then 'more than 100000' else n::text end,
              round(age), case when leads then 'a daemon leads' else 'no daemon leads' end),
       case when leads then 'See `mirror status` and the daemon''s log.' else 'Start it: mirror run' end
from (select count(*) as n, extract(epoch from clock_timestamp() - min(at)) as age,
             exists (select from mirror.leader()) as leads
      from (select at from mirror.outbox limit 100000) as o) as w
where age > {{waits_seconds}}

-- check locks: only the mirror and those who write hold its locks
select 'warning',
       format('pid %s (role %s, application %s) holds the mirror''s lock %s: %s', pid, role, quote_literal(application),
              lock, case lock when 1 then 'the daemon cannot sleep, and each change pays for a NOTIFY'
                              else 'two installs at the same time may disturb each other' end),
       format('End that session: select pg_terminate_backend(%s); and ask who owns that role.', pid)
from mirror.strangers()

-- check outbox size: its tables are small
select 'warning', format('the outbox takes %s MB on disk', round(bytes / 1048576)),
       'Is a daemon running (`mirror status`), and is a transaction open for long (see there)?'
from (select sum(pg_total_relation_size(oid)) as bytes from pg_class
      where relnamespace = to_regnamespace('mirror') and relkind = 'r' and relname ~ '^outbox') as s
where bytes > {{outbox_bytes}}

-- check subscribers: nobody else subscribes to the mirror's own tables
select 'warning', format('publication %I is FOR ALL TABLES: its subscribers get the outbox, too, and need the tables of schema mirror', pubname),
       'Publish the tables by name.'
from pg_publication where puballtables

-- check install finished: no install was left half-way
select 'warning', format('an install was interrupted while it waited for writers of %s', array_to_string(unsettled, ', ')),
       'Run `mirror install source` again.'
from mirror.install where unsettled <> '{}'
