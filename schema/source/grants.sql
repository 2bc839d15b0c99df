-- The source side, part 5: who may do what. The application's roles may call mirror.mark and mirror.token and nothing
-- else, whatever the default privileges of this database say; the daemon's role may read exactly the mapped columns, and
-- work on the outbox.
revoke all on all tables in schema mirror from public;
revoke all on all routines in schema mirror from public;
grant usage on schema mirror to public;
grant execute on function mirror.mark(text, text, text, boolean, text[], text[], text[], boolean[]), mirror.token() to public;

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
    from pg_attribute as a, aclexplode(a.attacl) as g where g.grantee = 'mirror_daemon'::regrole
  loop
    execute _former;
  end loop;
  grant usage on schema mirror to mirror_daemon;
  grant execute on all routines in schema mirror to mirror_daemon;
  grant select on mirror.install to mirror_daemon;
  grant select, update on mirror.reached, mirror.lead to mirror_daemon;
  grant select, delete, truncate on mirror.outbox, mirror.outbox_1, mirror.outbox_2, mirror.outbox_3 to mirror_daemon;
  grant select, insert, update, delete on mirror.request to mirror_daemon;
  grant select on mirror.resyncs to mirror_daemon;
  {{columns}}
exception when insufficient_privilege then
  raise warning 'no rights for role mirror_daemon (%): let an administrator create it and install again, or let the daemon log in as the owner of the tables', sqlerrm;
end
$mirror$;
