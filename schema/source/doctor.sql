-- What `mirror doctor` asks of the primary, installed or not. {{relations}}: (tbl, oid, filter) of the mapping;
-- {{columns}}: (oid, name), what it reads.

-- check version: a version that the mirror is tested on
select case when major < 14 then 'error' when major between {{oldest}} and {{newest}} then 'ok' else 'warning' end,
       format('PostgreSQL %s', current_setting('server_version')),
       case when major between {{oldest}} and {{newest}} then '' else 'The mirror is tested on PostgreSQL {{oldest}} to {{newest}}.' end
from (select current_setting('server_version_num')::integer / 10000 as major) as v

-- check writable: the primary takes writes
select 'error', case when pg_is_in_recovery() then 'this is a read replica' else 'this database is read only' end,
       case when pg_is_in_recovery() then 'Point MIRROR_SOURCE_URL at the primary.'
            else 'Look whether its disk is full, or default_transaction_read_only is set.' end
where pg_is_in_recovery()
   or (select reset_val from pg_settings where name = 'default_transaction_read_only') = 'on'

-- check doorbell allowed: transactions may ring
select 'warning', format('max_prepared_transactions is %s, so nobody rings and the mirror looks twice a second instead',
                         current_setting('max_prepared_transactions')),
       'Set max_prepared_transactions = 0 if nothing uses PREPARE TRANSACTION.'
where current_setting('max_prepared_transactions') <> '0'

-- check doorbell kept: no time limit ends the session that listens
select 'warning', format('idle_session_timeout of %s ends the session that listens again and again', current_setting('idle_session_timeout')),
       format('alter role %I set idle_session_timeout = 0;', current_user)
where (select setting::bigint from pg_settings where name = 'idle_session_timeout') between 1 and 60000

-- check notification queue: the queue of notifications is nearly empty
select case when used > 0.9 then 'error' else 'warning' end,
       format('the queue of notifications is %s %% full; when it is full, commits that notify fail', round(used::numeric * 100)),
       'Some session listens and has a transaction open: see pg_stat_activity, and end it.'
from (select pg_notification_queue_usage() as used) as q where used > {{queue_share}}

-- check tables: the mapped tables are plain, logged tables
select case when c.relispartition or p.inhrelid is not null then 'error' else 'warning' end,
       case when c.oid is null then format('there is no table for [%s]', r.tbl)
            when c.relispartition or p.inhrelid is not null
              then format('%s is a part of %s; what is written through that fires no trigger here', c.oid::regclass, p.inhparent::regclass)
            when c.relkind = 'p' or c.relhassubclass
              then format('%s has parts; a statement that names a part directly fires no trigger', c.oid::regclass)
            else format('%s is unlogged: after a crash it is empty, and everybody is out', c.oid::regclass) end,
       case when c.oid is null then format('Say in mirror.toml where it is: [%s] from.', r.tbl)
            when c.relispartition or p.inhrelid is not null then format('In mirror.toml, under [%s]: from = %s', r.tbl, to_json(p.inhparent::regclass::text))
            when c.relkind = 'p' or c.relhassubclass then 'Write through the table itself; the reconcile finds the rest.'
            else format('alter table %s set logged;', c.oid::regclass) end
from {{relations}} as r(tbl, oid, filter)
left join pg_class as c on c.oid = r.oid
left join pg_inherits as p on p.inhrelid = c.oid
where c.oid is null or p.inhrelid is not null or c.relkind = 'p' or c.relhassubclass or c.relpersistence = 'u'

-- check row security: no policy of the primary hides rows from the mirror
select 'error', format('row level security of %s applies to %I: reading it is an error, nothing is changed', r.oid::regclass, current_user),
       format('alter role %I bypassrls; (as an administrator)', current_user)
from {{relations}} as r(tbl, oid, filter) where row_security_active(r.oid)

-- check rights: it may read every column that is mapped
select 'error', format('%I may not read %s of %s', current_user, string_agg(quote_ident(c.name), ', ' order by c.name), c.oid::regclass),
       'Run `mirror install source` as the owner of the tables: it grants exactly this to mirror_daemon.'
from {{columns}} as c(oid, name)
where not has_column_privilege(c.oid, c.name, 'select')
   or not has_schema_privilege((select relnamespace from pg_class where pg_class.oid = c.oid), 'usage')
group by c.oid
union all
select 'error', format('%I may not read %s', current_user, r.oid::regclass),
       'Run `mirror install source` as the owner of the tables: it grants exactly what is mapped to mirror_daemon.'
from {{relations}} as r(tbl, oid, filter) where not has_any_column_privilege(r.oid, 'select')

-- check excess rights: it may do little more than it has to
select 'warning', format('%I can do more than a mirror needs: it %s', current_user, string_agg(can, ', ' order by can)),
       'alter role mirror_daemon login password ''...''; and use that role in MIRROR_SOURCE_URL.'
from (select 'is a superuser' as can from pg_roles where rolname = current_user and rolsuper
      union all
      select 'may create roles' from pg_roles where rolname = current_user and rolcreaterole and not rolsuper
      union all
      select format('owns %s', c.oid::regclass) from {{relations}} as r(tbl, oid, filter) join pg_class as c using (oid)
      where pg_has_role(current_user, c.relowner, 'usage') and not (select rolsuper from pg_roles where rolname = current_user)
      union all
      select format('may change %s', c.oid::regclass) from {{relations}} as r(tbl, oid, filter) join pg_class as c using (oid)
      where not pg_has_role(current_user, c.relowner, 'usage')
        and has_table_privilege(c.oid, 'insert, update, delete, truncate')) as able
having count(*) > 0

-- check soft deletes: no column that looks like a soft delete is left out of the filters
select 'warning', format('%s has a column %I, and [%s] where does not ask for it', r.oid::regclass, a.attname, r.tbl),
       case when c.present is null then format('If it says which rows are gone for the application, ask for it in [%s] where.', r.tbl)
            else format('If rows with it are gone for the application, in mirror.toml, under [%s]: where = %s', r.tbl,
                        to_json(case when r.filter = 'true' then c.present else format('(%s) and %s', r.filter, c.present) end)) end
from {{relations}} as r(tbl, oid, filter) join pg_attribute as a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
join pg_type as t on t.oid = a.atttypid,
lateral (select format(case t.typcategory when 'B' then '%I is not true' when 'D' then '%I is null'
                                          when 'N' then 'coalesce(%I, 0) = 0' end, a.attname)) as c(present)
where a.attname ~* '^(is_?)?(soft_?)?(deleted|removed|archived|left|banned|revoked)(_?at|_?on)?$' and position(a.attname in r.filter) = 0

-- check long transactions: no transaction is open for long
select 'warning', format('pid %s (%s) has a transaction open for %s: nothing that was forgotten since can be cleaned up', pid,
                         concat_ws(', ', usename, nullif(application_name, ''), state),
                         date_trunc('second', clock_timestamp() - xact_start)),
       format('End it in the application, or: select pg_terminate_backend(%s);', pid)
from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
  and xact_start < clock_timestamp() - {{long_seconds}} * interval '1 second'
union all
select 'warning', format('pid %s holds a transaction open since %s transactions ago', l.pid, age(l.transactionid)),
       format('End it in the application, or: select pg_terminate_backend(%s);', l.pid)
from pg_locks as l join pg_stat_activity as a using (pid)
where l.locktype = 'transactionid' and l.granted and l.mode = 'ExclusiveLock' and a.datname = current_database()
  and a.xact_start is null and age(l.transactionid) > {{long_transactions}}
union all
select 'warning', format('the prepared transaction %s is open for %s', gid, date_trunc('second', clock_timestamp() - prepared)),
       format('commit prepared %L; or rollback prepared %L;', gid, gid)
from pg_prepared_xacts
where database = current_database() and prepared < clock_timestamp() - {{long_seconds}} * interval '1 second'

-- check disk: the database is well below the limit of its plan, where it tells one
select case when share > 0.95 then 'error' else 'warning' end,
       format('the database has used %s %% of the %s that it may have; when it is full the application cannot write', round(share * 100), allowed),
       'Make room, or take a larger plan.'
from (select allowed, pg_database_size(current_database()) / nullif(pg_size_bytes(allowed), 0)::numeric as share
      from (select substring(current_setting('neon.max_cluster_size', true) from '^\d+ ?[kMGT]B$') as allowed) as a) as d
where share > 0.85
