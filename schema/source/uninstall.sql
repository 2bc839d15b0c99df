-- Nothing stays: the triggers are gone already, the schema takes functions, outbox and metadata with it. Rights are revoked
-- one by one (DROP OWNED is refused to whoever is no member of the role). The role goes too, unless another database of
-- this server, or something that is not ours, still needs it.
drop schema if exists mirror cascade;
do $mirror$
declare
  _right text;
begin
  if to_regrole('mirror_daemon') is null then
    return;
  end if;
  for _right in
    select format('revoke all (%I) on %s from mirror_daemon', a.attname, a.attrelid::regclass)
    from pg_attribute as a, aclexplode(a.attacl) as g where g.grantee = 'mirror_daemon'::regrole
    union
    select format('revoke all on schema %I from mirror_daemon', n.nspname)
    from pg_namespace as n, aclexplode(n.nspacl) as g where g.grantee = 'mirror_daemon'::regrole
  loop
    execute _right;
  end loop;
  begin
    drop role mirror_daemon;
  exception when dependent_objects_still_exist or insufficient_privilege then
    raise warning 'role mirror_daemon stays (%)', sqlerrm;
  end;
end
$mirror$;
