-- The target side, part 4: rows that the target refuses. They are found, parked with the reason, and hold up nobody else.

-- One thing, done to some rows of one table (or keys, which remove takes).
create or replace function mirror.act(action text, tbl text, rows jsonb) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
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
end
$mirror$;

-- The same; a row that is refused for what it is gets found by halving and parked, the others are done. Any other error is
-- the caller's.
create or replace function mirror.attempt(action text, tbl text, rows jsonb) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
declare
  _n integer;
begin
  return mirror.act(action, tbl, rows);
exception when others then
  if mirror.is_about_row(sqlstate, sqlerrm) is not true then
    raise;
  end if;
  _n := mirror.how_many(rows);
  if action = 'add' then
    return mirror.attempt('put', tbl, rows);
  elsif _n > 1 and action = 'put' and tbl = 'users' then
    -- From here on each of them stands for itself: one that is refused holds no value of another one.
    perform mirror.attempt('aside', tbl, rows);
    return mirror.attempt('exchange', tbl, rows);
  elsif _n <= 16 then
    return mirror.attempt_each(action, tbl, rows);
  end if;
  return mirror.attempt(action, tbl, mirror.cut(rows, 1, _n / 2)) + mirror.attempt(action, tbl, mirror.cut(rows, _n / 2 + 1, _n));
end
$mirror$;

-- Row by row: where one of a few is refused the others often are, too, and then this takes fewer tries than halves.
create or replace function mirror.attempt_each(action text, tbl text, rows jsonb) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
declare
  _row jsonb;
  _key jsonb;
  _n bigint := 0;
begin
  for _row, _key in
    select jsonb_build_array(k), k from jsonb_array_elements(case when jsonb_typeof(rows) = 'array' then rows end) as k
    union all
    select jsonb_object_agg(c.key, array[r.value]::text), jsonb_object_agg(c.key, r.value)
    from jsonb_each_text(case when jsonb_typeof(rows) = 'object' then rows end) as c,
         unnest(c.value::text[]) with ordinality as r(value, i) group by r.i
  loop
    begin
      _n := _n + mirror.act(action, tbl, _row);
    exception when others then
      if mirror.is_about_row(sqlstate, sqlerrm) is not true then
        raise;
      end if;
      if action <> 'aside' then
        perform mirror.park(tbl, _key, format('the target refuses it (%s): %s', sqlstate, sqlerrm));
      end if;
    end;
  end loop;
  return _n;
end
$mirror$;

-- The target may have been busy with others: PostgREST would try that again without end.
create or replace function mirror.is_about_row(state text, message text) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
begin
  if state in ('40001', '40P01') then
    raise exception 'the target was busy with others' using errcode = 'PT423', detail = message;
  end if;
  return mirror.is_objection(state);
end
$mirror$;

-- Is this error about the row (bad data, a violated constraint, a limit, a trigger's objection), so that trying it again as
-- it is would be in vain? A trigger may raise a SQLSTATE of its own: the standard leaves it the classes 5 to 9 and I to Z,
-- of which PostgreSQL has taken those that are about the server and not about a row.
create or replace function mirror.is_objection(state text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp as $mirror$
  select state ~ '^(22|23|44)' or state ~ '^[5-9I-Z]' and state !~ '^(53|55|57|58|72|XX)'
$mirror$;

-- A key whose row the target refuses, or the source cannot read. However many they are, this goes on: what would stop here
-- would hold up the revocations of all others. Only rows that differ from what is here can be refused, so a mistake in
-- the target's table costs no member their access whose own row has not changed; and rows that the source cannot read
-- any more are stopped by the brake when a whole table is compared.
create or replace function mirror.park(tbl text, key jsonb, reason text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
#variable_conflict use_column
declare
  _k1 text := coalesce(key->>'k1', key->>'trip_id', key->>'id');
  _k2 text := coalesce(key->>'k2', key->>'user_id', '');
begin
  insert into mirror.parked as p (tbl, k1, k2, reason) values (park.tbl, _k1, _k2, left(park.reason, 500))
  on conflict (tbl, k1, k2) do update
  set reason = excluded.reason, tries = p.tries + 1, settled = false, tried_at = now(),
      retry_at = now() + least(interval '30 seconds', interval '5 seconds' * power(2, least(p.tries, 10)));
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
-- Scope by scope: a join with a scope's rows would carry the whole scope along with each of them. Each key is looked up:
-- with a hundred thousand parked, any other plan reads them all.
create or replace function mirror.reconsider(scopes jsonb) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $mirror$
declare _scope jsonb;
begin
  if not exists (select from mirror.parked) then
    return false;
  end if;
  for _scope in select jsonb_array_elements(scopes) loop
    update mirror.parked as p set settled = true
    where p.ctid = any (array(
      select f.ctid
      from (select mirror.objects(_scope->>'table', _scope->'rows') union all
            select jsonb_array_elements(coalesce(_scope->'gone', '[]'))) as k(r),
           lateral (select q.ctid from mirror.parked as q
                    where q.tbl = _scope->>'table' and q.k1 = coalesce(r->>'trip_id', r->>'id')
                      and q.k2 = coalesce(r->>'user_id', '') offset 0) as f));
  end loop;
  return true;
end
$mirror$;

-- Those that were not refused again are parked no more. Were there any?
create or replace function mirror.settle() returns boolean
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $mirror$
begin
  delete from mirror.parked as p where p.settled;
  return found;
end
$mirror$;

-- What the daemon hears of parked keys with its batch. parked: how many there are of each table, null: as many as before;
-- refused: how many this batch has parked, the first of them named; due: keys to be tried again, as many of each table as
-- it asks for. (An older daemon does not ask, and is told.)
create or replace function mirror.tell_parked(asked jsonb, settled boolean) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off as $mirror$
declare
  _refused jsonb;
  _parked jsonb;
begin
  if exists (select from mirror.parked where tried_at = now()) then
    select jsonb_object_agg(t.tbl, jsonb_build_object('n', t.n, 'rows', (
      select jsonb_agg(jsonb_build_object('k1', f.k1, 'k2', nullif(f.k2, ''), 'reason', f.reason))
      from (select * from mirror.parked as p where p.tried_at = now() and p.tbl = t.tbl order by p.k1, p.k2 limit 100) as f)))
    into _refused from (select p.tbl, count(*) as n from mirror.parked as p where p.tried_at = now() group by p.tbl) as t;
  end if;
  if settled or _refused is not null or asked is distinct from '{}' then
    _parked := mirror.count_parked();
  end if;
  return jsonb_build_object('parked', _parked, 'refused', coalesce(_refused, '{}'), 'due', (
    select coalesce(jsonb_agg(jsonb_build_object('table', a.key, 'k1', d.k1, 'k2', nullif(d.k2, ''))), '[]')
    from jsonb_each(coalesce(asked, '{"users": 100, "trips": 100, "trip_memberships": 100}')) as a,
         mirror.due(a.key, a.value::integer) as d));
end
$mirror$;

create or replace function mirror.count_parked() returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  select coalesce(jsonb_object_agg(p.tbl, p.n), '{}')
  from (select tbl, count(*) as n from mirror.parked group by tbl) as p
$mirror$;

-- Those that have waited longest, and of as many reasons as possible one: when one cause of several is gone, that is found
-- among a hundred thousand keys with the first try.
create or replace function mirror.due(tbl text, n integer) returns setof mirror.parked
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off as $mirror$
begin
  return query
    select p.* from mirror.parked as p where p.ctid = any (
      array(select w.ctid from mirror.parked as w where w.tbl = due.tbl and w.retry_at <= now() order by w.retry_at limit n)
      || array(select min(r.place)
               from (select w.ctid as place, w.reason from mirror.parked as w
                     where w.tbl = due.tbl and w.retry_at <= now() limit case when n > 100 then 0 else 100000 end) as r
               group by r.reason limit n / 2))
    order by p.retry_at;
end
$mirror$;
