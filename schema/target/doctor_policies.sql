-- The policies that ask the mirror for a caller, those of channels and of the mirrored tables: what the checks of policies look at.
with p as (
  select * from (
    select o.polname as name, o.polrelid::regclass::text as relation, (o.polrelid = to_regclass('realtime.messages')) is true as is_channel,
           concat_ws(' ', pg_get_expr(o.polqual, o.polrelid), pg_get_expr(o.polwithcheck, o.polrelid)) as expression
    from pg_policy as o) as o
  where is_channel or relation in ('public.users', 'public.trips', 'public.trip_memberships')
     or expression ~* '\m(public\.)?(users|trips|trip_memberships|is_trip_member|is_topic_member|my_trips)\M')
