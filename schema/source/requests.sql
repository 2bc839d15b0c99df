-- The source side: requests of operators, from any SQL prompt. Durable; the running leader picks them up, records progress
-- and the result. The outcome of the last 1,000 is kept.
create table if not exists mirror.request (
  id           bigint generated always as identity primary key,
  kind         text not null check (kind in ('resync', 'verify')),
  tbl          text check (tbl in ('users', 'trips', 'trip_memberships')),
  trip         text,
  usr          text,
  rewrite      boolean not null default false,
  force        boolean not null default false,
  requested_at timestamptz not null default now(),
  requested_by text not null default session_user,
  started_at   timestamptz,
  done_at      timestamptz,
  cancelled    boolean not null default false,
  state        text not null default 'waiting',     -- waiting, running, done, braked, failed, cancelled
  progress     jsonb not null default '{}',
  result       jsonb,
  check (num_nonnulls(trip, usr) <= 1 and (tbl is null or num_nonnulls(trip, usr) = 0))
);
create index if not exists request_open on mirror.request (id) where done_at is null;

create or replace view mirror.resyncs as
  select id, state, coalesce(tbl, 'trip ' || trip, 'user ' || usr, 'everything') as what, rewrite, force, requested_by,
         requested_at, started_at, done_at, progress, result
  from mirror.request where kind = 'resync' order by id desc;

create or replace function mirror.ask(kind text, tbl text, trip text, usr text, rewrite boolean, force boolean) returns bigint
language plpgsql as $mirror$
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
  if not pg_try_advisory_xact_lock_shared({{doorbell}}) and {{rings}} then
    perform pg_notify('mirror', '');
  end if;
  return _id;
end
$mirror$;

-- select mirror.resync();  mirror.resync('trips');  mirror.resync(trip => '...');  mirror.resync(usr => '...')
-- rewrite: send the rows without comparing. force: past the brake, or onto a target that knew another source.
create or replace function mirror.resync(tbl text default null, trip text default null, usr text default null,
                                         rewrite boolean default false, force boolean default false) returns bigint
language sql as $mirror$
  select mirror.ask('resync', tbl, trip, usr, rewrite, force)
$mirror$;

-- Takes a request back; what it has repaired so far stays.
create or replace function mirror.cancel_resync(request_id bigint) returns boolean language sql as $mirror$
  with _cancelled as (
    update mirror.request set cancelled = true,
           done_at = case when started_at is null then now() end, state = case when started_at is null then 'cancelled' else state end
    where id = request_id and done_at is null returning 1)
  select exists (select from _cancelled)
$mirror$;

-- The leader's report; false when the request was taken back meanwhile. What is done stays done.
create or replace function mirror.report(request_id bigint, new_state text, new_progress jsonb, new_result jsonb) returns boolean
language sql as $mirror$
  with _reported as (
    update mirror.request
    set state = new_state, progress = new_progress, result = coalesce(new_result, result),
        started_at = coalesce(started_at, now()),
        done_at = case when new_state in ('waiting', 'running') then null else now() end
    where id = request_id and done_at is null returning not cancelled as go_on)
  select coalesce((select go_on from _reported), false)
$mirror$;

-- An outbox that grew while no daemon ran is not worth replaying key by key: three marks say the same. Forgotten is what
-- is committed now, and the marks commit with that: whoever does not see those entries any more sees the marks. Entries of
-- transactions that are still open are not touched. When nobody is writing, TRUNCATE gives the space back at once.
create or replace function mirror.collapse(entries_max bigint) returns boolean language plpgsql as $mirror$
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
$mirror$;
