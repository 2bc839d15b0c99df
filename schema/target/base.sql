-- The target side, part 1: the mirror's own state. Rendered and run by `mirror install target`; runs on plain PostgreSQL 15
-- to 18 and on hosted Supabase, whose API roles are granted to where they exist.

create schema if not exists mirror;
revoke all on schema mirror from public;

-- What the target equals, who may change it, and what it was told by its operator. One row.
create table if not exists mirror.state (
  one          boolean primary key default true check (one),
  version      integer not null,
  rendered     text not null,             -- digest of the rendered SQL: equal = nothing to do
  types        jsonb not null,            -- of the keys, as in the source
  allow_cascade text[] not null default '{}',
  source       jsonb,                     -- which source this is a mirror of
  epoch        bigint not null default 0, -- the fence: of the daemon that may write,
  batch        bigint not null default 0, -- and of its last batch
  snapshot     text,                      -- the source's pg_snapshot that the three tables now equal
  as_of        timestamptz,               -- the source's clock at that snapshot
  fresh_at     timestamptz,               -- THIS server's clock, at or before that snapshot: staleness is now minus this
  applied_at   timestamptz,
  primed_at    timestamptz,               -- first time that the tables equalled a snapshot
  proof        jsonb
);

-- Keys whose row the target refused: left out, retried with growing pauses, reported. A parked membership is not in the
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
  primary key (tbl, k1, k2)
);
