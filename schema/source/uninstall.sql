-- Nothing stays: the triggers are gone already, the schema takes functions, outbox and metadata with it. Rights are revoked
-- one by one (DROP OWNED needs membership in the role), but for those of dropped columns, which go with the
-- table. The roles go too, unless another database of this server, or something that is not ours, still needs them.
drop schema if exists mirror cascade;
do $mirror$
declare
  _role text;
  _right text;
begin
  foreach _role in array array['mirror_daemon', 'mirror_capture'] loop
    continue when to_regrole(_role) is null;
    for _right in
      select format('revoke all (%I) on %s from %I cascade', a.attname, a.attrelid::regclass, _role)
      from pg_attribute as a, aclexplode(a.attacl) as g where g.grantee = to_regrole(_role) and not a.attisdropped
      union
      select format('revoke all on %s %s from %I cascade', case c.relkind when 'S' then 'sequence' else 'table' end, c.oid::regclass, _role)
      from pg_class as c, aclexplode(c.relacl) as g where g.grantee = to_regrole(_role)
      union
      select format('revoke all on schema %I from %I cascade', n.nspname, _role)
      from pg_namespace as n, aclexplode(n.nspacl) as g where g.grantee = to_regrole(_role)
    loop
      begin
        execute _right;
      exception when insufficient_privilege then
        null;  -- not ours to take; so the role stays, which is said below
      end;
    end loop;
    begin
      execute format('drop role %I', _role);
    exception when dependent_objects_still_exist or insufficient_privilege or object_in_use then
      raise warning 'role % stays (%)', _role, sqlerrm;
    end;
  end loop;
end
$mirror$;
