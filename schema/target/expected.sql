create schema mirror;

create table mirror.epochs (
  trip_id uuid not null,
  epoch bigint not null,
  constraint epochs_pkey PRIMARY KEY (trip_id)
);
alter table mirror.epochs enable row level security;

create table mirror.parked (
  tbl text not null,
  k1 text not null,
  k2 text not null default ''::text,
  reason text not null,
  since timestamp with time zone not null default now(),
  tries integer not null default 1,
  retry_at timestamp with time zone not null default (now() + '00:00:05'::interval),
  settled boolean not null default false,
  tried_at timestamp with time zone not null default now(),
  constraint parked_pkey PRIMARY KEY (tbl, k1, k2)
);
alter table mirror.parked enable row level security;

create table mirror.state (
  one boolean not null default true,
  version integer not null,
  rendered text not null,
  sealed text,
  types jsonb not null,
  allow_cascade text[] not null default '{}'::text[],
  source jsonb,
  epoch bigint not null default 0,
  batch bigint not null default 0,
  snapshot text,
  position_epoch bigint,
  as_of timestamp with time zone,
  fresh_at timestamp with time zone,
  applied_at timestamp with time zone,
  primed_at timestamp with time zone,
  proof jsonb,
  braked jsonb not null default '{}'::jsonb,
  walks jsonb not null default '[]'::jsonb,
  messages oid,
  life text,
  position_life text,
  doubts jsonb not null default '[]'::jsonb,
  known_at timestamp with time zone,
  seal bigint,
  constraint state_one_check CHECK (one),
  constraint state_pkey PRIMARY KEY (one)
);
alter table mirror.state enable row level security;

create table mirror.taken (
  step integer not null,
  undo text not null,
  constraint taken_pkey PRIMARY KEY (undo)
);
alter table mirror.taken enable row level security;

create table public.trip_memberships (
  trip_id uuid not null,
  user_id uuid not null,
  role text,
  status text,
  constraint trip_memberships_pkey PRIMARY KEY (trip_id, user_id)
);
alter table public.trip_memberships enable row level security;
alter table public.trip_memberships set (fillfactor=90);

create table public.trips (
  id uuid not null,
  name text,
  created_by uuid,
  constraint trips_pkey PRIMARY KEY (id)
);
alter table public.trips enable row level security;
alter table public.trips set (fillfactor=90);

create table public.users (
  id uuid not null,
  subject text,
  email text,
  username text,
  constraint users_pkey PRIMARY KEY (id)
);
alter table public.users enable row level security;
alter table public.users set (fillfactor=90);

CREATE INDEX parked_due ON mirror.parked USING btree (tbl, retry_at);

CREATE INDEX parked_settled ON mirror.parked USING btree (tbl) WHERE settled;

CREATE INDEX parked_tried ON mirror.parked USING btree (tried_at);

CREATE INDEX parked_users ON mirror.parked USING btree ((
CASE tbl
    WHEN 'users'::text THEN k1
    WHEN 'trip_memberships'::text THEN k2
    ELSE NULL::text
END));

CREATE INDEX trip_memberships_user_mirror ON public.trip_memberships USING btree (user_id, trip_id);

CREATE INDEX users_subject_mirror ON public.users USING btree (subject);

CREATE OR REPLACE FUNCTION mirror.act(action text, tbl text, rows jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
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
$function$;

CREATE OR REPLACE FUNCTION mirror.add(counts jsonb, tbl text, op text, n bigint)
 RETURNS jsonb
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select case when n = 0 then counts else
    counts || jsonb_build_object(tbl, coalesce(counts->tbl, '{}')
           || jsonb_build_object(op, coalesce((counts->tbl->>op)::bigint, 0) + n)) end
$function$;

CREATE OR REPLACE FUNCTION mirror.add_trip_memberships(rows jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$ -- permission mirror
declare _n bigint;
begin
  insert into public.trip_memberships (trip_id, user_id, role, status) overriding system value select r.* from (select unnest(mirror.list(rows->>'trip_id', (null::public.trip_memberships).trip_id)) as trip_id, unnest(mirror.list(rows->>'user_id', (null::public.trip_memberships).user_id)) as user_id, unnest(mirror.list(rows->>'role', (null::public.trip_memberships).role)) as role, unnest(mirror.list(rows->>'status', (null::public.trip_memberships).status)) as status) as r;
  get diagnostics _n = row_count;
  return _n;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.add_trips(rows jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$ -- permission mirror
declare _n bigint;
begin
  insert into public.trips (id, name, created_by) overriding system value select r.* from (select unnest(mirror.list(rows->>'id', (null::public.trips).id)) as id, unnest(mirror.list(rows->>'name', (null::public.trips).name)) as name, unnest(mirror.list(rows->>'created_by', (null::public.trips).created_by)) as created_by) as r;
  get diagnostics _n = row_count;
  return _n;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.add_users(rows jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$ -- permission mirror
declare _n bigint;
begin
  insert into public.users (id, subject, email, username) overriding system value select r.* from (select unnest(mirror.list(rows->>'id', (null::public.users).id)) as id, unnest(mirror.list(rows->>'subject', (null::public.users).subject)) as subject, unnest(mirror.list(rows->>'email', (null::public.users).email)) as email, unnest(mirror.list(rows->>'username', (null::public.users).username)) as username) as r;
  get diagnostics _n = row_count;
  return _n;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.advance(s mirror.state, batch jsonb)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
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
$function$;

CREATE OR REPLACE FUNCTION mirror.announce(revoked jsonb)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare
  _until timestamptz := clock_timestamp() + interval '1 second';
  _t record;
begin
  if not exists (select from pg_catalog.pg_proc as p join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
                 where n.nspname = 'realtime' and p.proname = 'send') then
    return;
  end if;
  for _t in
    select null::text as topic, 'revoked' as event, r.trip_id
    from jsonb_to_recordset(revoked) as r(trip_id text, sub text)
    union all
    select unnest(array[]::text[]), 'moved', e.trip_id::text
    from mirror.epochs as e
    where false and e.trip_id in (select r.trip_id from jsonb_to_recordset(revoked) as r(trip_id uuid))
    order by 2 desc loop
    continue when _t.topic is null;
    exit when clock_timestamp() > _until or not mirror.send(_t.event, _t.topic, _t.trip_id);
  end loop;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.as_trip_id(trip text)
 RETURNS uuid
 LANGUAGE plpgsql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
begin
  return case when trip::uuid::text = trip or trip::uuid::text = lower(trip) then trip::uuid end;
exception when others then
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.as_user_id(sub text)
 RETURNS uuid
 LANGUAGE plpgsql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
begin
  return case when sub::uuid::text = sub or sub::uuid::text = lower(sub) then sub::uuid end;
exception when others then
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.asks(expression text)
 RETURNS boolean
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select regexp_replace(expression, '\mauth\.role\(\)|\(*(\s*select\s+)?auth\.(uid|jwt|email)\(\)(\s+as\s+\w+)?\)*'
                                 || '\s+is\s+not\s+null', ' ', 'gi')
         ~* ('\mauth\.(uid|jwt|email)\(|current_setting\('
          || '|\m(my_user_id|my_trips|my_companions|is_trip_member|is_topic_member|is_own_topic|current_topic)\(')
$function$;

CREATE OR REPLACE FUNCTION mirror.attempt(action text, tbl text, rows jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
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
$function$;

CREATE OR REPLACE FUNCTION mirror.attempt_each(action text, tbl text, rows jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
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
$function$;

CREATE OR REPLACE FUNCTION mirror.blank()
 RETURNS mirror.state
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select jsonb_populate_record(null::mirror.state, jsonb_build_object(
    'one', true, 'version', 1, 'rendered', '', 'types', '{"created_by": "uuid", "trip_id": "uuid", "user_id": "uuid"}'::jsonb, 'allow_cascade', array[]::text[],
    'epoch', 0, 'batch', 0, 'braked', '{}'::jsonb, 'walks', '[]'::jsonb, 'doubts', '[]'::jsonb, 'messages', mirror.messages()::oid::bigint))
$function$;

CREATE OR REPLACE FUNCTION mirror.bound(condition text, VARIADIC keys text[])
 RETURNS text
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select case when keys[1] is not null then format(condition, variadic keys) end
$function$;

CREATE OR REPLACE FUNCTION mirror.channel_policies()
 RETURNS TABLE(name text, command text)
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select 'mirror: members receive', $policy$
    create policy "mirror: members receive" on realtime.messages for select to authenticated
      using (extension in ('broadcast', 'presence') and (select public.is_topic_member(realtime.topic())))$policy$
  where cardinality(array['^trip:([0-9a-fA-F-]+)$']::text[]) > 0
  union all
  select 'mirror: members send', $policy$
    create policy "mirror: members send" on realtime.messages for insert to authenticated
      with check (extension = any (array['broadcast', 'presence']::text[]) and (select public.is_topic_member(realtime.topic())))$policy$
  where cardinality(array['^trip:([0-9a-fA-F-]+)$']::text[]) > 0 and cardinality(array['broadcast', 'presence']::text[]) > 0
  union all
  select 'mirror: you hear what you lose', $policy$
    create policy "mirror: you hear what you lose" on realtime.messages for select to authenticated
      using (extension = 'broadcast' and (select public.is_own_topic(realtime.topic())))$policy$
  where false
$function$;

CREATE OR REPLACE FUNCTION mirror.channel_seal()
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select md5(coalesce(string_agg(line, E'\n' order by line collate "C"), '')) from (
    select format('%s %s %s %s %s %s', p.polrelid, p.polname, p.polcmd, p.polroles,
                  pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
    from pg_catalog.pg_policy as p where p.polname like 'mirror: %' and p.polrelid = mirror.messages()
    union all
    select mirror.messages()::oid::text where exists (select from mirror.channel_policies())) as l(line)
$function$;

CREATE OR REPLACE FUNCTION mirror.channels()
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select case
    when not exists (select from mirror.channel_policies()) then 'ready'
    when mirror.messages() is null then 'missing'
    when exists (select from mirror.channel_policies() as w where w.name not in (
           select p.polname::text from pg_catalog.pg_policy as p where p.polrelid = mirror.messages())) then 'closed'
    else 'ready' end
$function$;

CREATE OR REPLACE FUNCTION mirror.check_digest(asked jsonb)
 RETURNS jsonb
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET max_parallel_workers_per_gather TO '0'
 SET jit TO 'off'
AS $function$ -- permission mirror
declare
  _n bigint;
  _digest bigint;
begin
  execute format('select count(*), coalesce(bit_xor((''x'' || left(md5(%s), 16))::bit(64)::bigint), 0) from public.%I as t where %s',
                 case asked->>'table' when 'users' then $text$concat(t.id, ' ', length(t.subject::text), ':', t.subject::text, length(t.email::text), ':', t.email::text, length(t.username::text), ':', t.username::text)$text$ when 'trips' then $text$concat(t.id, ' ', length(t.name::text), ':', t.name::text, t.created_by, ' ')$text$
                                      else $text$concat(t.trip_id, ' ', t.user_id, ' ', length(t.role::text), ':', t.role::text, length(t.status::text), ':', t.status::text)$text$ end,
                 asked->>'table', mirror.within(asked))
  into _n, _digest;
  return jsonb_build_object('equal', _n = (asked->>'n')::bigint and _digest::text = asked->>'digest' and not asked ? 'unreadable',
                            'n', _n, 'digest', _digest::text);
end
$function$;

CREATE OR REPLACE FUNCTION mirror.check_fence(epoch bigint, batch bigint)
 RETURNS mirror.state
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
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
$function$;

CREATE OR REPLACE FUNCTION mirror.count_parked()
 RETURNS jsonb
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select coalesce(jsonb_object_agg(p.tbl, p.n), '{}')
  from (select tbl, count(*) as n from mirror.parked group by tbl) as p
$function$;

CREATE OR REPLACE FUNCTION mirror.cut(rows jsonb, first integer, last integer)
 RETURNS jsonb
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select case jsonb_typeof(rows)
    when 'array' then jsonb_path_query_array(rows, '$[$first to $last]', jsonb_build_object('first', first - 1, 'last', last - 1))
    else (select jsonb_object_agg(c.key, ((c.value::text[])[first : last])::text) from jsonb_each_text(rows) as c) end
$function$;

CREATE OR REPLACE FUNCTION mirror.doubt(kind text, about text, reason text, cure text, since timestamp with time zone)
 RETURNS jsonb
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select jsonb_build_object('kind', kind, 'about', about, 'reason', reason, 'cure', cure, 'since', since)
$function$;

CREATE OR REPLACE FUNCTION mirror.due(tbl text, n integer)
 RETURNS SETOF mirror.parked
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$ -- permission mirror
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
$function$;

CREATE OR REPLACE FUNCTION mirror.epoch_of(trip text)
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select coalesce((select e.epoch from mirror.epochs as e where e.trip_id = mirror.as_trip_id(trip)), 0)::text
$function$;

CREATE OR REPLACE FUNCTION mirror.explain(scope jsonb, pending jsonb)
 RETURNS jsonb
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET max_parallel_workers_per_gather TO '0'
 SET jit TO 'off'
AS $function$ -- permission mirror
declare
  _explained jsonb;
  _columns text := case scope->>'table' when 'users' then 't.id, t.subject, t.email, t.username'
                                        when 'trips' then 't.id, t.name, t.created_by'
                                        else 't.trip_id, t.user_id, t.role, t.status' end;
begin
  execute format($query$
    with s as (select r as row, coalesce(r->>'trip_id', r->>'id') as k1, coalesce(r->>'user_id', '') as k2
               from mirror.objects($1->>'table', $1->'rows') as r),
         t as (select r as row, coalesce(r->>'trip_id', r->>'id') as k1, coalesce(r->>'user_id', '') as k2
               from (select to_jsonb(x) as r from (select %s from public.%I as t where %s) as x) as y),
         x as (select k1, k2, s.row as source, t.row as target,
                      case when t.row is null then 'missing' when s.row is null then 'extra' else 'changed' end as direction
               from s full join t using (k1, k2) where s.row is distinct from t.row),
         u as (select x.*, exists (select from mirror.parked as p where p.tbl = $1->>'table' and p.k1 = x.k1 and p.k2 = x.k2)
                           or exists (select from mirror.refused($1) as f
                                      where $1->>'table' <> 'trip_memberships' and f->>'k1' = x.k1) as is_parked
               from x),
         d as (select * from u
               where not is_parked
                 and not exists (select from jsonb_array_elements($2) as w,
                                             lateral (select mirror.objects(w->>'table', w->'rows') union all
                                                      select jsonb_array_elements(coalesce(w->'gone', '[]'))) as k(r)
                                 where w->>'table' = $1->>'table' and coalesce(r->>'trip_id', r->>'id') = u.k1
                                   and coalesce(r->>'user_id', '') = u.k2)
                 and not exists (select from jsonb_array_elements($2) as w where w->'trips' ? u.k1 and u.k2 <> '')),
         w as (select k1, k2 from u where is_parked
               union all
               select f->>'k1', coalesce(f->>'k2', '') from mirror.refused($1) as f
               where (f->>'k1', coalesce(f->>'k2', '')) not in (select k1, k2 from u))
    select jsonb_build_object('table', $1->>'table',
      'missing', count(*) filter (where direction = 'missing'), 'extra', count(*) filter (where direction = 'extra'),
      'changed', count(*) filter (where direction = 'changed'),
      'parked', (select count(*) from w),
      'parked_rows', coalesce((select jsonb_agg(to_jsonb(f)) from (
         select w.k1, nullif(w.k2, '') as k2,
                coalesce((select p.reason from mirror.parked as p where p.tbl = $1->>'table' and p.k1 = w.k1 and p.k2 = w.k2),
                         (select f->>'reason' from mirror.refused($1) as f
                          where f->>'k1' = w.k1 and coalesce(f->>'k2', '') = w.k2)) as reason
         from w order by k1, k2 limit 100) as f), '[]'),
      'refused', (select count(*) from mirror.refused($1) as f
                  where (f->>'k1', coalesce(f->>'k2', '')) not in (select p.k1, p.k2 from mirror.parked as p where p.tbl = $1->>'table')),
      'rows', coalesce((select jsonb_agg(to_jsonb(f)) from (
                 select k1, nullif(k2, '') as k2, direction, source, target from d order by k1, k2 limit 100) as f), '[]'))
    from d $query$, _columns, scope->>'table', mirror.within(scope))
  into _explained using scope, pending;
  return _explained;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.exposed()
 RETURNS SETOF oid
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select n.oid from pg_catalog.pg_namespace as n
  where n.nspname = 'public' or n.nspname in (
    select trim(both ' "' from s) from pg_catalog.pg_db_role_setting as d
    join pg_catalog.pg_roles as r on r.oid = d.setrole and r.rolname = 'authenticator',
    unnest(d.setconfig) as c(setting),
    lateral regexp_split_to_table(substring(c.setting from '^pgrst\.db_schemas=(.*)$'), ',') as s
    where d.setdatabase in (0, (select b.oid from pg_catalog.pg_database as b where b.datname = current_database())))
$function$;

CREATE OR REPLACE FUNCTION mirror.fingerprint()
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  with ours as (select c.oid, c.relrowsecurity, c.relforcerowsecurity, c.relacl from pg_catalog.pg_class as c
                where c.relnamespace = 'mirror'::regnamespace and c.relkind = 'r'
                   or c.oid in (to_regclass('public.users'), to_regclass('public.trips'), to_regclass('public.trip_memberships')))
  select md5(string_agg(line, E'\n' order by line collate "C")) || ' ' || mirror.channel_seal() from (
    select format('%s %s %s %s', c.oid::regclass, c.relrowsecurity, c.relforcerowsecurity, c.relacl) from ours as c
    union all
    select format('%s %s %s %s%s%s', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                  a.attgenerated, a.attidentity)
    from pg_catalog.pg_attribute as a join ours as c on c.oid = a.attrelid where a.attnum > 0 and not a.attisdropped
    union all
    select pg_get_indexdef(i.indexrelid) from pg_catalog.pg_index as i join ours as c on c.oid = i.indrelid
    union all
    select format('%s %s', pg_get_triggerdef(t.oid), t.tgenabled)
    from pg_catalog.pg_trigger as t join ours as c on c.oid = t.tgrelid where t.tgname like 'mirror\_%'
    union all
    select format('%s %s %s %s %s %s', p.polrelid::regclass, p.polname, p.polcmd, p.polroles,
                  pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
    from pg_catalog.pg_policy as p where p.polname like 'mirror: %' and p.polrelid is distinct from mirror.messages()
    union all
    select format('%s %s %s %s %s %s', p.oid::regprocedure, md5(p.prosrc), p.prosecdef, p.proconfig, p.proacl, p.proowner::regrole)
    from pg_catalog.pg_proc as p
    where p.pronamespace = 'mirror'::regnamespace or p.oid in (select f.function from mirror.functions() as f)
    union all
    select format('%s %s', f.function, f.callers) from mirror.functions() as f
    union all
    select o.finding from mirror.rights_of_others() as o
    union all
    select r.rolname from pg_catalog.pg_roles as r where r.rolname in ('anon', 'authenticated', 'service_role')) as l(line)
$function$;

CREATE OR REPLACE FUNCTION mirror.folded(name text)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select case when name like '"%' then trim(both '"' from name) else lower(name) end
$function$;

CREATE OR REPLACE FUNCTION mirror.functions()
 RETURNS TABLE(function regprocedure, callers text[])
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select p.oid::regprocedure,
         f.callers::text[] || array(select 'anon' from mirror.open_policies() as o
                                    where o.function = p.oid and 'authenticated' = any (f.callers::text[]) limit 1)
  from pg_catalog.pg_proc as p join (
  -- What is ours in schema public, and who may call it. The anonymous role may call what a policy that applies to it
  -- asks (mirror.functions), and nothing else.
  values ('mirror_claim', '{service_role}'), ('mirror_apply', '{service_role}'), ('mirror_status', '{service_role}'),
         ('mirror_adopt', '{service_role}'), ('mirror_compare', '{service_role}'), ('mirror_insecurities', '{service_role}'),
         ('mirror_open_channels', '{service_role}'), ('mirror_try', '{service_role}'),
         ('mirror_staleness', '{authenticated,service_role}'), ('mirror_is_fresh', '{authenticated,service_role}'),
         ('mirror_has', '{authenticated,service_role}'), ('mirror_check_token', '{authenticated,service_role}'),
         ('my_companions', '{authenticated,service_role}'),
         ('my_companion_profiles', '{authenticated,service_role}'), ('current_topic', '{authenticated,service_role}'),
         ('my_user_id', '{authenticated,service_role}'),
         ('is_trip_member', '{authenticated,service_role}'), ('my_trips', '{authenticated,service_role}'),
         ('is_topic_member', '{authenticated,service_role}'), ('is_own_topic', '{authenticated,service_role}')) as f(name, callers) on f.name = p.proname
  where p.pronamespace = 'public'::regnamespace and (
  -- Is p, in schema public, ours? Its body says so; an application may have functions of these names, too. Bodies of
  -- earlier releases did not say it: those had this search_path, and asked us.
  coalesce(p.prosrc like ' -- permission mirror' || '%'
           or 'search_path=""' = any (p.proconfig) and p.prosrc ~ 'mirror[._]|public[.]is_trip_member', false))
$function$;

CREATE OR REPLACE FUNCTION mirror.has_seen(here pg_snapshot, seen pg_snapshot)
 RETURNS boolean
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select not exists (select from pg_snapshot_xip(here) as x where pg_visible_in_snapshot(x, seen))
     and (select count(*) from pg_snapshot_xip(seen) as x where x >= pg_snapshot_xmax(here))
       = greatest(0, pg_snapshot_xmax(seen)::text::numeric - pg_snapshot_xmax(here)::text::numeric)
$function$;

CREATE OR REPLACE FUNCTION mirror.holes()
 RETURNS TABLE(rule text, finding text, cure text)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  with roles as (
    select r.oid, r.rolname as name, r.rolsuper, r.rolbypassrls from pg_catalog.pg_roles as r
    where r.rolname in ('anon', 'authenticated')
  ), tables as (
    select t.oid, t.oid::regclass::text as name
    from unnest(array['public.users', 'public.trips', 'public.trip_memberships']::regclass[]) as t(oid)
  ), shown as materialized (
    select s.* from mirror.shown() as s
  ), relations as (
    select c.oid, c.oid::regclass::text as name, c.relkind, s.root::regclass::text as shows, s.past, s.culprit,
           u.relkind as culprit_kind,
           exists (select from pg_catalog.pg_inherits as i where i.inhrelid = c.oid) as is_child
    from shown as s
    join pg_catalog.pg_class as c on s.class = 'pg_class'::regclass and c.oid = s.object and s.object <> s.root
    left join pg_catalog.pg_class as u on u.oid = s.culprit
  ), policies as (
    select p.oid, p.polname as name, p.polrelid as relation, t.name as table_name, p.polcmd as command,
           pg_get_expr(p.polqual, p.polrelid) as using, pg_get_expr(p.polwithcheck, p.polrelid) as checks,
           exists (select from pg_catalog.pg_depend as d
                   where d.classid = 'pg_policy'::regclass and d.objid = p.oid
                     and d.refclassid = 'pg_class'::regclass and d.refobjid = p.polrelid and d.refobjsubid > 0
           ) as is_of_row,
           exists (select from pg_catalog.pg_depend as d left join pg_catalog.pg_proc as f
                   on d.refclassid = 'pg_proc'::regclass and f.oid = d.refobjid
                   where d.classid = 'pg_policy'::regclass and d.objid = p.oid
                     and (d.refclassid = 'pg_class'::regclass and d.refobjid <> p.polrelid
                          or f.pronamespace not in (coalesce(to_regnamespace('auth'), 0),
                                                    coalesce(to_regnamespace('realtime'), 0)))) as looks_elsewhere
    from pg_catalog.pg_policy as p
    left join tables as t on t.oid = p.polrelid
    where p.polpermissive and (t.oid is not null or p.polrelid = mirror.messages())
      and (0 = any (p.polroles) or p.polroles && array(select r.oid from roles as r))
  )
  select distinct 'no view around the policies',
         format('%s may read %s, which shows %s past its policies', r.name, v.name, v.shows),
         case when v.relkind = 'v' and v.culprit_kind = 'v'
              then format('alter view %s set (security_invoker = true);', v.culprit::regclass)
              else format('revoke select on %s from public, %I;', v.name, r.name) end
  from relations as v, roles as r
  where v.past and v.relkind in ('v', 'm') and has_any_column_privilege(r.oid, v.oid, 'select')
  union all
  select distinct 'no view around the policies',
         format('%s may write to %s, and so to %s', r.name, v.name, v.shows),
         format('revoke insert, update, delete on %s from public, %I;', v.name, r.name)
  from relations as v, roles as r
  where v.past and v.relkind = 'v'
    and (has_any_column_privilege(r.oid, v.oid, 'insert, update') or has_table_privilege(r.oid, v.oid, 'delete'))
  union all
  select distinct 'no table around the policies',
         format(case when v.is_child then '%s may use %s, whose rows are rows of %s'
                     else '%s may read %s, which a trigger fills from %s' end, r.name, v.name, v.shows),
         format('revoke all on %s from public, %I;', v.name, r.name)
  from relations as v, roles as r
  where v.relkind in ('r', 'p', 'f') and (v.past and has_any_column_privilege(r.oid, v.oid, 'select')
     or v.is_child and (has_any_column_privilege(r.oid, v.oid, 'insert, update')
                        or has_table_privilege(r.oid, v.oid, 'delete, truncate')))
  union all
  select 'no table around the policies',
         format('%s may read %s, which is %s by its name, and a foreign table has no policies', r.name,
                f.ftrelid::regclass, t.name),
         format('revoke all on %s from public, %I;', f.ftrelid::regclass, r.name)
  from pg_catalog.pg_foreign_table as f, tables as t, roles as r
  where has_any_column_privilege(r.oid, f.ftrelid, 'select')
    and (select 'public.' || o.option_value from pg_options_to_table(f.ftoptions) as o
         where o.option_name = 'table_name') = t.name
    and coalesce((select o.option_value from pg_options_to_table(f.ftoptions) as o
                  where o.option_name = 'schema_name'), 'public') = 'public'
  union all
  -- The doctor tries the rest of them (or names them), those that ask who calls: what they answer cannot be read here.
  select distinct 'no function around the policies',
         format('%s may call %s, which gives %s past its policies', r.name, p.oid::regprocedure, s.root::regclass),
         format('revoke execute on function %s from public, %I;', p.oid::regprocedure, r.name)
  from shown as s join pg_catalog.pg_proc as p on s.class = 'pg_proc'::regclass and p.oid = s.object
  join pg_catalog.pg_type as t on t.oid = p.prorettype, roles as r
  where s.past and p.prosecdef and p.pronamespace in (select mirror.exposed()) and p.prokind = 'f'
    and (p.proretset or t.typtype = 'c'
         or t.typcategory in ('A', 'P') and t.typname not in ('trigger', 'event_trigger', 'void')
         or t.typname in ('json', 'jsonb', 'xml'))
    and has_function_privilege(r.oid, p.oid, 'execute') and has_schema_privilege(r.oid, p.pronamespace, 'usage')
  union all
  select distinct 'only the mirror writes',
         format('%s may call %s, which writes to %s', r.name, p.oid::regprocedure, t.name),
         format('revoke execute on %s %s from public, %I;',
                case p.prokind when 'p' then 'procedure' else 'function' end, p.oid::regprocedure, r.name)
  from mirror.sources() as s join pg_catalog.pg_proc as p on p.oid = s.function,
  mirror.named(s.source) as m join tables as t
    on t.name = 'public.' || m.relation and coalesce(m.schema, 'public') = 'public' and m.is_write, roles as r
  where p.prosecdef and p.pronamespace in (select mirror.exposed())
    and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
    and has_function_privilege(r.oid, p.oid, 'execute') and has_schema_privilege(r.oid, p.pronamespace, 'usage')
  union all
  select 'no policy for everybody',
         format(case when p.is_of_row then 'the policy %I on %s shows rows and does not ask who the caller is'
                     else 'the policy %I on %s shows every row' end, p.name, p.table_name),
         format('drop policy %I on %s;', p.name, p.table_name)
  from policies as p
  where p.table_name is not null and p.command in ('r', '*') and p.using <> 'false' and p.using !~ '\.\*'
    and not p.looks_elsewhere and not mirror.asks(p.using)
  union all
  select 'no policy for everybody',
         format('the policy %I on realtime.messages lets strangers %s on every channel', p.name, v.verb),
         format('drop policy %I on realtime.messages;', p.name)
  from policies as p,
  lateral (values ('r', 'receive', p.using), ('a', 'send', coalesce(p.checks, p.using))) as v(command, verb, expression)
  where p.table_name is null and p.command::text in (v.command, '*')
    and v.expression <> 'false' and v.expression !~* '\mtopic\M'
    and not p.looks_elsewhere and not mirror.asks(v.expression)
  union all
  select 'the API''s roles are no others', format('%s is a superuser', r.name),
         format('alter role %I nosuperuser;', r.name) from roles as r where r.rolsuper
  union all
  select 'the API''s roles are no others', format('no policy holds for %s: it may bypass row level security', r.name),
         format('alter role %I nobypassrls;', r.name) from roles as r where r.rolbypassrls
  union all
  select distinct 'the API''s roles are no others',
         format('%s is a member of %s, which may do more than a caller of the API', m.member::regrole, g.rolname),
         format('revoke %s from %s;', m.roleid::regrole, m.member::regrole)
  from pg_catalog.pg_auth_members as m join pg_catalog.pg_roles as g on g.oid = m.roleid
  join roles as r on pg_has_role(r.oid, m.member, 'member')
  where not r.rolsuper
    and (g.rolsuper or g.rolbypassrls or g.rolname in ('service_role', 'pg_read_all_data', 'pg_write_all_data')
         or exists (select from tables as t join pg_catalog.pg_class as c on c.oid = t.oid
                    where c.relowner = g.oid or has_any_column_privilege(g.oid, t.oid, 'insert, update')
                       or has_table_privilege(g.oid, t.oid, 'delete, truncate')))
$function$;

CREATE OR REPLACE FUNCTION mirror.how_many(rows jsonb)
 RETURNS integer
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select case jsonb_typeof(rows) when 'array' then jsonb_array_length(rows)
              else coalesce(cardinality(coalesce(rows->>'trip_id', rows->>'id')::text[]), 0) end
$function$;

CREATE OR REPLACE FUNCTION mirror.insecurities()
 RETURNS TABLE(rule text, finding text, cure text)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  with tables as (
    select c.oid, c.oid::regclass::text as name, c.relrowsecurity, c.relforcerowsecurity, c.relowner, c.relacl
    from pg_catalog.pg_class as c
    where c.oid in ('public.users'::regclass, 'public.trips'::regclass, 'public.trip_memberships'::regclass)
  ), roles as (
    select r.oid, r.rolname as name from pg_catalog.pg_roles as r where r.rolname in ('anon', 'authenticated')
  ), grants as (
    select t.oid, t.name, a.grantee, a.privilege_type as privilege, '' as columns from tables as t, aclexplode(t.relacl) as a
    where a.grantee <> t.relowner
    union all
    select t.oid, t.name, a.grantee, a.privilege_type, format('(%I)', c.attname)
    from tables as t join pg_catalog.pg_attribute as c on c.attrelid = t.oid and not c.attisdropped,
         aclexplode(c.attacl) as a
    where a.grantee <> t.relowner
  )
  select 'not published', format('%s is in the publication supabase_realtime: deletes go to every subscriber', t.name),
         case when p.puballtables or exists (select from pg_catalog.pg_publication_namespace as n where n.pnpubid = p.oid)
              then 'Make the publication anew, for the tables that are meant.'
              else format('alter publication supabase_realtime drop table %s;', t.name) end
  from pg_catalog.pg_publication as p, tables as t
  where p.pubname = 'supabase_realtime'
    and t.oid in (select r.relid from pg_get_publication_tables(p.pubname) as r)
  union all
  select 'nobody writes, anon reads nothing',
         format('%s may %s on %s%s', coalesce(r.rolname, 'public'), lower(g.privilege), g.name, g.columns),
         format('revoke %s%s on %s from %s;', g.privilege, g.columns, g.name, coalesce(quote_ident(r.rolname), 'public'))
  from grants as g left join pg_catalog.pg_roles as r on r.oid = g.grantee
  where g.privilege <> 'SELECT' or g.grantee = 0 or r.rolname = 'anon'
  union all
  select 'row level security', format('row level security of %s is off', t.name),
         format('alter table %s enable row level security;', t.name)
  from tables as t where not t.relrowsecurity
  union all
  select 'row level security', format('row level security of %s does not hold for its owner', t.name),
         format('alter table %s force row level security;', t.name)
  from tables as t
  where not t.relforcerowsecurity
    and (select r.rolsuper or r.rolbypassrls from pg_catalog.pg_proc as p join pg_catalog.pg_roles as r on r.oid = p.proowner
         where p.oid = to_regprocedure('public.mirror_apply(jsonb)'))
  union all
  select 'row level security', 'row level security of realtime.messages is off: every channel is open to everybody',
         'alter table realtime.messages enable row level security;'
  from pg_catalog.pg_class as c where c.oid = mirror.messages() and not c.relrowsecurity
  union all
  select 'the schema mirror is closed', format('%s may use the schema mirror', r.name),
         format('revoke all on schema mirror from public, %I;', r.name)
  from roles as r where has_schema_privilege(r.oid, 'mirror', 'usage')
  union all
  select 'only the service role speaks for the mirror', format('%s may call %s', r.name, p.oid::regprocedure),
         format('revoke all on function %s from public, %I;', p.oid::regprocedure, r.name)
  from roles as r, pg_catalog.pg_proc as p left join mirror.functions() as f on f.function = p.oid
  where (p.pronamespace = 'mirror'::regnamespace or f.function is not null)
    and has_function_privilege(r.oid, p.oid, 'execute') and (r.name = any (f.callers)) is not true
  union all
  select h.rule, h.finding, h.cure from mirror.holes() as h
$function$;

CREATE OR REPLACE FUNCTION mirror.is_about_row(state text, message text)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
begin
  if state in ('40001', '40P01') then
    raise exception 'the target was busy with others' using errcode = 'PT423', detail = message;
  end if;
  return mirror.is_objection(state);
end
$function$;

CREATE OR REPLACE FUNCTION mirror.is_invoker(options text[])
 RETURNS boolean
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select exists (select from pg_options_to_table(options) as o
                 where o.option_name = 'security_invoker' and o.option_value in ('true', 'on', '1', 'yes'))
$function$;

CREATE OR REPLACE FUNCTION mirror.is_objection(state text)
 RETURNS boolean
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select state ~ '^(22|23|44)' or state ~ '^[5-9I-Z]' and state !~ '^(53|55|57|58|72|XX)'
$function$;

CREATE OR REPLACE FUNCTION mirror.is_sound(s mirror.state)
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
begin
  return coalesce(s.seal = hash_record_extended(row(s.source, s.life, s.position_life, s.epoch, s.batch, s.snapshot, s.position_epoch, s.as_of, s.fresh_at, s.known_at, s.applied_at, s.primed_at, s.proof, s.braked, s.walks, s.doubts), 0) and s.version = 1 and s.types = '{"created_by": "uuid", "trip_id": "uuid", "user_id": "uuid"}'::jsonb
                  and s.allow_cascade = array[]::text[], false);
end
$function$;

CREATE OR REPLACE FUNCTION mirror.is_vacant(scope jsonb)
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET max_parallel_workers_per_gather TO '0'
AS $function$ -- permission mirror
declare _any boolean;
begin
  execute format('select exists (select from public.%I as t where %s)', scope->>'table', mirror.within(scope)) into _any;
  return not _any;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.keep(s mirror.state)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
begin
  s.known_at := null;
  if s.primed_at is not null and s.life is not distinct from s.position_life and s.braked = '{}' then
    select least(s.fresh_at, min((d->>'since')::timestamptz) filter (where d->>'kind' in ('capture', 'unreadable')))
    into s.known_at from jsonb_array_elements(s.doubts) as d
    having not coalesce(bool_or(d->>'kind' in ('brake', 'life', 'tampered')
                                or d->>'kind' in ('capture', 'unreadable') and d->>'since' is null), false);
  end if;
  s.seal := hash_record_extended(row(s.source, s.life, s.position_life, s.epoch, s.batch, s.snapshot, s.position_epoch, s.as_of, s.fresh_at, s.known_at, s.applied_at, s.primed_at, s.proof, s.braked, s.walks, s.doubts), 0);
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
$function$;

CREATE OR REPLACE FUNCTION mirror.known(OUT primed boolean, OUT life text, OUT snapshot text, OUT as_of timestamp with time zone, OUT fresh_at timestamp with time zone, OUT equal boolean, OUT doubts jsonb)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
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
$function$;

CREATE OR REPLACE FUNCTION mirror.list(literal text, element anyelement)
 RETURNS anyarray
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
begin
  return literal;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.lockers(tbl text)
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select coalesce('locked by ' || string_agg(format('pid %s (role %s, %s)', l.pid, a.usename,
                                              coalesce(nullif(a.application_name, ''), a.backend_type)), ', '),
                  'by whom is not known')
  from (select distinct on (h.pid) h.pid from pg_locks as h
        where h.relation = format('public.%I', lockers.tbl)::regclass and h.granted and h.mode <> 'AccessShareLock'
          and h.database = (select d.oid from pg_database as d where d.datname = current_database())
          and h.pid <> pg_backend_pid() order by h.pid limit 3) as l
  left join pg_stat_activity as a on a.pid = l.pid
$function$;

CREATE OR REPLACE FUNCTION mirror.make_durable()
 RETURNS void
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') in ('off', 'local')
$function$;

CREATE OR REPLACE FUNCTION mirror.messages()
 RETURNS regclass
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select c.oid::regclass from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
  where n.nspname = 'realtime' and c.relname = 'messages'
$function$;

CREATE OR REPLACE FUNCTION mirror.named(source text)
 RETURNS TABLE(is_write boolean, schema text, relation text)
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select distinct m[1] ~* '^(insert|merge|delete|truncate|update|copy)', mirror.folded(m[2]), mirror.folded(m[3])
  from regexp_matches(source, '(\m(?:insert\s+into|merge\s+into|delete\s+from|truncate(?:\s+table)?|update|copy'
                           || '|from|join|using|table)\s|,)'
                           || '\s*(?:only\s+)?\(*\s*(?:("[^"]+"|\w+)\s*\.\s*)?("[^"]+"|\w+)', 'gi') as m
$function$;

CREATE OR REPLACE FUNCTION mirror.next_epoch(s mirror.state)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
begin
  if mirror.is_sound(s) then
    return s.epoch + 1;
  end if;
  return (extract(epoch from clock_timestamp()) * 1000)::bigint;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.note_revoked(revoked jsonb)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
begin
  if false then
    insert into mirror.epochs as e (trip_id, epoch)
    select distinct r.trip_id, 1 from jsonb_to_recordset(revoked) as r(trip_id uuid)
    on conflict (trip_id) do update set epoch = e.epoch + 1;
  end if;
  if false and revoked is not null and (select s.primed_at is not null from mirror.state as s) then
    perform mirror.announce(revoked);
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.objects(tbl text, rows jsonb)
 RETURNS SETOF jsonb
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
begin
  case tbl
    when 'users' then return query select to_jsonb(r) from (select unnest(mirror.list(rows->>'id', (null::public.users).id)) as id, unnest(mirror.list(rows->>'subject', (null::public.users).subject)) as subject, unnest(mirror.list(rows->>'email', (null::public.users).email)) as email, unnest(mirror.list(rows->>'username', (null::public.users).username)) as username) as r;
    when 'trips' then return query select to_jsonb(r) from (select unnest(mirror.list(rows->>'id', (null::public.trips).id)) as id, unnest(mirror.list(rows->>'name', (null::public.trips).name)) as name, unnest(mirror.list(rows->>'created_by', (null::public.trips).created_by)) as created_by) as r;
    else return query select to_jsonb(r) from (select unnest(mirror.list(rows->>'trip_id', (null::public.trip_memberships).trip_id)) as trip_id, unnest(mirror.list(rows->>'user_id', (null::public.trip_memberships).user_id)) as user_id, unnest(mirror.list(rows->>'role', (null::public.trip_memberships).role)) as role, unnest(mirror.list(rows->>'status', (null::public.trip_memberships).status)) as status) as r;
  end case;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.obstacles()
 RETURNS SETOF text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select format('the foreign key %s of %s would delete its rows together with mirrored %s; replace ON DELETE CASCADE, or '
                'run mirror install target with this in mirror.toml, under [target]: allow_cascade = %s',
                c.conname, c.conrelid::regclass, c.confrelid::regclass, to_jsonb(s.allow_cascade || c.conrelid::regclass::text))
  from pg_catalog.pg_constraint as c, mirror.state as s
  where c.contype = 'f' and c.confdeltype = 'c' and c.conparentid = 0
    and c.confrelid in ('public.users'::regclass, 'public.trips'::regclass, 'public.trip_memberships'::regclass)
    and c.conrelid not in ('public.users'::regclass, 'public.trips'::regclass, 'public.trip_memberships'::regclass)
    and not c.conrelid::regclass::text = any (s.allow_cascade)
  order by c.conrelid::regclass::text collate "C", c.conname
$function$;

CREATE OR REPLACE FUNCTION mirror.on_lost_subject()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare _revoked jsonb;
begin
  if tg_op = 'DELETE' then
    select jsonb_agg(jsonb_build_object('trip_id', m.trip_id, 'sub', u.id::text)) into _revoked
    from old_rows as u join public.trip_memberships as m on m.user_id = u.id
    where true and lower(m.status::text collate "C") = any (array['active', 'accepted']::text[]) and not exists (select from mirror.parked as p where p.tbl = 'users' and p.k1 = u.id::text and p.k2 = '');
  else
    select jsonb_agg(jsonb_build_object('trip_id', m.trip_id, 'sub', u.id::text)) into _revoked
    from old_rows as u join public.trip_memberships as m on m.user_id = u.id
    where true and lower(m.status::text collate "C") = any (array['active', 'accepted']::text[]) and not exists (select from mirror.parked as p where p.tbl = 'users' and p.k1 = u.id::text and p.k2 = '')
      and not exists (select from new_rows as n where n.id = u.id and true);
  end if;
  perform mirror.note_revoked(_revoked);
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.on_parked_user()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
begin
  perform mirror.note_revoked((
    select jsonb_agg(jsonb_build_object('trip_id', m.trip_id, 'sub', u.id::text))
    from new_rows as p join public.users as u on u.id = mirror.as_user_id(p.k1)
    join public.trip_memberships as m on m.user_id = u.id
    where p.tbl = 'users' and true and lower(m.status::text collate "C") = any (array['active', 'accepted']::text[])));
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.on_revocation()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare _revoked jsonb;
begin
  if tg_op = 'DELETE' then
    select jsonb_agg(jsonb_build_object('trip_id', m.trip_id, 'sub', m.user_id::text)) into _revoked
    from old_rows as m where lower(m.status::text collate "C") = any (array['active', 'accepted']::text[]) and exists (select from public.users as u where u.id = m.user_id and not exists (select from mirror.parked as p where p.tbl = 'users' and p.k1 = u.id::text and p.k2 = ''));
  else
    select jsonb_agg(jsonb_build_object('trip_id', m.trip_id, 'sub', m.user_id::text)) into _revoked from (
      select m.trip_id, m.user_id from old_rows as m where lower(m.status::text collate "C") = any (array['active', 'accepted']::text[]) and exists (select from public.users as u where u.id = m.user_id and not exists (select from mirror.parked as p where p.tbl = 'users' and p.k1 = u.id::text and p.k2 = ''))
      except select m.trip_id, m.user_id from new_rows as m where lower(m.status::text collate "C") = any (array['active', 'accepted']::text[])) as m;
  end if;
  perform mirror.note_revoked(_revoked);
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.open_channels()
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare _command text;
begin
  for _command in
    select format('drop policy %I on realtime.messages', p.polname) from pg_catalog.pg_policy as p
    where p.polrelid = mirror.messages() and p.polname like 'mirror: %'
    union all
    select w.command from mirror.channel_policies() as w
  loop
    execute _command;
  end loop;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.open_policies()
 RETURNS TABLE(policy name, relation regclass, function oid)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select o.polname, o.polrelid::regclass, d.refobjid from pg_catalog.pg_policy as o
  join pg_catalog.pg_depend as d
    on d.classid = 'pg_policy'::regclass and d.objid = o.oid and d.refclassid = 'pg_proc'::regclass
  where 0 = any (o.polroles)
     or exists (select from pg_catalog.pg_roles as r where r.rolname = 'anon' and r.oid = any (o.polroles))
$function$;

CREATE OR REPLACE FUNCTION mirror.park(tbl text, key jsonb, reason text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
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
$function$;

CREATE OR REPLACE FUNCTION mirror.put_trip_memberships(rows jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
 SET enable_seqscan TO 'off'
AS $function$ -- permission mirror
declare _n bigint;
begin
  merge into public.trip_memberships as t
  using (select r.* from (select unnest(mirror.list(rows->>'trip_id', (null::public.trip_memberships).trip_id)) as trip_id, unnest(mirror.list(rows->>'user_id', (null::public.trip_memberships).user_id)) as user_id, unnest(mirror.list(rows->>'role', (null::public.trip_memberships).role)) as role, unnest(mirror.list(rows->>'status', (null::public.trip_memberships).status)) as status) as r) as s
  on t.trip_id = s.trip_id and t.user_id = s.user_id
  when matched and record_image_ne(row(t.role::text, t.status::text), row(s.role::text, s.status::text)) then
    update set role = s.role, status = s.status
  when not matched then
    insert (trip_id, user_id, role, status) overriding system value values (s.trip_id, s.user_id, s.role, s.status);
  get diagnostics _n = row_count;
  return _n;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.put_trips(rows jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
 SET enable_seqscan TO 'off'
AS $function$ -- permission mirror
declare _n bigint;
begin
  merge into public.trips as t
  using (select r.* from (select unnest(mirror.list(rows->>'id', (null::public.trips).id)) as id, unnest(mirror.list(rows->>'name', (null::public.trips).name)) as name, unnest(mirror.list(rows->>'created_by', (null::public.trips).created_by)) as created_by) as r) as s
  on t.id = s.id
  when matched and record_image_ne(row(t.name::text, t.created_by), row(s.name::text, s.created_by)) then
    update set name = s.name, created_by = s.created_by
  when not matched then
    insert (id, name, created_by) overriding system value values (s.id, s.name, s.created_by);
  get diagnostics _n = row_count;
  return _n;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.put_users(rows jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
 SET enable_seqscan TO 'off'
AS $function$ -- permission mirror
declare _n bigint;
begin
  merge into public.users as t
  using (select r.* from (select unnest(mirror.list(rows->>'id', (null::public.users).id)) as id, unnest(mirror.list(rows->>'subject', (null::public.users).subject)) as subject, unnest(mirror.list(rows->>'email', (null::public.users).email)) as email, unnest(mirror.list(rows->>'username', (null::public.users).username)) as username) as r) as s
  on t.id = s.id
  when matched and record_image_ne(row(t.subject::text, t.email::text, t.username::text), row(s.subject::text, s.email::text, s.username::text)) then
    update set subject = s.subject, email = s.email, username = s.username
  when not matched then
    insert (id, subject, email, username) overriding system value values (s.id, s.subject, s.email, s.username);
  get diagnostics _n = row_count;
  return _n;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.reconsider(scopes jsonb)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$ -- permission mirror
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
$function$;

CREATE OR REPLACE FUNCTION mirror.refuse_source(s mirror.state, claimed jsonb, life text)
 RETURNS void
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
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
$function$;

CREATE OR REPLACE FUNCTION mirror.refused(scope jsonb)
 RETURNS SETOF jsonb
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select jsonb_array_elements(case when jsonb_typeof(scope->'refused') = 'array' then scope->'refused' else '[]' end)
$function$;

CREATE OR REPLACE FUNCTION mirror.remove_trip_memberships(keys jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
 SET enable_seqscan TO 'off'
AS $function$ -- permission mirror
declare _n bigint;
begin
  delete from public.trip_memberships as t
  using jsonb_to_recordset(keys) as s(trip_id uuid, user_id uuid) where t.trip_id = s.trip_id and t.user_id = s.user_id;
  get diagnostics _n = row_count;
  return _n;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.remove_trips(keys jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
 SET enable_seqscan TO 'off'
AS $function$ -- permission mirror
declare _n bigint;
begin
  delete from public.trips as t
  using jsonb_to_recordset(keys) as s(id uuid) where t.id = s.id;
  get diagnostics _n = row_count;
  return _n;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.remove_users(keys jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
 SET enable_seqscan TO 'off'
AS $function$ -- permission mirror
declare _n bigint;
begin
  delete from public.users as t
  using jsonb_to_recordset(keys) as s(id uuid) where t.id = s.id;
  get diagnostics _n = row_count;
  return _n;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.revoke(keys jsonb)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
begin
  perform mirror.remove_trip_memberships(keys);
exception when others then
  if not mirror.is_objection(sqlstate) then
    raise;
  end if;
  begin
    update public.trip_memberships as t set role = null, status = null
    from jsonb_to_recordset(keys) as s(trip_id uuid, user_id uuid)
    where t.trip_id = s.trip_id and t.user_id = s.user_id;
  exception when others then
    if not mirror.is_objection(sqlstate) then
      raise;
    end if;
  end;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.rights_of_others()
 RETURNS TABLE(grantee oid, finding text, cure text)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  with ours as (
    select 'schema' as kind, n.nspname::text as name, '' as columns, n.nspowner as owner, n.nspacl as acl,
           '{}'::text[] as callers
    from pg_catalog.pg_namespace as n where n.nspname = 'mirror'
    union all
    select 'table', c.oid::regclass::text, '', c.relowner, c.relacl, '{}'
    from pg_catalog.pg_class as c
    where c.relnamespace = 'mirror'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S')
    union all
    select 'table', c.oid::regclass::text, format(' (%I)', a.attname), c.relowner, a.attacl, '{}'
    from pg_catalog.pg_class as c join pg_catalog.pg_attribute as a on a.attrelid = c.oid and not a.attisdropped
    where c.relnamespace = 'mirror'::regnamespace
    union all
    select 'routine', p.oid::regprocedure::text, '', p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)),
           coalesce(f.callers, '{}')
    from pg_catalog.pg_proc as p left join mirror.functions() as f on f.function = p.oid
    where p.pronamespace = 'mirror'::regnamespace or f.function is not null
  )
  select g.grantee,
         format('%s may %s %s%s', coalesce(r.rolname, 'public'),
                string_agg(lower(g.privilege_type), ', ' order by g.privilege_type), o.name, o.columns),
         format('revoke all%s on %s %s from %s cascade;', o.columns, o.kind, o.name,
                coalesce(quote_ident(r.rolname), 'public'))
  from ours as o cross join aclexplode(o.acl) as g left join pg_catalog.pg_roles as r on r.oid = g.grantee
  where g.grantee <> o.owner and (r.rolname = any (o.callers)) is not true
  group by g.grantee, r.rolname, o.kind, o.name, o.columns
$function$;

CREATE OR REPLACE FUNCTION mirror.send(event text, topic text, trip text)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '200ms'
AS $function$ -- permission mirror
begin
  perform realtime.send(jsonb_build_object('trip_id', trip), event, topic, true);
  return true;
exception when others then
  raise warning 'mirror: % was not announced on %: %', event, topic, sqlerrm;
  return false;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.set_users_aside(rows jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare
  _new text[]; -- of each column, what it is set to
  _n bigint;
begin
  with c as (
    select a.attname, a.atttypid::regtype as type, y.typcategory = 'S' as is_text,
           case when greatest(a.atttypmod, y.typtypmod) > 4 then greatest(a.atttypmod, y.typtypmod) - 4 else 200 end as n,
           exists (select from pg_index as i where i.indrelid = a.attrelid and (i.indisunique or i.indisexclusion)
                   and (a.attnum = any (i.indkey) or exists (
                     select from pg_depend as d
                     where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid
                       and d.refclassid = 'pg_class'::regclass and d.refobjid = a.attrelid and d.refobjsubid = a.attnum))) as is_unique
    from pg_attribute as a join pg_type as y on y.oid = a.atttypid
    where a.attrelid = 'public.users'::regclass and a.attname in ('subject', 'email', 'username') and not a.attisdropped)
  select array_agg(
           case when c.is_unique then
             format('case when t.%1$I::text is distinct from s.%1$I::text then %2$s else t.%1$I end', c.attname,
               case when c.is_text then format('left(%s, %s)::%s', case c.attname
                 when 'email' then format('left(replace(gen_random_uuid()::text, ''-'', ''''), %s) || ''@aside.invalid''', greatest(8, c.n - 14))
                 when 'username' then '''a'' || right(gen_random_uuid()::text, 12)'
                 else '''aside '' || gen_random_uuid()' end, c.n, c.type) else 'null' end)
           else format('t.%I', c.attname) end
           order by array_position(array['subject', 'email', 'username']::name[], c.attname))
    into _new from c having bool_or(c.is_unique);
  if _new is null then
    return 0;
  end if;
  execute format($sql$
    update public.users as t set (subject, email, username) = row(%s, %s, %s)
    from (select r.* from (select $1 as rows) as i cross join lateral (select unnest(mirror.list(rows->>'id', (null::public.users).id)) as id, unnest(mirror.list(rows->>'subject', (null::public.users).subject)) as subject, unnest(mirror.list(rows->>'email', (null::public.users).email)) as email, unnest(mirror.list(rows->>'username', (null::public.users).username)) as username) as r) as s
    where t.id = s.id and record_image_ne(row(t.subject::text, t.email::text, t.username::text), row(s.subject::text, s.email::text, s.username::text)) $sql$, _new[1], _new[2], _new[3]) using rows;
  get diagnostics _n = row_count;
  return _n;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.settle()
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$ -- permission mirror
begin
  delete from mirror.parked as p where p.settled;
  return found;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.shown()
 RETURNS TABLE(class oid, object oid, root oid, past boolean, culprit oid)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  with recursive sources as materialized (
    select s.function, s.source, p.prosecdef, mirror.asks(s.source) as asks
    from mirror.sources() as s join pg_catalog.pg_proc as p on p.oid = s.function
  ), mentions as materialized (
    select s.function, c.oid as relation, bool_or(m.is_write) as is_write
    from sources as s, mirror.named(s.source) as m join pg_catalog.pg_class as c on c.relname = m.relation
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace and n.nspname = coalesce(m.schema, n.nspname)
    where c.relkind in ('r', 'p', 'v', 'm', 'f')
      and n.nspname not in ('pg_catalog', 'information_schema', 'mirror', 'pg_toast')
    group by 1, 2
  ), used (class, object, user_class, user_object) as materialized (
    select 'pg_class'::regclass::oid, i.inhparent, 'pg_class'::regclass::oid, i.inhrelid
    from pg_catalog.pg_inherits as i
    union all
    select d.refclassid, d.refobjid, 'pg_class'::regclass::oid, w.ev_class
    from pg_catalog.pg_depend as d
    join pg_catalog.pg_rewrite as w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
    where d.refclassid in ('pg_class'::regclass, 'pg_proc'::regclass)
      and (d.refclassid, d.refobjid) <> ('pg_class'::regclass::oid, w.ev_class)
    union all
    select 'pg_class'::regclass::oid, m.relation, 'pg_proc'::regclass::oid, m.function from mentions as m
    union all
    -- A trigger's function that writes to a table makes a copy of what it is given.
    select 'pg_class'::regclass::oid, t.tgrelid, 'pg_class'::regclass::oid, c.oid
    from pg_catalog.pg_trigger as t join sources as s on s.function = t.tgfoid
    join mentions as m on m.function = s.function and m.is_write
    join pg_catalog.pg_class as c on c.oid = m.relation and c.oid <> t.tgrelid and c.relkind in ('r', 'p')
    union all
    select d.refclassid, d.refobjid, d.classid, d.objid
    from pg_catalog.pg_depend as d join sources as s on s.function = d.objid
    where d.classid = 'pg_proc'::regclass and d.refclassid in ('pg_class'::regclass, 'pg_proc'::regclass)
  ), found (class, object, root, past, culprit) as (
    select 'pg_class'::regclass::oid, t.oid, t.oid, false, 0::oid
    from unnest(array['public.users', 'public.trips', 'public.trip_memberships']::regclass[]) as t(oid)
    union
    select u.user_class, u.user_object, f.root, n.past,
           case when n.past then coalesce(n.culprit, f.culprit) else 0 end
    from found as f join used as u on u.class = f.class and u.object = f.object, lateral (
      select f.past or case when c.relkind in ('m', 'f') then true
                            when c.relkind = 'v'
                              then not mirror.is_invoker(c.reloptions) and f.class = 'pg_class'::regclass
                            else not c.relrowsecurity end as past,
             case when not f.past or c.relkind = 'm' then c.oid end as culprit
      from pg_catalog.pg_class as c where u.user_class = 'pg_class'::regclass and c.oid = u.user_object
      union all
      select case when s.prosecdef then not s.asks else f.past end, case when s.prosecdef then s.function end
      from sources as s where u.user_class = 'pg_proc'::regclass and s.function = u.user_object) as n
  )
  select f.class, f.object, f.root, f.past, f.culprit from found as f
$function$;

CREATE OR REPLACE FUNCTION mirror.sources()
 RETURNS TABLE(function oid, source text)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select p.oid, regexp_replace(coalesce(pg_get_function_sqlbody(p.oid), p.prosrc), '--[^\n]*|/\*.*?\*/', ' ', 'g')
  from pg_catalog.pg_proc as p
  join pg_catalog.pg_namespace as n on n.oid = p.pronamespace join pg_catalog.pg_language as l on l.oid = p.prolang
  where p.prokind in ('f', 'p') and l.lanname not in ('c', 'internal')
    and n.nspname not in ('mirror', 'pg_catalog', 'information_schema')
    and p.oid not in (select f.function from mirror.functions() as f)
$function$;

CREATE OR REPLACE FUNCTION mirror.surplus(scope jsonb)
 RETURNS jsonb
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET max_parallel_workers_per_gather TO '0'
AS $function$ -- permission mirror
declare
  _keys jsonb;
begin
  -- A first load finds nothing: then its rows need not be compared with that.
  if mirror.is_vacant(scope) then
    return '[]';
  end if;
  execute case scope->>'table'
    when 'trip_memberships' then $sql$
      select coalesce(jsonb_agg(to_jsonb(s)), '[]')
      from (select t.trip_id, t.user_id from public.trip_memberships as t where $sql$ || mirror.within(scope) || $sql$
            except select r.trip_id, r.user_id
                   from (select unnest(($1->'rows'->>'trip_id')::uuid[]) as trip_id,
                                unnest(($1->'rows'->>'user_id')::uuid[]) as user_id) as r) as s $sql$
    else format($sql$
      select coalesce(jsonb_agg(to_jsonb(s)), '[]')
      from (select t.id from public.%I as t where %s
            except (select unnest(($1->'rows'->>'id')::%s[])
                    union all select k.k1 from mirror.refused($1) as r, jsonb_to_record(r) as k(k1 %3$s))) as s $sql$,
      scope->>'table', mirror.within(scope), case scope->>'table' when 'users' then 'uuid' else 'uuid' end)
  end into _keys using scope;
  return _keys;
end
$function$;

CREATE OR REPLACE FUNCTION mirror.tell_parked(asked jsonb, settled boolean)
 RETURNS jsonb
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET enable_seqscan TO 'off'
AS $function$ -- permission mirror
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
$function$;

CREATE OR REPLACE FUNCTION mirror.within(scope jsonb)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select concat_ws(' and ', 'true', nullif(case scope->>'table'
    when 'users' then concat_ws(' and ',
      mirror.bound('t.id > %L::uuid', scope->'range'->>'after1'),
      mirror.bound('t.id <= %L::uuid', scope->'range'->>'upto1'))
    when 'trips' then concat_ws(' and ',
      mirror.bound('t.id > %L::uuid', scope->'range'->>'after1'),
      mirror.bound('t.id <= %L::uuid', scope->'range'->>'upto1'))
    else case
      when scope ? 'trips' then
        format('t.trip_id = any (%L::uuid[])', array(select jsonb_array_elements_text(scope->'trips')))
      when scope ? 'user' then format('t.user_id = %L::uuid', scope->>'user')
      when scope->'range'->>'trip' is not null then concat_ws(' and ',
        format('t.trip_id = %L::uuid', scope->'range'->>'trip'),
        mirror.bound('t.user_id > %L::uuid', scope->'range'->>'after2'),
        mirror.bound('t.user_id <= %L::uuid', scope->'range'->>'upto2'))
      else concat_ws(' and ',
        mirror.bound('(t.trip_id, t.user_id) > (%L::uuid, %L::uuid)',
                     scope->'range'->>'after1', scope->'range'->>'after2'),
        mirror.bound('(t.trip_id, t.user_id) <= (%L::uuid, %L::uuid)',
                     scope->'range'->>'upto1', scope->'range'->>'upto2'))
      end
    end, ''))
$function$;

CREATE OR REPLACE FUNCTION public.current_topic(trip text)
 RETURNS text
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare _trip text := mirror.as_trip_id(trip)::text;
begin
  return case when public.is_trip_member(_trip) then 'trip:' || _trip end;
end
$function$;

CREATE OR REPLACE FUNCTION public.current_topic(trip_id uuid)
 RETURNS text
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare _trip text := trip_id::uuid::text;
begin
  return case when public.is_trip_member(_trip) then 'trip:' || _trip end;
end
$function$;

CREATE OR REPLACE FUNCTION public.is_own_topic(topic text)
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare _me text;
begin
  -- Who calls: the JWT's `sub`; null where there is none. A block that catches everything is the dear part of a check,
  -- so there is one.
  declare
    _claims text := nullif(current_setting('request.jwt.claims', true), '');
    _json jsonb;
    _sub text;
  begin
    if _claims is null then
      _sub := nullif(current_setting('request.jwt.claim.sub', true), '');
    else
      _json := _claims::jsonb -> 'sub';
      _sub := case when jsonb_typeof(_json) in ('string', 'number') then nullif(_json #>> '{}', '') end;
    end if;
    _me := _sub;
  exception when others then
    _me := null;
  end;
  return coalesce(topic = null::text, false);
end
$function$;

CREATE OR REPLACE FUNCTION public.is_topic_member(topic text)
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare
  _me uuid;
  _pattern text;
  _found text[];
  _trip uuid;
begin
  -- Who calls: the JWT's `sub`; null where there is none. A block that catches everything is the dear part of a check,
  -- so there is one.
  declare
    _claims text := nullif(current_setting('request.jwt.claims', true), '');
    _json jsonb;
    _sub text;
  begin
    if _claims is null then
      _sub := nullif(current_setting('request.jwt.claim.sub', true), '');
    else
      _json := _claims::jsonb -> 'sub';
      _sub := case when jsonb_typeof(_json) in ('string', 'number') then nullif(_json #>> '{}', '') end;
    end if;
    _me := case when _sub::uuid::text = _sub or _sub::uuid::text = lower(_sub) then _sub::uuid end;
  exception when others then
    _me := null;
  end;
  foreach _pattern in array array['^trip:([0-9a-fA-F-]+)$']::text[] loop
    _found := regexp_match(topic, _pattern);
    continue when _found is null;
    begin
      _trip := case when _found[1]::uuid::text = _found[1] or _found[1]::uuid::text = lower(_found[1]) then _found[1]::uuid end;
    exception when others then
      _trip := null;
    end;
    if _found[2] is not null then
      return _found[2] = coalesce((select e.epoch from mirror.epochs as e where e.trip_id = _trip), 0)::text
             and exists (select from public.trip_memberships as m where m.trip_id = _trip and m.user_id = _me and lower(m.status::text collate "C") = any (array['active', 'accepted']::text[]) and not exists (select from mirror.parked as p where case p.tbl when 'users' then p.k1 when 'trip_memberships' then p.k2 end = m.user_id::text and (p.tbl = 'users' or p.k1 = m.trip_id::text)) and exists (select from public.users as u where u.id = m.user_id));
    elsif exists (select from public.trip_memberships as m where m.trip_id = _trip and m.user_id = _me and lower(m.status::text collate "C") = any (array['active', 'accepted']::text[]) and not exists (select from mirror.parked as p where case p.tbl when 'users' then p.k1 when 'trip_memberships' then p.k2 end = m.user_id::text and (p.tbl = 'users' or p.k1 = m.trip_id::text)) and exists (select from public.users as u where u.id = m.user_id)) then
      return true;
    end if;
  end loop;
  return false;
end
$function$;

CREATE OR REPLACE FUNCTION public.is_trip_member(trip text)
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare
  _me uuid;
  _trip uuid;
begin
  -- Who calls: the JWT's `sub`; null where there is none. A block that catches everything is the dear part of a check,
  -- so there is one.
  declare
    _claims text := nullif(current_setting('request.jwt.claims', true), '');
    _json jsonb;
    _sub text;
  begin
    if _claims is null then
      _sub := nullif(current_setting('request.jwt.claim.sub', true), '');
    else
      _json := _claims::jsonb -> 'sub';
      _sub := case when jsonb_typeof(_json) in ('string', 'number') then nullif(_json #>> '{}', '') end;
    end if;
    _me := case when _sub::uuid::text = _sub or _sub::uuid::text = lower(_sub) then _sub::uuid end;
    _trip := case when trip::uuid::text = trip or trip::uuid::text = lower(trip) then trip::uuid end;
  exception when others then
    _me := null;
  end;
  return exists (select from public.trip_memberships as m where m.trip_id = _trip and m.user_id = _me and lower(m.status::text collate "C") = any (array['active', 'accepted']::text[]) and not exists (select from mirror.parked as p where case p.tbl when 'users' then p.k1 when 'trip_memberships' then p.k2 end = m.user_id::text and (p.tbl = 'users' or p.k1 = m.trip_id::text)) and exists (select from public.users as u where u.id = m.user_id));
end
$function$;

CREATE OR REPLACE FUNCTION public.is_trip_member(trip text, roles text[])
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare
  _me uuid;
  _trip uuid;
begin
  -- Who calls: the JWT's `sub`; null where there is none. A block that catches everything is the dear part of a check,
  -- so there is one.
  declare
    _claims text := nullif(current_setting('request.jwt.claims', true), '');
    _json jsonb;
    _sub text;
  begin
    if _claims is null then
      _sub := nullif(current_setting('request.jwt.claim.sub', true), '');
    else
      _json := _claims::jsonb -> 'sub';
      _sub := case when jsonb_typeof(_json) in ('string', 'number') then nullif(_json #>> '{}', '') end;
    end if;
    _me := case when _sub::uuid::text = _sub or _sub::uuid::text = lower(_sub) then _sub::uuid end;
    _trip := case when trip::uuid::text = trip or trip::uuid::text = lower(trip) then trip::uuid end;
  exception when others then
    _me := null;
  end;
  return exists (select from public.trip_memberships as m
                 where m.trip_id = _trip and m.user_id = _me and lower(m.status::text collate "C") = any (array['active', 'accepted']::text[]) and not exists (select from mirror.parked as p where case p.tbl when 'users' then p.k1 when 'trip_memberships' then p.k2 end = m.user_id::text and (p.tbl = 'users' or p.k1 = m.trip_id::text)) and exists (select from public.users as u where u.id = m.user_id)
                   and lower(m.role::text) in (select lower(r) from unnest(roles) as r));
end
$function$;

CREATE OR REPLACE FUNCTION public.is_trip_member(trip_id uuid)
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare
  _me uuid;
  _trip uuid;
begin
  -- Who calls: the JWT's `sub`; null where there is none. A block that catches everything is the dear part of a check,
  -- so there is one.
  declare
    _claims text := nullif(current_setting('request.jwt.claims', true), '');
    _json jsonb;
    _sub text;
  begin
    if _claims is null then
      _sub := nullif(current_setting('request.jwt.claim.sub', true), '');
    else
      _json := _claims::jsonb -> 'sub';
      _sub := case when jsonb_typeof(_json) in ('string', 'number') then nullif(_json #>> '{}', '') end;
    end if;
    _me := case when _sub::uuid::text = _sub or _sub::uuid::text = lower(_sub) then _sub::uuid end;
    _trip := trip_id::uuid;
  exception when others then
    _me := null;
  end;
  return exists (select from public.trip_memberships as m where m.trip_id = _trip and m.user_id = _me and lower(m.status::text collate "C") = any (array['active', 'accepted']::text[]) and not exists (select from mirror.parked as p where case p.tbl when 'users' then p.k1 when 'trip_memberships' then p.k2 end = m.user_id::text and (p.tbl = 'users' or p.k1 = m.trip_id::text)) and exists (select from public.users as u where u.id = m.user_id));
end
$function$;

CREATE OR REPLACE FUNCTION public.is_trip_member(trip_id uuid, roles text[])
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare
  _me uuid;
  _trip uuid;
begin
  -- Who calls: the JWT's `sub`; null where there is none. A block that catches everything is the dear part of a check,
  -- so there is one.
  declare
    _claims text := nullif(current_setting('request.jwt.claims', true), '');
    _json jsonb;
    _sub text;
  begin
    if _claims is null then
      _sub := nullif(current_setting('request.jwt.claim.sub', true), '');
    else
      _json := _claims::jsonb -> 'sub';
      _sub := case when jsonb_typeof(_json) in ('string', 'number') then nullif(_json #>> '{}', '') end;
    end if;
    _me := case when _sub::uuid::text = _sub or _sub::uuid::text = lower(_sub) then _sub::uuid end;
    _trip := trip_id::uuid;
  exception when others then
    _me := null;
  end;
  return exists (select from public.trip_memberships as m
                 where m.trip_id = _trip and m.user_id = _me and lower(m.status::text collate "C") = any (array['active', 'accepted']::text[]) and not exists (select from mirror.parked as p where case p.tbl when 'users' then p.k1 when 'trip_memberships' then p.k2 end = m.user_id::text and (p.tbl = 'users' or p.k1 = m.trip_id::text)) and exists (select from public.users as u where u.id = m.user_id)
                   and lower(m.role::text) in (select lower(r) from unnest(roles) as r));
end
$function$;

CREATE OR REPLACE FUNCTION public.mirror_adopt(source jsonb)
 RETURNS jsonb
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
#variable_conflict use_column
declare
  _old mirror.state;
  _new mirror.state := mirror.blank();
begin
  perform mirror.make_durable();
  select * into _old from mirror.state for update;
  _new.rendered := coalesce(_old.rendered, '');
  _new.source := mirror_adopt.source - 'snapshot' - 'life' - 'crash_loses_s';
  _new.epoch := mirror.next_epoch(_old);
  perform mirror.keep(_new);
  return jsonb_build_object('clock', clock_timestamp());
end
$function$;

CREATE OR REPLACE FUNCTION public.mirror_apply(batch jsonb)
 RETURNS jsonb
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '5s'
 SET statement_timeout TO '8s'
 SET jit TO 'off'
AS $function$ -- permission mirror
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
$function$;

CREATE OR REPLACE FUNCTION public.mirror_check_token(token text)
 RETURNS jsonb
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
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
$function$;

CREATE OR REPLACE FUNCTION public.mirror_claim(source jsonb)
 RETURNS jsonb
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '5s'
AS $function$ -- permission mirror
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
    'walks', _state.walks, 'proof', _state.proof, 'doubts', _state.doubts, 'channels', mirror.channels(), 'told', '{"active": ["active", "accepted"], "allow_cascade": [], "announce": null, "callers": "id", "companions_see": ["username"], "max_staleness": null, "members_without_user": false, "send": ["broadcast", "presence"], "topics": ["trip:{id}"]}'::jsonb,
    'empty', array_remove(array[case when not exists (select from public.users) then 'users' end,
                                case when not exists (select from public.trips) then 'trips' end,
                                case when not exists (select from public.trip_memberships) then 'trip_memberships' end], null));
end
$function$;

CREATE OR REPLACE FUNCTION public.mirror_compare(batch jsonb)
 RETURNS jsonb
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select jsonb_build_object('clock', clock_timestamp(),
    'check', case when batch ? 'check' then mirror.check_digest(batch->'check') end,
    'explained', (select jsonb_agg(mirror.explain(s, jsonb_path_query_array(batch, '$.scopes[*] ? (!exists(@.dry))')))
                  from jsonb_array_elements(batch->'scopes') as s where s ? 'dry'))
$function$;

CREATE OR REPLACE FUNCTION public.mirror_has(token text)
 RETURNS boolean
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select coalesce((public.mirror_check_token(token)->>'has')::boolean, false)
$function$;

CREATE OR REPLACE FUNCTION public.mirror_insecurities()
 RETURNS jsonb
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select jsonb_build_object('clock', clock_timestamp(), 'insecurities', coalesce(jsonb_agg(to_jsonb(i)), '[]')) from mirror.insecurities() as i
$function$;

CREATE OR REPLACE FUNCTION public.mirror_is_fresh(max_age interval)
 RETURNS boolean
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select coalesce(clock_timestamp() - k.fresh_at <= max_age, false) from mirror.known() as k
$function$;

CREATE OR REPLACE FUNCTION public.mirror_open_channels()
 RETURNS jsonb
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '500ms'
AS $function$ -- permission mirror
begin
  if mirror.channels() = 'closed' then
    perform from mirror.state as s where s.messages is distinct from mirror.messages()::oid for update;
    if found then
      perform mirror.open_channels();
      update mirror.state as s
      set messages = mirror.messages(), sealed = split_part(s.sealed, ' ', 1) || ' ' || mirror.channel_seal()
      where s.one;
    end if;
  end if;
  return jsonb_build_object('clock', clock_timestamp(), 'channels', mirror.channels(), 'reason', null);
exception when others then
  return jsonb_build_object('clock', clock_timestamp(), 'channels', mirror.channels(), 'reason', sqlerrm);
end
$function$;

CREATE OR REPLACE FUNCTION public.mirror_staleness()
 RETURNS double precision
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select coalesce((select greatest(0, extract(epoch from clock_timestamp() - k.fresh_at))
                   from mirror.known() as k where k.fresh_at is not null), 'infinity')
$function$;

CREATE OR REPLACE FUNCTION public.mirror_status()
 RETURNS jsonb
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
  select to_jsonb(coalesce(s.sound, mirror.blank()))
         - '{one,rendered,sealed,position_epoch,messages,seal,known_at}'::text[] || jsonb_build_object(
    'clock', clock_timestamp(), 'channels', mirror.channels(), 'equal', k.equal, 'doubts', k.doubts,
    'staleness_seconds', extract(epoch from clock_timestamp() - k.fresh_at),
    'parked_keys', mirror.count_parked(),
    'parked', (select coalesce(jsonb_agg(to_jsonb(p) - 'settled' - 'tried_at' order by p.since), '[]')
               from (select * from mirror.parked order by since limit 100) as p))
  from mirror.known() as k left join lateral (select t as sound from mirror.state as t where mirror.is_sound(t)) as s on true
$function$;

CREATE OR REPLACE FUNCTION public.mirror_try()
 RETURNS jsonb
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '5s'
 SET statement_timeout TO '8s'
AS $function$ -- permission mirror
declare
  _state mirror.state;
  _table text;
  _epoch jsonb;
begin
  select * into strict _state from mirror.state;
  begin
    _epoch := public.mirror_claim(
      coalesce(_state.source, '{}') || jsonb_build_object('snapshot', _state.snapshot))->'epoch';
    foreach _table in array array['users', 'trips', 'trip_memberships'] loop
      perform mirror.attempt('add', _table, '{}'), mirror.attempt('put', _table, '{}'),
              mirror.attempt('remove', _table, '[]');
    end loop;
    perform mirror.attempt('aside', 'users', '{}'), mirror.revoke('[]');
    perform public.mirror_apply(jsonb_build_object('epoch', _epoch, 'batch', 1, 'scopes', '[]'::jsonb));
    perform public.mirror_apply(jsonb_build_object('epoch', _epoch, 'batch', 2, 'scopes', '[]'::jsonb,
      'position', jsonb_build_object('snapshot', coalesce(_state.snapshot, '1:1:'), 'as_of', now(),
                                     'fresh_at', now())));
    perform public.mirror_adopt('{}');
    raise exception 'tried' using errcode = 'MR000';
  exception when sqlstate 'MR000' then
    return jsonb_build_object('clock', clock_timestamp());
  end;
end
$function$;

CREATE OR REPLACE FUNCTION public.my_companion_profiles()
 RETURNS TABLE(id uuid, username text, email text, subject text)
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER ROWS 100
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare _me uuid;
begin
  -- Who calls: the JWT's `sub`; null where there is none. A block that catches everything is the dear part of a check,
  -- so there is one.
  declare
    _claims text := nullif(current_setting('request.jwt.claims', true), '');
    _json jsonb;
    _sub text;
  begin
    if _claims is null then
      _sub := nullif(current_setting('request.jwt.claim.sub', true), '');
    else
      _json := _claims::jsonb -> 'sub';
      _sub := case when jsonb_typeof(_json) in ('string', 'number') then nullif(_json #>> '{}', '') end;
    end if;
    _me := case when _sub::uuid::text = _sub or _sub::uuid::text = lower(_sub) then _sub::uuid end;
  exception when others then
    _me := null;
  end;
  return query
    select u.id::uuid, case when true or u.id = _me then u.username::text end,
           case when false or u.id = _me then u.email::text end,
           case when false or u.id = _me then u.subject::text end
    from public.users as u where u.id = any (array(select public.my_companions()));
end
$function$;

CREATE OR REPLACE FUNCTION public.my_companions()
 RETURNS SETOF uuid
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER ROWS 100
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare _me uuid;
begin
  -- Who calls: the JWT's `sub`; null where there is none. A block that catches everything is the dear part of a check,
  -- so there is one.
  declare
    _claims text := nullif(current_setting('request.jwt.claims', true), '');
    _json jsonb;
    _sub text;
  begin
    if _claims is null then
      _sub := nullif(current_setting('request.jwt.claim.sub', true), '');
    else
      _json := _claims::jsonb -> 'sub';
      _sub := case when jsonb_typeof(_json) in ('string', 'number') then nullif(_json #>> '{}', '') end;
    end if;
    _me := case when _sub::uuid::text = _sub or _sub::uuid::text = lower(_sub) then _sub::uuid end;
  exception when others then
    _me := null;
  end;
  return query
    select u.id::uuid from public.users as u where u.id = _me and not exists (select from mirror.parked as p where p.tbl = 'users' and p.k1 = u.id::text and p.k2 = '')
    union
    select m.user_id::uuid from public.trip_memberships as m
    where m.trip_id = any (array(select public.my_trips())) and lower(m.status::text collate "C") = any (array['active', 'accepted']::text[]) and (not exists (select from mirror.parked) or not exists (select from mirror.parked as p where case p.tbl when 'users' then p.k1 when 'trip_memberships' then p.k2 end = m.user_id::text and (p.tbl = 'users' or p.k1 = m.trip_id::text))) and exists (select from public.users as u where u.id = m.user_id);
end
$function$;

CREATE OR REPLACE FUNCTION public.my_trips()
 RETURNS SETOF uuid
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER ROWS 20
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare _me uuid;
begin
  -- Who calls: the JWT's `sub`; null where there is none. A block that catches everything is the dear part of a check,
  -- so there is one.
  declare
    _claims text := nullif(current_setting('request.jwt.claims', true), '');
    _json jsonb;
    _sub text;
  begin
    if _claims is null then
      _sub := nullif(current_setting('request.jwt.claim.sub', true), '');
    else
      _json := _claims::jsonb -> 'sub';
      _sub := case when jsonb_typeof(_json) in ('string', 'number') then nullif(_json #>> '{}', '') end;
    end if;
    _me := case when _sub::uuid::text = _sub or _sub::uuid::text = lower(_sub) then _sub::uuid end;
  exception when others then
    _me := null;
  end;
  return query
    select m.trip_id::uuid from public.trip_memberships as m where m.user_id = _me and lower(m.status::text collate "C") = any (array['active', 'accepted']::text[]) and (not exists (select from mirror.parked) or not exists (select from mirror.parked as p where case p.tbl when 'users' then p.k1 when 'trip_memberships' then p.k2 end = m.user_id::text and (p.tbl = 'users' or p.k1 = m.trip_id::text))) and exists (select from public.users as u where u.id = m.user_id);
end
$function$;

CREATE OR REPLACE FUNCTION public.my_user_id()
 RETURNS uuid
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$ -- permission mirror
declare _me uuid;
begin
  -- Who calls: the JWT's `sub`; null where there is none. A block that catches everything is the dear part of a check,
  -- so there is one.
  declare
    _claims text := nullif(current_setting('request.jwt.claims', true), '');
    _json jsonb;
    _sub text;
  begin
    if _claims is null then
      _sub := nullif(current_setting('request.jwt.claim.sub', true), '');
    else
      _json := _claims::jsonb -> 'sub';
      _sub := case when jsonb_typeof(_json) in ('string', 'number') then nullif(_json #>> '{}', '') end;
    end if;
    _me := case when _sub::uuid::text = _sub or _sub::uuid::text = lower(_sub) then _sub::uuid end;
  exception when others then
    _me := null;
  end;
  return (select u.id from public.users as u where u.id = _me and not exists (select from mirror.parked as p where p.tbl = 'users' and p.k1 = u.id::text and p.k2 = ''));
end
$function$;

create policy "mirror: members of your trips" on public.trip_memberships for select to authenticated
  using ((trip_id = ANY (ARRAY( SELECT public.my_trips() AS my_trips))) AND (lower((status COLLATE "C")) = ANY (ARRAY['active'::text, 'accepted'::text])));

create policy "mirror: your trips" on public.trips for select to authenticated
  using (id = ANY (ARRAY( SELECT public.my_trips() AS my_trips)));

create policy "mirror: you, and companions who show all" on public.users for select to authenticated
  using (id = ( SELECT public.my_user_id() AS my_user_id));

create policy "mirror: members receive" on realtime.messages for select to authenticated
  using ((extension = ANY (ARRAY['broadcast'::text, 'presence'::text])) AND ( SELECT public.is_topic_member(realtime.topic()) AS is_topic_member));

create policy "mirror: members send" on realtime.messages for insert to authenticated
  with check ((extension = ANY (ARRAY['broadcast'::text, 'presence'::text])) AND ( SELECT public.is_topic_member(realtime.topic()) AS is_topic_member));

grant execute on function public.current_topic(text) to authenticated;

grant execute on function public.current_topic(text) to service_role;

grant execute on function public.current_topic(uuid) to authenticated;

grant execute on function public.current_topic(uuid) to service_role;

grant execute on function public.is_own_topic(text) to authenticated;

grant execute on function public.is_own_topic(text) to service_role;

grant execute on function public.is_topic_member(text) to authenticated;

grant execute on function public.is_topic_member(text) to service_role;

grant execute on function public.is_trip_member(text) to authenticated;

grant execute on function public.is_trip_member(text) to service_role;

grant execute on function public.is_trip_member(text,text[]) to authenticated;

grant execute on function public.is_trip_member(text,text[]) to service_role;

grant execute on function public.is_trip_member(uuid) to authenticated;

grant execute on function public.is_trip_member(uuid) to service_role;

grant execute on function public.is_trip_member(uuid,text[]) to authenticated;

grant execute on function public.is_trip_member(uuid,text[]) to service_role;

grant execute on function public.mirror_adopt(jsonb) to service_role;

grant execute on function public.mirror_apply(jsonb) to service_role;

grant execute on function public.mirror_check_token(text) to authenticated;

grant execute on function public.mirror_check_token(text) to service_role;

grant execute on function public.mirror_claim(jsonb) to service_role;

grant execute on function public.mirror_compare(jsonb) to service_role;

grant execute on function public.mirror_has(text) to authenticated;

grant execute on function public.mirror_has(text) to service_role;

grant execute on function public.mirror_insecurities() to service_role;

grant execute on function public.mirror_is_fresh(interval) to authenticated;

grant execute on function public.mirror_is_fresh(interval) to service_role;

grant execute on function public.mirror_open_channels() to service_role;

grant execute on function public.mirror_staleness() to authenticated;

grant execute on function public.mirror_staleness() to service_role;

grant execute on function public.mirror_status() to service_role;

grant execute on function public.mirror_try() to service_role;

grant execute on function public.my_companion_profiles() to authenticated;

grant execute on function public.my_companion_profiles() to service_role;

grant execute on function public.my_companions() to authenticated;

grant execute on function public.my_companions() to service_role;

grant execute on function public.my_trips() to authenticated;

grant execute on function public.my_trips() to service_role;

grant execute on function public.my_user_id() to authenticated;

grant execute on function public.my_user_id() to service_role;

grant select on table public.trip_memberships to authenticated;

grant select on table public.trip_memberships to service_role;

grant select on table public.trips to authenticated;

grant select on table public.trips to service_role;

grant select on table public.users to authenticated;

grant select on table public.users to service_role;
