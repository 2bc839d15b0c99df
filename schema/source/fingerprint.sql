-- All functions, tables and rights of schema mirror, as one text that changes with any of them. (The body of mirror.turn
-- says which outbox tables are passed by at the moment.)
select pg_catalog.md5(pg_catalog.string_agg(made, chr(10) order by made collate "C")) from (
  select concat_ws(' ', proname, pg_get_function_identity_arguments(oid), case when proname <> 'turn' then prosrc end, provolatile, prosecdef, proowner::regrole, proconfig, proacl)
  from pg_catalog.pg_proc where pronamespace = to_regnamespace('mirror') and proname <> 'mark'  -- see former.sql
  union all
  select nspacl::text from pg_catalog.pg_namespace where oid = to_regnamespace('mirror')
  union all
  select concat_ws(' ', relname, relkind, relreplident, reloptions, relacl)
  from pg_catalog.pg_class where relnamespace = to_regnamespace('mirror') and relkind in ('r', 'S')
  union all
  select concat_ws(' ', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull)
  from pg_catalog.pg_attribute as a join pg_catalog.pg_class as c on c.oid = a.attrelid
  where c.relnamespace = to_regnamespace('mirror') and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped
) as catalog(made)
