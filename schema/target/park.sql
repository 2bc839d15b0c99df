-- The target side, part 4: rows that the target refuses. They are found, parked with the reason, and hold up nobody else.

-- Does one thing to some rows of one table (or keys, which remove takes); a row that is refused for what it is gets found by
-- halving and parked, the others are done. Any other error is the caller's.
create or replace function mirror.attempt(action text, tbl text, rows jsonb) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
declare
  _n integer;
begin
  return case action || '_' || tbl
    when 'add_users' then mirror.add_users(rows)
    when 'add_trips' then mirror.add_trips(rows)
    when 'add_trip_memberships' then mirror.add_trip_memberships(rows)
    when 'put_users' then mirror.put_users(rows)
    when 'put_trips' then mirror.put_trips(rows)
    when 'put_trip_memberships' then mirror.put_trip_memberships(rows)
    when 'aside_users' then mirror.set_users_aside(rows)
    when 'exchange_users' then mirror.put_users(rows)
    when 'remove_users' then mirror.remove_users(rows)
    when 'remove_trips' then mirror.remove_trips(rows)
    when 'remove_trip_memberships' then mirror.remove_trip_memberships(rows)
  end;
exception when others then
  if sqlstate in ('40001', '40P01') then
    -- PostgREST would try it again without end.
    raise exception 'the target was busy with others' using errcode = 'PT423', detail = sqlerrm;
  elsif not mirror.is_objection(sqlstate) then
    raise;
  end if;
  _n := mirror.how_many(rows);
  if action = 'add' then
    return mirror.attempt('put', tbl, rows);
  elsif _n <= 1 and action = 'aside' then
    return 0;
  elsif _n <= 1 then
    perform mirror.park(tbl, case jsonb_typeof(rows) when 'array' then rows->0 else (
                          select jsonb_object_agg(c.key, (c.value::text[])[1]) from jsonb_each_text(rows) as c) end,
                        format('the target refuses it (%s): %s', sqlstate, sqlerrm));
    return 0;
  elsif action = 'put' and tbl = 'users' then
    -- From here on each of them stands for itself: one that is refused holds no value of another one.
    perform mirror.attempt('aside', tbl, rows);
    return mirror.attempt('exchange', tbl, mirror.cut(rows, 1, _n / 2)) + mirror.attempt('exchange', tbl, mirror.cut(rows, _n / 2 + 1, _n));
  end if;
  return mirror.attempt(action, tbl, mirror.cut(rows, 1, _n / 2)) + mirror.attempt(action, tbl, mirror.cut(rows, _n / 2 + 1, _n));
end
$mirror$;

-- Is this error about the row (bad data, a violated constraint, a limit, a trigger's objection), so that trying it again as
-- it is would be in vain? A trigger may raise a SQLSTATE of its own: the standard leaves it the classes 5 to 9 and I to Z,
-- of which PostgreSQL has taken those that are about the server and not about a row.
create or replace function mirror.is_objection(state text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp as $mirror$
  select state ~ '^(22|23|44)' or state ~ '^[5-9I-Z]' and state !~ '^(53|55|57|58|72|XX)'
$mirror$;

-- A key whose row the target refuses, or the source cannot read.
create or replace function mirror.park(tbl text, key jsonb, reason text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
#variable_conflict use_column
declare
  _k1 text := coalesce(key->>'k1', key->>'trip_id', key->>'id');
  _k2 text := coalesce(key->>'k2', key->>'user_id', '');
begin
  insert into mirror.parked as p (tbl, k1, k2, reason) values (park.tbl, _k1, _k2, park.reason)
  on conflict (tbl, k1, k2) do update
  set reason = excluded.reason, tries = p.tries + 1, settled = false,
      retry_at = now() + least(interval '1 hour', interval '5 seconds' * power(2, least(p.tries, 10)));
  -- Many that are refused mean a mistake, and it is not for the mirror to revoke them all. Any user can make values too
  -- large.
  if park.reason not like '%(22001)%are mirrored' and (select count(*) from mirror.parked) > 1000 then
    raise exception 'more than 1000 rows are refused' using errcode = 'PT422',
      detail = format('the last one of %s because %s', park.tbl, park.reason),
      hint = 'Put the table right; the mirror tries again by itself.';
  end if;
  if park.tbl = 'trip_memberships' then
    perform mirror.revoke(jsonb_build_array(jsonb_build_object('trip_id', _k1, 'user_id', _k2)));
  elsif park.tbl = 'users' and exists (select from public.users as u where u.id = mirror.as_user_id(_k1)) then
    -- The row stays (chat may refer to it). Its memberships do not count from here on: policies look for parked users.
    perform mirror.attempt('aside', 'users', jsonb_build_object('id', array[_k1]::text));
  end if;
end
$mirror$;

-- A parked membership goes. One that may not go (chat refers to it) loses role and status; if even that is refused it
-- stays as it is, and is_trip_member() does not count it.
create or replace function mirror.revoke(keys jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
begin
  perform mirror.remove_trip_memberships(keys);
exception when others then
  if not mirror.is_objection(sqlstate) then
    raise;
  end if;
  begin
    update public.trip_memberships as t set role = null, status = null
    from jsonb_to_recordset(keys) as s(trip_id {{trip_id}}, user_id {{user_id}})
    where t.trip_id = s.trip_id and t.user_id = s.user_id;
  exception when others then
    if not mirror.is_objection(sqlstate) then
      raise;
    end if;
  end;
end
$mirror$;

-- Parked keys that this batch is about have another chance: whatever is refused again is parked again. Are there any?
-- Scope by scope: a join with a scope's rows would carry the whole scope along with each of them.
create or replace function mirror.reconsider(scopes jsonb) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
declare _scope jsonb;
begin
  if not exists (select from mirror.parked) then
    return false;
  end if;
  for _scope in select jsonb_array_elements(scopes) loop
    update mirror.parked as p set settled = true
    where p.tbl = _scope->>'table' and (p.k1, p.k2) in (
      select coalesce(r->>'trip_id', r->>'id'), coalesce(r->>'user_id', '')
      from (select mirror.objects(_scope->>'table', _scope->'rows') union all
            select jsonb_array_elements(coalesce(_scope->'gone', '[]'))) as k(r));
  end loop;
  return true;
end
$mirror$;
