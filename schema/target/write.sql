-- The target side, part 3: how one table changes. {{...}} are the types of the keys.

-- Puts rows where they are missing or differ; equal rows are left alone (no dead tuples, no noise in Realtime's slot).
create or replace function mirror.put_users(rows jsonb) returns bigint language plpgsql set search_path = '' as $mirror$
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

create or replace function mirror.put_trips(rows jsonb) returns bigint language plpgsql set search_path = '' as $mirror$
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

create or replace function mirror.put_trip_memberships(rows jsonb) returns bigint language plpgsql set search_path = '' as $mirror$
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

create or replace function mirror.remove_users(rows jsonb) returns bigint language plpgsql set search_path = '' as $mirror$
declare _n bigint;
begin
  delete from public.users as t using jsonb_to_recordset(rows) as s(id {{user_id}}) where t.id = s.id;
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;

create or replace function mirror.remove_trips(rows jsonb) returns bigint language plpgsql set search_path = '' as $mirror$
declare _n bigint;
begin
  delete from public.trips as t using jsonb_to_recordset(rows) as s(id {{trip_id}}) where t.id = s.id;
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;

create or replace function mirror.remove_trip_memberships(rows jsonb) returns bigint language plpgsql set search_path = '' as $mirror$
declare _n bigint;
begin
  delete from public.trip_memberships as t using jsonb_to_recordset(rows) as s(trip_id {{trip_id}}, user_id {{user_id}})
  where t.trip_id = s.trip_id and t.user_id = s.user_id;
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;

-- The keys within a scope that are here and not in its rows: what a range or a whole trip must lose.
create or replace function mirror.surplus_users(scope jsonb) returns jsonb language sql stable set search_path = '' as $mirror$
  select coalesce(jsonb_agg(jsonb_build_object('id', t.id)), '[]') from public.users as t
  where (scope->'range'->>'after1' is null or {{user_c}} > (scope->'range'->>'after1')::{{user_id}})
    and (scope->'range'->>'upto1' is null or {{user_c}} <= (scope->'range'->>'upto1')::{{user_id}})
    and not exists (select from jsonb_to_recordset(scope->'rows') as s(id {{user_id}}) where s.id = t.id)
$mirror$;

create or replace function mirror.surplus_trips(scope jsonb) returns jsonb language sql stable set search_path = '' as $mirror$
  select coalesce(jsonb_agg(jsonb_build_object('id', t.id)), '[]') from public.trips as t
  where (scope->'range'->>'after1' is null or {{trip_c}} > (scope->'range'->>'after1')::{{trip_id}})
    and (scope->'range'->>'upto1' is null or {{trip_c}} <= (scope->'range'->>'upto1')::{{trip_id}})
    and not exists (select from jsonb_to_recordset(scope->'rows') as s(id {{trip_id}}) where s.id = t.id)
$mirror$;

create or replace function mirror.surplus_trip_memberships(scope jsonb) returns jsonb
language sql stable set search_path = '' as $mirror$
  select coalesce(jsonb_agg(jsonb_build_object('trip_id', t.trip_id, 'user_id', t.user_id)), '[]')
  from public.trip_memberships as t
  where case when scope ? 'trips'
          then t.trip_id in (select k::{{trip_id}} from jsonb_array_elements_text(scope->'trips') as k)
          else (scope->'range'->>'trip' is null or t.trip_id = (scope->'range'->>'trip')::{{trip_id}})
           and (scope->'range'->>'after1' is null
                or ({{member_trip_c}}, {{member_user_c}}) > ((scope->'range'->>'after1')::{{trip_id}},
                                                             (scope->'range'->>'after2')::{{user_id}}))
           and (scope->'range'->>'upto1' is null
                or ({{member_trip_c}}, {{member_user_c}}) <= ((scope->'range'->>'upto1')::{{trip_id}},
                                                              (scope->'range'->>'upto2')::{{user_id}}))
        end
    and not exists (select from jsonb_to_recordset(scope->'rows') as s(trip_id {{trip_id}}, user_id {{user_id}})
                    where s.trip_id = t.trip_id and s.user_id = t.user_id)
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
