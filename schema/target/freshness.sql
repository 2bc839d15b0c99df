-- The target side: how fresh the mirror is, and whether it has what somebody wrote.

-- Seconds since the target certainly equalled the source; infinity when that is not known. (Not null, and no interval, which has
-- no infinity before PostgreSQL 17: whichever way it is compared, "unknown" must not look fresh.)
create or replace function public.mirror_staleness() returns double precision
language sql stable security definer set search_path = pg_catalog, pg_temp as $mirror$
  select coalesce((select greatest(0, extract(epoch from clock_timestamp() - k.fresh_at))
                   from mirror.known() as k where k.fresh_at is not null), 'infinity')
$mirror$;

create or replace function public.mirror_is_fresh(max_age interval) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp as $mirror$
  select coalesce(clock_timestamp() - k.fresh_at <= max_age, false) from mirror.known() as k
$mirror$;

-- Is what the writer of this token (mirror.token() in the primary) has written and seen in the mirror? Exactly: its own
-- transaction and every transaction that its snapshot sees are seen by the snapshot that the target equals. Numbers of
-- transactions mean something within one life of the primary only: what an earlier life left is in a later position, and
-- nothing of a later life in an earlier one. has: true or false; if false, reason, and kind: garbage, unprimed, foreign
-- (another incarnation of the source: it will never come) or early. Never raises.
create or replace function public.mirror_check_token(token text) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $mirror$
declare
  _known record;
  _install text := (select s.source->>'install' from mirror.state as s);
  _here pg_snapshot;
  _seen pg_snapshot;
  _own xid8;
  _parts text[];
  _later bigint := 0;
begin
  if octet_length(token) < 100000 then
    _parts := regexp_match(token, '^([0-9A-Za-z-]{1,64})/(?:([0-9]{1,18})(?:[.]([0-9a-z]{1,16}))?/)?(-|[0-9]{1,19})/([0-9]{1,19}:[0-9]{1,19}:[0-9,]*)$');
  end if;
  begin
    _own := nullif(_parts[4], '-')::xid8;
    _seen := _parts[5]::pg_snapshot;
  exception when data_exception then
    _seen := null;
  end;
  if _seen is null then
    return jsonb_build_object('has', false, 'kind', 'garbage', 'reason', 'this is not a token of mirror.token()');
  end if;
  select * into _known from mirror.known();
  _here := _known.snapshot::pg_snapshot;
  if _parts[2] is not null then
    _later := _parts[2]::bigint - coalesce(split_part(_known.life, '.', 1)::bigint, 0);
  end if;
  if not _known.primed then
    return jsonb_build_object('has', false, 'kind', 'unprimed', 'reason', 'the mirror has not been filled yet');
  elsif _parts[1] is distinct from _install or _later = 0 and _parts[3] <> split_part(_known.life, '.', 2) then
    return jsonb_build_object('has', false, 'kind', 'foreign',
                              'reason', 'the token is of another source, or of one before it was restored');
  elsif _here is null then
    return jsonb_build_object('has', false, 'kind', 'early', 'reason', 'the mirror is being compared with the primary');
  elsif _later < 0 or _later = 0 and mirror.has_seen(_here, _seen) and coalesce(pg_visible_in_snapshot(_own, _here), true) then
    return jsonb_build_object('has', true, 'kind', null, 'reason', null);
  end if;
  return jsonb_build_object('has', false, 'kind', 'early', 'reason', 'the mirror is not there yet');
end
$mirror$;

create or replace function public.mirror_has(token text) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp as $mirror$
  select coalesce((public.mirror_check_token(token)->>'has')::boolean, false)
$mirror$;

-- Is every transaction that the one snapshot sees seen by the other? Those that this one does not see are the running ones
-- on its list, and all from its xmax on: the token's snapshot must not see any of them.
create or replace function mirror.has_seen(here pg_snapshot, seen pg_snapshot) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp as $mirror$
  select not exists (select from pg_snapshot_xip(here) as x where pg_visible_in_snapshot(x, seen))
     and (select count(*) from pg_snapshot_xip(seen) as x where x >= pg_snapshot_xmax(here))
       = greatest(0, pg_snapshot_xmax(seen)::text::numeric - pg_snapshot_xmax(here)::text::numeric)
$mirror$;
