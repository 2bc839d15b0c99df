-- The source side, part 3: what the daemon calls: one round trip per batch. All of it runs with the daemon's own rights.
-- Functions are called by assignment where that is possible: a query that calls one sets up a tuplestore, and as many as are
-- nested here take so much memory that malloc gives it back to the system after each call, and gets it again, page by page.

-- What an earlier release made with other arguments, or another result.
drop function if exists mirror.take(jsonb), mirror.read_entries(jsonb, integer, boolean, boolean);

-- The functions of the three tables, behind one name each.
create or replace function mirror.keys(tbl text, keys1 text[], keys2 text[], out n integer, out rows text, out gone text)
language plpgsql stable as $mirror$
declare
  _read record;
begin
  case tbl
    when 'users' then _read := mirror.users_keys(keys1, keys2);
    when 'trips' then _read := mirror.trips_keys(keys1, keys2);
    when 'trip_memberships' then _read := mirror.trip_memberships_keys(keys1, keys2);
  end case;
  n := _read.n;
  rows := _read.rows;
  gone := _read.gone;
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

create or replace function mirror.digest(tbl text, after1 text, after2 text, row_limit integer,
                                         out result text, out n integer, out last1 text, out last2 text)
language plpgsql stable as $mirror$
begin
  case tbl
    when 'users' then select d.* into result, n, last1, last2 from mirror.users_digest(after1, after2, row_limit) as d;
    when 'trips' then select d.* into result, n, last1, last2 from mirror.trips_digest(after1, after2, row_limit) as d;
    when 'trip_memberships' then
      select d.* into result, n, last1, last2 from mirror.trip_memberships_digest(after1, after2, row_limit) as d;
  end case;
end
$mirror$;

create or replace function mirror.possible(tbl text, key1 text, key2 text) returns boolean language sql stable as $mirror$
  select case tbl when 'users' then mirror.users_possible(key1, key2)
                  when 'trips' then mirror.trips_possible(key1, key2)
                  else mirror.trip_memberships_possible(key1, key2) end
$mirror$;

-- Each key once.
create or replace function mirror.once(inout keys1 text[], inout keys2 text[]) language plpgsql immutable as $mirror$
begin
  select array_agg(d.k1), array_agg(d.k2) into keys1, keys2
  from (select distinct unnest(keys1) as k1, unnest(keys2) as k2) as d;
end
$mirror$;

-- A value that is longer than what is mirrored: its row is refused like any other that cannot be read, and the value is
-- never built.
create or replace function mirror.too_large(what text, bytes integer, bytes_max integer) returns text
language plpgsql stable as $mirror$
begin
  raise exception '% has % bytes, at most % are mirrored', what, bytes, bytes_max
    using errcode = 'string_data_right_truncation';
end
$mirror$;

-- Which of these keys can be read, and which are refused, with the reason: found by halving.
create or replace function mirror.sort_out(tbl text, keys1 text[], keys2 text[],
                                           out good1 text[], out good2 text[], out refused jsonb)
language plpgsql stable as $mirror$
declare
  _half integer := cardinality(keys1) / 2;
  _part record;
begin
  good1 := '{}'; good2 := '{}'; refused := '[]';
  begin
    perform mirror.keys(tbl, keys1, keys2);
    good1 := keys1;
    good2 := keys2;
    return;
  exception when data_exception or raise_exception then
    if _half = 0 then
      if mirror.possible(tbl, keys1[1], keys2[1]) then
        refused := jsonb_build_array(jsonb_build_object(
          'k1', keys1[1], 'k2', keys2[1],
          'reason', format('the source cannot read it (%s): %s', sqlstate, left(sqlerrm, 300))));
      end if;
      return;
    end if;
  end;
  for _part in
    select * from mirror.sort_out(tbl, keys1[:_half], keys2[:_half]) union all
    select * from mirror.sort_out(tbl, keys1[_half + 1:], keys2[_half + 1:])
  loop
    good1 := good1 || _part.good1;
    good2 := good2 || _part.good2;
    refused := refused || _part.refused;
  end loop;
end
$mirror$;

-- A scope of exact keys, each of which may be named more than once. When a projection raises on some row, only that row
-- is refused; an error that is not about a row goes to the caller.
create or replace function mirror.read_keys(tbl text, keys1 text[], keys2 text[], out scope text, out n integer)
language plpgsql stable as $mirror$
declare
  _sorted record;
  _read record;
begin
  begin
    _read := mirror.keys(tbl, keys1, keys2);
    n := _read.n;
    scope := concat('{"table":"', tbl, '","rows":', _read.rows, ',"gone":', _read.gone, '}');
    return;
  exception when data_exception or raise_exception then
    null;
  end;
  _read := mirror.once(keys1, keys2);
  _sorted := mirror.sort_out(tbl, _read.keys1, _read.keys2);
  n := cardinality(_read.keys1);
  _read := mirror.keys(tbl, _sorted.good1, _sorted.good2);
  scope := concat('{"table":"', tbl, '","rows":', _read.rows, ',"gone":', _read.gone,
                  ',"refused":', _sorted.refused, '}');
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
        from (select (mirror.read_keys(asked->>'table', coalesce(k->>'trip_id', k->>'id')::text[], (k->>'user_id')::text[])).scope::jsonb
              from (select _slice.result::jsonb) as keys(k)) as read(d);
        exit when octet_length(_rows) <= bytes_max or _limit = 1;
    end;
    _limit := greatest(1, _limit / 2);
  end loop;
  reply := jsonb_build_object('rows', _slice.n, 'upto1', _slice.last1, 'upto2', _slice.last2);
  scope := format('{"table":"%s","range":%s,"rows":%s%s}', asked->>'table', mirror.range(asked, reply), coalesce(_rows, '{}'), _more);
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
    select * into _slice
    from mirror.digest(asked->>'table', asked->>'after1', asked->>'after2', (asked->>'rows')::integer) as d;
  exception when data_exception or raise_exception then
    select '0' as result, s.n, s.last1, s.last2 into _slice
    from mirror.slice(asked->>'table', null, asked->>'after1', asked->>'after2', null, null, (asked->>'rows')::integer, 'keys') as s;
    _more := '{"unreadable": true}';
  end;
  reply := jsonb_build_object('rows', _slice.n, 'upto1', _slice.last1, 'upto2', _slice.last2);
  reply := reply || jsonb_build_object('check', _more || jsonb_build_object(
    'table', asked->>'table', 'range', mirror.range(asked, reply), 'n', _slice.n, 'digest', _slice.result));
end
$mirror$;

-- What the outbox says in the caller's snapshot, with the present rows of every key: the whole batch in one answer.
--   request  rows, entries, bytes: bounds. in_hand: ids of entries that were read before and are being applied just now. skip:
--            tables that cannot be read for now. backlog: there was one at the last look; seek: then look anew for what comes
--            first; seen: what that look said, as it was in the last reply.
--            slice: one slice (table, trip, after, upto, rows) or some keys. count: count the entries and measure the outbox too.
--   reply    snapshot, as_of; entries (taken), keys (of them), backlog (there are more), gone_left (of what comes first, too),
--            seen (for the next look), dropped (of those taken, entries about no possible row), waiting (count), lag and ages (seconds) of the
--            oldest, wide (marks of a whole table or of a large trip, left in place), broken (tables, why), slice (what
--            came of it, or its error), requests (of operators, open).
--   taken_*  what to forget once this batch is applied.
create or replace function mirror.look(request jsonb, out reply jsonb, out scopes text, out taken_at text, out taken_id text)
language plpgsql as $mirror$
declare
  _taken record;
  _slice jsonb;
begin
  _taken := mirror.take(request);
  scopes := _taken.scopes;
  if request ? 'slice' and not _taken.broken ? (request->'slice'->>'table') then
    begin
      select concat_ws(',', nullif(_taken.scopes, ''), s.scope), s.reply into scopes, _slice
      from mirror.read_request(request->'slice', (request->>'bytes')::integer) as s;
    exception when query_canceled or others then  -- statement_timeout: live changes go on, and the slice is tried later
      _slice := jsonb_build_object('error', mirror.because(request->'slice'->>'table', format('%s (%s)', left(sqlerrm, 200), sqlstate)));
    end;
  end if;
  if _taken.n > 0 then
    taken_at := _taken.places;
    taken_id := _taken.ids;
  end if;
  reply := jsonb_build_object(
    'snapshot', pg_current_snapshot()::text, 'as_of', now(), 'entries', _taken.n, 'keys', _taken.keys,
    'backlog', _taken.more, 'gone_left', _taken.gone_left, 'seen', _taken.seen, 'wide', _taken.wide, 'broken', _taken.broken,
    'slice', _slice, 'ages', _taken.ages,
    'lag', greatest(0, extract(epoch from now() - _taken.oldest)),
    'dropped', _taken.dropped,
    'requests', (select jsonb_agg(to_jsonb(r)) from (select * from mirror.request where done_at is null order by id limit 5) as r));
  if (request->>'count')::boolean then
    reply := reply || jsonb_build_object(
      'waiting', (select count(*) from mirror.outbox),
      'outbox_bytes', mirror.outbox_bytes());
  end if;
end
$mirror$;

-- A batch: the first entries of the outbox; in a backlog those first that may take something from a person (mirror.outbox.gone:
-- what is lost for certain, then what may be), for a removed member must not wait behind a hundred thousand renames.
-- Looking for them, and past marks of whole tables, reads the whole outbox, so the daemon asks for it ("seek") a few times a
-- second, and not with every batch. In between nothing is read that was committed after that look: so nothing that gives
-- overtakes what was taken before. When all of it is read, the next look is due at once. However many come first, they are
-- worked off before the rest: a daemon that could not do that would never catch up with the rest either.
-- What is too big is read again with half as many.
create or replace function mirror.take(request jsonb, out n integer, out keys integer, out more boolean, out scopes text,
                                       out places tid[], out ids int8multirange, out wide jsonb[], out broken jsonb,
                                       out oldest timestamptz, out ages jsonb, out gone_left boolean,
                                       out dropped integer, out seen jsonb)
language plpgsql as $mirror$
declare
  _past_marks boolean := coalesce((request->>'backlog')::boolean, false);
  _entries integer := coalesce(request->>'entries', request->>'rows')::integer;
  _tables text[] := array['users', 'trips', 'trip_memberships'];
  _first boolean[];  -- what comes before the rest, and is left: true, false, or both in this order; null = not looked for yet
  _certain boolean;
  _perhaps boolean;
  _since pg_snapshot;  -- when that was looked for; null = in this snapshot
  _marked text[];
  _read record;
begin
  if _past_marks and not coalesce((request->>'seek')::boolean, true) and coalesce(request->'seen'->'skip' = request->'skip', true) then
    _first := array(select jsonb_array_elements_text(request->'seen'->'first'));
    _since := request->'seen'->>'snapshot';
  end if;
  loop
    if _past_marks and _first is null then
      select coalesce(bool_or(f.gone), false), coalesce(array_agg(f.tbl) filter (where f.whole), '{}') into _certain, _marked
      from (select o.tbl, o.k1 is null as whole, o.gone from mirror.outbox as o
            where (o.k1 is null and o.k2 is null or o.k1 is not null and o.gone)
              and o.tbl = any (_tables) and not request->'skip' ? o.tbl group by 1, 2, 3) as f;
      _perhaps := exists (select from mirror.outbox as o where not o.gone and o.k1 is not null
                                                           and o.tbl = any (_tables) and not request->'skip' ? o.tbl);
      _first := array_remove(array[case when _certain then true end, case when _perhaps then false end], null);
      _since := null;
    end if;
    _read := mirror.read_entries(request, _entries, _past_marks, _first[1], _since);
    if _first <> '{}' and _read.n = 0 and _read.broken = '{}' and not _read.too_big then
      _first := _first[2:];  -- all of that is in hand, or left to a walk
    elsif _read.more and not _past_marks then
      _past_marks := true;
    elsif _read.too_big and _entries > 1 then
      _entries := greatest(1, least(_entries, nullif(_read.n, 0)) / 2);
    elsif _since is not null and _first = '{}' and not _read.more then
      _first := null;
    else
      exit;
    end if;
  end loop;
  if _past_marks and _marked is null and not _read.more then
    _marked := array(select distinct o.tbl from mirror.outbox as o
                     where o.k1 is null and o.k2 is null and o.tbl = any (_tables) and not request->'skip' ? o.tbl);
  end if;
  n := _read.n;
  keys := _read.keys;
  more := _read.more or coalesce(_first <> '{}', false);
  _first := case when _read.more then _first else _first[2:] end;
  gone_left := coalesce(_first <> '{}', false);
  seen := jsonb_build_object('first', coalesce(_first, '{}'), 'snapshot', coalesce(_since, pg_current_snapshot())::text,
                             'skip', request->'skip');
  scopes := _read.scopes;
  places := _read.places;
  ids := _read.ids;
  wide := array(select jsonb_build_object('table', t, 'trip', null) from unnest(coalesce(_marked, _read.marked)) as t)
       || array(select jsonb_build_object('table', 'trip_memberships', 'trip', t) from unnest(_read.wide_trips) as t);
  broken := _read.broken;
  oldest := _read.oldest;
  ages := _read.ages;
  dropped := _read.dropped;
end
$mirror$;

-- Some entries with the rows of their keys, table by table: an error in one table's projection leaves the others working,
-- since revocations must not wait for a renamed column. The ids say which entries are to be forgotten, the places where to
-- look for them. first: only what is lost for certain (true), and what may be as well (false); since: and this snapshot shows.
-- An entry that cannot be about any row (no trigger of ours has written it) is dropped, not waited for.
create or replace function mirror.read_entries(request jsonb, row_limit integer, past_marks boolean, first boolean,
                                               since pg_snapshot,
                                               out n integer, out keys integer, out more boolean, out too_big boolean,
                                               out scopes text, out places tid[], out ids int8multirange, out marked text[],
                                               out wide_trips text[], out broken jsonb, out oldest timestamptz,
                                               out ages jsonb, out dropped integer)
language plpgsql as $mirror$
declare
  _tables text[] := array['users', 'trips', 'trip_memberships'];
  _skip text[] := array(select jsonb_array_elements_text(request->'skip'));
  _in_hand int8multirange := request->>'in_hand';
  _rows integer := (request->>'rows')::integer;
  _found bigint := 0;
  _part record;
  _read record;
begin
  n := 0; keys := 0; more := false; too_big := false; scopes := ''; dropped := 0;
  ids := '{}'; marked := '{}'; wide_trips := '{}'; broken := '{}'; ages := '{}';
  for _part in
    select t.tbl, t.k1 is null as whole, count(*) as n, min(t.at) as oldest, min(t.place) as first, max(t.place) as last,
           range_agg(int8range(t.id, t.id, '[]')) as ids, array_agg(t.k1) as keys1, array_agg(t.k2) as keys2
    from (select o.ctid as place, o.id, o.at, r.tbl, case when r.tbl is not null then o.k1 end as k1,
                 case when r.tbl is not null then o.k2 end as k2
          from mirror.outbox as o, lateral (
            select case when o.tbl = any (_tables) and coalesce(octet_length(o.k1) <= {{key_bytes}}, o.k2 is null)
                             and octet_length(o.k2) > {{key_bytes}} is not true then o.tbl end as tbl) as r
          where o.tbl <> all (_skip) and (first is null or o.gone or o.gone = first)
            and (since is null or pg_visible_in_snapshot(o.xid, since))
            and (not past_marks or o.k1 is not null or o.k2 is not null or o.tbl <> all (_tables))
            and (_in_hand is null or not o.id <@ _in_hand)
          limit row_limit) as t
    group by 1, 2
  loop
    _found := _found + _part.n;
    if _part.tbl is null then
      dropped := _part.n;
      n := n + _part.n;
      places := array[least(places[1], _part.first), greatest(places[2], _part.last)];
      ids := ids + _part.ids;
      continue;
    end if;
    oldest := least(oldest, _part.oldest);
    if _part.whole then
      marked := marked || _part.tbl;
      continue;
    end if;
    begin
      _read := mirror.read_part(_part.tbl, _part.keys1, _part.keys2, _rows);
    exception
      when program_limit_exceeded then
        too_big := true;
        if row_limit = 1 then
          broken := broken || jsonb_build_object(_part.tbl, format('%s (%s)', left(sqlerrm, 200), sqlstate));
        end if;
        continue;
      when others then
        broken := broken || jsonb_build_object(_part.tbl, mirror.because(_part.tbl, format('%s (%s)', left(sqlerrm, 200), sqlstate)));
        continue;
    end;
    if cardinality(_read.wide_trips) > 0 then
      wide_trips := _read.wide_trips;
      select _part.n - count(*), _part.ids - range_agg(int8range(o.id, o.id, '[]')) into _part.n, _part.ids
      from mirror.outbox as o where o.tbl = _part.tbl and o.k2 is null and o.k1 = any (wide_trips) and o.id <@ _part.ids;
    end if;
    n := n + _part.n;
    keys := keys + _read.n;
    too_big := too_big or _read.n > 2 * _rows;
    scopes := concat_ws(',', nullif(scopes, ''), _read.scopes);
    places := array[least(places[1], _part.first), greatest(places[2], _part.last)];
    ids := ids + coalesce(_part.ids, '{}');
    ages := ages || jsonb_build_object(_part.tbl, greatest(0, extract(epoch from now() - _part.oldest)));
  end loop;
  more := _found = row_limit;  -- perhaps: the next look will know
  too_big := too_big or octet_length(scopes) > (request->>'bytes')::integer;
end
$mirror$;

-- The scopes of one table's dirty keys; a membership's without a user is all memberships of its trip.
create or replace function mirror.read_part(tbl text, keys1 text[], keys2 text[], row_limit integer,
                                            out n integer, out scopes text, out wide_trips text[])
language plpgsql stable as $mirror$
declare
  _trips text[];
  _read record;
begin
  if tbl = 'trip_memberships' and array_position(keys2, null) > 0 then
    select array_agg(distinct k.k1) filter (where k.k2 is null), array_agg(k.k1) filter (where k.k2 is not null),
           array_agg(k.k2) filter (where k.k2 is not null)
    into _trips, keys1, keys2 from unnest(keys1, keys2) as k(k1, k2);
  end if;
  -- The rows' own query sorts the keys, which is good for looking up many and dear for few that come again and again.
  if cardinality(keys1) > 1000 then
    if (select count(*) < 900 from (select distinct unnest(keys1[:1000]), unnest(keys2[:1000])) as d) then
      _read := mirror.once(keys1, keys2);
      keys1 := _read.keys1;
      keys2 := _read.keys2;
    end if;
  end if;
  n := 0;
  if keys1 is not null then
    _read := mirror.read_keys(tbl, keys1, keys2);
    scopes := _read.scope;
    n := _read.n;
  end if;
  if _trips is not null then
    _read := mirror.trip_memberships_of(_trips, row_limit);
    n := n + _read.n;
    scopes := concat_ws(',', scopes, _read.scope);
    wide_trips := _read.wide;
  end if;
end
$mirror$;

-- Forgets what was read and applied: by id, so that nothing else goes when VACUUM FULL has put another entry in such a place,
-- or a second reader has forgotten some of them.
create or replace function mirror.forget(places tid[], ids int8multirange) returns void
language plpgsql set enable_seqscan = off as $mirror$
begin
  delete from mirror.outbox as o where o.ctid >= places[1] and o.ctid <= places[2] and o.id <@ ids;
end
$mirror$;

-- What else was asked for: some keys, a user's memberships, the digest of a slice, or its rows; "dry" rows are only looked at.
create or replace function mirror.read_request(request jsonb, bytes_max integer, out scope text, out reply jsonb)
language plpgsql as $mirror$
begin
  case request->>'want'
    when 'keys' then
      select k.scope into scope from mirror.read_keys(request->>'table', array(select jsonb_array_elements_text(request->'keys1')),
                                                      array(select jsonb_array_elements_text(request->'keys2'))) as k;
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

-- Is a target that equals this snapshot behind what was forgotten for its sake?
create or replace function mirror.is_behind(snapshot text) returns boolean language sql stable as $mirror$
  select coalesce(pg_snapshot_xmax(is_behind.snapshot::pg_snapshot) < pg_snapshot_xmax(r.snapshot::pg_snapshot)
                  or pg_snapshot_xmin(is_behind.snapshot::pg_snapshot) < pg_snapshot_xmin(r.snapshot::pg_snapshot), false)
  from mirror.reached as r
$mirror$;

-- One round trip: forget what the last batch applied, then look. Forgetting commits by itself, so that the snapshot of the
-- look sees it as done (a token of the application must not wait for a transaction of ours). With "sleep", and nothing
-- found, the lock of the doorbell is taken and the outbox looked at once more; see mirror.rings for why that is enough.
--   lead         who asks has led for a while, and its lease is to be renewed (mirror.lead): {holder, seconds, name}
--   reached      the target's position, now and then: see mirror.reached
--   left         marks that the daemon knows and leaves in place for now: with nothing else found, it sleeps
--   forget_wide  marks of whole tables or trips whose walk is complete: exactly those visible when it began.
create or replace procedure mirror.drain(request jsonb, forget_at text[], forget_id text[],
                                         inout reply jsonb, inout scopes text, inout taken_at text, inout taken_id text)
language plpgsql as $mirror$
declare
  _asleep boolean := false;
  _seen record;
begin
  if (request->>'asleep')::boolean then
    perform pg_advisory_unlock(1835627122, 1);
  end if;
  if request ? 'lead' and not mirror.lead((request->'lead'->>'holder')::uuid, (request->'lead'->>'seconds')::float8,
                                          request->'lead'->>'name', pg_backend_pid()) then
    raise exception 'superseded: another daemon has the lead' using errcode = 'PT409';
  end if;
  for i in 1 .. coalesce(cardinality(forget_id), 0) loop
    perform mirror.forget(forget_at[i]::tid[], forget_id[i]::int8multirange);
  end loop;
  if request->>'reached' is not null then
    update mirror.reached set snapshot = request->>'reached';
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
    _seen := mirror.look(request);
    reply := _seen.reply;
    scopes := _seen.scopes;
    taken_at := _seen.taken_at;
    taken_id := _seen.taken_id;
    -- What looked empty may have been rewritten (see there): look again, with a snapshot that sees the new rows.
    continue when (scopes <> '' or reply->'slice' <> 'null')
                  and (mirror.users_replaced() or mirror.trips_replaced() or mirror.trip_memberships_replaced());
    exit when _asleep or not (request->>'sleep')::boolean or reply->>'entries' <> '0'
              or not reply->'wide' <@ coalesce(request->'left', '[]')
              or reply->'requests' <> 'null';
    commit;
    _asleep := pg_try_advisory_lock(1835627122, 1);
    exit when not _asleep;
  end loop;
  reply := reply || jsonb_build_object('asleep', _asleep);
end
$mirror$;
