-- The target side: who is asking, and what is theirs. Nothing here raises, whatever the token, the topic or the id is: a
-- policy that raises breaks everybody. plpgsql, because its plans are made once per session; an SQL function that may not
-- be inlined (security definer) is planned at each call. Not parallel safe: a cast that fails ends in a subtransaction.
-- Setting a search_path takes as long as the rest of a check, so what is asked for every row calls no function of ours
-- that sets another: who calls is found in the function itself (caller.sql, rendered into each).

-- A key out of any text; null when it cannot be one. What merely reads as one (" 17", "0x11") is none: ids are names.
create or replace function mirror.as_trip_id(trip text) returns {{trip_id}} language plpgsql immutable
set search_path = pg_catalog, pg_temp as $mirror$
begin
  return {{trip_of_text}};
exception when others then
  return null;
end
$mirror$;

create or replace function mirror.as_user_id(sub text) returns {{user_id}} language plpgsql immutable
set search_path = pg_catalog, pg_temp as $mirror$
begin
  return {{user_of_text}};
exception when others then
  return null;
end
$mirror$;

-- Who the caller is in the application; null for who is not a mirrored user. For policies of tables that say who wrote something.
create or replace function public.my_user_id() returns {{user_id}}
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $mirror$
declare _me {{me}};
begin
{{find_caller}}
  return {{caller_id}};
end
$mirror$;

-- The trips that the caller is an active member of. In policies: trip_id = any (array(select public.my_trips())), which is
-- asked once per query and leaves the index on trip_id to be used.
create or replace function public.my_trips() returns setof {{trip_id}}
language plpgsql stable security definer rows 20 set search_path = pg_catalog, pg_temp as $mirror$
declare _me {{me}};
begin
{{find_caller}}
  return query
    select m.trip_id::{{trip_id}} from public.trip_memberships as m where {{are_mine}};
end
$mirror$;

-- The caller, and who is in a trip with the caller now.
create or replace function public.my_companions() returns setof {{user_id}}
language plpgsql stable security definer rows 100 set search_path = pg_catalog, pg_temp as $mirror$
declare _me {{me}};
begin
{{find_caller}}
  return query
    select u.id::{{user_id}} from public.users as u where {{is_caller_user}} and {{user_counts}}
    union
    select m.user_id::{{user_id}} from public.trip_memberships as m
    where m.trip_id = any (array(select public.my_trips())) and {{counts}};
end
$mirror$;

-- The same with what they show to each other ([access] companions_see); of oneself, everything.
create or replace function public.my_companion_profiles()
returns table (id {{user_id}}, username text, email text, subject text)
language plpgsql stable security definer rows 100 set search_path = pg_catalog, pg_temp as $mirror$
declare _me {{me}};
begin
{{find_caller}}
  return query
    select u.id::{{user_id}}, case when {{see_username}} or {{is_caller_user}} then u.username::text end,
           case when {{see_email}} or {{is_caller_user}} then u.email::text end,
           case when {{see_subject}} or {{is_caller_user}} then u.subject::text end
    from public.users as u where u.id = any (array(select public.my_companions()));
end
$mirror$;

-- May the caller enter this channel? For policies on realtime.messages: (select public.is_topic_member(realtime.topic())).
-- A topic with an epoch is decided by its own pattern, whatever else would fit it: those come first.
create or replace function public.is_topic_member(topic text) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $mirror$
declare
  _me {{me}};
  _pattern text;
  _found text[];
  _trip {{trip_id}};
begin
{{find_caller}}
  foreach _pattern in array {{patterns}} loop
    _found := regexp_match(topic, _pattern);
    continue when _found is null;
    begin
      _trip := {{trip_of_topic}};
    exception when others then
      _trip := null;
    end;
    if _found[2] is not null then
      return _found[2] = coalesce((select e.epoch from mirror.epochs as e where e.trip_id = _trip), 0)::text
             and {{is_member}};
    elsif {{is_member}} then
      return true;
    end if;
  end loop;
  return false;
end
$mirror$;

-- Is this the channel on which the caller, and nobody else, hears of revocations?
create or replace function public.is_own_topic(topic text) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $mirror$
declare _me text;
begin
{{find_subject}}
  return coalesce(topic = {{own_topic}}, false);
end
$mirror$;
