-- The target side, part 5: what the daemon calls, through PostgREST or a direct connection alike. Errors it can act on
-- carry SQLSTATE PTxyz, which PostgREST turns into HTTP status xyz (40001 it would retry without end; after any reply
-- of 503 it reads its schema cache anew). It makes the message the reason of the status line: so a message is plain
-- ASCII without data, and the rest is the detail.

-- Reasons not to write here at all. (Of a partitioned table the constraint counts once, not once for each partition.)
create or replace function mirror.obstacles() returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  select format('the foreign key %s of %s would delete its rows together with mirrored %s; replace ON DELETE CASCADE, or '
                'run mirror install target with this in mirror.toml, under [target]: allow_cascade = %s',
                c.conname, c.conrelid::regclass, c.confrelid::regclass, to_jsonb(s.allow_cascade || c.conrelid::regclass::text))
  from pg_catalog.pg_constraint as c, mirror.state as s
  where c.contype = 'f' and c.confdeltype = 'c' and c.conparentid = 0
    and c.confrelid in ('public.users'::regclass, 'public.trips'::regclass, 'public.trip_memberships'::regclass)
    and c.conrelid not in ('public.users'::regclass, 'public.trips'::regclass, 'public.trip_memberships'::regclass)
    and not c.conrelid::regclass::text = any (s.allow_cascade)
  order by c.conrelid::regclass::text collate "C", c.conname
$mirror$;

-- What the mirror has said it did is forgotten in the source, and an epoch is given once: neither may be lost in a crash,
-- whatever the database or the role that PostgREST logs in as has for a default. For this transaction: a setting of the
-- function would end with the function, before the commit that it is about.
create or replace function mirror.make_durable() returns void
language sql set search_path = pg_catalog, pg_temp as $mirror$
  select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') in ('off', 'local')
$mirror$;

-- The epoch after this one. When the state is not to be believed, one that was certainly never handed out: they count
-- from 1, or from an earlier such moment. (An IF: in a CASE the planner of PostgreSQL 18 adds before it asks.)
create or replace function mirror.next_epoch(s mirror.state) returns bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp as $mirror$
begin
  if mirror.is_sound(s) then
    return s.epoch + 1;
  end if;
  return (extract(epoch from clock_timestamp()) * 1000)::bigint;
end
$mirror$;

-- Is this source the one that is mirrored, and not an older copy of it? Its life is later after a crash or a fail-over, and
-- then it may have lost what a crash loses: what it wrote after the last renewal of the lead that it remembers. (The daemon
-- says how long that can be: crash_loses_s.) A restored copy has lost more, or is in an earlier life, or in one that
-- has the same number and another name; or it is in the same life, and behind.
create or replace function mirror.refuse_source(s mirror.state, claimed jsonb, life text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $mirror$
declare
  _later bigint := split_part(life, '.', 1)::bigint - coalesce(split_part(s.life, '.', 1)::bigint, 0);
  _lost interval := s.as_of - (claimed->'life'->>'remembered')::timestamptz;
  _bound interval := make_interval(secs => coalesce((claimed->>'crash_loses_s')::float8, 60));
  _may_differ text[] := array['database', 'snapshot', 'life', 'crash_loses_s'];
  _detail text;
begin
  -- A database may be renamed, and the mirror in it installed anew where the server says which one it is; everything
  -- else says that it is another one.
  if coalesce(claimed->>'system', claimed->>'timeline') is not null then
    _may_differ := _may_differ || text 'install';
  end if;
  if s.source is not null and s.source - _may_differ is distinct from claimed - _may_differ then
    raise exception 'the target mirrors another source' using errcode = 'PT412',
      detail = format('it knows %s, this is %s', s.source, claimed),
      hint = 'Check MIRROR_SOURCE_URL and MIRROR_TARGET_URL; if it is meant, run `mirror adopt`.';
  end if;
  if s.source->>'install' <> claimed->>'install' then
    _later := null;  -- it counts its lives anew
  end if;
  if _later > 0 and _lost > _bound then
    _detail := format('it has lost %s before its life %s', _lost, life);
  elsif _later < 0 or _later = 0 and s.life <> life then
    _detail := format('it lives its life %s, the target knows %s', life, s.life);
  -- Time does not go backwards: a source restored to yesterday knows fewer transactions than its mirror.
  elsif coalesce(_later, 0) = 0 and (_later is null or s.position_life = life)
        and pg_snapshot_xmax((claimed->>'snapshot')::pg_snapshot) < pg_snapshot_xmax(s.snapshot::pg_snapshot) then
    _detail := format('its snapshot is %s, the target equals %s', claimed->>'snapshot', s.snapshot);
  end if;
  if _detail is not null then
    raise exception 'the source went back in time' using errcode = 'PT412', detail = _detail,
      hint = 'If it was restored on purpose, run `mirror adopt`.';
  end if;
end
$mirror$;

-- The next epoch. From here on every older daemon is refused. In a new life of the source the rows stay, and nothing is
-- claimed before they are compared: the reply says so (compared).
create or replace function public.mirror_claim(source jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $mirror$
#variable_conflict use_column
declare
  _state mirror.state;
  _reason text;
  _sound boolean;
  _rendered text;
  _epoch bigint;
  _life text := (mirror_claim.source->'life'->>'number') || '.' || (mirror_claim.source->'life'->>'name');
begin
  if jsonb_typeof(mirror_claim.source) is distinct from 'object' then
    raise exception 'the source does not say who it is' using errcode = '22023';
  end if;
  perform mirror.make_durable();
  select * into _state from mirror.state for update;
  _sound := found and mirror.is_sound(_state);
  _epoch := mirror.next_epoch(_state);
  select string_agg(o, '; ') into _reason from mirror.obstacles() as o;
  if _reason is not null then
    raise exception 'a foreign key would take rows of others along' using errcode = 'PT428', detail = _reason;
  end if;
  if _sound then
    perform mirror.refuse_source(_state, mirror_claim.source, _life);
  end if;
  -- Installed anew: what was written in between no trigger saw. All is compared, and nothing claimed before.
  if not _sound or _state.source->>'install' <> mirror_claim.source->>'install' then
    _rendered := case when _sound then _state.rendered else '' end;
    _state := mirror.blank();
    _state.rendered := _rendered;
  end if;
  _state.epoch := _epoch;
  _state.batch := 0;
  _state.source := mirror_claim.source - 'snapshot' - 'life' - 'crash_loses_s';
  if _state.life is distinct from _life then
    _state.life := _life;
    _state.walks := '[]';
    _state.proof := null;
  end if;
  perform mirror.keep(_state);
  return jsonb_build_object('epoch', _state.epoch, 'version', _state.version, 'types', _state.types, 'clock', clock_timestamp(),
    'snapshot', _state.snapshot, 'primed', _state.primed_at is not null,
    'life', _life, 'compared', _state.position_life is not distinct from _life, 'tampered', not _sound,
    'walks', _state.walks, 'proof', _state.proof, 'doubts', _state.doubts, 'channels', mirror.channels(), 'told', {{told}}::jsonb,
    'empty', array_remove(array[case when not exists (select from public.users) then 'users' end,
                                case when not exists (select from public.trips) then 'trips' end,
                                case when not exists (select from public.trip_memberships) then 'trip_memberships' end], null));
end
$mirror$;

-- The one write path: makes the target equal to the source within the scopes of a batch, in one transaction.
--   batch  {epoch, batch, scopes: [...], position: {snapshot, as_of, fresh_at, life} or null}; check: the digest of a slice at
--          the same snapshot; walks: how far first loads are; proof, braked: what a comparison found, to be kept; doubts:
--          all that the daemon has, [{kind, about, reason, cure, since}], in place of those before; explain: some scopes are dry;
--          due: how many parked keys of each table are to be named for another try
--   scope  {table, rows (a list for each column), and what else is in the scope: gone (keys), trips (whole trips), range (trip, after, upto)};
--          refused: keys that the source could not read, with the reason; dry: change nothing, say what differs
-- The position is set when the source says that with this batch everything up to its snapshot is applied.
-- statement_timeout: PostgREST reads it here and sets it before it calls; so it is this one, whatever the roles have. In a
-- direct session the clock of the statement runs already, by the session's own setting.
-- lock_timeout: of the state. Once that is ours, a second: for so long the rows of the other tables wait, now and then,
-- while one is locked by others; it is named, and the daemon leaves it out for a moment.
create or replace function public.mirror_apply(batch jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s'
set statement_timeout = '8s' set jit = off as $mirror$
#variable_conflict use_variable
declare
  _state mirror.state;
  _counts jsonb := '{}';
  _scopes jsonb := case when batch ? 'explain' then jsonb_path_query_array(batch, '$.scopes[*] ? (!exists(@.dry))')
                        else batch->'scopes' end;
  _tables text[] := array(select s->>'table' from jsonb_array_elements(_scopes) as s);
  _table text;
  _i integer;
  _scope jsonb;
  _keys jsonb;
  _parked boolean;
begin
  perform mirror.make_durable();
  _state := mirror.check_fence((batch->>'epoch')::bigint, (batch->>'batch')::bigint);
  perform set_config('lock_timeout', '1s', true);
  if not _tables <@ array['users', 'trips', 'trip_memberships'] then
    raise exception 'a scope names a table that is not mirrored' using errcode = '22023';
  end if;
  -- Nothing is forgotten in the source for a batch that is about no rows, so it need not wait for the disk.
  if _scopes = '[]' and not batch ?| array['walks', 'proof', 'braked', 'doubts'] then
    perform set_config('synchronous_commit', 'off', true);
  end if;
  set constraints all immediate;
  _parked := mirror.reconsider(_scopes);
  -- Children go before parents and come after them, for the sake of foreign keys of adopted tables.
  foreach _table in array array['trip_memberships', 'trips', 'users'] loop
    foreach _i in array array_positions(_tables, _table) loop
      _scope := _scopes->(_i - 1);
      -- What it names as gone, or what is here in its range and not among its rows.
      _keys := case when _scope ?| array['range', 'trips', 'user'] then mirror.surplus(_scope) else coalesce(_scope->'gone', '[]') end;
      if jsonb_array_length(_keys) > 0 then
        _counts := mirror.add(_counts, _table, 'delete', mirror.attempt('remove', _table, _keys));
      end if;
    end loop;
  end loop;
  foreach _table in array array['users', 'trips', 'trip_memberships'] loop
    foreach _i in array array_positions(_tables, _table) loop
      _scope := _scopes->(_i - 1);
      if _scope ? 'refused' then
        perform mirror.park(_table, r, r->>'reason') from mirror.refused(_scope) as r;
      end if;
      if coalesce(_scope->'rows'->>'trip_id', _scope->'rows'->>'id', '{}') <> '{}' then
        _counts := mirror.add(_counts, _table, 'upsert', mirror.attempt(
          case when _scope ? 'range' and mirror.is_vacant(_scope) then 'add' else 'put' end, _table, _scope->'rows'));
      end if;
    end loop;
  end loop;
  if _parked then
    _parked := mirror.settle();
  end if;
  perform mirror.advance(_state, batch);
  _table := coalesce(batch->'check'->>'table', jsonb_path_query_first(batch, '$.scopes[*] ? (exists(@.dry))')->>'table');
  return jsonb_build_object('clock', clock_timestamp(), 'counts', _counts,
    'check', case when batch ? 'check' then mirror.check_digest(batch->'check') end,
    'explained', case when batch ? 'explain' then
        (select jsonb_agg(mirror.explain(s, '[]')) from jsonb_array_elements(batch->'scopes') as s where s ? 'dry') end)
    || mirror.tell_parked(batch->'due', _parked);
exception when lock_not_available then
  if _table is null then
    raise;
  end if;
  raise exception 'a table is locked in the target' using errcode = 'PT423', detail = _table, hint = mirror.lockers(_table);
end
$mirror$;

-- Who has locked rows of a table, or all of it, for people: sessions that hold more than a reader's lock on it. It may have
-- ended since, or be about a table that refers to this one.
create or replace function mirror.lockers(tbl text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  select coalesce('locked by ' || string_agg(format('pid %s (role %s, %s)', l.pid, a.usename,
                                              coalesce(nullif(a.application_name, ''), a.backend_type)), ', '),
                  'by whom is not known')
  from (select distinct on (h.pid) h.pid from pg_locks as h
        where h.relation = format('public.%I', lockers.tbl)::regclass and h.granted and h.mode <> 'AccessShareLock'
          and h.database = (select d.oid from pg_database as d where d.datname = current_database())
          and h.pid <> pg_backend_pid() order by h.pid limit 3) as l
  left join pg_stat_activity as a on a.pid = l.pid
$mirror$;

-- Locks the state: two writers come one after the other, and the second one sees what the first one has left. A state that
-- others have changed is no fence: the leader has to claim it anew.
create or replace function mirror.check_fence(epoch bigint, batch bigint) returns mirror.state
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
declare _state mirror.state;
begin
  select * into _state from mirror.state for update;
  if not (found and mirror.is_sound(_state)) then
    raise exception 'superseded' using errcode = 'PT409', detail = 'mirror.state was changed by others than the mirror';
  elsif (check_fence.epoch = _state.epoch and check_fence.batch > _state.batch) is not true then
    raise exception 'superseded' using errcode = 'PT409',
      detail = format('epoch %s batch %s is not newer than epoch %s batch %s',
                      check_fence.epoch, check_fence.batch, _state.epoch, _state.batch);
  end if;
  return _state;
end
$mirror$;

-- The batch is done; with a position, the target equals the source at that snapshot. Within an epoch a snapshot never
-- goes back: that would be a reading that was overtaken. In a new epoch it may (the source was restored, and a person has
-- decided that it is to be believed). Times go back only together with the snapshot: what was known of an older snapshot
-- holds for a newer one. Nothing is fresher than now. A position is of the life that was claimed with; a daemon of an
-- earlier release does not say which one that is, and then it is none.
create or replace function mirror.advance(s mirror.state, batch jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
#variable_conflict use_variable
declare
  _reached jsonb := nullif(batch->'position', 'null');
  _new pg_snapshot := _reached->>'snapshot';
  _old pg_snapshot := s.snapshot;
  _back boolean;
begin
  s.batch := (batch->>'batch')::bigint;
  s.applied_at := clock_timestamp();
  s.walks := coalesce(batch->'walks', s.walks);
  s.proof := coalesce(batch->'proof', s.proof);
  s.braked := coalesce(batch->'braked', s.braked);
  s.doubts := coalesce(batch->'doubts', s.doubts);
  if _reached ? 'life' and _reached->>'life' is distinct from s.life then
    raise exception 'superseded' using errcode = 'PT409',
      detail = format('the position is of life %s, the target was claimed with %s', _reached->>'life', s.life);
  end if;
  if _reached is not null and (_reached ? 'life' or s.life is null) then
    _back := s.position_life is distinct from s.life
          or coalesce(pg_snapshot_xmax(_new) < pg_snapshot_xmax(_old) or pg_snapshot_xmin(_new) < pg_snapshot_xmin(_old), false);
    if _back and s.position_life is not distinct from s.life and s.position_epoch = s.epoch then
      raise exception 'superseded' using errcode = 'PT409',
        detail = format('the position would go back from %s to %s', s.snapshot, _new);
    end if;
    if _back then
      s.as_of := null;
      s.fresh_at := null;
    end if;
    s.primed_at := coalesce(s.primed_at, clock_timestamp());
    s.position_epoch := s.epoch;
    s.position_life := s.life;
    s.snapshot := _new;
    s.as_of := greatest(s.as_of, (_reached->>'as_of')::timestamptz);
    s.fresh_at := least(greatest(s.fresh_at, (_reached->>'fresh_at')::timestamptz), clock_timestamp());
  end if;
  perform mirror.keep(s);
end
$mirror$;

create or replace function mirror.add(counts jsonb, tbl text, op text, n bigint) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp as $mirror$
  select case when n = 0 then counts else
    counts || jsonb_build_object(tbl, coalesce(counts->tbl, '{}')
           || jsonb_build_object(op, coalesce((counts->tbl->>op)::bigint, 0) + n)) end
$mirror$;

-- Where the state is, and what may be claimed (mirror.known): equal, life, doubts, staleness_seconds (null = not fresh).
create or replace function public.mirror_status() returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $mirror$
  select to_jsonb(coalesce(s.sound, mirror.blank()))
         - '{one,rendered,sealed,position_epoch,messages,seal,known_at}'::text[] || jsonb_build_object(
    'clock', clock_timestamp(), 'channels', mirror.channels(), 'equal', k.equal, 'doubts', k.doubts,
    'staleness_seconds', extract(epoch from clock_timestamp() - k.fresh_at),
    'parked_keys', mirror.count_parked(),
    'parked', (select coalesce(jsonb_agg(to_jsonb(p) - 'settled' - 'tried_at' order by p.since), '[]')
               from (select * from mirror.parked order by since limit 100) as p))
  from mirror.known() as k left join lateral (select t as sound from mirror.state as t where mirror.is_sound(t)) as s on true
$mirror$;
