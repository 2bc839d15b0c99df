-- The target side, part 3: how one table changes. {{...}} are the types of the keys.

-- Rows come as one list for each column, written as PostgreSQL writes arrays: neither side takes a document of many small
-- values apart. They take the types of the table's own columns (an adopted one may have enums or varchar(40)).
create or replace function mirror.list(literal text, element anyelement) returns anyarray language plpgsql stable
set search_path = pg_catalog, pg_temp as $mirror$
begin
  return literal;
end
$mirror$;

create or replace function mirror.objects(tbl text, rows jsonb) returns setof jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $mirror$
begin
  case tbl
    when 'users' then return query select to_jsonb(r) from {{users_rows}};
    when 'trips' then return query select to_jsonb(r) from {{trips_rows}};
    else return query select to_jsonb(r) from {{trip_memberships_rows}};
  end case;
end
$mirror$;

-- Some of such rows, or of some keys, from the first to the last.
create or replace function mirror.cut(rows jsonb, first integer, last integer) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp as $mirror$
  select case jsonb_typeof(rows)
    when 'array' then jsonb_path_query_array(rows, '$[$first to $last]', jsonb_build_object('first', first - 1, 'last', last - 1))
    else (select jsonb_object_agg(c.key, ((c.value::text[])[first : last])::text) from jsonb_each_text(rows) as c) end
$mirror$;

create or replace function mirror.how_many(rows jsonb) returns integer
language sql immutable set search_path = pg_catalog, pg_temp as $mirror$
  select case jsonb_typeof(rows) when 'array' then jsonb_array_length(rows)
              else coalesce(cardinality(coalesce(rows->>'trip_id', rows->>'id')::text[]), 0) end
$mirror$;

-- Users hand unique values on to each other (one batch holds the end of several transactions, and in a statement their
-- order is chance), and who is parked must not keep what is another one's by now. So those that differ let go of theirs
-- first. Not for NULL, which an adopted column may refuse: for a value that no row has, and no `sub` of a token is. It lasts
-- until the row is put, which is this transaction unless the row is parked. An index over an expression counts, too.
create or replace function mirror.set_users_aside(rows jsonb) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
declare
  _new text[]; -- of each column, what it is set to
  _n bigint;
begin
  with c as (
    select a.attname, a.atttypid::regtype as type, y.typcategory = 'S' as is_text,
           case when greatest(a.atttypmod, y.typtypmod) > 4 then greatest(a.atttypmod, y.typtypmod) - 4 else 200 end as n,
           exists (select from pg_index as i where i.indrelid = a.attrelid and (i.indisunique or i.indisexclusion)
                   and (a.attnum = any (i.indkey) or exists (
                     select from pg_depend as d
                     where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid
                       and d.refclassid = 'pg_class'::regclass and d.refobjid = a.attrelid and d.refobjsubid = a.attnum))) as is_unique
    from pg_attribute as a join pg_type as y on y.oid = a.atttypid
    where a.attrelid = 'public.users'::regclass and a.attname in ('subject', 'email', 'username') and not a.attisdropped)
  select array_agg(
           case when c.is_unique then
             format('case when t.%1$I::text is distinct from s.%1$I::text then %2$s else t.%1$I end', c.attname,
               case when c.is_text then format('left(%s, %s)::%s', case c.attname
                 when 'email' then format('left(replace(gen_random_uuid()::text, ''-'', ''''), %s) || ''@aside.invalid''', greatest(8, c.n - 14))
                 when 'username' then '''a'' || right(gen_random_uuid()::text, 12)'
                 else '''aside '' || gen_random_uuid()' end, c.n, c.type) else 'null' end)
           else format('t.%I', c.attname) end
           order by array_position(array['subject', 'email', 'username']::name[], c.attname))
    into _new from c having bool_or(c.is_unique);
  if _new is null then
    return 0;
  end if;
  execute format($sql$
    update public.users as t set (subject, email, username) = row(%s, %s, %s)
    from (select r.* from (select $1 as rows) as i cross join lateral {{users_rows}}) as s
    where t.id = s.id and {{users_differ}} $sql$, _new[1], _new[2], _new[3]) using rows;
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;

-- The rows of a table (as t) that a scope is about, as a condition. Put together so that the index in key order answers each
-- kind of scope; the functions that use it keep the planner from reading the table: of one that is just being filled it
-- knows nothing. A range within one trip has bounds of users of that trip; any other range goes across the trips.
create or replace function mirror.within(scope jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $mirror$
  select concat_ws(' and ', 'true', nullif(case scope->>'table'
    when 'users' then concat_ws(' and ',
      mirror.bound('{{user_c}} > %L::{{user_id}}', scope->'range'->>'after1'),
      mirror.bound('{{user_c}} <= %L::{{user_id}}', scope->'range'->>'upto1'))
    when 'trips' then concat_ws(' and ',
      mirror.bound('{{trip_c}} > %L::{{trip_id}}', scope->'range'->>'after1'),
      mirror.bound('{{trip_c}} <= %L::{{trip_id}}', scope->'range'->>'upto1'))
    else case
      when scope ? 'trips' then
        format('t.trip_id = any (%L::{{trip_id}}[])', array(select jsonb_array_elements_text(scope->'trips')))
      when scope ? 'user' then format('t.user_id = %L::{{user_id}}', scope->>'user')
      when scope->'range'->>'trip' is not null then concat_ws(' and ',
        format('{{member_trip_c}} = %L::{{trip_id}}', scope->'range'->>'trip'),
        mirror.bound('{{member_user_c}} > %L::{{user_id}}', scope->'range'->>'after2'),
        mirror.bound('{{member_user_c}} <= %L::{{user_id}}', scope->'range'->>'upto2'))
      else concat_ws(' and ',
        mirror.bound('({{member_trip_c}}, {{member_user_c}}) > (%L::{{trip_id}}, %L::{{user_id}})',
                     scope->'range'->>'after1', scope->'range'->>'after2'),
        mirror.bound('({{member_trip_c}}, {{member_user_c}}) <= (%L::{{trip_id}}, %L::{{user_id}})',
                     scope->'range'->>'upto1', scope->'range'->>'upto2'))
      end
    end, ''))
$mirror$;

create or replace function mirror.bound(condition text, variadic keys text[]) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $mirror$
  select case when keys[1] is not null then format(condition, variadic keys) end
$mirror$;

create or replace function mirror.is_vacant(scope jsonb) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off
set max_parallel_workers_per_gather = 0 as $mirror$
declare _any boolean;
begin
  execute format('select exists (select from public.%I as t where %s)', scope->>'table', mirror.within(scope)) into _any;
  return not _any;
end
$mirror$;

-- The keys within a scope that are here and not in its rows: what a range, a user or whole trips must lose. A user or trip
-- that the source could not read is not gone; a membership is: who cannot be proven to be a member is none.
create or replace function mirror.surplus(scope jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off
set max_parallel_workers_per_gather = 0 as $mirror$
declare
  _keys jsonb;
begin
  -- A first load finds nothing: then its rows need not be compared with that.
  if mirror.is_vacant(scope) then
    return '[]';
  end if;
  execute case scope->>'table'
    when 'trip_memberships' then $sql$
      select coalesce(jsonb_agg(to_jsonb(s)), '[]')
      from (select t.trip_id, t.user_id from public.trip_memberships as t where $sql$ || mirror.within(scope) || $sql$
            except select r.trip_id, r.user_id
                   from (select unnest(($1->'rows'->>'trip_id')::{{trip_id}}[]) as trip_id,
                                unnest(($1->'rows'->>'user_id')::{{user_id}}[]) as user_id) as r) as s $sql$
    else format($sql$
      select coalesce(jsonb_agg(to_jsonb(s)), '[]')
      from (select t.id from public.%I as t where %s
            except (select unnest(($1->'rows'->>'id')::%s[])
                    union all select k.k1 from mirror.refused($1) as r, jsonb_to_record(r) as k(k1 %3$s))) as s $sql$,
      scope->>'table', mirror.within(scope), case scope->>'table' when 'users' then '{{user_id}}' else '{{trip_id}}' end)
  end into _keys using scope;
  return _keys;
end
$mirror$;

-- The keys that the source could not read.
create or replace function mirror.refused(scope jsonb) returns setof jsonb
language sql immutable set search_path = pg_catalog, pg_temp as $mirror$
  select jsonb_array_elements(case when jsonb_typeof(scope->'refused') = 'array' then scope->'refused' else '[]' end)
$mirror$;

