drop function if exists public.mirror_claim(jsonb), public.mirror_apply(jsonb), public.mirror_status(), public.is_trip_member(text);
drop schema if exists mirror cascade;
