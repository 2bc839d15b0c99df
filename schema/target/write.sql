-- The target side, part 3: how one table changes. {{...}} are the types of the keys.

-- Puts rows where they are missing or differ; equal rows are left alone (no dead tuples, no noise in Realtime's slot).
-- Each row is looked up by its key: a plan that was made while the table was small must not read all of it when it is not.
create or replace function mirror.put_users(rows jsonb) returns bigint
language plpgsql set search_path = '' set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $mirror$
declare _n bigint;
begin
  merge into public.users as t
  using (select * from jsonb_to_recordset(rows) as r(id {{user_id}}, subject text, email text, username text)) as s
  on t.id = s.id
  when matched and (t.subject, t.email, t.username) is distinct from (s.subject, s.email, s.username) then
    update set subject = s.subject, email = s.email, username = s.username
  when not matched then
    insert (id, subject, email, username) values (s.id, s.subject, s.email, s.username);
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;

create or replace function mirror.put_trips(rows jsonb) returns bigint
language plpgsql set search_path = '' set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $mirror$
declare _n bigint;
begin
  merge into public.trips as t
  using (select * from jsonb_to_recordset(rows) as r(id {{trip_id}}, name text, created_by {{created_by}})) as s
  on t.id = s.id
  when matched and (t.name, t.created_by) is distinct from (s.name, s.created_by) then
    update set name = s.name, created_by = s.created_by
  when not matched then
    insert (id, name, created_by) values (s.id, s.name, s.created_by);
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;

create or replace function mirror.put_trip_memberships(rows jsonb) returns bigint
language plpgsql set search_path = '' set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $mirror$
declare _n bigint;
begin
  merge into public.trip_memberships as t
  using (select * from jsonb_to_recordset(rows)
           as r(trip_id {{trip_id}}, user_id {{user_id}}, role text, status text)) as s
  on t.trip_id = s.trip_id and t.user_id = s.user_id
  when matched and (t.role, t.status) is distinct from (s.role, s.status) then
    update set role = s.role, status = s.status
  when not matched then
    insert (trip_id, user_id, role, status) values (s.trip_id, s.user_id, s.role, s.status);
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;

create or replace function mirror.remove_users(rows jsonb) returns bigint
language plpgsql set search_path = '' set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $mirror$
declare _n bigint;
begin
  delete from public.users as t using jsonb_to_recordset(rows) as s(id {{user_id}}) where t.id = s.id;
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;

create or replace function mirror.remove_trips(rows jsonb) returns bigint
language plpgsql set search_path = '' set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $mirror$
declare _n bigint;
begin
  delete from public.trips as t using jsonb_to_recordset(rows) as s(id {{trip_id}}) where t.id = s.id;
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;

create or replace function mirror.remove_trip_memberships(rows jsonb) returns bigint
language plpgsql set search_path = '' set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $mirror$
declare _n bigint;
begin
  delete from public.trip_memberships as t using jsonb_to_recordset(rows) as s(trip_id {{trip_id}}, user_id {{user_id}})
  where t.trip_id = s.trip_id and t.user_id = s.user_id;
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;

-- The keys within a scope that are here and not in its rows: what a range or a whole trip must lose. The conditions are
-- put together so that the index in key order answers each of them, and the planner is kept from reading the table: of
-- one that is just being filled it knows nothing. A key that the source could not read is not gone.
create or replace function mirror.surplus_users(scope jsonb) returns jsonb
language plpgsql stable set search_path = '' set enable_seqscan = off as $mirror$
declare _keys jsonb;
begin
  execute $sql$ select coalesce(jsonb_agg(to_jsonb(s)), '[]') from (select t.id from public.users as t where true $sql$
    || mirror.bound(scope, 'after1', $sql$ {{user_c}} > ($1->'range'->>'after1')::{{user_id}} $sql$)
    || mirror.bound(scope, 'upto1', $sql$ {{user_c}} <= ($1->'range'->>'upto1')::{{user_id}} $sql$)
    || $sql$ except (select r.id from jsonb_to_recordset($1->'rows') as r(id {{user_id}}) union all
                     select k.k1 from mirror.refused($1) as r, jsonb_to_record(r) as k(k1 {{user_id}}))) as s $sql$
  into _keys using scope;
  return _keys;
end
$mirror$;

create or replace function mirror.surplus_trips(scope jsonb) returns jsonb
language plpgsql stable set search_path = '' set enable_seqscan = off as $mirror$
declare _keys jsonb;
begin
  execute $sql$ select coalesce(jsonb_agg(to_jsonb(s)), '[]') from (select t.id from public.trips as t where true $sql$
    || mirror.bound(scope, 'after1', $sql$ {{trip_c}} > ($1->'range'->>'after1')::{{trip_id}} $sql$)
    || mirror.bound(scope, 'upto1', $sql$ {{trip_c}} <= ($1->'range'->>'upto1')::{{trip_id}} $sql$)
    || $sql$ except (select r.id from jsonb_to_recordset($1->'rows') as r(id {{trip_id}}) union all
                     select k.k1 from mirror.refused($1) as r, jsonb_to_record(r) as k(k1 {{trip_id}}))) as s $sql$
  into _keys using scope;
  return _keys;
end
$mirror$;

-- A range within one trip has bounds of users of that trip; any other range goes across the trips. A membership that the
-- source could not read is not spared: who cannot be proven to be a member is none.
create or replace function mirror.surplus_trip_memberships(scope jsonb) returns jsonb
language plpgsql stable set search_path = '' set enable_seqscan = off as $mirror$
declare _keys jsonb;
begin
  execute $sql$ select coalesce(jsonb_agg(to_jsonb(s)), '[]')
                from (select t.trip_id, t.user_id from public.trip_memberships as t where $sql$
    || case when scope ? 'trips' then
         $sql$ t.trip_id = any (array(select jsonb_array_elements_text($1->'trips'))::{{trip_id}}[]) $sql$
       when scope->'range'->>'trip' is not null then
         $sql$ {{member_trip_c}} = ($1->'range'->>'trip')::{{trip_id}} $sql$
         || mirror.bound(scope, 'after2', $sql$ {{member_user_c}} > ($1->'range'->>'after2')::{{user_id}} $sql$)
         || mirror.bound(scope, 'upto2', $sql$ {{member_user_c}} <= ($1->'range'->>'upto2')::{{user_id}} $sql$)
       else
         $sql$ true $sql$
         || mirror.bound(scope, 'after1', $sql$ ({{member_trip_c}}, {{member_user_c}})
              > (($1->'range'->>'after1')::{{trip_id}}, ($1->'range'->>'after2')::{{user_id}}) $sql$)
         || mirror.bound(scope, 'upto1', $sql$ ({{member_trip_c}}, {{member_user_c}})
              <= (($1->'range'->>'upto1')::{{trip_id}}, ($1->'range'->>'upto2')::{{user_id}}) $sql$)
       end
    || $sql$ except select r.trip_id, r.user_id
                    from jsonb_to_recordset($1->'rows') as r(trip_id {{trip_id}}, user_id {{user_id}})) as s $sql$
  into _keys using scope;
  return _keys;
end
$mirror$;

-- A condition, when the range has this bound.
create or replace function mirror.bound(scope jsonb, name text, condition text) returns text
language sql immutable set search_path = '' as $mirror$
  select case when scope->'range'->>name is null then '' else ' and ' || condition end
$mirror$;

-- The keys that the source could not read.
create or replace function mirror.refused(scope jsonb) returns setof jsonb language sql immutable set search_path = '' as $mirror$
  select jsonb_array_elements(case when jsonb_typeof(scope->'refused') = 'array' then scope->'refused' else '[]' end)
$mirror$;

-- Does one thing to some rows of one table; a row that is refused for what it is (bad data, a violated constraint, a
-- trigger's objection) is found by halving and parked, the others are done. Any other error is the caller's.
create or replace function mirror.attempt(action text, tbl text, rows jsonb) returns bigint
language plpgsql set search_path = '' as $mirror$
declare
  _n bigint;
  _half integer := jsonb_array_length(rows) / 2;
begin
  execute format('select mirror.%I($1)', action || '_' || tbl) into _n using rows;
  return _n;
exception when others then
  if left(sqlstate, 2) not in ('22', '23', '54', 'P0') then
    raise;
  end if;
  if _half = 0 then
    perform mirror.park(tbl, rows->0, format('the target refuses it (%s): %s', sqlstate, sqlerrm));
    return 0;
  end if;
  return mirror.attempt(action, tbl, jsonb_path_query_array(rows, '$[0 to $last]', jsonb_build_object('last', _half - 1)))
       + mirror.attempt(action, tbl, jsonb_path_query_array(rows, '$[$first to last]', jsonb_build_object('first', _half)));
end
$mirror$;

create or replace function mirror.park(tbl text, key jsonb, reason text) returns void
language plpgsql set search_path = '' as $mirror$
#variable_conflict use_column
declare
  _k1 text := coalesce(key->>'k1', key->>'trip_id', key->>'id');
  _k2 text := coalesce(key->>'k2', key->>'user_id', '');
begin
  insert into mirror.parked as p (tbl, k1, k2, reason) values (park.tbl, _k1, _k2, park.reason)
  on conflict (tbl, k1, k2) do update
  set reason = excluded.reason, tries = p.tries + 1, settled = false,
      retry_at = now() + least(interval '1 hour', interval '5 seconds' * power(2, least(p.tries, 10)));
  if (select count(*) from mirror.parked) > 1000 then
    raise exception 'more than 1000 rows are refused: the target''s tables do not fit the mirror any more'
      using errcode = 'PT422', hint = 'Look at the reasons in mirror.parked, put the table right, and restart the mirror.';
  end if;
  if park.tbl = 'trip_memberships' then
    perform mirror.remove_trip_memberships(jsonb_build_array(jsonb_build_object('trip_id', _k1, 'user_id', _k2)));
  end if;
end
$mirror$;
