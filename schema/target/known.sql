-- The target side: what may be claimed. All who say "fresh", "equal" or "has this token" ask here.

-- What the installation says of the state: a row that was deleted or changed by others begins again with it. `rendered` is
-- empty, so that the next `mirror install target` looks at everything.
create or replace function mirror.blank() returns mirror.state
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  select jsonb_populate_record(null::mirror.state, jsonb_build_object(
    'one', true, 'version', {{version}}, 'rendered', '', 'types', {{type_names}}::jsonb, 'allow_cascade', {{allow_cascade}},
    'epoch', 0, 'batch', 0, 'braked', '{}'::jsonb, 'walks', '[]'::jsonb, 'doubts', '[]'::jsonb, 'messages', mirror.messages()::oid::bigint))
$mirror$;

-- Is this row as the mirror has written it?
create or replace function mirror.is_sound(s mirror.state) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $mirror$
begin
  return coalesce(s.seal = {{seal}} and s.version = {{version}} and s.types = {{type_names}}::jsonb
                  and s.allow_cascade = {{allow_cascade}}, false);
end
$mirror$;

-- The one way in which the state is written: sealed, together with how fresh that leaves us.
create or replace function mirror.keep(s mirror.state) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
begin
  s.known_at := null;
  if s.primed_at is not null and s.life is not distinct from s.position_life and s.braked = '{}' then
    select least(s.fresh_at, min((d->>'since')::timestamptz) filter (where d->>'kind' in ('capture', 'unreadable')))
    into s.known_at from jsonb_array_elements(s.doubts) as d
    having not coalesce(bool_or(d->>'kind' in ('brake', 'life', 'tampered')
                                or d->>'kind' in ('capture', 'unreadable') and d->>'since' is null), false);
  end if;
  s.seal := {{seal}};
  update mirror.state as t
  set source = s.source, life = s.life, position_life = s.position_life, epoch = s.epoch, batch = s.batch, snapshot = s.snapshot,
      position_epoch = s.position_epoch, as_of = s.as_of, fresh_at = s.fresh_at, known_at = s.known_at,
      applied_at = s.applied_at, primed_at = s.primed_at, proof = s.proof, braked = s.braked, walks = s.walks,
      doubts = s.doubts, seal = s.seal, version = s.version, types = s.types, allow_cascade = s.allow_cascade,
      rendered = s.rendered
  where t.one;
  if not found then
    insert into mirror.state select s.*;
  end if;
end
$mirror$;

-- What may be claimed, one row always:
--   primed    the three tables once equalled a snapshot
--   life      of the source
--   snapshot  that the target equals at least; null = none that is known (so no token is answered yes)
--   as_of     the source's clock at that snapshot
--   fresh_at  this server's clock at or before it, with every doubt taken into account; null = not fresh at all
--   equal     all rows were compared, and nothing is known that differs
--   doubts    why not more: [{kind, about, reason, cure, since}], those that the daemon has sent and the target's own
create or replace function mirror.known(out primed boolean, out life text, out snapshot text, out as_of timestamptz,
                                        out fresh_at timestamptz, out equal boolean, out doubts jsonb)
language plpgsql stable set search_path = pg_catalog, pg_temp as $mirror$
#variable_conflict use_variable
declare
  _state mirror.state;
  _table text;
  _n bigint;
begin
  select * into _state from mirror.state as s;
  primed := false;
  equal := false;
  if not (found and mirror.is_sound(_state)) then
    doubts := jsonb_build_array(mirror.doubt('tampered', 'mirror.state', 'mirror.state was changed by others than the mirror',
      'The daemon compares all tables by itself. Take the right to write there from others.', null));
    return;
  end if;
  doubts := _state.doubts;
  primed := _state.primed_at is not null;
  life := _state.life;
  if not primed then
    doubts := doubts || mirror.doubt('unprimed', null, 'the first load is not complete',
                                     'Wait. If no row is applied, the log says what stops it.', null);
  elsif _state.life is distinct from _state.position_life then
    doubts := doubts || mirror.doubt('life', _state.life, 'the primary crashed or was replaced, and not everything has been compared since',
                                     'Wait: the daemon compares all tables by itself.', null);
  else
    snapshot := _state.snapshot;
    as_of := _state.as_of;
    fresh_at := _state.known_at;
  end if;
  for _table, _n in select b.key, (b.value->>'would_delete')::bigint from jsonb_each(_state.braked) as b loop
    continue when exists (select from jsonb_array_elements(_state.doubts) as d where d->>'kind' = 'brake' and d->>'about' = _table);
    doubts := doubts || mirror.doubt('brake', _table, format('a repair would delete %s rows of %s, which the brake does not allow', _n, _table),
                                     'Look at the source; if the rows are to go, run `mirror resync --force`.', null);
  end loop;
  -- Counted so far that a policy can wait for it: there may be a hundred thousand.
  foreach _table in array array['trip_memberships', 'trips', 'users'] loop
    select count(*) into _n from (select from mirror.parked as p where p.tbl = _table limit 1001) as counted;
    continue when _n = 0 or exists (select from jsonb_array_elements(_state.doubts) as d where d->>'kind' = 'parked' and d->>'about' = _table);
    doubts := doubts || mirror.doubt('parked', _table,
      format('rows of %s that one of the two sides refuses are left out: %s', _table, case when _n > 1000 then 'more than 1000' else _n::text end),
      '`mirror status` names each row with its reason: put the row or the constraint right; it is tried again.', null);
  end loop;
  equal := snapshot is not null and _state.proof is not null and not exists (
    select from jsonb_array_elements(doubts) as d
    where d->>'kind' in ('brake', 'capture', 'unreadable', 'life', 'tampered', 'parked', 'unprimed'));
end
$mirror$;

create or replace function mirror.doubt(kind text, about text, reason text, cure text, since timestamptz) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp as $mirror$
  select jsonb_build_object('kind', kind, 'about', about, 'reason', reason, 'cure', cure, 'since', since)
$mirror$;
