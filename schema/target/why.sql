-- What `mirror why` asks of Supabase. The probes run as the user, in a transaction that is rolled back.

-- query person: who has this id, subject, e-mail address or username
select id::text as id, subject, username::text as username, true as mirrored from public.users
where id::text = %(who)s or subject::text = %(who)s or lower(email::text) = lower(%(who)s) or lower(username::text) = lower(%(who)s)
order by id::text = %(who)s desc, 1 limit 6

-- query user: the mirrored user
select id::text as id, subject::text as subject, username::text as username from public.users where id = mirror.as_user_id(%(user)s)

-- query trip: the mirrored trip
select id::text as id, name::text as name from public.trips where id = mirror.as_trip_id(%(trip)s)

-- query membership: the mirrored membership
select role::text as role, status::text as status from public.trip_memberships
where trip_id = mirror.as_trip_id(%(trip)s) and user_id = mirror.as_user_id(%(user)s)

-- query parked: which of them Supabase refuses
select tbl as table, reason, tries, extract(epoch from clock_timestamp() - since)::float8 as seconds
from mirror.parked
where (tbl, k1, k2) in (('users', %(user)s, ''), ('trips', %(trip)s, ''), ('trip_memberships', %(trip)s, %(user)s))

-- query position: which state of the primary this is, and since when
select k.snapshot, k.as_of, (select s.applied_at from mirror.state as s), k.primed,
       extract(epoch from clock_timestamp() - k.fresh_at)::float8 as staleness_seconds from mirror.known() as k

-- query become: who asks, and where, as Realtime says it
select set_config('role', coalesce((select rolname from pg_roles where rolname = 'authenticated'), 'none'), true),
       set_config('realtime.topic', %(topic)s, true),
       set_config('request.jwt.claims', %(claims)s, true), set_config('request.jwt.claim.sub', %(sub)s, true),
       set_config('request.jwt.claim.role', 'authenticated', true)

-- query is_member: may the caller enter
select public.is_trip_member(%(trip)s::text) as verdict

-- query probe: a row to be seen
insert into realtime.messages (topic, extension) values (%(topic)s, %(extension)s)

-- query received: which of the probe rows the caller sees
select extension from realtime.messages where topic = %(topic)s

-- query epoch: how often somebody has lost this trip, as its topics say it
select mirror.epoch_of(%(trip)s) as epoch
