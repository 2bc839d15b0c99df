  -- What others than the owner may do with what is the mirror's: default privileges of this database give rights on
  -- everything that is made. The former mirror.mark is left until those who may be inside have ended (mirror install).
  select 'schema' as kind, quote_ident(n.nspname) as object, g.grantee, g.privilege_type
  from pg_catalog.pg_namespace as n, pg_catalog.aclexplode(n.nspacl) as g
  where n.oid = pg_catalog.to_regnamespace('mirror') and g.grantee <> n.nspowner
  union all
  select case c.relkind when 'S' then 'sequence' else 'table' end, c.oid::pg_catalog.regclass::text, g.grantee, g.privilege_type
  from pg_catalog.pg_class as c, pg_catalog.aclexplode(c.relacl) as g
  where c.relnamespace = pg_catalog.to_regnamespace('mirror') and g.grantee <> c.relowner
  union all
  select 'table', c.oid::pg_catalog.regclass::text, g.grantee, g.privilege_type
  from pg_catalog.pg_attribute as a join pg_catalog.pg_class as c on c.oid = a.attrelid, pg_catalog.aclexplode(a.attacl) as g
  where c.relnamespace = pg_catalog.to_regnamespace('mirror') and g.grantee <> c.relowner and not a.attisdropped
  union all
  select 'routine', p.oid::pg_catalog.regprocedure::text, g.grantee, g.privilege_type
  from pg_catalog.pg_proc as p,
       pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) as g
  where p.pronamespace = pg_catalog.to_regnamespace('mirror') and g.grantee <> p.proowner and p.proname <> 'mark'
