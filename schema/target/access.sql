-- The target side: who is asking, and what is theirs. Nothing here raises, whatever the token, the topic or the id is: a
-- policy that raises breaks everybody. plpgsql, because its plans are made once per session; an SQL function that may not
-- be inlined (security definer) is planned at each call. Not parallel safe: a cast that fails ends in a subtransaction.

-- Who calls: the JWT's `sub`, as text; null for nobody. (What is called by functions with a search_path and by nobody else
-- has none of its own: setting one takes as long as the rest of it.)
create or replace function mirror.caller() returns text language plpgsql stable as $mirror$
declare
  _claims text := nullif(current_setting('request.jwt.claims', true), '');
  _sub jsonb;
begin
  if _claims is null then
    return nullif(current_setting('request.jwt.claim.sub', true), '');
  end if;
  _sub := _claims::jsonb -> 'sub';
  return case when jsonb_typeof(_sub) in ('string', 'number') then nullif(_sub #>> '{}', '') end;
exception when others then
  return null;
end
$mirror$;

-- The same as an id, in one go: the statements and the block of its own that it saves are a fifth of a check.
create or replace function mirror.caller_id() returns {{user_id}} language plpgsql stable as $mirror$
declare
  _claims text := nullif(current_setting('request.jwt.claims', true), '');
  _json jsonb;
  _sub text;
  _id {{user_id}};
begin
  if _claims is null then
    _sub := current_setting('request.jwt.claim.sub', true);
  else
    _json := _claims::jsonb -> 'sub';
    _sub := case when jsonb_typeof(_json) in ('string', 'number') then _json #>> '{}' end;
  end if;
  _id := nullif(_sub, '')::{{user_id}};
  return case when _id::text = _sub or _id::text = lower(_sub) then _id end;
exception when others then
  return null;
end
$mirror$;

-- A key out of any text; null when it cannot be one. What merely reads as one (" 17", "0x11") is none: ids are names.
create or replace function mirror.as_trip_id(trip text) returns {{trip_id}} language plpgsql immutable as $mirror$
declare _id {{trip_id}};
begin
  _id := trip::{{trip_id}};
  return case when _id::text = trip or _id::text = lower(trip) then _id end;
exception when others then
  return null;
end
$mirror$;

create or replace function mirror.as_user_id(sub text) returns {{user_id}} language plpgsql immutable as $mirror$
declare _id {{user_id}};
begin
  _id := sub::{{user_id}};
  return case when _id::text = sub or _id::text = lower(sub) then _id end;
exception when others then
  return null;
end
$mirror$;

-- Who the caller is in the application; null for nobody. For policies of tables that say who wrote something.
create or replace function public.my_user_id() returns {{user_id}}
language plpgsql stable security definer set search_path = '' as $mirror$
declare _me {{me}};
begin
  return {{caller_id}};
end
$mirror$;

-- The trips that the caller is an active member of. In policies: trip_id = any (array(select public.my_trips())), which is
-- asked once per query and leaves the index on trip_id to be used.
create or replace function public.my_trips() returns setof {{trip_id}}
language plpgsql stable security definer rows 20 set search_path = '' as $mirror$
declare _me {{me}};
begin
  return query
    select m.trip_id::{{trip_id}} from public.trip_memberships as m where {{is_caller}} and {{counts}};
end
$mirror$;

-- The caller, and who is in a trip with the caller now.
create or replace function public.my_companions() returns setof {{user_id}}
language plpgsql stable security definer rows 100 set search_path = '' as $mirror$
declare _me {{me}};
begin
  return query
    select u.id::{{user_id}} from public.users as u where {{is_caller_user}}
    union
    select m.user_id::{{user_id}} from public.trip_memberships as m
    where m.trip_id = any (array(select public.my_trips())) and {{counts}};
end
$mirror$;

-- May the caller enter this channel? For policies on realtime.messages: (select public.is_topic_member(realtime.topic())).
-- A topic with an epoch is decided by its own pattern, whatever else would fit it: those come first.
create or replace function public.is_topic_member(topic text) returns boolean
language plpgsql stable security definer set search_path = '' as $mirror$
declare
  _me {{me}};
  _pattern text;
  _found text[];
  _trip {{trip_id}};
begin
  foreach _pattern in array {{patterns}} loop
    _found := regexp_match(topic, _pattern);
    continue when _found is null;
    _trip := mirror.as_trip_id(_found[1]);
    if _found[2] is not null then
      return _found[2] = mirror.epoch_of(_found[1]) and {{is_member}};
    elsif {{is_member}} then
      return true;
    end if;
  end loop;
  return false;
end
$mirror$;

-- Is this the channel on which the caller, and nobody else, hears of revocations?
create or replace function public.is_own_topic(topic text) returns boolean
language plpgsql stable security definer set search_path = '' as $mirror$
declare _sub text := mirror.caller();
begin
  return coalesce(topic = {{own_topic}}, false);
end
$mirror$;
