-- The target side, part 1: the mirror's own state. Rendered and run by `mirror install target`; runs on plain PostgreSQL 15
-- to 18 and on hosted Supabase, whose API roles are granted to where they exist.

create schema if not exists mirror;
revoke all on schema mirror from public;

-- What the target equals, who may change it, and what it was told by its operator. One row.
create table if not exists mirror.state (
  one          boolean primary key default true check (one),
  version      integer not null,
  rendered     text not null,             -- digest of the SQL that was run here,
  sealed       text,                      -- and of what it left in the catalog: both equal = nothing to do
  types        jsonb not null,            -- of the keys, as in the source
  allow_cascade text[] not null default '{}',
  source       jsonb,                     -- which source this is a mirror of
  epoch        bigint not null default 0, -- the fence: of the daemon that may write,
  batch        bigint not null default 0, -- and of its last batch
  snapshot     text,                      -- the source's pg_snapshot that the three tables now equal
  position_epoch bigint,                  -- who said so
  as_of        timestamptz,               -- the source's clock at that snapshot
  fresh_at     timestamptz,               -- THIS server's clock, at or before that snapshot: staleness is now minus this
  applied_at   timestamptz,
  primed_at    timestamptz,               -- first time that the tables equalled a snapshot
  proof        jsonb,                     -- when equality was last proven, between which snapshots, counts and digests
  braked       jsonb not null default '{}', -- tables that a comparison left alone: how many of their rows would have gone
  walks        jsonb not null default '[]', -- first loads under way, and how far they are
  messages     oid                        -- the realtime.messages that our policies were made on
);
alter table mirror.state
  add column if not exists messages oid,
  add column if not exists life text,          -- of the source, that the daemon claimed with; null = it has no lives
  add column if not exists position_life text, -- the life that the snapshot is of: equal to life, or all is compared first
  add column if not exists doubts jsonb not null default '[]', -- what the daemon knows that takes something away
  add column if not exists known_at timestamptz, -- fresh_at, as far as braked, doubts and life leave it; null = not fresh
  add column if not exists seal bigint;        -- over all that is claimed here: it is the mirror that wrote it

-- Keys whose row the target refused: left out, retried now and then, reported. A parked membership is not in the
-- mirror at all: who cannot be proven to be a member is none.
create table if not exists mirror.parked (
  tbl      text not null,
  k1       text not null,
  k2       text not null default '',
  reason   text not null,
  since    timestamptz not null default now(),
  tries    integer not null default 1,
  retry_at timestamptz not null default now() + interval '5 seconds',
  settled  boolean not null default false,
  tried_at timestamptz not null default now(),
  primary key (tbl, k1, k2)
);
alter table mirror.parked add column if not exists tried_at timestamptz not null default now();
create index if not exists parked_due on mirror.parked (tbl, retry_at);
create index if not exists parked_tried on mirror.parked (tried_at);
create index if not exists parked_settled on mirror.parked (tbl) where settled;
-- By the user: a policy asks with one look whether a membership or its user is parked (mirror/target/access.py).
create index if not exists parked_users on mirror.parked
  ((case tbl when 'users' then k1 when 'trip_memberships' then k2 end));

-- Nothing but the functions below reads or writes these; they belong to the same role.
alter table mirror.state enable row level security;
alter table mirror.parked enable row level security;

-- Policies that are asked for anon too (to anon, or without TO), and the functions they call. One that anon may not
-- call is an error for all who share the topic, or the poll of postgres_changes: so anon may call it, for as long as
-- the policy is there.
create or replace function mirror.open_policies() returns table (policy name, relation regclass, function oid)
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  select o.polname, o.polrelid::regclass, d.refobjid from pg_catalog.pg_policy as o
  join pg_catalog.pg_depend as d
    on d.classid = 'pg_policy'::regclass and d.objid = o.oid and d.refclassid = 'pg_proc'::regclass
  where 0 = any (o.polroles)
     or exists (select from pg_catalog.pg_roles as r where r.rolname = 'anon' and r.oid = any (o.polroles))
$mirror$;

create or replace function mirror.functions() returns table (function regprocedure, callers text[])
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  select p.oid::regprocedure,
         f.callers::text[] || array(select 'anon' from mirror.open_policies() as o
                                    where o.function = p.oid and 'authenticated' = any (f.callers::text[]) limit 1)
  from pg_catalog.pg_proc as p join (
{{functions}}) as f(name, callers) on f.name = p.proname
  where p.pronamespace = 'public'::regnamespace and (
  {{is_ours}})
$mirror$;

-- Realtime's table of messages, where there is one. (to_regclass() is an error for whoever may not enter the schema.)
create or replace function mirror.messages() returns regclass
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  select c.oid::regclass from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
  where n.nspname = 'realtime' and c.relname = 'messages'
$mirror$;

-- The part of it that the daemon may bring about: the table of messages that our policies are on, and those policies.
create or replace function mirror.channel_seal() returns text
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  select md5(coalesce(string_agg(line, E'\n' order by line collate "C"), '')) from (
    select format('%s %s %s %s %s %s', p.polrelid, p.polname, p.polcmd, p.polroles,
                  pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
    from pg_catalog.pg_policy as p where p.polname like 'mirror: %' and p.polrelid = mirror.messages()
    union all
    select mirror.messages()::oid::text where exists (select from mirror.channel_policies())) as l(line)
$mirror$;

-- What is there of ours, as text: a function that somebody dropped or changed, a grant that is missing, a role that came
-- later or a new column of an adopted table make it differ, and the next `mirror install target` puts things right.
create or replace function mirror.fingerprint() returns text
language sql stable set search_path = pg_catalog, pg_temp as $mirror$
  with ours as (select c.oid, c.relrowsecurity, c.relforcerowsecurity, c.relacl from pg_catalog.pg_class as c
                where c.relnamespace = 'mirror'::regnamespace and c.relkind = 'r'
                   or c.oid in (to_regclass('public.users'), to_regclass('public.trips'), to_regclass('public.trip_memberships')))
  select md5(string_agg(line, E'\n' order by line collate "C")) || ' ' || mirror.channel_seal() from (
    select format('%s %s %s %s', c.oid::regclass, c.relrowsecurity, c.relforcerowsecurity, c.relacl) from ours as c
    union all
    select format('%s %s %s %s%s%s', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                  a.attgenerated, a.attidentity)
    from pg_catalog.pg_attribute as a join ours as c on c.oid = a.attrelid where a.attnum > 0 and not a.attisdropped
    union all
    select pg_get_indexdef(i.indexrelid) from pg_catalog.pg_index as i join ours as c on c.oid = i.indrelid
    union all
    select format('%s %s', pg_get_triggerdef(t.oid), t.tgenabled)
    from pg_catalog.pg_trigger as t join ours as c on c.oid = t.tgrelid where t.tgname like 'mirror\_%'
    union all
    select format('%s %s %s %s %s %s', p.polrelid::regclass, p.polname, p.polcmd, p.polroles,
                  pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
    from pg_catalog.pg_policy as p where p.polname like 'mirror: %' and p.polrelid is distinct from mirror.messages()
    union all
    select format('%s %s %s %s %s %s', p.oid::regprocedure, md5(p.prosrc), p.prosecdef, p.proconfig, p.proacl, p.proowner::regrole)
    from pg_catalog.pg_proc as p
    where p.pronamespace = 'mirror'::regnamespace or p.oid in (select f.function from mirror.functions() as f)
    union all
    select format('%s %s', f.function, f.callers) from mirror.functions() as f
    union all
    select o.finding from mirror.rights_of_others() as o
    union all
    select r.rolname from pg_catalog.pg_roles as r where r.rolname in ('anon', 'authenticated', 'service_role')) as l(line)
$mirror$;
