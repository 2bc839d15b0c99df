-- The target side: what can be done about verdicts that Realtime has cached. Somebody who is removed while connected keeps
-- receiving; so tell them (announce), and let the conversation go on where they cannot follow (topic epochs). Both are off
-- unless the mapping asks for them, and cost nothing then: there is no trigger.

-- How often somebody has lost a trip; none yet: 0. A trip that is gone keeps its number, lest an old channel come back.
create table if not exists mirror.epochs (trip_id {{trip_id}} primary key, epoch bigint not null);
alter table mirror.epochs enable row level security;

create or replace function mirror.epoch_of(trip text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  select coalesce((select e.epoch from mirror.epochs as e where e.trip_id = mirror.as_trip_id(trip)), 0)::text
$mirror$;

-- Whichever way a membership goes or stops to count: applied, repaired, parked, or deleted by hand. One whose user is not
-- mirrored did not count before.
create or replace function mirror.on_revocation() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $mirror$
declare _revoked jsonb;
begin
  if tg_op = 'DELETE' then
    select jsonb_agg(jsonb_build_object('trip_id', m.trip_id, 'sub', {{lost_sub}})) into _revoked
    from old_rows as m where {{is_active}} and {{is_user}};
  else
    select jsonb_agg(jsonb_build_object('trip_id', m.trip_id, 'sub', {{lost_sub}})) into _revoked from (
      select m.trip_id, m.user_id from old_rows as m where {{is_active}} and {{is_user}}
      except select m.trip_id, m.user_id from new_rows as m where {{is_active}}) as m;
  end if;
  perform mirror.note_revoked(_revoked);
  return null;
end
$mirror$;

-- A user who goes, or signs in with no subject or another one from now on, has lost all trips; the memberships may well stay.
-- Who is parked has been told.
create or replace function mirror.on_lost_subject() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $mirror$
declare _revoked jsonb;
begin
  if tg_op = 'DELETE' then
    select jsonb_agg(jsonb_build_object('trip_id', m.trip_id, 'sub', {{sub_of_user}})) into _revoked
    from old_rows as u join public.trip_memberships as m on m.user_id = u.id
    where {{is_sub}} and {{is_active}} and {{user_counts}};
  else
    select jsonb_agg(jsonb_build_object('trip_id', m.trip_id, 'sub', {{sub_of_user}})) into _revoked
    from old_rows as u join public.trip_memberships as m on m.user_id = u.id
    where {{is_sub}} and {{is_active}} and {{user_counts}}
      and not exists (select from new_rows as n where n.id = u.id and {{is_same_sub}});
  end if;
  perform mirror.note_revoked(_revoked);
  return null;
end
$mirror$;

-- A user whose row is refused, or may not be deleted: the row stays, its memberships stop to count.
create or replace function mirror.on_parked_user() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $mirror$
begin
  perform mirror.note_revoked((
    select jsonb_agg(jsonb_build_object('trip_id', m.trip_id, 'sub', {{sub_of_user}}))
    from new_rows as p join public.users as u on u.id = mirror.as_user_id(p.k1)
    join public.trip_memberships as m on m.user_id = u.id
    where p.tbl = 'users' and {{is_sub}} and {{is_active}}));
  return null;
end
$mirror$;

create or replace function mirror.note_revoked(revoked jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
begin
  if {{has_epochs}} then
    insert into mirror.epochs as e (trip_id, epoch)
    select distinct r.trip_id, 1 from jsonb_to_recordset(revoked) as r(trip_id {{trip_id}})
    on conflict (trip_id) do update set epoch = e.epoch + 1;
  end if;
  if {{announces}} and revoked is not null and (select s.primed_at is not null from mirror.state as s) then
    perform mirror.announce(revoked);
  end if;
end
$mirror$;

-- Tells those who were removed, on their own channels, and those who stay that the conversation has moved. In the same
-- transaction as the revocation, so never before it; for a second at most; a failure costs the announcement alone.
create or replace function mirror.announce(revoked jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $mirror$
declare
  _until timestamptz := clock_timestamp() + interval '1 second';
  _t record;
begin
  if not exists (select from pg_catalog.pg_proc as p join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
                 where n.nspname = 'realtime' and p.proname = 'send') then
    return;
  end if;
  for _t in
    select {{announced_topic}} as topic, 'revoked' as event, r.trip_id
    from jsonb_to_recordset(revoked) as r(trip_id text, sub text)
    union all
    select unnest({{left_topics}}), 'moved', e.trip_id::text
    from mirror.epochs as e
    where {{has_epochs}} and e.trip_id in (select r.trip_id from jsonb_to_recordset(revoked) as r(trip_id {{trip_id}}))
    order by 2 desc loop
    continue when _t.topic is null;
    exit when clock_timestamp() > _until or not mirror.send(_t.event, _t.topic, _t.trip_id);
  end loop;
end
$mirror$;

create or replace function mirror.send(event text, topic text, trip text) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $mirror$
begin
  perform realtime.send(jsonb_build_object('trip_id', trip), event, topic, true);
  return true;
exception when others then
  raise warning 'mirror: % was not announced on %: %', event, topic, sqlerrm;
  return false;
end
$mirror$;

do $mirror$
declare
  _told boolean := {{has_epochs}} or {{announces}};
  _t record;
  _former text;
begin
  for _t in values ('public.trip_memberships', 'on_revocation', _told), ('public.users', 'on_lost_subject', _told and {{needs_user}}),
                   ('mirror.parked', 'on_parked_user', _told and {{needs_user}}) loop
    if _t.column3 and _t.column1 = 'mirror.parked' then
      create or replace trigger mirror_parked after insert on mirror.parked
        referencing new table as new_rows for each statement execute function mirror.on_parked_user();
    elsif _t.column3 then
      execute format('create or replace trigger mirror_deleted after delete on %1$s
          referencing old table as old_rows for each statement execute function mirror.%2$I();
        create or replace trigger mirror_updated after update on %1$s
          referencing old table as old_rows new table as new_rows for each statement execute function mirror.%2$I()',
        _t.column1, _t.column2);
    else
      for _former in
        select format('drop trigger %I on %s', t.tgname, t.tgrelid::regclass) from pg_catalog.pg_trigger as t
        where t.tgrelid = _t.column1::regclass and t.tgname in ('mirror_deleted', 'mirror_updated', 'mirror_parked')
      loop
        execute _former;
      end loop;
    end if;
  end loop;
end
$mirror$;
