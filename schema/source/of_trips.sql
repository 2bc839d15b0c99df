
-- All memberships of these trips, as one scope; trips of more than row_limit memberships are named and left to a walk.
create or replace function mirror.trip_memberships_of(trips text[], row_limit integer,
                                                      out scope text, out n bigint, out wide text[])
language plpgsql stable as $mirror$
#variable_conflict use_column
declare
  _small text[];
begin
  select array_agg(_wanted.k1) filter (where _size.n <= row_limit), coalesce(sum(_size.n) filter (where _size.n <= row_limit), 0),
         coalesce(array_agg(_wanted.k1) filter (where _size.n > row_limit), '{}')
  into _small, n, wide
  from unnest(trips) as _wanted(k1),
       lateral (select count(*) as n from (select from {{relation}} as {{alias}} where {{in_wanted_trip}} and {{visible}}
                                           limit row_limit + 1) as _some) as _size;
  select format('{"table":"trip_memberships","trips":%s,"rows":%s}', coalesce(array_to_json(_small), '[]'), {{lists}})
  into scope
  from unnest(_small) as _wanted(k1),
       lateral (select distinct on ({{order}}) {{columns}} from {{relation}} as {{alias}}
                where {{in_wanted_trip}} and {{visible}} offset 0) as _projected;
exception when data_exception or raise_exception then
  -- Some row cannot be read: the walk isolates it.
  scope := null;
  n := 0;
  wide := array(select k from unnest(trips) as k where mirror.trips_possible(k, null));
end
$mirror$;

-- All memberships of one user, as one scope.
create or replace function mirror.trip_memberships_of_user(user_key text) returns text language plpgsql stable as $mirror$
#variable_conflict use_column
begin
  return (
    select format('{"table":"trip_memberships","user":%s,"rows":%s}', to_json(user_key), {{lists}})
    from (select distinct on ({{order}}) {{columns}} from {{relation}} as {{alias}}
          where {{of_user}} and {{visible}}) as _projected);
end
$mirror$;
