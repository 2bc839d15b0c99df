create schema mirror;

create table mirror.alive (
  number bigint not null,
  name text not null
);

create table mirror.held (
  turn integer not null,
  since timestamp with time zone not null,
  constraint held_pkey PRIMARY KEY (turn)
);

create table mirror.install (
  one boolean not null default true,
  version integer not null,
  incarnation uuid not null default gen_random_uuid(),
  mapping jsonb not null,
  rendered text not null,
  fingerprint text not null,
  unsettled text[] not null default '{}'::text[],
  installed_at timestamp with time zone not null default now(),
  constraint install_one_check CHECK (one),
  constraint install_pkey PRIMARY KEY (one)
);

create table mirror.lead (
  one boolean not null default true,
  holder uuid,
  name text,
  pid integer,
  backend_start timestamp with time zone,
  taken_at timestamp with time zone,
  renewed_at timestamp with time zone,
  until timestamp with time zone,
  constraint lead_one_check CHECK (one),
  constraint lead_pkey PRIMARY KEY (one)
);
alter table mirror.lead set (fillfactor=20);

create table mirror.life (
  one boolean not null default true,
  number bigint not null default 0,
  name text,
  since timestamp with time zone,
  remembered timestamp with time zone,
  lease interval,
  constraint life_one_check CHECK (one),
  constraint life_pkey PRIMARY KEY (one)
);

create table mirror.origin (
  tbl text not null,
  relation oid not null,
  constraint origin_pkey PRIMARY KEY (tbl)
);

create table mirror.outbox (
  id bigint not null default nextval('mirror.outbox_id'::regclass),
  xid xid8 not null default pg_current_xact_id(),
  at timestamp with time zone not null default clock_timestamp(),
  tbl text not null,
  k1 text,
  k2 text,
  gone boolean
);
alter table mirror.outbox set (autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=5000, autovacuum_vacuum_insert_threshold=-1, autovacuum_analyze_threshold=1000000000, autovacuum_vacuum_cost_delay=0, vacuum_truncate=off);

create table mirror.outbox_1 (
  id bigint not null default nextval('mirror.outbox_id'::regclass),
  xid xid8 not null default pg_current_xact_id(),
  at timestamp with time zone not null default clock_timestamp(),
  tbl text not null,
  k1 text,
  k2 text,
  gone boolean
);
alter table mirror.outbox_1 inherit mirror.outbox;
alter table mirror.outbox_1 set (autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=5000, autovacuum_vacuum_insert_threshold=-1, autovacuum_analyze_threshold=1000000000, autovacuum_vacuum_cost_delay=0, vacuum_truncate=off);

create table mirror.outbox_2 (
  id bigint not null default nextval('mirror.outbox_id'::regclass),
  xid xid8 not null default pg_current_xact_id(),
  at timestamp with time zone not null default clock_timestamp(),
  tbl text not null,
  k1 text,
  k2 text,
  gone boolean
);
alter table mirror.outbox_2 inherit mirror.outbox;
alter table mirror.outbox_2 set (autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=5000, autovacuum_vacuum_insert_threshold=-1, autovacuum_analyze_threshold=1000000000, autovacuum_vacuum_cost_delay=0, vacuum_truncate=off);

create table mirror.outbox_3 (
  id bigint not null default nextval('mirror.outbox_id'::regclass),
  xid xid8 not null default pg_current_xact_id(),
  at timestamp with time zone not null default clock_timestamp(),
  tbl text not null,
  k1 text,
  k2 text,
  gone boolean
);
alter table mirror.outbox_3 inherit mirror.outbox;
alter table mirror.outbox_3 set (autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=5000, autovacuum_vacuum_insert_threshold=-1, autovacuum_analyze_threshold=1000000000, autovacuum_vacuum_cost_delay=0, vacuum_truncate=off);

create table mirror.reached (
  one boolean not null default true,
  snapshot text,
  constraint reached_one_check CHECK (one),
  constraint reached_pkey PRIMARY KEY (one)
);

create table mirror.request (
  id bigint not null generated as identity,
  kind text not null,
  tbl text,
  trip text,
  usr text,
  rewrite boolean not null default false,
  force boolean not null default false,
  requested_at timestamp with time zone not null default now(),
  requested_by text not null default SESSION_USER,
  started_at timestamp with time zone,
  done_at timestamp with time zone,
  cancelled boolean not null default false,
  state text not null default 'waiting'::text,
  progress jsonb not null default '{}'::jsonb,
  result jsonb,
  constraint request_check CHECK (((num_nonnulls(trip, usr) <= 1) AND ((tbl IS NULL) OR (num_nonnulls(trip, usr) = 0)))),
  constraint request_kind_check CHECK ((kind = ANY (ARRAY['resync'::text, 'verify'::text]))),
  constraint request_pkey PRIMARY KEY (id),
  constraint request_tbl_check CHECK ((tbl = ANY (ARRAY['users'::text, 'trips'::text, 'trip_memberships'::text])))
);

create view mirror.resyncs (
  id bigint,
  state text,
  what text,
  rewrite boolean,
  force boolean,
  requested_by text,
  requested_at timestamp with time zone,
  started_at timestamp with time zone,
  done_at timestamp with time zone,
  progress jsonb,
  result jsonb
);

create table public.trip_memberships (
  id bigint not null generated as identity,
  trip_id uuid not null,
  user_id uuid not null,
  role text,
  status text not null default 'ACTIVE'::text,
  constraint trip_memberships_pkey PRIMARY KEY (id),
  constraint trip_memberships_trip_id_fkey FOREIGN KEY (trip_id) REFERENCES public.trips(id) ON DELETE CASCADE,
  constraint trip_memberships_trip_id_user_id_key UNIQUE (trip_id, user_id)
);

create table public.trips (
  id uuid not null,
  name text not null,
  created_by uuid,
  deleted_at timestamp with time zone,
  constraint trips_pkey PRIMARY KEY (id)
);

create table public.users (
  id uuid not null,
  email text,
  username text,
  last_seen timestamp with time zone,
  constraint users_pkey PRIMARY KEY (id)
);

CREATE INDEX request_open ON mirror.request USING btree (id) WHERE (done_at IS NULL);

CREATE OR REPLACE FUNCTION mirror.ask(kind text, tbl text, trip text, usr text, rewrite boolean, force boolean)
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
#variable_conflict use_variable
declare
  _id bigint;
begin
  if tbl not in ('users', 'trips', 'trip_memberships') then
    raise exception 'there is no mirrored table %', tbl using hint = 'users, trips or trip_memberships', errcode = '22023';
  end if;
  delete from mirror.request as r where r.done_at is not null
    and r.id < (select max(m.id) - 1000 from mirror.request as m);
  insert into mirror.request as r (kind, tbl, trip, usr, rewrite, force) values (kind, tbl, trip, usr, rewrite, force)
  returning r.id into _id;
  -- The doorbell, as for a change.
  if not pg_try_advisory_xact_lock_shared(1835627122, 1) and pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0' then
    perform pg_notify('mirror', '');
  end if;
  return _id;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.because(tbl text, error text)
 RETURNS text
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  return coalesce((select format('%s. %s', u.message, u.cure) from mirror.unreadable() as u where u.tbl = because.tbl), error);
exception when others then
  return error;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.begin_life()
 RETURNS jsonb
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  _life mirror.life;
begin
  select * into _life from mirror.life as l
  where exists (select from mirror.alive as a where a.number = l.number and a.name = l.name);
  if not found then
    perform set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') in ('off', 'local');
    perform from mirror.life as l for update;
    if not exists (select from mirror.alive as a join mirror.life as l on a.number = l.number and a.name = l.name) then
      update mirror.life as l
      set number = l.number + 1, name = left(md5(gen_random_uuid()::text), 8), since = clock_timestamp(),
          remembered = d.renewed_at, lease = coalesce(d.until - d.renewed_at, l.lease)
      from mirror.lead as d
      where l.one;
      delete from mirror.alive;
      insert into mirror.alive (number, name) select l.number, l.name from mirror.life as l;
      update mirror.reached set snapshot = null;
    end if;
    select * into strict _life from mirror.life;
  end if;
  return jsonb_build_object('number', _life.number, 'name', _life.name, 'remembered', _life.remembered,
                            'lease_s', extract(epoch from _life.lease));
end
$function$;

CREATE OR REPLACE FUNCTION mirror.cancel_resync(request_id bigint)
 RETURNS boolean
 LANGUAGE sql
AS $function$
  with _cancelled as (
    update mirror.request set cancelled = true,
           done_at = case when started_at is null then now() end, state = case when started_at is null then 'cancelled' else state end
    where id = request_id and done_at is null returning 1)
  select exists (select from _cancelled)
$function$;

CREATE OR REPLACE FUNCTION mirror.collapse(entries_max bigint)
 RETURNS boolean
 LANGUAGE plpgsql
AS $function$
begin
  if (select count(*) from (select from mirror.outbox limit entries_max + 1) as _some) <= entries_max then
    return false;
  end if;
  begin
    lock table mirror.outbox in access exclusive mode nowait;
    truncate mirror.outbox;
  exception when lock_not_available then
    delete from mirror.outbox;
  end;
  perform mirror.mark_tables(array['users', 'trips', 'trip_memberships']);
  return true;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.digest(tbl text, after1 text, after2 text, row_limit integer, OUT result text, OUT n integer, OUT last1 text, OUT last2 text)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
begin
  case tbl
    when 'users' then select d.* into result, n, last1, last2 from mirror.users_digest(after1, after2, row_limit) as d;
    when 'trips' then select d.* into result, n, last1, last2 from mirror.trips_digest(after1, after2, row_limit) as d;
    when 'trip_memberships' then
      select d.* into result, n, last1, last2 from mirror.trip_memberships_digest(after1, after2, row_limit) as d;
  end case;
end
$function$;

CREATE OR REPLACE PROCEDURE mirror.drain(IN request jsonb, IN forget_at text[], IN forget_id text[], INOUT reply jsonb, INOUT scopes text, INOUT taken_at text, INOUT taken_id text)
 LANGUAGE plpgsql
AS $procedure$
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
$procedure$;

CREATE OR REPLACE FUNCTION mirror.faults()
 RETURNS jsonb
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object('table', f.tbl, 'kind', f.kind, 'message', f.message, 'cure', f.cure)
                              order by f.tbl, f.kind), '[]')
    from (select u.tbl, 'capture' as kind, string_agg(u.message, ', ' order by u.message) as message,
                 'Run `mirror install source`.' as cure
          from mirror.uncaptured() as u group by u.tbl
          union all
          select u.tbl, 'unreadable', u.message, u.cure from mirror.unreadable() as u) as f);
exception when others then
  return (select jsonb_agg(jsonb_build_object('table', t, 'kind', 'capture', 'cure', 'Run `mirror install source`.',
                                              'message', format('it cannot be told whether changes are captured: %s (%s)', sqlerrm, sqlstate)))
          from unnest(array['trip_memberships', 'trips', 'users']) as t);
end
$function$;

CREATE OR REPLACE FUNCTION mirror.forget(places tid[], ids int8multirange)
 RETURNS void
 LANGUAGE plpgsql
 SET enable_seqscan TO 'off'
AS $function$
begin
  delete from mirror.outbox as o where o.ctid >= places[1] and o.ctid <= places[2] and o.id <@ ids;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.identity()
 RETURNS jsonb
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  _system text;
begin
  begin
    select c.system_identifier::text into _system from pg_catalog.pg_control_system() as c;
  exception when insufficient_privilege then
    _system := null;
  end;
  return pg_catalog.jsonb_build_object(
    'system', _system, 'timeline', pg_catalog.current_setting('neon.timeline_id', true),
    'database', pg_catalog.current_database(),
    'oid', (select d.oid::bigint from pg_catalog.pg_database as d where d.datname = pg_catalog.current_database()), 'install', (select incarnation from mirror.install),
    'snapshot', pg_catalog.pg_current_snapshot()::text);
end
$function$;

CREATE OR REPLACE FUNCTION mirror.is_alive(l mirror.lead)
 RETURNS boolean
 LANGUAGE sql
AS $function$
  select coalesce(clock_timestamp() between l.renewed_at and l.until, false)
     and exists (select from pg_stat_get_activity(l.pid) as a
                 where a.backend_start is null or a.backend_start = l.backend_start)
$function$;

CREATE OR REPLACE FUNCTION mirror.is_behind(snapshot text)
 RETURNS boolean
 LANGUAGE sql
 STABLE
AS $function$
  select coalesce(pg_snapshot_xmax(is_behind.snapshot::pg_snapshot) < pg_snapshot_xmax(r.snapshot::pg_snapshot)
                  or pg_snapshot_xmin(is_behind.snapshot::pg_snapshot) < pg_snapshot_xmin(r.snapshot::pg_snapshot), false)
  from mirror.reached as r
$function$;

CREATE OR REPLACE FUNCTION mirror.keys(tbl text, keys1 text[], keys2 text[], OUT n integer, OUT rows text, OUT gone text)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION mirror.lead(holder uuid, seconds double precision, name text, session integer)
 RETURNS boolean
 LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
begin
  update mirror.lead as l
  set taken_at = case when l.holder = lead.holder then l.taken_at else clock_timestamp() end,
      holder = lead.holder, name = left(lead.name, 200), pid = lead.session, renewed_at = clock_timestamp(),
      backend_start = (select a.backend_start from pg_stat_get_activity(lead.session) as a),
      until = clock_timestamp() + make_interval(secs => lead.seconds)
  where l.one and (l.holder = lead.holder or not mirror.is_alive(l));
  return found;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.leader(OUT name text, OUT pid integer, OUT since timestamp with time zone, OUT until timestamp with time zone)
 RETURNS SETOF record
 LANGUAGE sql
AS $function$
  select l.name, l.pid, l.taken_at, l.until from mirror.lead as l where mirror.is_alive(l)
$function$;

CREATE OR REPLACE FUNCTION mirror.look(request jsonb, OUT reply jsonb, OUT scopes text, OUT taken_at text, OUT taken_id text)
 RETURNS record
 LANGUAGE plpgsql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION mirror.mapped()
 RETURNS TABLE(tbl text, relation text, columns text[], oid oid, kind "char", schema oid, replaced boolean, renamed text, reader text)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select m.tbl, format('%I.%I', m.schema, m.name), m.columns, c.oid, c.relkind, n.oid, coalesce(o.relation <> c.oid, false),
         (select k.oid::regclass::text from pg_class as k where k.oid = o.relation and o.relation is distinct from c.oid),
         case when to_regrole('mirror_daemon') is not null and pg_has_role(current_user, to_regrole('mirror_daemon'), 'member')
              then 'mirror_daemon' else quote_ident(current_user) end
  from (values ('users', 'public', 'users', array['email', 'id', 'username']::text[]), ('trips', 'public', 'trips', array['created_by', 'id', 'name']::text[]), ('trip_memberships', 'public', 'trip_memberships', array['role', 'status', 'trip_id', 'user_id']::text[])) as m(tbl, schema, name, columns)
  left join pg_namespace as n on n.nspname = m.schema
  left join pg_class as c on c.relnamespace = n.oid and c.relname = m.name
  left join mirror.origin as o on o.tbl = m.tbl
$function$;

CREATE OR REPLACE FUNCTION mirror.mark_keys(place integer, tables text[], keys1 text[], keys2 text[], gone boolean[])
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_variable
begin
  if place = 0 then
    insert into mirror.outbox (tbl, k1, k2, gone)
      select m.* from rows from (unnest(tables), unnest(keys1), unnest(keys2), unnest(gone)) as m(tbl, k1, k2, gone);
  elsif place = 1 then
    insert into mirror.outbox_1 (tbl, k1, k2, gone)
      select m.* from rows from (unnest(tables), unnest(keys1), unnest(keys2), unnest(gone)) as m(tbl, k1, k2, gone);
  elsif place = 2 then
    insert into mirror.outbox_2 (tbl, k1, k2, gone)
      select m.* from rows from (unnest(tables), unnest(keys1), unnest(keys2), unnest(gone)) as m(tbl, k1, k2, gone);
  else
    insert into mirror.outbox_3 (tbl, k1, k2, gone)
      select m.* from rows from (unnest(tables), unnest(keys1), unnest(keys2), unnest(gone)) as m(tbl, k1, k2, gone);
  end if;
  if not pg_try_advisory_xact_lock_shared(1835627122, 1) and pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0' then
    perform pg_notify('mirror', '');
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.mark_tables(tables text[])
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if not tables <@ array['users', 'trips', 'trip_memberships'] then
    raise exception 'a table that is not mirrored cannot be marked' using errcode = '22023';
  end if;
  perform mirror.mark_keys(mirror.turn(), tables, null, null, null);
end
$function$;

CREATE OR REPLACE FUNCTION mirror.once(INOUT keys1 text[], INOUT keys2 text[])
 RETURNS record
 LANGUAGE plpgsql
 IMMUTABLE
AS $function$
begin
  select array_agg(d.k1), array_agg(d.k2) into keys1, keys2
  from (select distinct unnest(keys1) as k1, unnest(keys2) as k2) as d;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.outbox_bytes()
 RETURNS bigint
 LANGUAGE sql
 STABLE
AS $function$
  select pg_relation_size('mirror.outbox') + pg_relation_size('mirror.outbox_1')
       + pg_relation_size('mirror.outbox_2') + pg_relation_size('mirror.outbox_3')
$function$;

CREATE OR REPLACE FUNCTION mirror.pass_by(turn integer, held boolean)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  _cases text;
begin
  if pass_by.held then
    insert into mirror.held select pass_by.turn, now() where (select count(*) from mirror.held) < 2 on conflict do nothing;
  else
    delete from mirror.held as h where h.turn = pass_by.turn;
  end if;
  if not found then
    return;
  end if;
  select string_agg(format('when mirror.slot() operator(pg_catalog.=) %s then case %s end', t, (
           select string_agg(format('when %s then %s', coalesce((select format('pg_catalog.now() operator(pg_catalog.<) %L::pg_catalog.timestamptz', h.since)
                                                                 from mirror.held as h where h.turn = mod(t + n, 4)), 'true'),
                                    mod(t + n, 4)), ' ' order by n)
           from generate_series(0, 3) as n)), ' ')
  into _cases from generate_series(0, 3) as t;
  execute format('create or replace function mirror.turn() returns integer language sql stable parallel safe as %L',
                 case when exists (select from mirror.held) then format('select case %s end', _cases)
                      else 'select mirror.slot()' end);
end
$function$;

CREATE OR REPLACE FUNCTION mirror.possible(tbl text, key1 text, key2 text)
 RETURNS boolean
 LANGUAGE sql
 STABLE
AS $function$
  select case tbl when 'users' then mirror.users_possible(key1, key2)
                  when 'trips' then mirror.trips_possible(key1, key2)
                  else mirror.trip_memberships_possible(key1, key2) end
$function$;

CREATE OR REPLACE FUNCTION mirror.range(asked jsonb, reply jsonb)
 RETURNS jsonb
 LANGUAGE sql
 IMMUTABLE
AS $function$
  select jsonb_build_object('trip', asked->>'trip', 'after1', asked->>'after1', 'after2', asked->>'after2',
                            'upto1', coalesce(reply->>'upto1', asked->>'upto1'),
                            'upto2', coalesce(reply->>'upto2', asked->>'upto2'))
$function$;

CREATE OR REPLACE FUNCTION mirror.read_digest(asked jsonb, OUT reply jsonb)
 RETURNS jsonb
 LANGUAGE plpgsql
 STABLE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION mirror.read_entries(request jsonb, row_limit integer, past_marks boolean, first boolean, since pg_snapshot, OUT n integer, OUT keys integer, OUT more boolean, OUT too_big boolean, OUT scopes text, OUT places tid[], OUT ids int8multirange, OUT marked text[], OUT wide_trips text[], OUT broken jsonb, OUT oldest timestamp with time zone, OUT ages jsonb, OUT dropped integer)
 RETURNS record
 LANGUAGE plpgsql
AS $function$
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
            select case when o.tbl = any (_tables) and coalesce(octet_length(o.k1) <= 1000, o.k2 is null)
                             and octet_length(o.k2) > 1000 is not true then o.tbl end as tbl) as r
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
$function$;

CREATE OR REPLACE FUNCTION mirror.read_keys(tbl text, keys1 text[], keys2 text[], OUT scope text, OUT n integer)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION mirror.read_part(tbl text, keys1 text[], keys2 text[], row_limit integer, OUT n integer, OUT scopes text, OUT wide_trips text[])
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION mirror.read_request(request jsonb, bytes_max integer, OUT scope text, OUT reply jsonb)
 RETURNS record
 LANGUAGE plpgsql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION mirror.read_slice(asked jsonb, bytes_max integer, OUT scope text, OUT reply jsonb)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION mirror.report(request_id bigint, new_state text, new_progress jsonb, new_result jsonb)
 RETURNS boolean
 LANGUAGE sql
AS $function$
  with _reported as (
    update mirror.request
    set state = new_state, progress = new_progress, result = coalesce(new_result, result),
        started_at = coalesce(started_at, now()),
        done_at = case when new_state in ('waiting', 'running') then null else now() end
    where id = request_id and done_at is null returning not cancelled as go_on)
  select coalesce((select go_on from _reported), false)
$function$;

CREATE OR REPLACE FUNCTION mirror.resync(tbl text DEFAULT NULL::text, trip text DEFAULT NULL::text, usr text DEFAULT NULL::text, rewrite boolean DEFAULT false, force boolean DEFAULT false)
 RETURNS bigint
 LANGUAGE sql
AS $function$
  select mirror.ask('resync', tbl, trip, usr, rewrite, force)
$function$;

CREATE OR REPLACE FUNCTION mirror.rings()
 RETURNS boolean
 LANGUAGE sql
 STABLE
AS $function$
  select pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0'
$function$;

CREATE OR REPLACE FUNCTION mirror.slice(tbl text, trip text, after1 text, after2 text, upto1 text, upto2 text, row_limit integer, want text, OUT result text, OUT n integer, OUT last1 text, OUT last2 text)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION mirror.slot()
 RETURNS integer
 LANGUAGE sql
 STABLE PARALLEL SAFE
AS $function$
  select pg_catalog.mod(pg_catalog.floor(pg_catalog.date_part('epoch', pg_catalog.now())
                        operator(pg_catalog./) 2::pg_catalog.float8)::pg_catalog.int8, 4::pg_catalog.int8)::pg_catalog.int4
$function$;

CREATE OR REPLACE FUNCTION mirror.sort_out(tbl text, keys1 text[], keys2 text[], OUT good1 text[], OUT good2 text[], OUT refused jsonb)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION mirror.strangers(OUT lock integer, OUT pid integer, OUT role text, OUT application text)
 RETURNS SETOF record
 LANGUAGE sql
AS $function$
  select h.objid::integer, h.pid, a.usesysid::regrole::text, a.application_name
  from pg_locks as h left join pg_stat_activity as a on a.pid = h.pid
  where h.locktype = 'advisory' and h.classid = 1835627122 and h.objid in (1, 3) and h.objsubid = 2 and h.granted
    and h.database = (select d.oid from pg_database as d where d.datname = current_database())
    and case when h.objid = 3 then
               not pg_has_role(a.usesysid, (select n.nspowner from pg_namespace as n where n.nspname = 'mirror'),
                               'member')
             when h.mode = 'ExclusiveLock' then h.pid is distinct from (select l.pid from mirror.lead as l)
             else not exists (select from pg_locks as w join pg_class as c on c.oid = w.relation
                              where w.virtualtransaction = h.virtualtransaction and w.mode = 'RowExclusiveLock'
                                and w.database = h.database and c.relnamespace = to_regnamespace('mirror')) end
$function$;

CREATE OR REPLACE FUNCTION mirror.take(request jsonb, OUT n integer, OUT keys integer, OUT more boolean, OUT scopes text, OUT places tid[], OUT ids int8multirange, OUT wide jsonb[], OUT broken jsonb, OUT oldest timestamp with time zone, OUT ages jsonb, OUT gone_left boolean, OUT dropped integer, OUT seen jsonb)
 RETURNS record
 LANGUAGE plpgsql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION mirror.tidy(bytes_max bigint)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare
  _table regclass;
  _empty boolean;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'mirror.tidy needs isolation level read committed' using errcode = 'active_sql_transaction';
  end if;
  for _turn in 0 .. 3 loop
    _table := ('mirror.outbox' || case when _turn > 0 then '_' || _turn else '' end)::regclass;
    continue when _turn = mirror.turn() or pg_relation_size(_table) <= bytes_max;
    begin
      execute format('lock table only %s in access exclusive mode nowait', _table);
      execute format('select not exists (select from only %s)', _table) into _empty;
      if _empty then
        execute format('truncate only %s', _table);
      end if;
      perform mirror.pass_by(_turn, false);
    exception when lock_not_available then
      if _turn = mod(mirror.slot() + 1, 4) then
        perform mirror.pass_by(_turn, true);
      end if;
    end;
  end loop;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.token()
 RETURNS text
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if pg_is_in_recovery() then
    raise exception 'a replica cannot tell its life, so it has no token' using errcode = 'object_not_in_prerequisite_state',
      hint = 'Ask the primary: call mirror.token() in the transaction that writes.';
  end if;
  return (select concat_ws('/', i.incarnation,
                           coalesce((select a.number || '.' || a.name from mirror.alive as a limit 1),
                                    (select l.number + 1 from mirror.life as l where l.number > 0)::text),
                           coalesce(pg_current_xact_id_if_assigned()::text, '-'), pg_current_snapshot()::text)
          from mirror.install as i);
end
$function$;

CREATE OR REPLACE FUNCTION mirror.too_large(what text, bytes integer, bytes_max integer)
 RETURNS text
 LANGUAGE plpgsql
 STABLE
AS $function$
begin
  raise exception '% has % bytes, at most % are mirrored', what, bytes, bytes_max
    using errcode = 'string_data_right_truncation';
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trip_memberships_delete()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET lock_timeout TO '0'
AS $function$
#variable_conflict use_column
declare
  _k1 pg_catalog.text;
  _k2 pg_catalog.text;
  _changed pg_catalog.bool;
  _many pg_catalog.bool;
  _place pg_catalog.int4;
  _tbl pg_catalog.text[];
  _keys1 pg_catalog.text[];
  _keys2 pg_catalog.text[];
  _gone pg_catalog.bool[];
  _row pg_catalog.record;
begin
  begin
    for _k1, _k2, _changed in select (("trip_id"
)::pg_catalog.text collate pg_catalog."C") as k1, (("user_id"
)::pg_catalog.text collate pg_catalog."C") as k2, (("trip_id"
) is not null and ("user_id"
) is not null and (true
)) is true as changed from old_rows as "trip_memberships" loop
      _many := _many is not null;
      exit when _many;
    end loop;
    if _changed and not _many then
      _place := case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end;
    elsif _many or _changed is null and _many is not null then
      _changed := null;
      select pg_catalog.array_agg(tbl), pg_catalog.array_agg(k1), pg_catalog.array_agg(k2), pg_catalog.array_agg(gone)
      into _tbl, _keys1, _keys2, _gone
      from (select 'trip_memberships' as tbl, k1, k2, gone from (select (("trip_id"
)::pg_catalog.text collate pg_catalog."C") as k1, (("user_id"
)::pg_catalog.text collate pg_catalog."C") as k2, true as moved, true::pg_catalog.bool as gone from old_rows as "trip_memberships" where ("trip_id"
) is not null and ("user_id"
) is not null and (true
)) as _keys limit 1001) as _dirty;
      if _tbl is not null then
        _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end;
      end if;
      if _place is not null and pg_catalog.cardinality(_tbl) operator(pg_catalog.>) 1000 then
        _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
        for _row in select 'trip_memberships' as tbl, k1, k2, gone from (select (("trip_id"
)::pg_catalog.text collate pg_catalog."C") as k1, (("user_id"
)::pg_catalog.text collate pg_catalog."C") as k2, true as moved, true::pg_catalog.bool as gone from old_rows as "trip_memberships" where ("trip_id"
) is not null and ("user_id"
) is not null and (true
)) as _keys loop
          if pg_catalog.cardinality(_tbl) operator(pg_catalog.=) 1000 then
            perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
            _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
          end if;
          _tbl := pg_catalog.array_append(_tbl, _row.tbl);
          _keys1 := pg_catalog.array_append(_keys1, _row.k1);
          _keys2 := pg_catalog.array_append(_keys2, _row.k2);
          _gone := pg_catalog.array_append(_gone, _row.gone);
        end loop;
      end if;
    end if;
  exception when others then
    raise log 'mirror: capture of trip_memberships failed (%): %; the whole table is marked', sqlstate, sqlerrm;
    _tbl := array['trip_memberships'];
    _keys1 := null; _keys2 := null; _gone := null;
    begin _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end; exception when others then _place := null; end;
  end;
  if _place is null then
    if _changed or _tbl is not null then
      raise log 'mirror: the outbox is gone: a change of trip_memberships was not marked';
    end if;
  elsif _tbl is not null then
    perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
  else
    if _place operator(pg_catalog.=) 0 then
      insert into mirror.outbox (tbl, k1, k2, gone) values ('trip_memberships', _k1, _k2, true);
    elsif _place operator(pg_catalog.=) 1 then
      insert into mirror.outbox_1 (tbl, k1, k2, gone) values ('trip_memberships', _k1, _k2, true);
    elsif _place operator(pg_catalog.=) 2 then
      insert into mirror.outbox_2 (tbl, k1, k2, gone) values ('trip_memberships', _k1, _k2, true);
    else
      insert into mirror.outbox_3 (tbl, k1, k2, gone) values ('trip_memberships', _k1, _k2, true);
    end if;
    if not pg_catalog.pg_try_advisory_xact_lock_shared(1835627122, 1) then
      if pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0' then
        perform pg_catalog.pg_notify('mirror', '');
      end if;
    end if;
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trip_memberships_digest(after1 text, after2 text, row_limit integer, OUT result text, OUT n integer, OUT last1 text, OUT last2 text)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
 SET enable_seqscan TO 'off'
 SET enable_sort TO 'off'
 SET enable_hashjoin TO 'off'
AS $function$
#variable_conflict use_column
begin
  if trip_memberships_digest.after1 is null then
    select coalesce(bit_xor(('x' || left(md5(concat(_projected.trip_id, ' ', _projected.user_id, ' ', length(_projected.role::text), ':', _projected.role::text, length(_projected.status::text), ':', _projected.status::text)), 16))::bit(64)::bigint), 0)::text, count(*)::integer, ((array_agg(_projected.trip_id))[trip_memberships_digest.row_limit])::text, ((array_agg(_projected.user_id))[trip_memberships_digest.row_limit])::text
    into result, n, last1, last2
    from (select distinct on (("trip_id"
), ("user_id"
)) ("trip_id"
)::uuid as trip_id, ("user_id"
)::uuid as user_id, case when octet_length(("role"
)::text) > 16384 then mirror.too_large('role', octet_length(("role"
)::text), 16384) else ("role"
)::text end as role, case when octet_length(("status"
)::text) > 16384 then mirror.too_large('status', octet_length(("status"
)::text), 16384) else ("status"
)::text end as status from "public"."trip_memberships" as "trip_memberships"
          where ("trip_id"
) is not null and ("user_id"
) is not null and (true
) and ("trip_id"
) in (select ("id"
) from "public"."trips" as "trips" where ("id"
) is not null and (true
)) order by ("trip_id"
), ("user_id"
) limit trip_memberships_digest.row_limit) as _projected;
  else
    select coalesce(bit_xor(('x' || left(md5(concat(_projected.trip_id, ' ', _projected.user_id, ' ', length(_projected.role::text), ':', _projected.role::text, length(_projected.status::text), ':', _projected.status::text)), 16))::bit(64)::bigint), 0)::text, count(*)::integer, ((array_agg(_projected.trip_id))[trip_memberships_digest.row_limit])::text, ((array_agg(_projected.user_id))[trip_memberships_digest.row_limit])::text
    into result, n, last1, last2
    from (select distinct on (("trip_id"
), ("user_id"
)) ("trip_id"
)::uuid as trip_id, ("user_id"
)::uuid as user_id, case when octet_length(("role"
)::text) > 16384 then mirror.too_large('role', octet_length(("role"
)::text), 16384) else ("role"
)::text end as role, case when octet_length(("status"
)::text) > 16384 then mirror.too_large('status', octet_length(("status"
)::text), 16384) else ("status"
)::text end as status from "public"."trip_memberships" as "trip_memberships"
          where ("trip_id"
) is not null and ("user_id"
) is not null and (true
) and ("trip_id"
) in (select ("id"
) from "public"."trips" as "trips" where ("id"
) is not null and (true
) and ("id"
) >= (trip_memberships_digest.after1)::uuid) and (("trip_id"
), ("user_id"
)) > ((trip_memberships_digest.after1)::uuid, (trip_memberships_digest.after2)::uuid) order by ("trip_id"
), ("user_id"
) limit trip_memberships_digest.row_limit) as _projected;
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trip_memberships_insert()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET lock_timeout TO '0'
AS $function$
#variable_conflict use_column
declare
  _k1 pg_catalog.text;
  _k2 pg_catalog.text;
  _changed pg_catalog.bool;
  _many pg_catalog.bool;
  _place pg_catalog.int4;
  _tbl pg_catalog.text[];
  _keys1 pg_catalog.text[];
  _keys2 pg_catalog.text[];
  _gone pg_catalog.bool[];
  _row pg_catalog.record;
begin
  begin
    for _k1, _k2, _changed in select (("trip_id"
)::pg_catalog.text collate pg_catalog."C") as k1, (("user_id"
)::pg_catalog.text collate pg_catalog."C") as k2, (("trip_id"
) is not null and ("user_id"
) is not null and (true
)) is true as changed from new_rows as "trip_memberships" loop
      _many := _many is not null;
      exit when _many;
    end loop;
    if _changed and not _many then
      _place := case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end;
    elsif _many or _changed is null and _many is not null then
      _changed := null;
      select pg_catalog.array_agg(tbl), pg_catalog.array_agg(k1), pg_catalog.array_agg(k2), pg_catalog.array_agg(gone)
      into _tbl, _keys1, _keys2, _gone
      from (select 'trip_memberships' as tbl, k1, k2, gone from (select (("trip_id"
)::pg_catalog.text collate pg_catalog."C") as k1, (("user_id"
)::pg_catalog.text collate pg_catalog."C") as k2, true as moved, null::pg_catalog.bool as gone from new_rows as "trip_memberships" where ("trip_id"
) is not null and ("user_id"
) is not null and (true
)) as _keys limit 1001) as _dirty;
      if _tbl is not null then
        _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end;
      end if;
      if _place is not null and pg_catalog.cardinality(_tbl) operator(pg_catalog.>) 1000 then
        _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
        for _row in select 'trip_memberships' as tbl, k1, k2, gone from (select (("trip_id"
)::pg_catalog.text collate pg_catalog."C") as k1, (("user_id"
)::pg_catalog.text collate pg_catalog."C") as k2, true as moved, null::pg_catalog.bool as gone from new_rows as "trip_memberships" where ("trip_id"
) is not null and ("user_id"
) is not null and (true
)) as _keys loop
          if pg_catalog.cardinality(_tbl) operator(pg_catalog.=) 1000 then
            perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
            _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
          end if;
          _tbl := pg_catalog.array_append(_tbl, _row.tbl);
          _keys1 := pg_catalog.array_append(_keys1, _row.k1);
          _keys2 := pg_catalog.array_append(_keys2, _row.k2);
          _gone := pg_catalog.array_append(_gone, _row.gone);
        end loop;
      end if;
    end if;
  exception when others then
    raise log 'mirror: capture of trip_memberships failed (%): %; the whole table is marked', sqlstate, sqlerrm;
    _tbl := array['trip_memberships'];
    _keys1 := null; _keys2 := null; _gone := null;
    begin _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end; exception when others then _place := null; end;
  end;
  if _place is null then
    if _changed or _tbl is not null then
      raise log 'mirror: the outbox is gone: a change of trip_memberships was not marked';
    end if;
  elsif _tbl is not null then
    perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
  else
    if _place operator(pg_catalog.=) 0 then
      insert into mirror.outbox (tbl, k1, k2, gone) values ('trip_memberships', _k1, _k2, null);
    elsif _place operator(pg_catalog.=) 1 then
      insert into mirror.outbox_1 (tbl, k1, k2, gone) values ('trip_memberships', _k1, _k2, null);
    elsif _place operator(pg_catalog.=) 2 then
      insert into mirror.outbox_2 (tbl, k1, k2, gone) values ('trip_memberships', _k1, _k2, null);
    else
      insert into mirror.outbox_3 (tbl, k1, k2, gone) values ('trip_memberships', _k1, _k2, null);
    end if;
    if not pg_catalog.pg_try_advisory_xact_lock_shared(1835627122, 1) then
      if pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0' then
        perform pg_catalog.pg_notify('mirror', '');
      end if;
    end if;
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trip_memberships_keys(keys1 text[], keys2 text[], OUT n integer, OUT rows text, OUT gone text)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
#variable_conflict use_column
begin
  select count(*), concat('{', '"trip_id":"{', string_agg(_found.trip_id::text, ',') filter (where _found.trip_id is not null), '}"', ',', '"user_id":"{', string_agg(_found.user_id::text, ',') filter (where _found.trip_id is not null), '}"', ',', '"role":', to_json(coalesce(array_agg(_found.role) filter (where _found.trip_id is not null)::text, '{}')), ',', '"status":', to_json(coalesce(array_agg(_found.status) filter (where _found.trip_id is not null)::text, '{}')), '}'), coalesce(json_agg(json_build_object('trip_id', _wanted.k1::text, 'user_id', _wanted.k2::text)) filter (where _found.trip_id is null), '[]')::text
  into n, rows, gone
  from (select distinct (_key.k1)::uuid, (_key.k2)::uuid from (select unnest(keys1) as k1, unnest(keys2) as k2) as _key) as _wanted(k1, k2)
  left join lateral (
    select ("trip_id"
)::uuid as trip_id, ("user_id"
)::uuid as user_id, case when octet_length(("role"
)::text) > 16384 then mirror.too_large('role', octet_length(("role"
)::text), 16384) else ("role"
)::text end as role, case when octet_length(("status"
)::text) > 16384 then mirror.too_large('status', octet_length(("status"
)::text), 16384) else ("status"
)::text end as status from "public"."trip_memberships" as "trip_memberships" where ("trip_id"
) = _wanted.k1 and ("user_id"
) = _wanted.k2 and ("trip_id"
) is not null and ("user_id"
) is not null and (true
) and ("trip_id"
) in (select ("id"
) from "public"."trips" as "trips" where ("id"
) is not null and (true
)) limit 1) as _found on true;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trip_memberships_of(trips text[], row_limit integer, OUT scope text, OUT n bigint, OUT wide text[])
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
#variable_conflict use_column
declare
  _small text[];
begin
  select array_agg(_wanted.k1) filter (where _size.n <= row_limit), coalesce(sum(_size.n) filter (where _size.n <= row_limit), 0),
         coalesce(array_agg(_wanted.k1) filter (where _size.n > row_limit), '{}')
  into _small, n, wide
  from unnest(trips) as _wanted(k1),
       lateral (select count(*) as n from (select from "public"."trip_memberships" as "trip_memberships" where ("trip_id"
) = (_wanted.k1)::uuid and ("trip_id"
) is not null and ("user_id"
) is not null and (true
) and ("trip_id"
) in (select ("id"
) from "public"."trips" as "trips" where ("id"
) is not null and (true
))
                                           limit row_limit + 1) as _some) as _size;
  select format('{"table":"trip_memberships","trips":%s,"rows":%s}', coalesce(array_to_json(_small), '[]'), concat('{', '"trip_id":"{', string_agg(_projected.trip_id::text, ','), '}"', ',', '"user_id":"{', string_agg(_projected.user_id::text, ','), '}"', ',', '"role":', to_json(coalesce(array_agg(_projected.role)::text, '{}')), ',', '"status":', to_json(coalesce(array_agg(_projected.status)::text, '{}')), '}'))
  into scope
  from unnest(_small) as _wanted(k1),
       lateral (select distinct on (("trip_id"
), ("user_id"
)) ("trip_id"
)::uuid as trip_id, ("user_id"
)::uuid as user_id, case when octet_length(("role"
)::text) > 16384 then mirror.too_large('role', octet_length(("role"
)::text), 16384) else ("role"
)::text end as role, case when octet_length(("status"
)::text) > 16384 then mirror.too_large('status', octet_length(("status"
)::text), 16384) else ("status"
)::text end as status from "public"."trip_memberships" as "trip_memberships"
                where ("trip_id"
) = (_wanted.k1)::uuid and ("trip_id"
) is not null and ("user_id"
) is not null and (true
) and ("trip_id"
) in (select ("id"
) from "public"."trips" as "trips" where ("id"
) is not null and (true
)) offset 0) as _projected;
exception when data_exception or raise_exception then
  -- Some row cannot be read: the walk isolates it.
  scope := null;
  n := 0;
  wide := array(select k from unnest(trips) as k where mirror.trips_possible(k, null));
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trip_memberships_of_user(user_key text)
 RETURNS text
 LANGUAGE plpgsql
 STABLE
AS $function$
#variable_conflict use_column
begin
  return (
    select format('{"table":"trip_memberships","user":%s,"rows":%s}', to_json(user_key), concat('{', '"trip_id":"{', string_agg(_projected.trip_id::text, ','), '}"', ',', '"user_id":"{', string_agg(_projected.user_id::text, ','), '}"', ',', '"role":', to_json(coalesce(array_agg(_projected.role)::text, '{}')), ',', '"status":', to_json(coalesce(array_agg(_projected.status)::text, '{}')), '}'))
    from (select distinct on (("trip_id"
), ("user_id"
)) ("trip_id"
)::uuid as trip_id, ("user_id"
)::uuid as user_id, case when octet_length(("role"
)::text) > 16384 then mirror.too_large('role', octet_length(("role"
)::text), 16384) else ("role"
)::text end as role, case when octet_length(("status"
)::text) > 16384 then mirror.too_large('status', octet_length(("status"
)::text), 16384) else ("status"
)::text end as status from "public"."trip_memberships" as "trip_memberships"
          where ("user_id"
) = (user_key)::uuid and ("trip_id"
) is not null and ("user_id"
) is not null and (true
) and ("trip_id"
) in (select ("id"
) from "public"."trips" as "trips" where ("id"
) is not null and (true
))) as _projected);
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trip_memberships_possible(key1 text, key2 text)
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE
AS $function$
begin
  perform (key1)::uuid, (key2)::uuid;
  return true;
exception when data_exception then
  return false;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trip_memberships_replaced()
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE
AS $function$
declare
  _now regclass;
  _partitioned boolean;
  _same boolean;
begin
  _now := to_regclass($relation$"public"."trip_memberships"$relation$);
  select relkind = 'p', relfilenode = pg_relation_filenode(oid) into _partitioned, _same from pg_class where oid = _now;
  if _partitioned then
    select coalesce(bool_and(relfilenode = pg_relation_filenode(oid)), true) into _same from pg_class
    where oid = any (array(select relid from pg_partition_tree(_now) where isleaf));
  end if;
  return _now is not null and not coalesce(_same, false);
exception when insufficient_privilege then
  return false;  -- nor can it be read: that is reported by who tries
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trip_memberships_slice(trip text, after1 text, after2 text, upto1 text, upto2 text, row_limit integer, want text, OUT result text, OUT n integer, OUT last1 text, OUT last2 text)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
begin
  execute case want when 'keys' then $slice$ select concat('{', '"trip_id":"{', string_agg(_projected.trip_id::text, ','), '}"', ',', '"user_id":"{', string_agg(_projected.user_id::text, ','), '}"', '}') $slice$ else $slice$ select concat('{', '"trip_id":"{', string_agg(_projected.trip_id::text, ','), '}"', ',', '"user_id":"{', string_agg(_projected.user_id::text, ','), '}"', ',', '"role":', to_json(coalesce(array_agg(_projected.role)::text, '{}')), ',', '"status":', to_json(coalesce(array_agg(_projected.status)::text, '{}')), '}') $slice$ end
    || $slice$ , count(*)::integer, ((array_agg(_projected.trip_id))[$6])::text, ((array_agg(_projected.user_id))[$6])::text from (select distinct on (("trip_id"
), ("user_id"
)) $slice$
    || case want when 'keys' then $slice$ ("trip_id"
) as trip_id, ("user_id"
) as user_id $slice$ else $slice$ ("trip_id"
)::uuid as trip_id, ("user_id"
)::uuid as user_id, case when octet_length(("role"
)::text) > 16384 then mirror.too_large('role', octet_length(("role"
)::text), 16384) else ("role"
)::text end as role, case when octet_length(("status"
)::text) > 16384 then mirror.too_large('status', octet_length(("status"
)::text), 16384) else ("status"
)::text end as status $slice$ end
    || $slice$ from "public"."trip_memberships" as "trip_memberships" where $slice$
    || case when after1 is null then $slice$ ("trip_id"
) is not null and ("user_id"
) is not null and (true
) and ("trip_id"
) in (select ("id"
) from "public"."trips" as "trips" where ("id"
) is not null and (true
)) $slice$ else $slice$ ("trip_id"
) is not null and ("user_id"
) is not null and (true
) and ("trip_id"
) in (select ("id"
) from "public"."trips" as "trips" where ("id"
) is not null and (true
) and ("id"
) >= ($2)::uuid) and (("trip_id"
), ("user_id"
)) > (($2)::uuid, ($3)::uuid) $slice$ end
    || case when trip is not null then $slice$ and ("trip_id"
) = ($1)::uuid $slice$ else '' end
    || case when upto1 is not null then $slice$ and (("trip_id"
), ("user_id"
)) <= (($4)::uuid, ($5)::uuid) $slice$ else '' end
    || $slice$ order by ("trip_id"
), ("user_id"
) limit $6) as _projected $slice$
  into result, n, last1, last2 using trip, after1, after2, upto1, upto2, row_limit;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trip_memberships_truncate()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '0'
AS $function$
declare
  _place int;
begin
  begin _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end; exception when others then _place := null; end;
  if _place is null then
    raise log 'mirror: the outbox is gone: a change of trip_memberships was not marked';
  else
    perform mirror.mark_keys(_place, array['trip_memberships'], null, null, null);
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trip_memberships_update()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET lock_timeout TO '0'
AS $function$
#variable_conflict use_column
declare
  _k1 pg_catalog.text;
  _k2 pg_catalog.text;
  _changed pg_catalog.bool;
  _many pg_catalog.bool;
  _place pg_catalog.int4;
  _tbl pg_catalog.text[];
  _keys1 pg_catalog.text[];
  _keys2 pg_catalog.text[];
  _gone pg_catalog.bool[];
  _row pg_catalog.record;
begin
  begin
    for _k1, _k2, _changed in select _new.k1, _new.k2, case when pg_catalog.record_image_eq(row(_old.visible, _old.c0, _old.c1, _old.c2, _old.c3), row(_new.visible, _new.c0, _new.c1, _new.c2, _new.c3)) then false when _old.visible and _new.visible and pg_catalog.record_image_eq(row(_old.c0, _old.c1), row(_new.c0, _new.c1)) then true end as changed from (select (("trip_id"
)::pg_catalog.text collate pg_catalog."C") as k1, (("user_id"
)::pg_catalog.text collate pg_catalog."C") as k2, (("trip_id"
) is not null and ("user_id"
) is not null and (true
)) is true as visible, ("trip_id"
) as c0, ("user_id"
) as c1, ("role"
) as c2, ("status"
) as c3 from old_rows as "trip_memberships") as _old, (select (("trip_id"
)::pg_catalog.text collate pg_catalog."C") as k1, (("user_id"
)::pg_catalog.text collate pg_catalog."C") as k2, (("trip_id"
) is not null and ("user_id"
) is not null and (true
)) is true as visible, ("trip_id"
) as c0, ("user_id"
) as c1, ("role"
) as c2, ("status"
) as c3 from new_rows as "trip_memberships") as _new loop
      _many := _many is not null;
      exit when _many;
    end loop;
    if _changed and not _many then
      _place := case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end;
    elsif _many or _changed is null and _many is not null then
      _changed := null;
      select pg_catalog.array_agg(tbl), pg_catalog.array_agg(k1), pg_catalog.array_agg(k2), pg_catalog.array_agg(gone)
      into _tbl, _keys1, _keys2, _gone
      from (select 'trip_memberships' as tbl, k1, k2, gone from (select k1, k2, pg_catalog.count(*) operator(pg_catalog.=) 1::pg_catalog.int8 as moved, case when pg_catalog.max(_side) operator(pg_catalog.=) 0 then true when pg_catalog.min(_side) operator(pg_catalog.=) 0 then false end as gone from (select k1, k2, pg_catalog.min(_side) as _side from (select (("trip_id"
)::pg_catalog.text collate pg_catalog."C") as k1, (("user_id"
)::pg_catalog.text collate pg_catalog."C") as k2, (("role"
)::pg_catalog.text collate pg_catalog."C") as role, (("status"
)::pg_catalog.text collate pg_catalog."C") as status, 0 as _side from old_rows as "trip_memberships" where ("trip_id"
) is not null and ("user_id"
) is not null and (true
) union all select (("trip_id"
)::pg_catalog.text collate pg_catalog."C") as k1, (("user_id"
)::pg_catalog.text collate pg_catalog."C") as k2, (("role"
)::pg_catalog.text collate pg_catalog."C") as role, (("status"
)::pg_catalog.text collate pg_catalog."C") as status, 1 as _side from new_rows as "trip_memberships" where ("trip_id"
) is not null and ("user_id"
) is not null and (true
)) as _sides group by k1, k2, role, status having pg_catalog.min(_side) operator(pg_catalog.=) pg_catalog.max(_side)) as _changed group by k1, k2) as _keys limit 1001) as _dirty;
      if _tbl is not null then
        _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end;
      end if;
      if _place is not null and pg_catalog.cardinality(_tbl) operator(pg_catalog.>) 1000 then
        _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
        for _row in select 'trip_memberships' as tbl, k1, k2, gone from (select k1, k2, pg_catalog.count(*) operator(pg_catalog.=) 1::pg_catalog.int8 as moved, case when pg_catalog.max(_side) operator(pg_catalog.=) 0 then true when pg_catalog.min(_side) operator(pg_catalog.=) 0 then false end as gone from (select k1, k2, pg_catalog.min(_side) as _side from (select (("trip_id"
)::pg_catalog.text collate pg_catalog."C") as k1, (("user_id"
)::pg_catalog.text collate pg_catalog."C") as k2, (("role"
)::pg_catalog.text collate pg_catalog."C") as role, (("status"
)::pg_catalog.text collate pg_catalog."C") as status, 0 as _side from old_rows as "trip_memberships" where ("trip_id"
) is not null and ("user_id"
) is not null and (true
) union all select (("trip_id"
)::pg_catalog.text collate pg_catalog."C") as k1, (("user_id"
)::pg_catalog.text collate pg_catalog."C") as k2, (("role"
)::pg_catalog.text collate pg_catalog."C") as role, (("status"
)::pg_catalog.text collate pg_catalog."C") as status, 1 as _side from new_rows as "trip_memberships" where ("trip_id"
) is not null and ("user_id"
) is not null and (true
)) as _sides group by k1, k2, role, status having pg_catalog.min(_side) operator(pg_catalog.=) pg_catalog.max(_side)) as _changed group by k1, k2) as _keys loop
          if pg_catalog.cardinality(_tbl) operator(pg_catalog.=) 1000 then
            perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
            _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
          end if;
          _tbl := pg_catalog.array_append(_tbl, _row.tbl);
          _keys1 := pg_catalog.array_append(_keys1, _row.k1);
          _keys2 := pg_catalog.array_append(_keys2, _row.k2);
          _gone := pg_catalog.array_append(_gone, _row.gone);
        end loop;
      end if;
    end if;
  exception when others then
    raise log 'mirror: capture of trip_memberships failed (%): %; the whole table is marked', sqlstate, sqlerrm;
    _tbl := array['trip_memberships'];
    _keys1 := null; _keys2 := null; _gone := null;
    begin _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end; exception when others then _place := null; end;
  end;
  if _place is null then
    if _changed or _tbl is not null then
      raise log 'mirror: the outbox is gone: a change of trip_memberships was not marked';
    end if;
  elsif _tbl is not null then
    perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
  else
    if _place operator(pg_catalog.=) 0 then
      insert into mirror.outbox (tbl, k1, k2, gone) values ('trip_memberships', _k1, _k2, false);
    elsif _place operator(pg_catalog.=) 1 then
      insert into mirror.outbox_1 (tbl, k1, k2, gone) values ('trip_memberships', _k1, _k2, false);
    elsif _place operator(pg_catalog.=) 2 then
      insert into mirror.outbox_2 (tbl, k1, k2, gone) values ('trip_memberships', _k1, _k2, false);
    else
      insert into mirror.outbox_3 (tbl, k1, k2, gone) values ('trip_memberships', _k1, _k2, false);
    end if;
    if not pg_catalog.pg_try_advisory_xact_lock_shared(1835627122, 1) then
      if pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0' then
        perform pg_catalog.pg_notify('mirror', '');
      end if;
    end if;
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trips_delete()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET lock_timeout TO '0'
AS $function$
#variable_conflict use_column
declare
  _k1 pg_catalog.text;
  _k2 pg_catalog.text;
  _changed pg_catalog.bool;
  _many pg_catalog.bool;
  _place pg_catalog.int4;
  _tbl pg_catalog.text[];
  _keys1 pg_catalog.text[];
  _keys2 pg_catalog.text[];
  _gone pg_catalog.bool[];
  _row pg_catalog.record;
begin
  begin
    for _k1, _k2, _changed in select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, null::pg_catalog.bool as changed from old_rows as "trips" loop
      _many := _many is not null;
      exit when _many;
    end loop;
    if _changed and not _many then
      _place := case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end;
    elsif _many or _changed is null and _many is not null then
      _changed := null;
      select pg_catalog.array_agg(tbl), pg_catalog.array_agg(k1), pg_catalog.array_agg(k2), pg_catalog.array_agg(gone)
      into _tbl, _keys1, _keys2, _gone
      from (select tbl, k1, k2, gone from (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, true as moved, true::pg_catalog.bool as gone from old_rows as "trips" where ("id"
) is not null and (true
)) as _keys, pg_catalog.unnest(array['trips', 'trip_memberships']) as tbl where moved or tbl operator(pg_catalog.=) 'trips' limit 1001) as _dirty;
      if _tbl is not null then
        _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end;
      end if;
      if _place is not null and pg_catalog.cardinality(_tbl) operator(pg_catalog.>) 1000 then
        _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
        for _row in select tbl, k1, k2, gone from (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, true as moved, true::pg_catalog.bool as gone from old_rows as "trips" where ("id"
) is not null and (true
)) as _keys, pg_catalog.unnest(array['trips', 'trip_memberships']) as tbl where moved or tbl operator(pg_catalog.=) 'trips' loop
          if pg_catalog.cardinality(_tbl) operator(pg_catalog.=) 1000 then
            perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
            _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
          end if;
          _tbl := pg_catalog.array_append(_tbl, _row.tbl);
          _keys1 := pg_catalog.array_append(_keys1, _row.k1);
          _keys2 := pg_catalog.array_append(_keys2, _row.k2);
          _gone := pg_catalog.array_append(_gone, _row.gone);
        end loop;
      end if;
    end if;
  exception when others then
    raise log 'mirror: capture of trips failed (%): %; the whole table is marked', sqlstate, sqlerrm;
    _tbl := array['trips', 'trip_memberships'];
    _keys1 := null; _keys2 := null; _gone := null;
    begin _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end; exception when others then _place := null; end;
  end;
  if _place is null then
    if _changed or _tbl is not null then
      raise log 'mirror: the outbox is gone: a change of trips was not marked';
    end if;
  elsif _tbl is not null then
    perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
  else
    if _place operator(pg_catalog.=) 0 then
      insert into mirror.outbox (tbl, k1, k2, gone) values ('trips', _k1, _k2, true);
    elsif _place operator(pg_catalog.=) 1 then
      insert into mirror.outbox_1 (tbl, k1, k2, gone) values ('trips', _k1, _k2, true);
    elsif _place operator(pg_catalog.=) 2 then
      insert into mirror.outbox_2 (tbl, k1, k2, gone) values ('trips', _k1, _k2, true);
    else
      insert into mirror.outbox_3 (tbl, k1, k2, gone) values ('trips', _k1, _k2, true);
    end if;
    if not pg_catalog.pg_try_advisory_xact_lock_shared(1835627122, 1) then
      if pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0' then
        perform pg_catalog.pg_notify('mirror', '');
      end if;
    end if;
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trips_digest(after1 text, after2 text, row_limit integer, OUT result text, OUT n integer, OUT last1 text, OUT last2 text)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
 SET enable_seqscan TO 'off'
 SET enable_sort TO 'off'
 SET enable_hashjoin TO 'off'
AS $function$
#variable_conflict use_column
begin
  if trips_digest.after1 is null then
    select coalesce(bit_xor(('x' || left(md5(concat(_projected.id, ' ', length(_projected.name::text), ':', _projected.name::text, _projected.created_by, ' ')), 16))::bit(64)::bigint), 0)::text, count(*)::integer, ((array_agg(_projected.id))[trips_digest.row_limit])::text, null::text
    into result, n, last1, last2
    from (select distinct on (("id"
)) ("id"
)::uuid as id, case when octet_length(("name"
)::text) > 16384 then mirror.too_large('name', octet_length(("name"
)::text), 16384) else ("name"
)::text end as name, ("created_by"
)::uuid as created_by from "public"."trips" as "trips"
          where ("id"
) is not null and (true
) order by ("id"
) limit trips_digest.row_limit) as _projected;
  else
    select coalesce(bit_xor(('x' || left(md5(concat(_projected.id, ' ', length(_projected.name::text), ':', _projected.name::text, _projected.created_by, ' ')), 16))::bit(64)::bigint), 0)::text, count(*)::integer, ((array_agg(_projected.id))[trips_digest.row_limit])::text, null::text
    into result, n, last1, last2
    from (select distinct on (("id"
)) ("id"
)::uuid as id, case when octet_length(("name"
)::text) > 16384 then mirror.too_large('name', octet_length(("name"
)::text), 16384) else ("name"
)::text end as name, ("created_by"
)::uuid as created_by from "public"."trips" as "trips"
          where ("id"
) is not null and (true
) and (("id"
)) > ((trips_digest.after1)::uuid) order by ("id"
) limit trips_digest.row_limit) as _projected;
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trips_insert()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET lock_timeout TO '0'
AS $function$
#variable_conflict use_column
declare
  _k1 pg_catalog.text;
  _k2 pg_catalog.text;
  _changed pg_catalog.bool;
  _many pg_catalog.bool;
  _place pg_catalog.int4;
  _tbl pg_catalog.text[];
  _keys1 pg_catalog.text[];
  _keys2 pg_catalog.text[];
  _gone pg_catalog.bool[];
  _row pg_catalog.record;
begin
  begin
    for _k1, _k2, _changed in select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, null::pg_catalog.bool as changed from new_rows as "trips" loop
      _many := _many is not null;
      exit when _many;
    end loop;
    if _changed and not _many then
      _place := case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end;
    elsif _many or _changed is null and _many is not null then
      _changed := null;
      select pg_catalog.array_agg(tbl), pg_catalog.array_agg(k1), pg_catalog.array_agg(k2), pg_catalog.array_agg(gone)
      into _tbl, _keys1, _keys2, _gone
      from (select tbl, k1, k2, gone from (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, true as moved, null::pg_catalog.bool as gone from new_rows as "trips" where ("id"
) is not null and (true
)) as _keys, pg_catalog.unnest(array['trips', 'trip_memberships']) as tbl where moved or tbl operator(pg_catalog.=) 'trips' limit 1001) as _dirty;
      if _tbl is not null then
        _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end;
      end if;
      if _place is not null and pg_catalog.cardinality(_tbl) operator(pg_catalog.>) 1000 then
        _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
        for _row in select tbl, k1, k2, gone from (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, true as moved, null::pg_catalog.bool as gone from new_rows as "trips" where ("id"
) is not null and (true
)) as _keys, pg_catalog.unnest(array['trips', 'trip_memberships']) as tbl where moved or tbl operator(pg_catalog.=) 'trips' loop
          if pg_catalog.cardinality(_tbl) operator(pg_catalog.=) 1000 then
            perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
            _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
          end if;
          _tbl := pg_catalog.array_append(_tbl, _row.tbl);
          _keys1 := pg_catalog.array_append(_keys1, _row.k1);
          _keys2 := pg_catalog.array_append(_keys2, _row.k2);
          _gone := pg_catalog.array_append(_gone, _row.gone);
        end loop;
      end if;
    end if;
  exception when others then
    raise log 'mirror: capture of trips failed (%): %; the whole table is marked', sqlstate, sqlerrm;
    _tbl := array['trips', 'trip_memberships'];
    _keys1 := null; _keys2 := null; _gone := null;
    begin _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end; exception when others then _place := null; end;
  end;
  if _place is null then
    if _changed or _tbl is not null then
      raise log 'mirror: the outbox is gone: a change of trips was not marked';
    end if;
  elsif _tbl is not null then
    perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
  else
    if _place operator(pg_catalog.=) 0 then
      insert into mirror.outbox (tbl, k1, k2, gone) values ('trips', _k1, _k2, null);
    elsif _place operator(pg_catalog.=) 1 then
      insert into mirror.outbox_1 (tbl, k1, k2, gone) values ('trips', _k1, _k2, null);
    elsif _place operator(pg_catalog.=) 2 then
      insert into mirror.outbox_2 (tbl, k1, k2, gone) values ('trips', _k1, _k2, null);
    else
      insert into mirror.outbox_3 (tbl, k1, k2, gone) values ('trips', _k1, _k2, null);
    end if;
    if not pg_catalog.pg_try_advisory_xact_lock_shared(1835627122, 1) then
      if pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0' then
        perform pg_catalog.pg_notify('mirror', '');
      end if;
    end if;
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trips_keys(keys1 text[], keys2 text[], OUT n integer, OUT rows text, OUT gone text)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
#variable_conflict use_column
begin
  select count(*), concat('{', '"id":"{', string_agg(_found.id::text, ',') filter (where _found.id is not null), '}"', ',', '"name":', to_json(coalesce(array_agg(_found.name) filter (where _found.id is not null)::text, '{}')), ',', '"created_by":', to_json(coalesce(array_agg(_found.created_by) filter (where _found.id is not null)::text, '{}')), '}'), coalesce(json_agg(json_build_object('id', _wanted.k1::text)) filter (where _found.id is null), '[]')::text
  into n, rows, gone
  from (select distinct (_key.k1)::uuid, null from (select unnest(keys1) as k1, unnest(keys2) as k2) as _key) as _wanted(k1, k2)
  left join lateral (
    select ("id"
)::uuid as id, case when octet_length(("name"
)::text) > 16384 then mirror.too_large('name', octet_length(("name"
)::text), 16384) else ("name"
)::text end as name, ("created_by"
)::uuid as created_by from "public"."trips" as "trips" where ("id"
) = _wanted.k1 and ("id"
) is not null and (true
) limit 1) as _found on true;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trips_possible(key1 text, key2 text)
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE
AS $function$
begin
  perform (key1)::uuid;
  return true;
exception when data_exception then
  return false;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trips_replaced()
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE
AS $function$
declare
  _now regclass;
  _partitioned boolean;
  _same boolean;
begin
  _now := to_regclass($relation$"public"."trips"$relation$);
  select relkind = 'p', relfilenode = pg_relation_filenode(oid) into _partitioned, _same from pg_class where oid = _now;
  if _partitioned then
    select coalesce(bool_and(relfilenode = pg_relation_filenode(oid)), true) into _same from pg_class
    where oid = any (array(select relid from pg_partition_tree(_now) where isleaf));
  end if;
  return _now is not null and not coalesce(_same, false);
exception when insufficient_privilege then
  return false;  -- nor can it be read: that is reported by who tries
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trips_slice(trip text, after1 text, after2 text, upto1 text, upto2 text, row_limit integer, want text, OUT result text, OUT n integer, OUT last1 text, OUT last2 text)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
begin
  execute case want when 'keys' then $slice$ select concat('{', '"id":"{', string_agg(_projected.id::text, ','), '}"', '}') $slice$ else $slice$ select concat('{', '"id":"{', string_agg(_projected.id::text, ','), '}"', ',', '"name":', to_json(coalesce(array_agg(_projected.name)::text, '{}')), ',', '"created_by":', to_json(coalesce(array_agg(_projected.created_by)::text, '{}')), '}') $slice$ end
    || $slice$ , count(*)::integer, ((array_agg(_projected.id))[$6])::text, null::text from (select distinct on (("id"
)) $slice$
    || case want when 'keys' then $slice$ ("id"
) as id $slice$ else $slice$ ("id"
)::uuid as id, case when octet_length(("name"
)::text) > 16384 then mirror.too_large('name', octet_length(("name"
)::text), 16384) else ("name"
)::text end as name, ("created_by"
)::uuid as created_by $slice$ end
    || $slice$ from "public"."trips" as "trips" where $slice$
    || case when after1 is null then $slice$ ("id"
) is not null and (true
) $slice$ else $slice$ ("id"
) is not null and (true
) and (("id"
)) > (($2)::uuid) $slice$ end
    || case when trip is not null then $slice$ and ("id"
) = ($1)::uuid $slice$ else '' end
    || case when upto1 is not null then $slice$ and (("id"
)) <= (($4)::uuid) $slice$ else '' end
    || $slice$ order by ("id"
) limit $6) as _projected $slice$
  into result, n, last1, last2 using trip, after1, after2, upto1, upto2, row_limit;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trips_truncate()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '0'
AS $function$
declare
  _place int;
begin
  begin _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end; exception when others then _place := null; end;
  if _place is null then
    raise log 'mirror: the outbox is gone: a change of trips was not marked';
  else
    perform mirror.mark_keys(_place, array['trips', 'trip_memberships'], null, null, null);
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.trips_update()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET lock_timeout TO '0'
AS $function$
#variable_conflict use_column
declare
  _k1 pg_catalog.text;
  _k2 pg_catalog.text;
  _changed pg_catalog.bool;
  _many pg_catalog.bool;
  _place pg_catalog.int4;
  _tbl pg_catalog.text[];
  _keys1 pg_catalog.text[];
  _keys2 pg_catalog.text[];
  _gone pg_catalog.bool[];
  _row pg_catalog.record;
begin
  begin
    for _k1, _k2, _changed in select _new.k1, _new.k2, case when pg_catalog.record_image_eq(row(_old.visible, _old.c0, _old.c1, _old.c2), row(_new.visible, _new.c0, _new.c1, _new.c2)) then false when _old.visible and _new.visible and pg_catalog.record_image_eq(row(_old.c0), row(_new.c0)) then true end as changed from (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, (("id"
) is not null and (true
)) is true as visible, ("id"
) as c0, ("name"
) as c1, ("created_by"
) as c2 from old_rows as "trips") as _old, (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, (("id"
) is not null and (true
)) is true as visible, ("id"
) as c0, ("name"
) as c1, ("created_by"
) as c2 from new_rows as "trips") as _new loop
      _many := _many is not null;
      exit when _many;
    end loop;
    if _changed and not _many then
      _place := case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end;
    elsif _many or _changed is null and _many is not null then
      _changed := null;
      select pg_catalog.array_agg(tbl), pg_catalog.array_agg(k1), pg_catalog.array_agg(k2), pg_catalog.array_agg(gone)
      into _tbl, _keys1, _keys2, _gone
      from (select tbl, k1, k2, gone from (select k1, k2, pg_catalog.count(*) operator(pg_catalog.=) 1::pg_catalog.int8 as moved, case when pg_catalog.max(_side) operator(pg_catalog.=) 0 then true end as gone from (select k1, k2, pg_catalog.min(_side) as _side from (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, (("name"
)::pg_catalog.text collate pg_catalog."C") as name, (("created_by"
)::pg_catalog.text collate pg_catalog."C") as created_by, 0 as _side from old_rows as "trips" where ("id"
) is not null and (true
) union all select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, (("name"
)::pg_catalog.text collate pg_catalog."C") as name, (("created_by"
)::pg_catalog.text collate pg_catalog."C") as created_by, 1 as _side from new_rows as "trips" where ("id"
) is not null and (true
)) as _sides group by k1, k2, name, created_by having pg_catalog.min(_side) operator(pg_catalog.=) pg_catalog.max(_side)) as _changed group by k1, k2) as _keys, pg_catalog.unnest(array['trips', 'trip_memberships']) as tbl where moved or tbl operator(pg_catalog.=) 'trips' limit 1001) as _dirty;
      if _tbl is not null then
        _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end;
      end if;
      if _place is not null and pg_catalog.cardinality(_tbl) operator(pg_catalog.>) 1000 then
        _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
        for _row in select tbl, k1, k2, gone from (select k1, k2, pg_catalog.count(*) operator(pg_catalog.=) 1::pg_catalog.int8 as moved, case when pg_catalog.max(_side) operator(pg_catalog.=) 0 then true end as gone from (select k1, k2, pg_catalog.min(_side) as _side from (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, (("name"
)::pg_catalog.text collate pg_catalog."C") as name, (("created_by"
)::pg_catalog.text collate pg_catalog."C") as created_by, 0 as _side from old_rows as "trips" where ("id"
) is not null and (true
) union all select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, (("name"
)::pg_catalog.text collate pg_catalog."C") as name, (("created_by"
)::pg_catalog.text collate pg_catalog."C") as created_by, 1 as _side from new_rows as "trips" where ("id"
) is not null and (true
)) as _sides group by k1, k2, name, created_by having pg_catalog.min(_side) operator(pg_catalog.=) pg_catalog.max(_side)) as _changed group by k1, k2) as _keys, pg_catalog.unnest(array['trips', 'trip_memberships']) as tbl where moved or tbl operator(pg_catalog.=) 'trips' loop
          if pg_catalog.cardinality(_tbl) operator(pg_catalog.=) 1000 then
            perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
            _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
          end if;
          _tbl := pg_catalog.array_append(_tbl, _row.tbl);
          _keys1 := pg_catalog.array_append(_keys1, _row.k1);
          _keys2 := pg_catalog.array_append(_keys2, _row.k2);
          _gone := pg_catalog.array_append(_gone, _row.gone);
        end loop;
      end if;
    end if;
  exception when others then
    raise log 'mirror: capture of trips failed (%): %; the whole table is marked', sqlstate, sqlerrm;
    _tbl := array['trips', 'trip_memberships'];
    _keys1 := null; _keys2 := null; _gone := null;
    begin _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end; exception when others then _place := null; end;
  end;
  if _place is null then
    if _changed or _tbl is not null then
      raise log 'mirror: the outbox is gone: a change of trips was not marked';
    end if;
  elsif _tbl is not null then
    perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
  else
    if _place operator(pg_catalog.=) 0 then
      insert into mirror.outbox (tbl, k1, k2, gone) values ('trips', _k1, _k2, null);
    elsif _place operator(pg_catalog.=) 1 then
      insert into mirror.outbox_1 (tbl, k1, k2, gone) values ('trips', _k1, _k2, null);
    elsif _place operator(pg_catalog.=) 2 then
      insert into mirror.outbox_2 (tbl, k1, k2, gone) values ('trips', _k1, _k2, null);
    else
      insert into mirror.outbox_3 (tbl, k1, k2, gone) values ('trips', _k1, _k2, null);
    end if;
    if not pg_catalog.pg_try_advisory_xact_lock_shared(1835627122, 1) then
      if pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0' then
        perform pg_catalog.pg_notify('mirror', '');
      end if;
    end if;
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.turn()
 RETURNS integer
 LANGUAGE sql
 STABLE PARALLEL SAFE
AS $function$
  select mirror.slot()
$function$;

CREATE OR REPLACE FUNCTION mirror.uncaptured()
 RETURNS TABLE(tbl text, message text)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  with _triggers as (
    select m.tbl, m.relation, m.replaced, p.proowner as owner, 'mirror_' || e.event as name,
           case when t.oid is null then 'missing'
                when p.oid is null or t.tgqual is not null
                     or (t.tgtype::integer, coalesce(t.tgoldtable::text, ''), coalesce(t.tgnewtable::text, '')) <> (e.type, e.old, e.new)
                  then 'not ours'
                when t.tgenabled <> 'A' then 'not enabled always' end as wrong
    from mirror.mapped() as m
    cross join (values ('insert', 4, '', 'new_rows'), ('update', 16, 'old_rows', 'new_rows'),
                       ('delete', 8, 'old_rows', ''), ('truncate', 32, '', '')) as e(event, type, old, new)
    left join pg_trigger as t on t.tgrelid = m.oid and t.tgname = 'mirror_' || e.event
    left join pg_proc as p on p.oid = t.tgfoid and p.pronamespace = to_regnamespace('mirror') and p.proname = m.tbl || '_' || e.event
    where m.kind in ('r', 'p')
  ), _places as (
    select n.name, c.oid, n.name = 'outbox_id' as is_sequence
    from unnest(array['outbox', 'outbox_1', 'outbox_2', 'outbox_3', 'outbox_id']) as n(name)
    left join pg_class as c on c.relnamespace = to_regnamespace('mirror') and c.relname = n.name
  ), _called as (
    select n.name, p.oid from unnest(array['mark_keys', 'turn', 'slot']) as n(name)
    left join pg_proc as p on p.pronamespace = to_regnamespace('mirror') and p.proname = n.name
  ), _owners as (
    select distinct t.tbl, t.owner, t.owner::regrole as role from _triggers as t where t.owner is not null
  )
  select t.tbl, case when bool_and(t.replaced and t.wrong = 'missing')
                     then format('%s was dropped and made anew, without the triggers of the mirror', t.relation)
                     else format('trigger %s on %s is %s', string_agg(t.name, ', ' order by t.name), t.relation, t.wrong) end
  from _triggers as t where t.wrong is not null group by t.tbl, t.relation, t.wrong
  union all
  select o.tbl, case when p.oid is null then format('mirror.%s is missing', p.name)
                     else format('%s may not write to mirror.%s', o.role, p.name) end
  from _owners as o, _places as p
  where p.oid is null or not case when p.is_sequence then has_sequence_privilege(o.owner, p.oid, 'usage')
                                  else has_table_privilege(o.owner, p.oid, 'insert') end
  union all
  select o.tbl, case when c.oid is null then format('mirror.%s() is missing', c.name)
                     else format('%s may not call mirror.%s()', o.role, c.name) end
  from _owners as o, _called as c where c.oid is null or not has_function_privilege(o.owner, c.oid, 'execute')
  union all
  select o.tbl, format('%s may not enter schema mirror', o.role)
  from _owners as o where not has_schema_privilege(o.owner, 'mirror', 'usage')
$function$;

CREATE OR REPLACE FUNCTION mirror.unlead(holder uuid)
 RETURNS void
 LANGUAGE sql
AS $function$
  update mirror.lead as l set holder = null, name = null, pid = null, until = null
  where l.one and l.holder = unlead.holder
$function$;

CREATE OR REPLACE FUNCTION mirror.unreadable()
 RETURNS TABLE(tbl text, message text, cure text)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select distinct on (m.tbl) m.tbl, w.message, w.cure
  from (
    select m.*, concat('; the table that was mapped is now ' || m.renamed) as where_it_is,
           coalesce(not has_schema_privilege(m.schema, 'usage'), false) as closed,
           array(select quote_ident(w.name) from unnest(m.columns) as w(name)
                 where not exists (select from pg_attribute as a where a.attrelid = m.oid and a.attname = w.name)) as missing,
           array(select quote_ident(a.attname) from pg_attribute as a
                 where a.attrelid = m.oid and a.attname = any (m.columns) and not has_column_privilege(m.oid, a.attnum, 'select')
                 order by a.attnum) as hidden
    from mirror.mapped() as m
  ) as m,
  lateral (values
    (1, m.oid is null, concat(m.relation, ' is missing', m.where_it_is),
     format('%s in mirror.toml, [%s], and run `mirror install source`.',
            coalesce('Write from = ' || quote_literal(m.renamed), 'Make it again or name another table'), m.tbl)),
    (2, m.kind not in ('r', 'p'), concat(m.relation, ' is not a table', m.where_it_is),
     format('Write from = %L in mirror.toml, [%s], and run `mirror install source`.', coalesce(m.renamed, 'schema.table'), m.tbl)),
    (3, m.missing <> '{}', format('%s has no column %s', m.relation, array_to_string(m.missing, ', ')),
     format('Make it again, or map what is there in mirror.toml, [%s], and run `mirror install source`.', m.tbl)),
    (4, m.closed or m.hidden <> '{}',
     concat(m.reader, ' may not read ', m.relation, case when m.replaced then ', which was dropped and made anew' end),
     case when m.replaced then 'Run `mirror install source`.' else concat_ws(' ', 'Run in the source:',
       case when m.closed then format('grant usage on schema %s to %s;', m.schema::regnamespace, m.reader) end,
       case when m.hidden <> '{}' then format('grant select (%s) on %s to %s;', array_to_string(m.hidden, ', '), m.relation, m.reader) end) end),
    (5, row_security_active(m.oid), format('row level security of %s applies to %I', m.relation, current_user),
     format('Run in the source, as an administrator: alter role %I bypassrls;', current_user))
  ) as w(n, applies, message, cure)
  where w.applies order by m.tbl, w.n
$function$;

CREATE OR REPLACE FUNCTION mirror.users_delete()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET lock_timeout TO '0'
AS $function$
#variable_conflict use_column
declare
  _k1 pg_catalog.text;
  _k2 pg_catalog.text;
  _changed pg_catalog.bool;
  _many pg_catalog.bool;
  _place pg_catalog.int4;
  _tbl pg_catalog.text[];
  _keys1 pg_catalog.text[];
  _keys2 pg_catalog.text[];
  _gone pg_catalog.bool[];
  _row pg_catalog.record;
begin
  begin
    for _k1, _k2, _changed in select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, (("id"
) is not null and (true
)) is true as changed from old_rows as "users" loop
      _many := _many is not null;
      exit when _many;
    end loop;
    if _changed and not _many then
      _place := case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end;
    elsif _many or _changed is null and _many is not null then
      _changed := null;
      select pg_catalog.array_agg(tbl), pg_catalog.array_agg(k1), pg_catalog.array_agg(k2), pg_catalog.array_agg(gone)
      into _tbl, _keys1, _keys2, _gone
      from (select 'users' as tbl, k1, k2, gone from (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, true as moved, true::pg_catalog.bool as gone from old_rows as "users" where ("id"
) is not null and (true
)) as _keys limit 1001) as _dirty;
      if _tbl is not null then
        _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end;
      end if;
      if _place is not null and pg_catalog.cardinality(_tbl) operator(pg_catalog.>) 1000 then
        _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
        for _row in select 'users' as tbl, k1, k2, gone from (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, true as moved, true::pg_catalog.bool as gone from old_rows as "users" where ("id"
) is not null and (true
)) as _keys loop
          if pg_catalog.cardinality(_tbl) operator(pg_catalog.=) 1000 then
            perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
            _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
          end if;
          _tbl := pg_catalog.array_append(_tbl, _row.tbl);
          _keys1 := pg_catalog.array_append(_keys1, _row.k1);
          _keys2 := pg_catalog.array_append(_keys2, _row.k2);
          _gone := pg_catalog.array_append(_gone, _row.gone);
        end loop;
      end if;
    end if;
  exception when others then
    raise log 'mirror: capture of users failed (%): %; the whole table is marked', sqlstate, sqlerrm;
    _tbl := array['users'];
    _keys1 := null; _keys2 := null; _gone := null;
    begin _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end; exception when others then _place := null; end;
  end;
  if _place is null then
    if _changed or _tbl is not null then
      raise log 'mirror: the outbox is gone: a change of users was not marked';
    end if;
  elsif _tbl is not null then
    perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
  else
    if _place operator(pg_catalog.=) 0 then
      insert into mirror.outbox (tbl, k1, k2, gone) values ('users', _k1, _k2, true);
    elsif _place operator(pg_catalog.=) 1 then
      insert into mirror.outbox_1 (tbl, k1, k2, gone) values ('users', _k1, _k2, true);
    elsif _place operator(pg_catalog.=) 2 then
      insert into mirror.outbox_2 (tbl, k1, k2, gone) values ('users', _k1, _k2, true);
    else
      insert into mirror.outbox_3 (tbl, k1, k2, gone) values ('users', _k1, _k2, true);
    end if;
    if not pg_catalog.pg_try_advisory_xact_lock_shared(1835627122, 1) then
      if pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0' then
        perform pg_catalog.pg_notify('mirror', '');
      end if;
    end if;
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.users_digest(after1 text, after2 text, row_limit integer, OUT result text, OUT n integer, OUT last1 text, OUT last2 text)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
 SET enable_seqscan TO 'off'
 SET enable_sort TO 'off'
 SET enable_hashjoin TO 'off'
AS $function$
#variable_conflict use_column
begin
  if users_digest.after1 is null then
    select coalesce(bit_xor(('x' || left(md5(concat(_projected.id, ' ', length(_projected.subject::text), ':', _projected.subject::text, length(_projected.email::text), ':', _projected.email::text, length(_projected.username::text), ':', _projected.username::text)), 16))::bit(64)::bigint), 0)::text, count(*)::integer, ((array_agg(_projected.id))[users_digest.row_limit])::text, null::text
    into result, n, last1, last2
    from (select distinct on (("id"
)) ("id"
)::uuid as id, case when octet_length(("id"
)::text) > 16384 then mirror.too_large('subject', octet_length(("id"
)::text), 16384) else ("id"
)::text end as subject, case when octet_length(("email"
)::text) > 16384 then mirror.too_large('email', octet_length(("email"
)::text), 16384) else ("email"
)::text end as email, case when octet_length(("username"
)::text) > 16384 then mirror.too_large('username', octet_length(("username"
)::text), 16384) else ("username"
)::text end as username from "public"."users" as "users"
          where ("id"
) is not null and (true
) order by ("id"
) limit users_digest.row_limit) as _projected;
  else
    select coalesce(bit_xor(('x' || left(md5(concat(_projected.id, ' ', length(_projected.subject::text), ':', _projected.subject::text, length(_projected.email::text), ':', _projected.email::text, length(_projected.username::text), ':', _projected.username::text)), 16))::bit(64)::bigint), 0)::text, count(*)::integer, ((array_agg(_projected.id))[users_digest.row_limit])::text, null::text
    into result, n, last1, last2
    from (select distinct on (("id"
)) ("id"
)::uuid as id, case when octet_length(("id"
)::text) > 16384 then mirror.too_large('subject', octet_length(("id"
)::text), 16384) else ("id"
)::text end as subject, case when octet_length(("email"
)::text) > 16384 then mirror.too_large('email', octet_length(("email"
)::text), 16384) else ("email"
)::text end as email, case when octet_length(("username"
)::text) > 16384 then mirror.too_large('username', octet_length(("username"
)::text), 16384) else ("username"
)::text end as username from "public"."users" as "users"
          where ("id"
) is not null and (true
) and (("id"
)) > ((users_digest.after1)::uuid) order by ("id"
) limit users_digest.row_limit) as _projected;
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.users_insert()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET lock_timeout TO '0'
AS $function$
#variable_conflict use_column
declare
  _k1 pg_catalog.text;
  _k2 pg_catalog.text;
  _changed pg_catalog.bool;
  _many pg_catalog.bool;
  _place pg_catalog.int4;
  _tbl pg_catalog.text[];
  _keys1 pg_catalog.text[];
  _keys2 pg_catalog.text[];
  _gone pg_catalog.bool[];
  _row pg_catalog.record;
begin
  begin
    for _k1, _k2, _changed in select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, (("id"
) is not null and (true
)) is true as changed from new_rows as "users" loop
      _many := _many is not null;
      exit when _many;
    end loop;
    if _changed and not _many then
      _place := case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end;
    elsif _many or _changed is null and _many is not null then
      _changed := null;
      select pg_catalog.array_agg(tbl), pg_catalog.array_agg(k1), pg_catalog.array_agg(k2), pg_catalog.array_agg(gone)
      into _tbl, _keys1, _keys2, _gone
      from (select 'users' as tbl, k1, k2, gone from (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, true as moved, null::pg_catalog.bool as gone from new_rows as "users" where ("id"
) is not null and (true
)) as _keys limit 1001) as _dirty;
      if _tbl is not null then
        _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end;
      end if;
      if _place is not null and pg_catalog.cardinality(_tbl) operator(pg_catalog.>) 1000 then
        _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
        for _row in select 'users' as tbl, k1, k2, gone from (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, true as moved, null::pg_catalog.bool as gone from new_rows as "users" where ("id"
) is not null and (true
)) as _keys loop
          if pg_catalog.cardinality(_tbl) operator(pg_catalog.=) 1000 then
            perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
            _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
          end if;
          _tbl := pg_catalog.array_append(_tbl, _row.tbl);
          _keys1 := pg_catalog.array_append(_keys1, _row.k1);
          _keys2 := pg_catalog.array_append(_keys2, _row.k2);
          _gone := pg_catalog.array_append(_gone, _row.gone);
        end loop;
      end if;
    end if;
  exception when others then
    raise log 'mirror: capture of users failed (%): %; the whole table is marked', sqlstate, sqlerrm;
    _tbl := array['users'];
    _keys1 := null; _keys2 := null; _gone := null;
    begin _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end; exception when others then _place := null; end;
  end;
  if _place is null then
    if _changed or _tbl is not null then
      raise log 'mirror: the outbox is gone: a change of users was not marked';
    end if;
  elsif _tbl is not null then
    perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
  else
    if _place operator(pg_catalog.=) 0 then
      insert into mirror.outbox (tbl, k1, k2, gone) values ('users', _k1, _k2, null);
    elsif _place operator(pg_catalog.=) 1 then
      insert into mirror.outbox_1 (tbl, k1, k2, gone) values ('users', _k1, _k2, null);
    elsif _place operator(pg_catalog.=) 2 then
      insert into mirror.outbox_2 (tbl, k1, k2, gone) values ('users', _k1, _k2, null);
    else
      insert into mirror.outbox_3 (tbl, k1, k2, gone) values ('users', _k1, _k2, null);
    end if;
    if not pg_catalog.pg_try_advisory_xact_lock_shared(1835627122, 1) then
      if pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0' then
        perform pg_catalog.pg_notify('mirror', '');
      end if;
    end if;
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.users_keys(keys1 text[], keys2 text[], OUT n integer, OUT rows text, OUT gone text)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
#variable_conflict use_column
begin
  select count(*), concat('{', '"id":"{', string_agg(_found.id::text, ',') filter (where _found.id is not null), '}"', ',', '"subject":', to_json(coalesce(array_agg(_found.subject) filter (where _found.id is not null)::text, '{}')), ',', '"email":', to_json(coalesce(array_agg(_found.email) filter (where _found.id is not null)::text, '{}')), ',', '"username":', to_json(coalesce(array_agg(_found.username) filter (where _found.id is not null)::text, '{}')), '}'), coalesce(json_agg(json_build_object('id', _wanted.k1::text)) filter (where _found.id is null), '[]')::text
  into n, rows, gone
  from (select distinct (_key.k1)::uuid, null from (select unnest(keys1) as k1, unnest(keys2) as k2) as _key) as _wanted(k1, k2)
  left join lateral (
    select ("id"
)::uuid as id, case when octet_length(("id"
)::text) > 16384 then mirror.too_large('subject', octet_length(("id"
)::text), 16384) else ("id"
)::text end as subject, case when octet_length(("email"
)::text) > 16384 then mirror.too_large('email', octet_length(("email"
)::text), 16384) else ("email"
)::text end as email, case when octet_length(("username"
)::text) > 16384 then mirror.too_large('username', octet_length(("username"
)::text), 16384) else ("username"
)::text end as username from "public"."users" as "users" where ("id"
) = _wanted.k1 and ("id"
) is not null and (true
) limit 1) as _found on true;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.users_possible(key1 text, key2 text)
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE
AS $function$
begin
  perform (key1)::uuid;
  return true;
exception when data_exception then
  return false;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.users_replaced()
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE
AS $function$
declare
  _now regclass;
  _partitioned boolean;
  _same boolean;
begin
  _now := to_regclass($relation$"public"."users"$relation$);
  select relkind = 'p', relfilenode = pg_relation_filenode(oid) into _partitioned, _same from pg_class where oid = _now;
  if _partitioned then
    select coalesce(bool_and(relfilenode = pg_relation_filenode(oid)), true) into _same from pg_class
    where oid = any (array(select relid from pg_partition_tree(_now) where isleaf));
  end if;
  return _now is not null and not coalesce(_same, false);
exception when insufficient_privilege then
  return false;  -- nor can it be read: that is reported by who tries
end
$function$;

CREATE OR REPLACE FUNCTION mirror.users_slice(trip text, after1 text, after2 text, upto1 text, upto2 text, row_limit integer, want text, OUT result text, OUT n integer, OUT last1 text, OUT last2 text)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
begin
  execute case want when 'keys' then $slice$ select concat('{', '"id":"{', string_agg(_projected.id::text, ','), '}"', '}') $slice$ else $slice$ select concat('{', '"id":"{', string_agg(_projected.id::text, ','), '}"', ',', '"subject":', to_json(coalesce(array_agg(_projected.subject)::text, '{}')), ',', '"email":', to_json(coalesce(array_agg(_projected.email)::text, '{}')), ',', '"username":', to_json(coalesce(array_agg(_projected.username)::text, '{}')), '}') $slice$ end
    || $slice$ , count(*)::integer, ((array_agg(_projected.id))[$6])::text, null::text from (select distinct on (("id"
)) $slice$
    || case want when 'keys' then $slice$ ("id"
) as id $slice$ else $slice$ ("id"
)::uuid as id, case when octet_length(("id"
)::text) > 16384 then mirror.too_large('subject', octet_length(("id"
)::text), 16384) else ("id"
)::text end as subject, case when octet_length(("email"
)::text) > 16384 then mirror.too_large('email', octet_length(("email"
)::text), 16384) else ("email"
)::text end as email, case when octet_length(("username"
)::text) > 16384 then mirror.too_large('username', octet_length(("username"
)::text), 16384) else ("username"
)::text end as username $slice$ end
    || $slice$ from "public"."users" as "users" where $slice$
    || case when after1 is null then $slice$ ("id"
) is not null and (true
) $slice$ else $slice$ ("id"
) is not null and (true
) and (("id"
)) > (($2)::uuid) $slice$ end
    || case when trip is not null then $slice$ and ("id"
) = ($1)::uuid $slice$ else '' end
    || case when upto1 is not null then $slice$ and (("id"
)) <= (($4)::uuid) $slice$ else '' end
    || $slice$ order by ("id"
) limit $6) as _projected $slice$
  into result, n, last1, last2 using trip, after1, after2, upto1, upto2, row_limit;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.users_truncate()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '0'
AS $function$
declare
  _place int;
begin
  begin _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end; exception when others then _place := null; end;
  if _place is null then
    raise log 'mirror: the outbox is gone: a change of users was not marked';
  else
    perform mirror.mark_keys(_place, array['users'], null, null, null);
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.users_update()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET lock_timeout TO '0'
AS $function$
#variable_conflict use_column
declare
  _k1 pg_catalog.text;
  _k2 pg_catalog.text;
  _changed pg_catalog.bool;
  _many pg_catalog.bool;
  _place pg_catalog.int4;
  _tbl pg_catalog.text[];
  _keys1 pg_catalog.text[];
  _keys2 pg_catalog.text[];
  _gone pg_catalog.bool[];
  _row pg_catalog.record;
begin
  begin
    for _k1, _k2, _changed in select _new.k1, _new.k2, case when pg_catalog.record_image_eq(row(_old.visible, _old.c0, _old.c1, _old.c2), row(_new.visible, _new.c0, _new.c1, _new.c2)) then false when _old.visible and _new.visible and pg_catalog.record_image_eq(row(_old.c0), row(_new.c0)) then true end as changed from (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, (("id"
) is not null and (true
)) is true as visible, ("id"
) as c0, ("email"
) as c1, ("username"
) as c2 from old_rows as "users") as _old, (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, (("id"
) is not null and (true
)) is true as visible, ("id"
) as c0, ("email"
) as c1, ("username"
) as c2 from new_rows as "users") as _new loop
      _many := _many is not null;
      exit when _many;
    end loop;
    if _changed and not _many then
      _place := case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end;
    elsif _many or _changed is null and _many is not null then
      _changed := null;
      select pg_catalog.array_agg(tbl), pg_catalog.array_agg(k1), pg_catalog.array_agg(k2), pg_catalog.array_agg(gone)
      into _tbl, _keys1, _keys2, _gone
      from (select 'users' as tbl, k1, k2, gone from (select k1, k2, pg_catalog.count(*) operator(pg_catalog.=) 1::pg_catalog.int8 as moved, case when pg_catalog.max(_side) operator(pg_catalog.=) 0 then true end as gone from (select k1, k2, pg_catalog.min(_side) as _side from (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, (("id"
)::pg_catalog.text collate pg_catalog."C") as subject, (("email"
)::pg_catalog.text collate pg_catalog."C") as email, (("username"
)::pg_catalog.text collate pg_catalog."C") as username, 0 as _side from old_rows as "users" where ("id"
) is not null and (true
) union all select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, (("id"
)::pg_catalog.text collate pg_catalog."C") as subject, (("email"
)::pg_catalog.text collate pg_catalog."C") as email, (("username"
)::pg_catalog.text collate pg_catalog."C") as username, 1 as _side from new_rows as "users" where ("id"
) is not null and (true
)) as _sides group by k1, k2, subject, email, username having pg_catalog.min(_side) operator(pg_catalog.=) pg_catalog.max(_side)) as _changed group by k1, k2) as _keys limit 1001) as _dirty;
      if _tbl is not null then
        _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end;
      end if;
      if _place is not null and pg_catalog.cardinality(_tbl) operator(pg_catalog.>) 1000 then
        _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
        for _row in select 'users' as tbl, k1, k2, gone from (select k1, k2, pg_catalog.count(*) operator(pg_catalog.=) 1::pg_catalog.int8 as moved, case when pg_catalog.max(_side) operator(pg_catalog.=) 0 then true end as gone from (select k1, k2, pg_catalog.min(_side) as _side from (select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, (("id"
)::pg_catalog.text collate pg_catalog."C") as subject, (("email"
)::pg_catalog.text collate pg_catalog."C") as email, (("username"
)::pg_catalog.text collate pg_catalog."C") as username, 0 as _side from old_rows as "users" where ("id"
) is not null and (true
) union all select (("id"
)::pg_catalog.text collate pg_catalog."C") as k1, null::pg_catalog.text as k2, (("id"
)::pg_catalog.text collate pg_catalog."C") as subject, (("email"
)::pg_catalog.text collate pg_catalog."C") as email, (("username"
)::pg_catalog.text collate pg_catalog."C") as username, 1 as _side from new_rows as "users" where ("id"
) is not null and (true
)) as _sides group by k1, k2, subject, email, username having pg_catalog.min(_side) operator(pg_catalog.=) pg_catalog.max(_side)) as _changed group by k1, k2) as _keys loop
          if pg_catalog.cardinality(_tbl) operator(pg_catalog.=) 1000 then
            perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
            _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
          end if;
          _tbl := pg_catalog.array_append(_tbl, _row.tbl);
          _keys1 := pg_catalog.array_append(_keys1, _row.k1);
          _keys2 := pg_catalog.array_append(_keys2, _row.k2);
          _gone := pg_catalog.array_append(_gone, _row.gone);
        end loop;
      end if;
    end if;
  exception when others then
    raise log 'mirror: capture of users failed (%): %; the whole table is marked', sqlstate, sqlerrm;
    _tbl := array['users'];
    _keys1 := null; _keys2 := null; _gone := null;
    begin _place := case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],pg_catalog.text[],pg_catalog.bool[])', 'execute') then case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', 'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end end; exception when others then _place := null; end;
  end;
  if _place is null then
    if _changed or _tbl is not null then
      raise log 'mirror: the outbox is gone: a change of users was not marked';
    end if;
  elsif _tbl is not null then
    perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
  else
    if _place operator(pg_catalog.=) 0 then
      insert into mirror.outbox (tbl, k1, k2, gone) values ('users', _k1, _k2, null);
    elsif _place operator(pg_catalog.=) 1 then
      insert into mirror.outbox_1 (tbl, k1, k2, gone) values ('users', _k1, _k2, null);
    elsif _place operator(pg_catalog.=) 2 then
      insert into mirror.outbox_2 (tbl, k1, k2, gone) values ('users', _k1, _k2, null);
    else
      insert into mirror.outbox_3 (tbl, k1, k2, gone) values ('users', _k1, _k2, null);
    end if;
    if not pg_catalog.pg_try_advisory_xact_lock_shared(1835627122, 1) then
      if pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0' then
        perform pg_catalog.pg_notify('mirror', '');
      end if;
    end if;
  end if;
  return null;
end
$function$;

CREATE TRIGGER mirror_delete AFTER DELETE ON public.trip_memberships REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION mirror.trip_memberships_delete();
-- enabled: A

CREATE TRIGGER mirror_insert AFTER INSERT ON public.trip_memberships REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mirror.trip_memberships_insert();
-- enabled: A

CREATE TRIGGER mirror_truncate AFTER TRUNCATE ON public.trip_memberships FOR EACH STATEMENT EXECUTE FUNCTION mirror.trip_memberships_truncate();
-- enabled: A

CREATE TRIGGER mirror_update AFTER UPDATE ON public.trip_memberships REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mirror.trip_memberships_update();
-- enabled: A

CREATE TRIGGER mirror_delete AFTER DELETE ON public.trips REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION mirror.trips_delete();
-- enabled: A

CREATE TRIGGER mirror_insert AFTER INSERT ON public.trips REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mirror.trips_insert();
-- enabled: A

CREATE TRIGGER mirror_truncate AFTER TRUNCATE ON public.trips FOR EACH STATEMENT EXECUTE FUNCTION mirror.trips_truncate();
-- enabled: A

CREATE TRIGGER mirror_update AFTER UPDATE ON public.trips REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mirror.trips_update();
-- enabled: A

CREATE TRIGGER mirror_delete AFTER DELETE ON public.users REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION mirror.users_delete();
-- enabled: A

CREATE TRIGGER mirror_insert AFTER INSERT ON public.users REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mirror.users_insert();
-- enabled: A

CREATE TRIGGER mirror_truncate AFTER TRUNCATE ON public.users FOR EACH STATEMENT EXECUTE FUNCTION mirror.users_truncate();
-- enabled: A

CREATE TRIGGER mirror_update AFTER UPDATE ON public.users REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mirror.users_update();
-- enabled: A

grant execute on function mirror.ask(text,text,text,text,boolean,boolean) to mirror_daemon;

grant execute on function mirror.because(text,text) to mirror_daemon;

grant execute on function mirror.begin_life() to mirror_daemon;

grant execute on function mirror.cancel_resync(bigint) to mirror_daemon;

grant execute on function mirror.collapse(bigint) to mirror_daemon;

grant execute on function mirror.digest(text,text,text,integer) to mirror_daemon;

grant execute on function mirror.drain(jsonb,text[],text[],jsonb,text,text,text) to mirror_daemon;

grant execute on function mirror.faults() to mirror_daemon;

grant execute on function mirror.forget(tid[],int8multirange) to mirror_daemon;

grant execute on function mirror.identity() to mirror_daemon;

grant execute on function mirror.is_alive(mirror.lead) to mirror_daemon;

grant execute on function mirror.is_behind(text) to mirror_daemon;

grant execute on function mirror.keys(text,text[],text[]) to mirror_daemon;

grant execute on function mirror.lead(uuid,double precision,text,integer) to mirror_daemon;

grant execute on function mirror.leader() to mirror_daemon;

grant execute on function mirror.look(jsonb) to mirror_daemon;

grant execute on function mirror.mapped() to mirror_daemon;

grant execute on function mirror.mark_keys(integer,text[],text[],text[],boolean[]) to mirror_capture;

grant execute on function mirror.mark_tables(text[]) to mirror_daemon;

grant execute on function mirror.once(text[],text[]) to mirror_daemon;

grant execute on function mirror.outbox_bytes() to mirror_daemon;

grant execute on function mirror.pass_by(integer,boolean) to mirror_daemon;

grant execute on function mirror.possible(text,text,text) to mirror_daemon;

grant execute on function mirror.range(jsonb,jsonb) to mirror_daemon;

grant execute on function mirror.read_digest(jsonb) to mirror_daemon;

grant execute on function mirror.read_entries(jsonb,integer,boolean,boolean,pg_snapshot) to mirror_daemon;

grant execute on function mirror.read_keys(text,text[],text[]) to mirror_daemon;

grant execute on function mirror.read_part(text,text[],text[],integer) to mirror_daemon;

grant execute on function mirror.read_request(jsonb,integer) to mirror_daemon;

grant execute on function mirror.read_slice(jsonb,integer) to mirror_daemon;

grant execute on function mirror.report(bigint,text,jsonb,jsonb) to mirror_daemon;

grant execute on function mirror.resync(text,text,text,boolean,boolean) to mirror_daemon;

grant execute on function mirror.rings() to mirror_daemon;

grant execute on function mirror.slice(text,text,text,text,text,text,integer,text) to mirror_daemon;

grant execute on function mirror.slot() to mirror_capture;

grant execute on function mirror.slot() to mirror_daemon;

grant execute on function mirror.sort_out(text,text[],text[]) to mirror_daemon;

grant execute on function mirror.strangers() to mirror_daemon;

grant execute on function mirror.take(jsonb) to mirror_daemon;

grant execute on function mirror.tidy(bigint) to mirror_daemon;

grant execute on function mirror.token() to public;

grant execute on function mirror.token() to mirror_daemon;

grant execute on function mirror.too_large(text,integer,integer) to mirror_daemon;

grant execute on function mirror.trip_memberships_delete() to mirror_daemon;

grant execute on function mirror.trip_memberships_digest(text,text,integer) to mirror_daemon;

grant execute on function mirror.trip_memberships_insert() to mirror_daemon;

grant execute on function mirror.trip_memberships_keys(text[],text[]) to mirror_daemon;

grant execute on function mirror.trip_memberships_of(text[],integer) to mirror_daemon;

grant execute on function mirror.trip_memberships_of_user(text) to mirror_daemon;

grant execute on function mirror.trip_memberships_possible(text,text) to mirror_daemon;

grant execute on function mirror.trip_memberships_replaced() to mirror_daemon;

grant execute on function mirror.trip_memberships_slice(text,text,text,text,text,integer,text) to mirror_daemon;

grant execute on function mirror.trip_memberships_truncate() to mirror_daemon;

grant execute on function mirror.trip_memberships_update() to mirror_daemon;

grant execute on function mirror.trips_delete() to mirror_daemon;

grant execute on function mirror.trips_digest(text,text,integer) to mirror_daemon;

grant execute on function mirror.trips_insert() to mirror_daemon;

grant execute on function mirror.trips_keys(text[],text[]) to mirror_daemon;

grant execute on function mirror.trips_possible(text,text) to mirror_daemon;

grant execute on function mirror.trips_replaced() to mirror_daemon;

grant execute on function mirror.trips_slice(text,text,text,text,text,integer,text) to mirror_daemon;

grant execute on function mirror.trips_truncate() to mirror_daemon;

grant execute on function mirror.trips_update() to mirror_daemon;

grant execute on function mirror.turn() to mirror_capture;

grant execute on function mirror.turn() to mirror_daemon;

grant execute on function mirror.uncaptured() to mirror_daemon;

grant execute on function mirror.unlead(uuid) to mirror_daemon;

grant execute on function mirror.unreadable() to mirror_daemon;

grant execute on function mirror.users_delete() to mirror_daemon;

grant execute on function mirror.users_digest(text,text,integer) to mirror_daemon;

grant execute on function mirror.users_insert() to mirror_daemon;

grant execute on function mirror.users_keys(text[],text[]) to mirror_daemon;

grant execute on function mirror.users_possible(text,text) to mirror_daemon;

grant execute on function mirror.users_replaced() to mirror_daemon;

grant execute on function mirror.users_slice(text,text,text,text,text,integer,text) to mirror_daemon;

grant execute on function mirror.users_truncate() to mirror_daemon;

grant execute on function mirror.users_update() to mirror_daemon;

grant usage on schema mirror to public;

grant usage on schema mirror to mirror_capture;

grant usage on schema mirror to mirror_daemon;

grant select on table mirror.install to mirror_daemon;

grant select, update on table mirror.lead to mirror_daemon;

grant select on table mirror.origin to mirror_daemon;

grant insert on table mirror.outbox to mirror_capture;

grant delete, select, truncate on table mirror.outbox to mirror_daemon;

grant insert on table mirror.outbox_1 to mirror_capture;

grant delete, select, truncate on table mirror.outbox_1 to mirror_daemon;

grant insert on table mirror.outbox_2 to mirror_capture;

grant delete, select, truncate on table mirror.outbox_2 to mirror_daemon;

grant insert on table mirror.outbox_3 to mirror_capture;

grant delete, select, truncate on table mirror.outbox_3 to mirror_daemon;

grant usage on table mirror.outbox_id to mirror_capture;

grant select, update on table mirror.reached to mirror_daemon;

grant delete, insert, select, update on table mirror.request to mirror_daemon;

grant select on table mirror.resyncs to mirror_daemon;

grant select(role) on table public.trip_memberships to mirror_daemon;

grant select(status) on table public.trip_memberships to mirror_daemon;

grant select(trip_id) on table public.trip_memberships to mirror_daemon;

grant select(user_id) on table public.trip_memberships to mirror_daemon;

grant select(created_by) on table public.trips to mirror_daemon;

grant select(id) on table public.trips to mirror_daemon;

grant select(name) on table public.trips to mirror_daemon;

grant select(email) on table public.users to mirror_daemon;

grant select(id) on table public.users to mirror_daemon;

grant select(username) on table public.users to mirror_daemon;
