-- What `mirror why` asks of the primary, through the expressions of the mapping ({{...}}): the mirror's role may read just
-- these columns.

-- query person_by_id: who has this id
select ({{users_id}}
)::text as id, ({{users_subject}}
)::text as subject, ({{users_username}}
)::text as username, coalesce(({{users_where}}
), false) as mirrored
from {{users}} as {{users_alias}} where ({{users_id}}
) = {{who}}::{{user_type}} limit 6

-- query person_by_name: who has this subject, e-mail address or username
select ({{users_id}}
)::text as id, ({{users_subject}}
)::text as subject, ({{users_username}}
)::text as username, coalesce(({{users_where}}
), false) as mirrored
from {{users}} as {{users_alias}}
where ({{users_subject}}
)::text = {{who}} or lower(({{users_email}}
)::text) = lower({{who}}) or lower(({{users_username}}
)::text) = lower({{who}}) order by 1 limit 6

-- query trip: this trip
select ({{trips_id}}
)::text as id, ({{trips_name}}
)::text as name, coalesce(({{trips_where}}
), false) as mirrored
from {{trips}} as {{trips_alias}} where ({{trips_id}}
) = {{trip}}::{{trip_type}} order by 3 desc limit 1

-- query membership: this user in this trip
select ({{trip_memberships_role}}
)::text as role, ({{trip_memberships_status}}
)::text as status, coalesce(({{trip_memberships_where}}
), false) as mirrored
from {{trip_memberships}} as {{trip_memberships_alias}}
where ({{trip_memberships_trip_id}}
) = {{trip}}::{{trip_type}} and ({{trip_memberships_user_id}}
) = {{user}}::{{user_type}} order by 3 desc limit 1

-- query waiting: entries of the outbox about them that the target does not have yet, oldest first
select tbl as table, case when k1 is null then 'the whole table' when tbl = 'trip_memberships' and k2 is null then 'the whole trip'
                          else 'the key' end as scope,
       max(extract(epoch from clock_timestamp() - at))::float8 as seconds
from mirror.outbox
where (tbl = 'users' and coalesce(k1, {{user}}) = {{user}} or tbl = 'trips' and coalesce(k1, {{trip}}) = {{trip}}
       or tbl = 'trip_memberships' and coalesce(k1, {{trip}}) = {{trip}} and coalesce(k2, {{user}}) = {{user}})
  and pg_visible_in_snapshot(xid, {{snapshot}}::pg_snapshot) is not true
group by 1, 2 order by 3 desc

-- query leads: is there a daemon that works this off
select exists (select from mirror.leader()) as leads
