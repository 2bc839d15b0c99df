-- The target side, part 3: how one table changes. {{...}} are the types of the keys.

-- Puts rows where they are missing or differ; equal rows are left alone (no dead tuples, no noise in Realtime's slot).
-- The rows take the types of the table's own columns (an adopted one may have enums or varchar(40)), and are compared by
-- their bytes, whatever an adopted column's collation holds for equal. Each row is looked up by its key: a plan that was
-- made while the table was small must not read all of it when it is not.
create or replace function mirror.put_users(rows jsonb) returns bigint
language plpgsql set search_path = '' set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $mirror$
declare _n bigint;
begin
  merge into public.users as t
  using (select r.id, r.subject, r.email, r.username from jsonb_populate_recordset(null::public.users, rows) as r) as s
  on t.id = s.id
  when matched and record_image_ne(row(t.subject, t.email, t.username), row(s.subject, s.email, s.username)) then
    update set subject = s.subject, email = s.email, username = s.username
  when not matched then
    insert (id, subject, email, username) overriding system value values (s.id, s.subject, s.email, s.username);
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;

create or replace function mirror.put_trips(rows jsonb) returns bigint
language plpgsql set search_path = '' set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $mirror$
declare _n bigint;
begin
  merge into public.trips as t
  using (select r.id, r.name, r.created_by from jsonb_populate_recordset(null::public.trips, rows) as r) as s
  on t.id = s.id
  when matched and record_image_ne(row(t.name, t.created_by), row(s.name, s.created_by)) then
    update set name = s.name, created_by = s.created_by
  when not matched then
    insert (id, name, created_by) overriding system value values (s.id, s.name, s.created_by);
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;

create or replace function mirror.put_trip_memberships(rows jsonb) returns bigint
language plpgsql set search_path = '' set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $mirror$
declare _n bigint;
begin
  merge into public.trip_memberships as t
  using (select r.trip_id, r.user_id, r.role, r.status
         from jsonb_populate_recordset(null::public.trip_memberships, rows) as r) as s
  on t.trip_id = s.trip_id and t.user_id = s.user_id
  when matched and record_image_ne(row(t.role, t.status), row(s.role, s.status)) then
    update set role = s.role, status = s.status
  when not matched then
    insert (trip_id, user_id, role, status) overriding system value values (s.trip_id, s.user_id, s.role, s.status);
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;

-- The same for users who hand unique names on to each other (one batch holds the end of several transactions, and in a
-- statement their order is chance): those that differ let go of theirs first.
create or replace function mirror.exchange_users(rows jsonb) returns bigint
language plpgsql set search_path = '' set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $mirror$
begin
  update public.users as t set subject = null, email = null, username = null
  from (select r.id, r.subject, r.email, r.username from jsonb_populate_recordset(null::public.users, rows) as r) as s
  where t.id = s.id and record_image_ne(row(t.subject, t.email, t.username), row(s.subject, s.email, s.username));
  return mirror.put_users(rows);
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

