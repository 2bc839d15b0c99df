-- The source side, part 1: what does not depend on the mapping. Rendered and run by `mirror install source`.
-- Nothing here takes a lock on a table of the application.

create schema if not exists mirror;

-- What is installed, and from which mapping. One row.
create table if not exists mirror.install (
  one         boolean primary key default true check (one),
  version     integer not null,
  incarnation uuid not null default gen_random_uuid(),
  mapping     jsonb not null,
  rendered    text not null,             -- digest of the rendered SQL
  fingerprint text not null,             -- of what is in the catalog since; both equal = nothing to do
  unsettled   text[] not null default '{}',  -- tables whose writers of before the last mapping are waited for
  installed_at timestamptz not null default now()
);

-- The snapshot that the target equalled when entries were forgotten (noted at most once a second, and at last with the next
-- heartbeat). A target that has not come that far was restored from a backup, or is another one: nobody will tell it again
-- what it lacks. One row.
create table if not exists mirror.reached (one boolean primary key default true check (one), snapshot text);
insert into mirror.reached default values on conflict do nothing;

-- The durable truth of what is dirty. A membership with k2 null = all memberships of trip k1; k1 null = the whole
-- table. gone: may a person lose something? In a backlog that is read first (what is true is read, not believed):
--   true   the key left the projection with this statement, or a user got another subject: it is lost for certain;
--   false  a membership got another status or role: perhaps;
--   null   the key is new, or only a name has changed: no. (A release of before says false here, which is read too early.)
-- No index and no key on purpose: entries live for milliseconds, are found by scanning, and forgotten by id
-- between the places they were read from. VACUUM does not truncate it: that takes an exclusive lock, and mirror.tidy does it
-- without anybody waiting.
create sequence if not exists mirror.outbox_id;
create table if not exists mirror.outbox (
  id  bigint not null default nextval('mirror.outbox_id'),
  xid xid8 not null default pg_current_xact_id(),
  at  timestamptz not null default clock_timestamp(),
  tbl text not null,
  k1  text,
  k2  text,
  gone boolean
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 1000000000,
        autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);

-- Three more of it. Writers use the four in turn, two seconds each (mirror.turn), and the daemon truncates those that
-- rest (mirror.tidy): dead entries never pile up, not even while somebody's long transaction keeps VACUUM from working.
-- Reading mirror.outbox reads all four. Where somebody publishes FOR ALL TABLES, forgetting is refused without a replica
-- identity; the catalog is looked at first, since an ALTER of a table that writers use would make them queue.
do $mirror$
declare
  _name text;
begin
  foreach _name in array array['outbox', 'outbox_1', 'outbox_2', 'outbox_3'] loop
    if to_regclass('mirror.' || _name) is null then
      execute format($table$
        create table mirror.%I (
          id  bigint not null default nextval('mirror.outbox_id'),
          xid xid8 not null default pg_current_xact_id(),
          at  timestamptz not null default clock_timestamp()
        ) inherits (mirror.outbox)
          with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
                autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 1000000000,
                autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off) $table$, _name);
    end if;
    if not exists (select from pg_attrdef as d join pg_attribute as a on a.attrelid = d.adrelid and a.attnum = d.adnum
                   where d.adrelid = to_regclass('mirror.' || _name) and a.attname = 'id') then
      execute format('alter table only mirror.%I alter id set default nextval(%L)', _name, 'mirror.outbox_id');
    end if;
    if (select count(*) from pg_attribute as a join pg_class as c on c.oid = a.attrelid
        where c.oid = to_regclass('mirror.' || _name) and c.relkind = 'r' and not a.attisdropped
          and (a.attname in ('tbl', 'k1', 'k2', 'gone') or a.attname in ('id', 'xid', 'at') and a.atthasdef)) <> 7
       or _name <> 'outbox' and not exists (select from pg_inherits where inhrelid = to_regclass('mirror.' || _name)
                                              and inhparent = to_regclass('mirror.outbox')) then
      raise exception 'mirror.% is not an outbox', _name using errcode = 'wrong_object_type';
    end if;
    if (select relreplident from pg_class where oid = to_regclass('mirror.' || _name)) <> 'f' then
      execute format('alter table only mirror.%I replica identity full', _name);
    end if;
  end loop;
end
$mirror$;

-- Those of the four that new transactions pass by, because somebody who wrote there keeps his transaction open.
create table if not exists mirror.held (turn integer primary key, since timestamptz not null);
delete from mirror.held;  -- mirror.turn is made anew below

-- Whose turn it is, by the start of the caller's TRANSACTION: all entries of one transaction go to one table, so a
-- transaction that stays open for an hour keeps one of the four busy, and no shared flag has to be read or written: what
-- new transactions are to pass by is written into this function (mirror.pass_by), which costs them nothing.
create or replace function mirror.slot() returns integer language sql stable parallel safe as $mirror$
  select pg_catalog.mod(pg_catalog.floor(pg_catalog.date_part('epoch', pg_catalog.now())
                        operator(pg_catalog./) 2::pg_catalog.float8)::pg_catalog.int8, 4::pg_catalog.int8)::pg_catalog.int4
$mirror$;
create or replace function mirror.turn() returns integer language sql stable parallel safe as $mirror$
  select mirror.slot()
$mirror$;

-- From now on transactions that begin pass by the tables in mirror.held, each to the next one that is not; those that began
-- before stay where they are, so that whoever goes on writing does not hold a second table. Two are always left to be used
-- in turn. With the rights of whoever installed: it changes a function.
create or replace function mirror.pass_by(turn integer, held boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $mirror$
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
$mirror$;

-- Which table got the triggers, for each of the three: another one of that name was made anew (mirror.faults).
create table if not exists mirror.origin (tbl text primary key, relation oid not null);

-- The doorbell. NOTIFY takes a global lock at commit and would cost the application most of its write throughput, so
-- it is rung only for a daemon that sleeps. Why no wake-up is lost:
--   * The daemon sleeps only while it holds lock (1835627122, 1) exclusively, and only after it took that lock AND
--     then looked at the outbox once more in a new snapshot (mirror.drain).
--   * A writer takes the lock shared and keeps it until its transaction ends, or cannot have it and rings.
--   * Took it: the daemon could get its exclusive lock only after that transaction had ended; locks are released after
--     a commit became visible; so the look that follows sees the entries. A long transaction keeps the daemon awake
--     (it polls instead), it cannot make it deaf.
--   * Rang: the notification is delivered after the commit became visible, and wakes the daemon, which clears its
--     wake-up before it looks.
--   * The daemon's session died: the lock died with it, nobody rings, and the daemon looks when it is back.
-- NOTIFY would make PREPARE TRANSACTION fail; where prepared transactions are allowed nobody rings, and the daemon
-- knows (mirror.rings) that it has to poll.
create or replace function mirror.rings() returns boolean language sql stable as $mirror$
  select {{rings}}
$mirror$;

-- Marks many keys as dirty, in the outbox whose turn it is, and rings. For the triggers only: they say what it runs as, and
-- see that it can.
create or replace function mirror.mark_keys(place integer, tables text[], keys1 text[], keys2 text[], gone boolean[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
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
  if not pg_try_advisory_xact_lock_shared({{doorbell}}) and {{rings}} then
    perform pg_notify('mirror', '');
  end if;
end
$mirror$;

-- Marks whole tables, for the installer and the daemon.
create or replace function mirror.mark_tables(tables text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $mirror$
begin
  if not tables <@ array['users', 'trips', 'trip_memberships'] then
    raise exception 'a table that is not mirrored cannot be marked' using errcode = '22023';
  end if;
  perform mirror.mark_keys(mirror.turn(), tables, null, null, null);
end
$mirror$;

-- Which database this is. A restored or branched database is another one, also one restored beside the first. SECURITY DEFINER, so that the answer does not
-- depend on who asks; a provider that hides the control file leaves the other parts.
create or replace function mirror.identity() returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $mirror$
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
$mirror$;

-- How many bytes the four tables take.
create or replace function mirror.outbox_bytes() returns bigint language sql stable as $mirror$
  select pg_relation_size('mirror.outbox') + pg_relation_size('mirror.outbox_1')
       + pg_relation_size('mirror.outbox_2') + pg_relation_size('mirror.outbox_3')
$mirror$;

-- Gives the space of forgotten entries back. A table whose turn it is not is truncated when it is empty and big, and
-- nobody is inside: NOWAIT, and held for the few milliseconds that takes, so the application never queues behind it.
-- Under the lock no entry can be uncommitted, so "empty" is certain, if it is looked at in a snapshot that is younger than
-- the lock: read committed. If somebody is inside all the time it rests, its next turn passes it by.
create or replace function mirror.tidy(bytes_max bigint) returns void language plpgsql as $mirror$
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
$mirror$;
