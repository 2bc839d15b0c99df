-- What `mirror doctor` asks of a Supabase project that the mirror is installed in.

-- check rights: this role may do what the daemon does
select 'error', format('%I may not call %s', current_user, f.name), 'Run `mirror install target` as this role, or grant execute on it.'
from unnest(array['public.mirror_claim(jsonb)', 'public.mirror_apply(jsonb)', 'public.mirror_status()']) as f(name)
where has_function_privilege(to_regprocedure(f.name)::oid, 'execute') is not true

-- check tables: the three tables are there, and logged
select 'error', format('%s %s', t.name, case when c.oid is null then 'is gone' else 'is unlogged: after a crash it is empty' end),
       case when c.oid is null then 'Run `mirror install target`, then `mirror resync`.' else format('alter table %s set logged;', t.name) end
from unnest(array['public.users', 'public.trips', 'public.trip_memberships']) as t(name)
left join pg_class as c on c.oid = to_regclass(t.name)
where c.oid is null or c.relpersistence = 'u'

-- check security: who may do what is as it must be
select 'error', i.finding, i.cure from mirror.insecurities() as i

-- check channels: the policies of private channels are in place
select 'error', 'private channels are closed: realtime.messages lacks policies of the mirror',
       'Run `mirror install target`.'
where mirror.channels() = 'closed'

-- check rights of others: only the API's roles may use what is ours
select 'error', o.finding, 'Run `mirror install target`, or: ' || o.cure
from mirror.rights_of_others() as o
join pg_roles as r on r.oid = o.grantee and r.rolname not in ('anon', 'authenticated')

-- check anonymous callers: no policy asks what the anonymous role may not ask
select 'error',
       format('policy %I of %s is asked for anon, too, who may not call %s: such a question is an error, and '
              'postgres_changes stops for everybody', o.policy, o.relation, f.function),
       format('alter policy %I on %s to authenticated;', o.policy, o.relation)
from mirror.open_policies() as o join mirror.functions() as f on f.function = o.function
where to_regrole('anon') is not null and has_function_privilege(to_regrole('anon'), f.function, 'execute') is not true

-- check cascades: no foreign key lets a mirrored delete destroy rows that live only here
select 'error', o, '' from mirror.obstacles() as o

-- check references: no foreign key keeps mirrored rows from being deleted
select 'warning', format('%I of %s keeps %s that are gone in the primary from being deleted here: they are parked', c.conname, c.conrelid::regclass, c.confrelid::regclass),
       format('alter table %s drop constraint %I; or let it say on delete set null.', c.conrelid::regclass, c.conname)
from pg_constraint as c
where c.contype = 'f' and c.confdeltype in ('a', 'r') and c.conparentid = 0
  and c.confrelid in (to_regclass('public.users'), to_regclass('public.trips'), to_regclass('public.trip_memberships'))
  and c.conrelid not in (to_regclass('public.users'), to_regclass('public.trips'), to_regclass('public.trip_memberships'))

-- check indexes: what policies look for has an index
select 'warning', format('there is no index on %s (%s)', t.name, array_to_string(t.columns, ', ')), 'Run `mirror install target`.'
from (values ('public.trip_memberships', array['trip_id', 'user_id']), ('public.trip_memberships', array['user_id', 'trip_id']),
             ('public.users', array['subject'])) as t(name, columns)
where to_regclass(t.name) is not null and not exists (
  select from pg_index as i where i.indrelid = to_regclass(t.name) and i.indisvalid and i.indpred is null
    and (select array_agg(a.attname::text order by n) from generate_series(0, cardinality(t.columns) - 1) as n
         join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[n]) = t.columns)

-- check statuses: memberships have a status that counts
select 'warning', format('none of the memberships looked at has a status that counts as a member''s; they say %s', seen),
       'Say which ones count: [access] active in mirror.toml, then `mirror install target`.'
from (select string_agg(distinct quote_nullable(status::text), ', ') as seen, count(*) as n,
             count(*) filter (where {{is_active}}) as counting
      from (select status from public.trip_memberships limit 1000) as s) as found
where n > 0 and counting = 0

-- check members without a user: memberships count whose user is mirrored
select 'warning', format('%s memberships do not count, since their users are not mirrored', n),
       'Nothing, when these users are deleted or left out by [users] where. If members need no user: '
       '[access] members_without_user = true in mirror.toml, then `mirror install target`.'
from (select count(*) as n from public.trip_memberships as m
      where {{is_active}} and not exists (select from public.users as u where u.id = m.user_id)) as found
where {{needs_user}} and n > {{few}}

-- check parked users: every mirrored user is as in the primary
select 'warning', format('%s users are parked: their memberships do not count', count(*)),
       'See `mirror status` for the reasons; the mirror tries again by itself.'
from mirror.parked where tbl = 'users' and {{needs_user}} having count(*) > 0

-- check parked: Supabase takes every row
select 'warning', format('%s rows of %s are refused', count(*), tbl), 'See `mirror status` for the reasons.'
from mirror.parked group by tbl

-- check brake: no repair waits for a person
select 'warning', format('a comparison of %s would delete %s of %s rows, and did not', b.key, b.value->>'would_delete', b.value->>'rows'),
       'Look at the primary, then `mirror resync --force`.'
from mirror.state as s, jsonb_each(s.braked) as b
