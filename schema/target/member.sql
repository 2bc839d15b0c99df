-- May the caller enter this trip, asked with an id as {{type}}? A literal is text; over PostgREST the argument's name says
-- which one is meant. In a policy on a table: public.is_trip_member(trip_id).
create or replace function public.is_trip_member({{name}} {{type}}) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $mirror$
declare
  _me {{me}};
  _trip {{key}};
begin
{{find_caller_and_trip}}
  return {{is_member}};
end
$mirror$;

-- The same as one of these roles, in any case.
create or replace function public.is_trip_member({{name}} {{type}}, roles text[]) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $mirror$
declare
  _me {{me}};
  _trip {{key}};
begin
{{find_caller_and_trip}}
  return exists (select from public.trip_memberships as m
                 where m.trip_id = _trip and {{is_mine}}
                   and lower(m.role::text) in (select lower(r) from unnest(roles) as r));
end
$mirror$;

-- The trip's channel as of now, for its members: another one after each revocation, when the topics have an epoch.
create or replace function public.current_topic({{name}} {{type}}) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $mirror$
declare _trip text := {{value}}::text;
begin
  return case when public.is_trip_member(_trip) then {{current_topic}} end;
end
$mirror$;
