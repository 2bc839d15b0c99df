-- The source side, part 3: what the daemon calls: one round trip per batch. All of it runs with the daemon's own rights.

-- The functions of the three tables, behind one name each.
create or replace function mirror.keys(tbl text, keys1 text[], keys2 text[], out rows text, out gone text)
language plpgsql stable as $mirror$
begin
  case tbl
    when 'users' then select k.* into rows, gone from mirror.users_keys(keys1, keys2) as k;
    when 'trips' then select k.* into rows, gone from mirror.trips_keys(keys1, keys2) as k;
    when 'trip_memberships' then select k.* into rows, gone from mirror.trip_memberships_keys(keys1, keys2) as k;
  end case;
end
$mirror$;

create or replace function mirror.slice(tbl text, trip text, after1 text, after2 text, upto1 text, upto2 text,
                                        row_limit integer, want text,
                                        out result text, out n integer, out last1 text, out last2 text)
language plpgsql stable as $mirror$
begin
  case tbl
    when 'users' then
      select s.* into result, n, last1, last2
      from mirror.users_slice(trip, after1, after2, upto1, upto2, row_limit, want) as s;
    when 'trips' then
      select s.* into result, n, last1, last2
      from mirror.trips_slice(trip, after1, after2, upto1, upto2, row_limit, want) as s;
    when 'trip_memberships' then
      select s.* into result, n, last1, last2
      from mirror.trip_memberships_slice(trip, after1, after2, upto1, upto2, row_limit, want) as s;
  end case;
end
$mirror$;

create or replace function mirror.gone(tbl text, looked pg_snapshot, row_limit integer)
returns table (entry_at tid, entry_id bigint, k1 text, k2 text) language plpgsql stable as $mirror$
begin
  case tbl
    when 'users' then return query select * from mirror.users_gone(looked, row_limit);
    when 'trips' then return query select * from mirror.trips_gone(looked, row_limit);
    when 'trip_memberships' then return query select * from mirror.trip_memberships_gone(looked, row_limit);
  end case;
end
$mirror$;

create or replace function mirror.possible(tbl text, key1 text, key2 text) returns boolean language sql stable as $mirror$
  select case tbl when 'users' then mirror.users_possible(key1, key2)
                  when 'trips' then mirror.trips_possible(key1, key2)
                  else mirror.trip_memberships_possible(key1, key2) end
$mirror$;

-- A scope of exact keys. When a projection raises on some row, the keys are read one at a time, so that only that row is
-- refused; an error that is not about a row goes to the caller.
create or replace function mirror.read_keys(tbl text, keys1 text[], keys2 text[]) returns text
language plpgsql stable as $mirror$
declare
  _rows text;
  _gone text;
  _all_rows jsonb := '[]';
  _all_gone jsonb := '[]';
  _refused jsonb := '[]';
begin
  begin
    select k.rows, k.gone into _rows, _gone from mirror.keys(tbl, keys1, keys2) as k;
    return format('{"table":"%s","rows":%s,"gone":%s}', tbl, _rows, _gone);
  exception when data_exception or raise_exception then
    null;  -- read again below, key by key
  end;
  for i in 1 .. cardinality(keys1) loop
    begin
      select k.rows, k.gone into _rows, _gone from mirror.keys(tbl, keys1[i:i], keys2[i:i]) as k;
      _all_rows := _all_rows || _rows::jsonb;
      _all_gone := _all_gone || _gone::jsonb;
    exception when data_exception or raise_exception then
      if mirror.possible(tbl, keys1[i], keys2[i]) then
        _refused := _refused || jsonb_build_object('k1', keys1[i], 'k2', keys2[i],
                                                   'reason', format('the source cannot read it (%s): %s', sqlstate, sqlerrm));
      end if;
    end;
  end loop;
  return jsonb_build_object('table', tbl, 'rows', _all_rows, 'gone', _all_gone, 'refused', _refused)::text;
end
$mirror$;

-- A scope that is a slice: the rows after one key, up to another or to the row_limit-th, fewer when they would exceed
-- bytes_max. reply.upto is where it ended; null = at the end of what was asked.
create or replace function mirror.read_slice(asked jsonb, bytes_max integer, out scope text, out reply jsonb)
language plpgsql stable as $mirror$
declare
  _limit integer := (asked->>'rows')::integer;
  _slice record;
  _rows text;
  _more text := '';
begin
  loop
    begin
      select * into _slice from mirror.slice(asked->>'table', asked->>'trip', asked->>'after1', asked->>'after2',
                                             asked->>'upto1', asked->>'upto2', _limit, 'rows') as s;
      _rows := _slice.result;
      exit when octet_length(_rows) <= bytes_max or _limit = 1;
    exception
      when program_limit_exceeded then null;  -- far too large: half of it
      when data_exception or raise_exception then
        select * into _slice from mirror.slice(asked->>'table', asked->>'trip', asked->>'after1', asked->>'after2',
                                               asked->>'upto1', asked->>'upto2', _limit, 'keys') as s;
        select (d->'rows')::text, format(',"gone":%s,"refused":%s', d->'gone', d->'refused') into _rows, _more
        from (select mirror.read_keys(asked->>'table', array_agg(coalesce(k->>'trip_id', k->>'id')), array_agg(k->>'user_id'))::jsonb
              from jsonb_array_elements(_slice.result::jsonb) as k) as read(d);
        exit when octet_length(_rows) <= bytes_max or _limit = 1;
    end;
    _limit := greatest(1, _limit / 2);
  end loop;
  reply := jsonb_build_object('rows', _slice.n, 'upto1', _slice.last1, 'upto2', _slice.last2);
  scope := format('{"table":"%s","range":%s,"rows":%s%s}', asked->>'table', mirror.range(asked, reply), coalesce(_rows, '[]'), _more);
end
$mirror$;

-- The range that a slice covered.
create or replace function mirror.range(asked jsonb, reply jsonb) returns jsonb language sql immutable as $mirror$
  select jsonb_build_object('trip', asked->>'trip', 'after1', asked->>'after1', 'after2', asked->>'after2',
                            'upto1', coalesce(reply->>'upto1', asked->>'upto1'),
                            'upto2', coalesce(reply->>'upto2', asked->>'upto2'))
$mirror$;

-- The digest of a slice, for the target to check in the transaction that brings it to this snapshot. A row on which the
-- projection raises has no digest: then its slice counts as different, and is looked at row by row.
create or replace function mirror.read_digest(asked jsonb, out reply jsonb) language plpgsql stable as $mirror$
declare
  _slice record;
  _more jsonb := '{}';
begin
  begin
    select * into _slice from mirror.slice(asked->>'table', asked->>'trip', asked->>'after1', asked->>'after2',
                                           asked->>'upto1', asked->>'upto2', (asked->>'rows')::integer, 'digest') as s;
  exception when data_exception or raise_exception then
    select '0' as result, s.n, s.last1, s.last2 into _slice
    from mirror.slice(asked->>'table', asked->>'trip', asked->>'after1', asked->>'after2',
                      asked->>'upto1', asked->>'upto2', (asked->>'rows')::integer, 'keys') as s;
    _more := '{"unreadable": true}';
  end;
  reply := jsonb_build_object('rows', _slice.n, 'upto1', _slice.last1, 'upto2', _slice.last2);
  reply := reply || jsonb_build_object('check', _more || jsonb_build_object(
    'table', asked->>'table', 'range', mirror.range(asked, reply), 'n', _slice.n, 'digest', _slice.result));
end
$mirror$;

-- What the outbox says in the caller's snapshot, with the present rows of every key: the whole batch in one answer.
--   request  rows, bytes: bounds. skip: tables that cannot be read for now. seek: in a backlog, look for keys that are gone;
--            looked: up to this snapshot that was done. slice: one slice (table, trip, after, upto, rows) or some keys.
--            count: count the entries and measure the outbox too.
--   reply    snapshot, as_of; entries (taken), backlog (there are more), waiting (count), lag and ages (seconds) of the
--            oldest, wide (marks of a whole table or of a large trip, left in place), broken (tables, why), looked, slice
--            (what came of it, or its error), requests (of operators, open).
--   taken_*  what to forget once this batch is applied.
-- An error in one table's projection leaves the other tables working: revocations must not wait for a renamed column.
create or replace function mirror.look(request jsonb, out reply jsonb, out scopes text, out taken_at text, out taken_id text)
language plpgsql as $mirror$
declare
  _bytes integer := (request->>'bytes')::integer;
  _found record;
  _taken mirror.entry[];
  _read mirror.reading := row('', false, '{}', '{}')::mirror.reading;
  _slice jsonb;
begin
  select * into _found from mirror.take(request) as t;
  _taken := _found.taken;
  while cardinality(_taken) > 0 loop
    _read := mirror.read_entries(_taken, (request->>'rows')::integer, _bytes);
    exit when not _read.too_big or cardinality(_taken) = 1;
    _taken := _taken[1 : cardinality(_taken) / 2];
    _found.backlog := true;
  end loop;
  if _read.broken <> '{}' or cardinality(_read.wide_trips) > 0 then
    _taken := array(select e from unnest(_taken) as e
                    where not _read.broken ? e.tbl
                      and not (e.tbl = 'trip_memberships' and e.k2 is null and e.k1 = any (_read.wide_trips)));
    _found.wide := _found.wide || array(select jsonb_build_object('table', 'trip_memberships', 'trip', t)
                                        from unnest(_read.wide_trips) as t);
  end if;
  scopes := _read.scopes;
  if request ? 'slice' and not _read.broken ? (request->'slice'->>'table') then
    begin
      select concat_ws(',', nullif(_read.scopes, ''), s.scope), s.reply into scopes, _slice
      from mirror.read_request(request->'slice', _bytes) as s;
    exception when others then
      _slice := jsonb_build_object('error', format('%s (%s)', left(sqlerrm, 200), sqlstate));
    end;
  end if;
  reply := jsonb_build_object(
    'snapshot', pg_current_snapshot()::text, 'as_of', now(), 'entries', coalesce(cardinality(_taken), 0),
    'backlog', _found.backlog, 'wide', _found.wide, 'broken', _read.broken, 'looked', _found.looked, 'slice', _slice,
    'lag', greatest(0, extract(epoch from now() - _found.oldest)),
    'requests', (select jsonb_agg(to_jsonb(r)) from (select * from mirror.request where done_at is null order by id limit 5) as r));
  if cardinality(_taken) > 0 then
    select array_agg(e.place)::text, array_agg(e.id)::text into taken_at, taken_id from unnest(_taken) as e;
    select reply || jsonb_build_object('ages', jsonb_object_agg(a.tbl, a.age)) into reply
    from (select e.tbl, greatest(0, extract(epoch from now() - min(e.at))) as age
          from unnest(_taken) as e group by e.tbl) as a;
  end if;
  if (request->>'count')::boolean then
    reply := reply || jsonb_build_object(
      'waiting', (select count(*) from mirror.outbox),
      'outbox_bytes', mirror.outbox_bytes());
  end if;
end
$mirror$;

-- Which entries this batch takes, and what else there is. In a backlog, keys that are gone from the source come first: a
-- removed member must not wait behind a hundred thousand renames. Looking for those (and for wide marks) reads the whole
-- outbox, so the daemon asks for it ("seek") a few times a second, and not with every batch.
create or replace function mirror.take(request jsonb, out taken mirror.entry[], out wide jsonb[], out oldest timestamptz,
                                       out backlog boolean, out looked text)
language plpgsql as $mirror$
declare
  _limit integer := (request->>'rows')::integer;
  _seek boolean := coalesce((request->>'seek')::boolean, true);
  _skip text[] := '{}';
  _n bigint;
begin
  if request->'skip' <> '[]' then
    _skip := array(select jsonb_array_elements_text(request->'skip'));
  end if;
  select array_agg(row(e.ctid, e.id, e.tbl, e.k1, e.k2, e.at)::mirror.entry) filter (where e.k1 is not null), min(e.at),
         count(*), coalesce(array_agg(distinct jsonb_build_object('table', e.tbl, 'trip', null)) filter (where e.k1 is null), '{}')
  into taken, oldest, _n, wide
  from (select o.ctid, o.* from mirror.outbox as o where o.tbl <> all (_skip) limit _limit + 1) as e;
  backlog := _n > _limit;
  if backlog and (_seek or cardinality(wide) > 0) then
    -- The first entries may all be marks of whole tables: look past them.
    select array_agg(row(e.ctid, e.id, e.tbl, e.k1, e.k2, e.at)::mirror.entry), count(*) > _limit into taken, backlog
    from (select o.ctid, o.* from mirror.outbox as o where o.k1 is not null and o.tbl <> all (_skip) limit _limit + 1) as e;
    wide := array(select jsonb_build_object('table', t, 'trip', null) from unnest(array['users', 'trips', 'trip_memberships']) as t
                  where t <> all (_skip) and exists (select from mirror.outbox where tbl = t and k1 is null));
  end if;
  if backlog and _seek then
    select g.taken, g.looked into taken, looked
    from mirror.gone_first(taken[1 : _limit], _limit, _skip, (request->>'looked')::pg_snapshot) as g;
  elsif backlog then
    taken := taken[1 : _limit];
    looked := request->>'looked';
  end if;
end
$mirror$;

-- The entries of a backlog whose keys are gone; when there are none (any more), those that were found first. looked is null
-- while there are more than fit the batch.
create or replace function mirror.gone_first(first mirror.entry[], row_limit integer, skip text[], seen pg_snapshot,
                                             out taken mirror.entry[], out looked text)
language plpgsql as $mirror$
declare
  _some mirror.entry[];
  _table text;
begin
  foreach _table in array array['trip_memberships', 'trips', 'users'] loop
    continue when _table = any (skip);
    begin
      select array_agg(row(g.entry_at, g.entry_id, _table, g.k1, g.k2, now())::mirror.entry) into _some
      from mirror.gone(_table, seen, row_limit - coalesce(cardinality(taken), 0)) as g;
      taken := taken || _some;
    exception when others then
      raise log 'mirror: cannot look for revocations in % (%): %', _table, sqlstate, sqlerrm;  -- reading it will report it
    end;
    exit when cardinality(taken) >= row_limit;
  end loop;
  looked := case when coalesce(cardinality(taken), 0) < row_limit then pg_current_snapshot()::text end;
  taken := coalesce(taken, first);
end
$mirror$;

-- The scopes of these entries, table by table.
create or replace function mirror.read_entries(taken mirror.entry[], row_limit integer, bytes_max integer)
returns mirror.reading language plpgsql as $mirror$
declare
  _read mirror.reading := row('', false, '{}', '{}')::mirror.reading;
  _table text;
  _keys1 text[];
  _keys2 text[];
  _trips text[];
  _of record;
begin
  foreach _table in array array(select distinct e.tbl from unnest(taken) as e) loop
    begin
      select array_agg(k.k1), array_agg(k.k2) into _keys1, _keys2
      from (select distinct e.k1, e.k2 from unnest(taken) as e
            where e.tbl = _table and (e.k2 is not null or e.tbl <> 'trip_memberships')) as k;
      if _keys1 is not null then
        _read.scopes := concat_ws(',', nullif(_read.scopes, ''), mirror.read_keys(_table, _keys1, _keys2));
      end if;
      if _table = 'trip_memberships' then
        _trips := array(select distinct e.k1 from unnest(taken) as e where e.tbl = _table and e.k2 is null);
        if cardinality(_trips) > 0 then
          select * into _of from mirror.trip_memberships_of(_trips, row_limit) as o;
          _read.wide_trips := _of.wide;
          _read.scopes := concat_ws(',', nullif(_read.scopes, ''), _of.scope);
          _read.too_big := _of.n > 2 * row_limit;
        end if;
      end if;
    exception
      when program_limit_exceeded then
        _read.too_big := true;
        if cardinality(taken) = 1 then
          _read.broken := _read.broken || jsonb_build_object(_table, format('%s (%s)', left(sqlerrm, 200), sqlstate));
        end if;
      when others then
        _read.broken := _read.broken || jsonb_build_object(_table, format('%s (%s)', left(sqlerrm, 200), sqlstate));
    end;
  end loop;
  _read.too_big := _read.too_big or octet_length(_read.scopes) > bytes_max;
  return _read;
end
$mirror$;

-- What else was asked for: some keys, a user's memberships, the digest of a slice, or its rows; "dry" rows are only looked at.
create or replace function mirror.read_request(request jsonb, bytes_max integer, out scope text, out reply jsonb)
language plpgsql as $mirror$
begin
  case request->>'want'
    when 'keys' then
      scope := mirror.read_keys(request->>'table', array(select jsonb_array_elements_text(request->'keys1')),
                                array(select jsonb_array_elements_text(request->'keys2')));
      reply := '{}';
    when 'user' then
      scope := mirror.trip_memberships_of_user(request->>'user');
      reply := '{}';
    when 'digest' then
      reply := mirror.read_digest(request);
    else
      select s.scope, s.reply into scope, reply from mirror.read_slice(request, bytes_max) as s;
      if request->>'want' = 'dry' then
        scope := '{"dry":true,' || substr(scope, 2);
      end if;
  end case;
end
$mirror$;

-- One round trip: forget what the last batch applied, then look. Forgetting commits by itself, so that the snapshot of the
-- look sees it as done (a token of the application must not wait for a transaction of ours). With "sleep", and nothing
-- found, the lock of the doorbell is taken and the outbox looked at once more; see mirror.mark for why that is enough.
--   forget_wide  marks of whole tables or trips whose walk is complete: exactly those visible when it began.
create or replace procedure mirror.drain(request jsonb, forget_at text, forget_id text,
                                         inout reply jsonb, inout scopes text, inout taken_at text, inout taken_id text)
language plpgsql as $mirror$
declare
  _asleep boolean := false;
begin
  if (request->>'asleep')::boolean then
    perform pg_advisory_unlock(1835627122, 1);
  end if;
  -- By place AND id: VACUUM FULL may have put another entry in this place, a second reader may have forgotten this one.
  if forget_id is not null then
    delete from mirror.outbox as o using unnest(forget_at::tid[], forget_id::bigint[]) as f(place, id)
    where o.ctid = f.place and o.id = f.id;
  end if;
  if jsonb_array_length(request->'forget_wide') > 0 then
    delete from mirror.outbox as o
    using jsonb_to_recordset(request->'forget_wide') as f("table" text, trip text, snapshot text)
    where o.tbl = f."table" and o.k2 is null and o.k1 is not distinct from f.trip
      and pg_visible_in_snapshot(o.xid, f.snapshot::pg_snapshot);
  end if;
  loop
    commit;
    set transaction isolation level repeatable read, read only;
    select l.reply, l.scopes, l.taken_at, l.taken_id into reply, scopes, taken_at, taken_id
    from mirror.look(request) as l;
    -- What looked empty may have been rewritten (see there): look again, with a snapshot that sees the new rows.
    continue when (scopes <> '' or reply->'slice' <> 'null')
                  and (mirror.users_replaced() or mirror.trips_replaced() or mirror.trip_memberships_replaced());
    exit when _asleep or not (request->>'sleep')::boolean or reply->>'entries' <> '0' or reply->'wide' <> '[]'
              or reply->'requests' <> 'null';
    commit;
    _asleep := pg_try_advisory_lock(1835627122, 1);
    exit when not _asleep;
  end loop;
  reply := reply || jsonb_build_object('asleep', _asleep);
end
$mirror$;
