-- The source side: the lives of the primary. After a crash it hands out again the numbers of transactions that left nothing
-- durable: asynchronous commits, rolled-back ones. So a snapshot and a token mean something within one life only. An unlogged
-- table is emptied by crash recovery, by the promotion of a replica and by a new Neon compute, and by nothing else: while
-- it holds the row of this life, the life goes on. A clean restart keeps it.
create unlogged table if not exists mirror.alive (number bigint not null, name text not null);

-- The last life that was numbered. Two servers that both went on after the same one (a promoted replica and the old primary)
-- have the same number, and another name. remembered: the last renewal of the lead that the source knew of when it began;
-- what it did after that, it may have lost. One row.
create table if not exists mirror.life (
  one        boolean primary key default true check (one),
  number     bigint not null default 0,
  name       text,
  since      timestamptz,
  remembered timestamptz,
  lease      interval      -- how long the lease was: renewals are at most so far apart
);
insert into mirror.life default values on conflict do nothing;

-- The life that goes on, numbered if it is not yet. The daemon calls this before it takes the lead: what the lead says is
-- still what was remembered. Durable, since a number is given once; and two daemons number once. What the last target had
-- reached is forgotten: it was a snapshot of an earlier life, and everything is compared in this one.
create or replace function mirror.begin_life() returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $mirror$
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
$mirror$;

-- Read-your-writes: what the caller has written (its own transaction, if it wrote) and seen, and in which life. Compared by
-- mirror_has() in the target: a promise about exactly these transactions, never about "smaller ids". A life that is not
-- numbered yet will be the next one. (Before the first one a token says none, as in releases without lives.) It writes
-- nothing, so it can be asked for in any transaction. plpgsql, because an unlogged table may not even be planned for on a replica.
create or replace function mirror.token() returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $mirror$
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
$mirror$;
