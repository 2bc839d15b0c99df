-- The source side, part 5: who may do what. The application's roles may ask for a token and nothing else; the daemon's role
-- may read exactly the mapped columns, and work on the outbox; the triggers' role may write entries. What the default privileges of this database have given to
-- others is taken away first.
do $mirror$
declare
  _given record;
begin
  for _given in
    select distinct g.kind, g.object, coalesce(quote_ident(r.rolname), 'public') as grantee
    from (
{{given}}
    ) as g left join pg_catalog.pg_roles as r on r.oid = g.grantee
    where g.grantee = 0 or r.oid is not null
  loop
    execute format('revoke all on %s %s from %s cascade', _given.kind, _given.object, _given.grantee);
  end loop;
end
$mirror$;

-- The trigger functions belong to a role that can write entries and nothing else: they run expressions over columns whose
-- types are the application's to change, and a cast of its own would run as the functions' owner.
do $mirror$
declare
  _function regprocedure;
begin
  if to_regrole('mirror_capture') is null then
    begin
      create role mirror_capture nologin;
    exception when duplicate_object or unique_violation then
      null;  -- an install in another database was a moment faster
    end;
  end if;
  if not pg_has_role('mirror_capture', 'usage') then
    execute format('grant mirror_capture to %I', current_user);
  end if;
  grant usage, create on schema mirror to mirror_capture;
  grant insert on mirror.outbox, mirror.outbox_1, mirror.outbox_2, mirror.outbox_3 to mirror_capture;
  grant usage on sequence mirror.outbox_id to mirror_capture;
  grant execute on function mirror.mark_keys(integer, text[], text[], text[], boolean[]), mirror.turn(), mirror.slot() to mirror_capture;
  for _function in
    select p.oid from pg_proc as p where p.pronamespace = 'mirror'::regnamespace and p.prorettype = 'trigger'::regtype
      and p.proowner <> 'mirror_capture'::regrole
  loop
    execute format('alter function %s owner to mirror_capture', _function);
  end loop;
  revoke create on schema mirror from mirror_capture;
exception when insufficient_privilege then
  raise warning 'no role mirror_capture (%): the triggers run as %, and the owners of the tables could run code as that role; '
    'let an administrator create the role and install again', sqlerrm, current_user;
end
$mirror$;

grant usage on schema mirror to public;
grant execute on function mirror.token() to public;

do $mirror$
declare
  _former text;
begin
  if to_regrole('mirror_daemon') is null then
    begin
      create role mirror_daemon nologin;
    exception when duplicate_object or unique_violation then
      null;  -- an install in another database was a moment faster
    end;
  end if;
  for _former in
    select format('revoke all (%I) on %s from mirror_daemon', a.attname, a.attrelid::regclass)
    from pg_attribute as a, aclexplode(a.attacl) as g
    where g.grantee = 'mirror_daemon'::regrole and not a.attisdropped  -- a dropped column keeps its rights
  loop
    execute _former;
  end loop;
  grant usage on schema mirror to mirror_daemon;
  grant execute on all routines in schema mirror to mirror_daemon;
  revoke execute on function mirror.mark_keys(integer, text[], text[], text[], boolean[]) from mirror_daemon;
  grant select on mirror.install, mirror.origin to mirror_daemon;
  grant select, update on mirror.reached, mirror.lead to mirror_daemon;
  grant select, delete, truncate on mirror.outbox, mirror.outbox_1, mirror.outbox_2, mirror.outbox_3 to mirror_daemon;
  grant select, insert, update, delete on mirror.request to mirror_daemon;
  grant select on mirror.resyncs to mirror_daemon;
  {{columns}}
exception when insufficient_privilege then
  raise warning 'no rights for role mirror_daemon (%): let an administrator create it and install again, or let the daemon log in as the owner of the tables', sqlerrm;
end
$mirror$;
