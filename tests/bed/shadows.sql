-- The attacker's schema (shadows.py). `caught` is its code: it only says that it runs with another's rights. A warning
-- cannot be rolled back.
create schema evil;
grant usage, create on schema evil to public;
create function evil.caught(what pg_catalog.text) returns pg_catalog.bool language plpgsql as $$
begin
  if current_user operator(pg_catalog.<>) session_user then
    raise warning 'CAUGHT: % as %', what, current_user;
  end if;
  return true;
end
$$;
create function evil.written() returns trigger language plpgsql as $$
begin
  perform evil.caught('a write of ' || tg_relid::pg_catalog.regclass);
  return new;
end
$$;
create function evil.plant_types(place pg_catalog.text, wanted pg_catalog.text[]) returns pg_catalog.int8
language plpgsql set search_path = pg_catalog as $$
declare
  _t record;
  _n bigint := 0;
begin
  for _t in select typname from pg_type where typnamespace = 'pg_catalog'::regnamespace and typtype in ('b', 'r', 'm')
              and typname !~ '^_' and (wanted is null or typname = any (wanted)) loop
    begin
      execute format('create domain %I.%I as pg_catalog.%2$I check (evil.caught(%L))',
                     place, _t.typname, 'type ' || _t.typname);
      _n := _n + 1;
    exception when others then
      null;  -- of a few types there is no domain
    end;
  end loop;
  return _n;
end
$$;
create function evil.plant_relations(place pg_catalog.text) returns pg_catalog.int8
language plpgsql set search_path = pg_catalog as $$
declare
  _r record;
  _n bigint := 0;
begin
  for _r in select c.relname, string_agg(format('null::%I.%I as %I', n.nspname, t.typname, a.attname), ', '
                                         order by a.attnum) as columns
            from pg_class as c join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            join pg_type as t on t.oid = a.atttypid join pg_namespace as n on n.oid = t.typnamespace
            where c.relkind in ('r', 'p', 'v')
              and (c.relnamespace::regnamespace::text in ('mirror', 'public', 'realtime', 'auth')
                   or c.relnamespace = 'pg_catalog'::regnamespace and c.relname in (
                     'pg_class', 'pg_proc', 'pg_namespace', 'pg_attribute', 'pg_type', 'pg_roles', 'pg_policy',
                     'pg_trigger', 'pg_index', 'pg_constraint', 'pg_depend', 'pg_settings', 'pg_locks', 'pg_database',
                     'pg_am', 'pg_publication', 'pg_rewrite'))
            group by c.oid, c.relname loop
    begin
      execute format('create view %1$I.%2$I as select %3$s where evil.caught(%4$L)',
                     place, _r.relname, _r.columns, 'relation ' || _r.relname);
      execute format('create trigger written instead of insert or update or delete on %I.%I
                        for each row execute function evil.written()', place, _r.relname);
      _n := _n + 1;
    exception when others then
      null;
    end;
  end loop;
  return _n;
end
$$;
create function evil.plant_callables(place pg_catalog.text) returns pg_catalog.int8
language plpgsql set search_path = pg_catalog as $$
declare
  _f record;
  _n bigint := 0;
  _body text;
begin
  for _f in select p.oid, p.proname, pg_get_function_arguments(p.oid) as arguments,
                   pg_get_function_result(p.oid) as result
            from pg_proc as p where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f'
              and not 'internal'::regtype = any (p.proargtypes::oid[])
              and p.prorettype not in ('internal'::regtype, 'trigger'::regtype) loop
    begin
      _body := format('begin perform evil.caught(%L); end', 'function ' || _f.oid::regprocedure);
      execute format('create function %I.%I(%s) returns %s language plpgsql as %L',
                     place, _f.proname, _f.arguments, _f.result, _body);
      _n := _n + 1;
    exception when others then
      null;
    end;
  end loop;
  for _f in select o.oid, o.oprname, o.oprleft, o.oprright, o.oprresult from pg_operator as o
            where o.oprnamespace = 'pg_catalog'::regnamespace and o.oprright <> 0 and o.oprresult <> 0 loop
    begin
      _body := format('begin perform evil.caught(%L); end', 'operator ' || _f.oid::regoperator);
      execute format('create function %I.%I(%s) returns %s language plpgsql as %L', place, 'op_' || _f.oid,
                     concat_ws(', ', nullif(_f.oprleft, 0)::regtype, _f.oprright::regtype),
                     _f.oprresult::regtype, _body);
      execute format('create operator %1$I.%2$s (%3$s rightarg = %4$s, function = %1$I.%5$I)', place, _f.oprname,
                     'leftarg = ' || nullif(_f.oprleft, 0)::regtype || ',', _f.oprright::regtype, 'op_' || _f.oid);
      _n := _n + 1;
    exception when others then
      null;
    end;
  end loop;
  return _n;
end
$$;
