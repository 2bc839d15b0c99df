-- Nothing stays: the triggers are gone already, the schema takes functions, outbox and metadata with it. The role goes
-- too, unless another database of this server, or a login, still uses it.
drop schema if exists mirror cascade;
do $mirror$
begin
  if exists (select from pg_roles where rolname = 'mirror_daemon') then
    drop owned by mirror_daemon;
    drop role mirror_daemon;
  end if;
exception when dependent_objects_still_exist or insufficient_privilege then
  null;  -- shared with another database: it stays there, with no rights here
end
$mirror$;
