-- What `mirror doctor` asks of Supabase, installed or not.

-- check version: a version that the mirror is tested on
select case when major < {{oldest}} then 'error' when major <= {{newest}} then 'ok' else 'warning' end,
       format('PostgreSQL %s', current_setting('server_version')),
       case when major between {{oldest}} and {{newest}} then '' else 'The mirror is tested on PostgreSQL {{oldest}} to {{newest}}.' end
from (select current_setting('server_version_num')::integer / 10000 as major) as v

-- check writable: the database takes writes
select 'error', 'this database is read only: nothing can be applied',
       'Supabase does that when the disk is full: make room, or enlarge the disk.'
where pg_is_in_recovery() or (select reset_val from pg_settings where name = 'default_transaction_read_only') = 'on'

-- check own database: this is another database than the primary
select 'error', 'the mirror is installed here as the source', 'MIRROR_TARGET_URL must be Supabase''s database.'
where to_regclass('mirror.outbox') is not null

-- check excess rights: the mirror does not log in as a superuser
select 'warning', format('%I is a superuser', current_user), 'Use the project''s postgres role, which is none.'
from pg_roles where rolname = current_user and rolsuper

-- check realtime: there are private channels to be guarded
select 'warning', 'there is no table realtime.messages, so every private channel is closed',
       'Realtime makes it when the first client connects, and a daemon that runs makes the policies then. '
       'If it stays away: check MIRROR_TARGET_URL.'
where to_regclass('realtime.messages') is null

-- check realtime policies: policies of realtime.messages let somebody in, and let them send, unless [access] says that nobody may
select 'warning',
       case when receives then 'no policy of realtime.messages lets anybody send (FOR INSERT to authenticated)'
            else 'no policy of realtime.messages lets anybody in: every private channel answers 403' end,
       'Let `mirror install target` make them: [access] topics and send in mirror.toml say for what.'
from (select coalesce(bool_or(cmd in ('SELECT', 'ALL')), false) as receives, coalesce(bool_or(cmd in ('INSERT', 'ALL')), false) as sends
      from pg_policies where schemaname = 'realtime' and tablename = 'messages' and permissive = 'PERMISSIVE'
        and roles && array['authenticated', 'public']::name[]) as p
where to_regclass('realtime.messages') is not null and not (receives and (sends or not {{let_send}}))

-- check channel policies: they ask the mirror once for a channel, and do not raise
{{policies}}
select 'error', format('policy %I of %s calls auth.uid(), which raises for a JWT sub that is no uuid, and such users are mirrored: all of their channels fail',
                       p.name, p.relation),
       'Use public.is_trip_member(...), or (auth.jwt() ->> ''sub'').'
from p where p.is_channel and p.expression ~ 'auth\.uid\(\)' and {{foreign_subjects}}
union all
select 'warning', format('policy %I of %s asks the mirror for each row', p.name, p.relation),
       'Wrap the call, so that it is made once: (select public.is_topic_member(realtime.topic())).'
from p where p.is_channel and p.expression ~ '(^|[^.\w]|public\.)is_\w+_member\(' and p.expression !~* '\( *select (public\.)?is_\w+_member\('

-- check policy errors: no policy that asks the mirror raises for some callers
{{policies}}
select 'warning', format('policy %I of %s calls auth.uid(), which raises for users whose JWT sub is no uuid, and such users are mirrored', p.name, p.relation),
       'Use (auth.jwt() ->> ''sub''), or public.is_trip_member(...).'
from p where not p.is_channel and p.expression ~ 'auth\.uid\(\)' and {{foreign_subjects}}

-- check policy status: no policy lets in whoever has a membership, whatever its status
{{policies}}
select 'warning', format('policy %I of %s asks for a membership and not for its status: who has left a trip still gets in', p.name, p.relation),
       'Use public.is_trip_member(trip_id), or ask for the status, too.'
from p where not {{status_filtered}} and p.expression ~* '\m(from|join) \(*(public\.)?trip_memberships\M' and p.expression !~* '\mstatus\M'

-- check policy indexes: policies that read memberships can use an index
{{policies}}
select 'warning', format('policy %I of %s compares %s::text, for which there is no index', p.name, p.relation, m[1]),
       'Cast the other side: trip_id = (...)::uuid, or use public.is_trip_member(...), which takes text.'
from p, regexp_matches(p.expression, '\(?(?:\w+\.)?\m(trip_id|user_id)\)?::text', 'i') as m
where p.expression ~* '\m(from|join) \(*(public\.)?trip_memberships\M'

-- check time limits: the API's roles have time enough
select 'warning', format('%s has a statement_timeout of %s', r.rolname, v.value), format('alter role %I set statement_timeout = ''8s'';', r.rolname)
from pg_db_role_setting as d join pg_roles as r on r.oid = d.setrole, unnest(d.setconfig) as c(setting),
     lateral (select substring(c.setting from '^statement_timeout=(.*)$') as value) as v,
     lateral (select (case when v.value ~ '^\d+$' then v.value || 'ms' when v.value ~ '^\d+(ms|s|min|h)$' then v.value end)::interval as time) as t
where d.setdatabase in (0, (select oid from pg_database where datname = current_database()))
  and r.rolname in ('authenticator', 'authenticated', 'service_role') and t.time > interval '0' and t.time < interval '3 seconds'
