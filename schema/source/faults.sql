-- The source side: what keeps the mirror from knowing what happens here, as the catalog tells it to who asks (the daemon,
-- with its rights). Asked every few seconds, so it is cheap. It looks at the catalog alone: that waits for no lock of a
-- migration, and shows what was committed. It never raises.
drop function if exists mirror.faults();  -- an earlier release's has another result

-- The tables of the mapping: what stands under the name now (kind is null: nothing), is it another table than the one that got
-- the triggers (replaced), and what is that one called now (renamed). reader: who has to be given rights.
create or replace function mirror.mapped()
returns table (tbl text, relation text, columns text[], oid oid, kind "char", schema oid, replaced boolean, renamed text, reader text)
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  select m.tbl, format('%I.%I', m.schema, m.name), m.columns, c.oid, c.relkind, n.oid, coalesce(o.relation <> c.oid, false),
         (select k.oid::regclass::text from pg_class as k where k.oid = o.relation and o.relation is distinct from c.oid),
         case when to_regrole('mirror_daemon') is not null and pg_has_role(current_user, to_regrole('mirror_daemon'), 'member')
              then 'mirror_daemon' else quote_ident(current_user) end
  from (values {{mapped}}) as m(tbl, schema, name, columns)
  left join pg_namespace as n on n.nspname = m.schema
  left join pg_class as c on c.relnamespace = n.oid and c.relname = m.name
  left join mirror.origin as o on o.tbl = m.tbl
$mirror$;

insert into mirror.origin (tbl, relation)  -- where an earlier release has made the triggers
select m.tbl, t.tgrelid from mirror.mapped() as m join pg_trigger as t on t.tgrelid = m.oid
join pg_proc as p on p.oid = t.tgfoid and p.pronamespace = 'mirror'::regnamespace where t.tgname = 'mirror_insert'
on conflict do nothing;

-- What is wrong with the triggers of a table, and with what they need; the rights are those of their functions' owner.
create or replace function mirror.uncaptured() returns table (tbl text, message text)
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  with _triggers as (
    select m.tbl, m.relation, m.replaced, p.proowner as owner, 'mirror_' || e.event as name,
           case when t.oid is null then 'missing'
                when p.oid is null or t.tgqual is not null
                     or (t.tgtype::integer, coalesce(t.tgoldtable::text, ''), coalesce(t.tgnewtable::text, '')) <> (e.type, e.old, e.new)
                  then 'not ours'
                when t.tgenabled <> 'A' then 'not enabled always' end as wrong
    from mirror.mapped() as m
    cross join (values ('insert', 4, '', 'new_rows'), ('update', 16, 'old_rows', 'new_rows'),
                       ('delete', 8, 'old_rows', ''), ('truncate', 32, '', '')) as e(event, type, old, new)
    left join pg_trigger as t on t.tgrelid = m.oid and t.tgname = 'mirror_' || e.event
    left join pg_proc as p on p.oid = t.tgfoid and p.pronamespace = to_regnamespace('mirror') and p.proname = m.tbl || '_' || e.event
    where m.kind in ('r', 'p')
  ), _places as (
    select n.name, c.oid, n.name = 'outbox_id' as is_sequence
    from unnest(array['outbox', 'outbox_1', 'outbox_2', 'outbox_3', 'outbox_id']) as n(name)
    left join pg_class as c on c.relnamespace = to_regnamespace('mirror') and c.relname = n.name
  ), _called as (
    select n.name, p.oid from unnest(array['mark_keys', 'turn', 'slot']) as n(name)
    left join pg_proc as p on p.pronamespace = to_regnamespace('mirror') and p.proname = n.name
  ), _owners as (
    select distinct t.tbl, t.owner, t.owner::regrole as role from _triggers as t where t.owner is not null
  )
  select t.tbl, case when bool_and(t.replaced and t.wrong = 'missing')
                     then format('%s was dropped and made anew, without the triggers of the mirror', t.relation)
                     else format('trigger %s on %s is %s', string_agg(t.name, ', ' order by t.name), t.relation, t.wrong) end
  from _triggers as t where t.wrong is not null group by t.tbl, t.relation, t.wrong
  union all
  select o.tbl, case when p.oid is null then format('mirror.%s is missing', p.name)
                     else format('%s may not write to mirror.%s', o.role, p.name) end
  from _owners as o, _places as p
  where p.oid is null or not case when p.is_sequence then has_sequence_privilege(o.owner, p.oid, 'usage')
                                  else has_table_privilege(o.owner, p.oid, 'insert') end
  union all
  select o.tbl, case when c.oid is null then format('mirror.%s() is missing', c.name)
                     else format('%s may not call mirror.%s()', o.role, c.name) end
  from _owners as o, _called as c where c.oid is null or not has_function_privilege(o.owner, c.oid, 'execute')
  union all
  select o.tbl, format('%s may not enter schema mirror', o.role)
  from _owners as o where not has_schema_privilege(o.owner, 'mirror', 'usage')
$mirror$;

-- Why a table cannot be read by who asks: the first reason there is, and its cure.
create or replace function mirror.unreadable() returns table (tbl text, message text, cure text)
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  select distinct on (m.tbl) m.tbl, w.message, w.cure
  from (
    select m.*, concat('; the table that was mapped is now ' || m.renamed) as where_it_is,
           coalesce(not has_schema_privilege(m.schema, 'usage'), false) as closed,
           array(select quote_ident(w.name) from unnest(m.columns) as w(name)
                 where not exists (select from pg_attribute as a where a.attrelid = m.oid and a.attname = w.name)) as missing,
           array(select quote_ident(a.attname) from pg_attribute as a
                 where a.attrelid = m.oid and a.attname = any (m.columns) and not has_column_privilege(m.oid, a.attnum, 'select')
                 order by a.attnum) as hidden
    from mirror.mapped() as m
  ) as m,
  lateral (values
    (1, m.oid is null, concat(m.relation, ' is missing', m.where_it_is),
     format('%s in mirror.toml, [%s], and run `mirror install source`.',
            coalesce('Write from = ' || quote_literal(m.renamed), 'Make it again or name another table'), m.tbl)),
    (2, m.kind not in ('r', 'p'), concat(m.relation, ' is not a table', m.where_it_is),
     format('Write from = %L in mirror.toml, [%s], and run `mirror install source`.', coalesce(m.renamed, 'schema.table'), m.tbl)),
    (3, m.missing <> '{}', format('%s has no column %s', m.relation, array_to_string(m.missing, ', ')),
     format('Make it again, or map what is there in mirror.toml, [%s], and run `mirror install source`.', m.tbl)),
    (4, m.closed or m.hidden <> '{}',
     concat(m.reader, ' may not read ', m.relation, case when m.replaced then ', which was dropped and made anew' end),
     case when m.replaced then 'Run `mirror install source`.' else concat_ws(' ', 'Run in the source:',
       case when m.closed then format('grant usage on schema %s to %s;', m.schema::regnamespace, m.reader) end,
       case when m.hidden <> '{}' then format('grant select (%s) on %s to %s;', array_to_string(m.hidden, ', '), m.relation, m.reader) end) end),
    (5, row_security_active(m.oid), format('row level security of %s applies to %I', m.relation, current_user),
     format('Run in the source, as an administrator: alter role %I bypassrls;', current_user))
  ) as w(n, applies, message, cure)
  where w.applies order by m.tbl, w.n
$mirror$;

-- All of it: a list of {table, kind, message, cure}, at most one of each kind for a table.
create or replace function mirror.faults() returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $mirror$
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object('table', f.tbl, 'kind', f.kind, 'message', f.message, 'cure', f.cure)
                              order by f.tbl, f.kind), '[]')
    from (select u.tbl, 'capture' as kind, string_agg(u.message, ', ' order by u.message) as message,
                 'Run `mirror install source`.' as cure
          from mirror.uncaptured() as u group by u.tbl
          union all
          select u.tbl, 'unreadable', u.message, u.cure from mirror.unreadable() as u) as f);
exception when others then
  return (select jsonb_agg(jsonb_build_object('table', t, 'kind', 'capture', 'cure', 'Run `mirror install source`.',
                                              'message', format('it cannot be told whether changes are captured: %s (%s)', sqlerrm, sqlstate)))
          from unnest(array['trip_memberships', 'trips', 'users']) as t);
end
$mirror$;

-- What an error of reading this table means: the reason above, and its cure, else the error itself.
create or replace function mirror.because(tbl text, error text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $mirror$
begin
  return coalesce((select format('%s. %s', u.message, u.cure) from mirror.unreadable() as u where u.tbl = because.tbl), error);
exception when others then
  return error;
end
$mirror$;
