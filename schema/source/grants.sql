-- The source side, part 5: who may do what. The application's roles may call mirror.mark and mirror.token and nothing
-- else; the daemon's role may read the mapped columns, and work on the outbox.
revoke all on all tables in schema mirror from public;
grant usage on schema mirror to public;

do $mirror$
begin
  if not exists (select from pg_roles where rolname = 'mirror_daemon') then
    create role mirror_daemon nologin;
  end if;
  grant usage on schema mirror to mirror_daemon;
  grant select on mirror.install to mirror_daemon;
  grant select, delete, truncate on mirror.outbox, mirror.outbox_twin to mirror_daemon;
  {{columns}}
exception when insufficient_privilege then
  raise warning 'mirror: no role mirror_daemon (%); the daemon needs the rights of the tables'' owner then', sqlerrm;
end
$mirror$;
