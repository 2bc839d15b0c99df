-- What a fresh hosted Supabase project looks like to the mirror, on a plain PostgreSQL 15 to 18.
--
-- Roles, timeouts, schemas, grants and row level security are those of a hosted project since 2026-10-30; what only
-- Supabase's own services need (storage, vault, graphql, extensions that plain PostgreSQL does not carry) is left out.
-- Run it as a superuser in the database that plays the project. It can be run again, also in a second database of a
-- cluster that has the roles already: roles belong to the cluster, so an existing role is left as it is.
--
-- Two differences are deliberate. Here `postgres` is the cluster's superuser; on a hosted project it is not, and the
-- role `hosted_postgres` stands in for it: log in as that to see what a customer may do. And a hosted project lets
-- that role create policies on realtime.messages, which it does not own, through an extension (supautils) that cannot
-- be had here; so here the table belongs to a role without any other right, of which `hosted_postgres` is a member.

do $roles$
declare
  wanted record;
begin
  for wanted in
    select * from (values
      -- Supabase's own superuser and its services.
      ('supabase_admin',             'login superuser createdb createrole replication bypassrls', null, null),
      ('supabase_auth_admin',        'login noinherit', null, null),
      ('supabase_storage_admin',     'login noinherit', null, null),
      ('supabase_realtime_admin',    'login noinherit createrole replication', null, null),
      ('supabase_replication_admin', 'login replication', null, null),
      ('supabase_etl_admin',         'login replication', null, null),
      ('supabase_read_only_user',    'login bypassrls', null, null),
      ('dashboard_user',             'nologin createdb createrole replication', null, null),
      -- The roles a request runs as. PostgREST logs in as `authenticator` and becomes one of the three. The limits of
      -- the role that LOGGED IN hold for the session, so service_role, which has none, inherits the authenticator's.
      ('anon',                       'nologin', '3s', null),
      ('authenticated',              'nologin', '8s', null),
      ('service_role',               'nologin bypassrls', null, null),
      ('authenticator',              'login noinherit', '8s', '8s'),
      -- Stands in for supautils, see above.
      ('realtime_policy_owner',      'nologin', null, null),
      -- What a hosted project's `postgres` may do.
      ('hosted_postgres',            'login createdb createrole replication bypassrls', null, null)
    ) as role (name, attributes, statement_timeout, lock_timeout)
  loop
    continue when exists (select from pg_roles where rolname = wanted.name);
    execute format('create role %I %s', wanted.name, wanted.attributes);
    if wanted.statement_timeout is not null then
      execute format('alter role %I set statement_timeout = %L', wanted.name, wanted.statement_timeout);
    end if;
    if wanted.lock_timeout is not null then
      execute format('alter role %I set lock_timeout = %L', wanted.name, wanted.lock_timeout);
    end if;
  end loop;
end
$roles$;

-- A grant of membership that is there already is a notice, not an error.
set client_min_messages = warning;
grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role to supabase_realtime_admin;
grant anon, authenticated, service_role to hosted_postgres with admin option;
grant realtime_policy_owner to hosted_postgres, supabase_realtime_admin;
grant pg_monitor, pg_read_all_data, pg_signal_backend to hosted_postgres;
grant pg_read_all_data to supabase_read_only_user;
reset client_min_messages;

-- Schema public: the API's roles may look into it, and get nothing on objects that are made in it (no default
-- privileges: since 2026-10-30 every grant is explicit).

grant usage on schema public to anon, authenticated, service_role;
do $$ begin execute format('alter database %I owner to hosted_postgres', current_database()); end $$;

-- Schema extensions

create schema if not exists extensions;
grant usage on schema extensions to anon, authenticated, service_role, hosted_postgres;

-- A hosted project loads the extension safeupdate for `authenticator`: requests may not UPDATE or DELETE without WHERE,
-- nor may the functions that they call, whichever role owns these. It cannot be had here, so a trigger on each table
-- that is made from here on imitates it: the trigger reads the statement that fired it, from the call stack in PL/pgSQL
-- and from the client otherwise. It looks for the word WHERE, so one in a subquery satisfies it; and it sees no
-- statement of an SQL function, nor a DELETE inside WITH. The tests parse everything that the mirror installs, and find
-- those, too.

create or replace function extensions.refuse_without_where() returns trigger language plpgsql as $$
declare
  stack text;
  statement text;
begin
  if session_user <> 'authenticator' then
    return null;
  end if;
  get diagnostics stack = pg_context;
  statement := case when stack !~ E'\n' then current_query()
                    else substring(stack from E'^[^\n]*\nSQL statement "(.*?)"\nPL/pgSQL function') end;
  if statement ~* '^\s*(update|delete)\M' and statement !~* '\mwhere\M' then
    raise exception '% requires a WHERE clause', tg_op using errcode = '21000';
  end if;
  return null;
end
$$;

create or replace function extensions.guard_new_tables() returns event_trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
declare
  made regclass;
begin
  for made in
    select objid from pg_event_trigger_ddl_commands() where object_type = 'table' and schema_name <> 'pg_temp'
  loop
    execute format('create or replace trigger safeupdate before update or delete on %s
                      for each statement execute function extensions.refuse_without_where()', made);
  end loop;
end
$$;

drop event trigger if exists safeupdate;
create event trigger safeupdate on ddl_command_end when tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')
  execute function extensions.guard_new_tables();

-- Schema auth: who is asking. PostgREST and Realtime hand over the verified JWT in `request.jwt.claims`; older ones
-- set one variable per claim.

create schema if not exists auth authorization supabase_admin;
grant usage on schema auth to anon, authenticated, service_role, hosted_postgres, supabase_realtime_admin;
grant all on schema auth to supabase_auth_admin;

create or replace function auth.jwt() returns jsonb language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')
  )::jsonb
$$;

-- Raises when `sub` is no uuid, as it does on Supabase: policies for other identity providers must not use it.
create or replace function auth.uid() returns uuid language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
  )::uuid
$$;

create or replace function auth.role() returns text language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
  )
$$;

alter function auth.jwt() owner to supabase_auth_admin;
alter function auth.uid() owner to supabase_auth_admin;
alter function auth.role() owner to supabase_auth_admin;

-- Schema realtime: the table whose policies say who may join a private channel

create schema if not exists realtime authorization supabase_admin;
grant usage on schema realtime to anon, authenticated, service_role;
grant usage on schema realtime to hosted_postgres with grant option;
grant all on schema realtime to supabase_realtime_admin with grant option;

create table if not exists realtime.messages (
  topic          text not null,
  extension      text not null,
  payload        jsonb,
  event          text,
  private        boolean default false,
  updated_at     timestamp not null default now(),
  inserted_at    timestamp not null default now(),
  id             uuid not null default gen_random_uuid(),
  broadcasted_at timestamp,
  primary key (id, inserted_at)
) partition by range (inserted_at);

-- Realtime makes one partition per day ahead of time; the default one is what it falls back on.
create table if not exists realtime.messages_default partition of realtime.messages default;
alter table realtime.messages enable row level security;
alter table realtime.messages owner to realtime_policy_owner;
alter table realtime.messages_default owner to realtime_policy_owner;
grant all on realtime.messages, realtime.messages_default to supabase_realtime_admin;
grant select, insert, update on realtime.messages to anon, authenticated, service_role, hosted_postgres;

-- The channel that is being joined; set by Realtime around its check.
create or replace function realtime.topic() returns text language sql stable as $$
  select nullif(current_setting('realtime.topic', true), '')
$$;
alter function realtime.topic() owner to supabase_realtime_admin;

-- A broadcast from SQL: a row that Realtime reads from the log. It warns where it fails, and never raises.
create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true) returns void
language plpgsql as $$
begin
  begin
    execute format('set local realtime.topic to %L', topic);
    insert into realtime.messages (payload, event, topic, private, extension)
    values (payload, event, topic, private, 'broadcast');
  exception when others then
    raise warning 'ErrorSendingBroadcastMessage: %', sqlerrm;
  end;
end
$$;
alter function realtime.send(jsonb, text, text, boolean) owner to supabase_realtime_admin;

-- The tables whose changes Realtime sends to subscribers: none until somebody adds one

do $$
begin
  if not exists (select from pg_publication where pubname = 'supabase_realtime') then
    set local client_min_messages = error;  -- "wal_level is insufficient": nobody replicates from here
    create publication supabase_realtime;
    alter publication supabase_realtime owner to supabase_admin;
  end if;
end
$$;
