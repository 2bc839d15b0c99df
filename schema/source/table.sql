-- The source side, part 2: one table of the mapping, {{table}}. Everything that names a column of the
-- application lives in plpgsql bodies, which PostgreSQL binds late: no object depends on those columns, so nothing
-- here stands in the way of the application's ALTER or DROP.
{{capture}}
create or replace function mirror.{{table}}_truncate() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = 0 as $mirror$
declare
  _place int;
begin
  {{place_safely}}
  if _place is null then
    raise log 'mirror: the outbox is gone: a change of {{table}} was not marked';
  else
    perform mirror.mark_keys(_place, {{together}}, null, null, null);
  end if;
  return null;
end
$mirror$;

-- The present rows of exactly these keys, each once, and those of them that are gone.
create or replace function mirror.{{table}}_keys(keys1 text[], keys2 text[], out n integer, out rows text, out gone text)
language plpgsql stable as $mirror$
#variable_conflict use_column
begin
  select count(*), {{found_lists}}, coalesce(json_agg({{key_json}}) filter (where _found.{{key}} is null), '[]')::text
  into n, rows, gone
  from (select distinct {{wanted}} from (select unnest(keys1) as k1, unnest(keys2) as k2) as _key) as _wanted(k1, k2)
  left join lateral (
    select {{columns}} from {{relation}} as {{alias}} where {{key_match}} and {{visible}} limit 1) as _found on true;
end
$mirror$;

-- The next rows in key order between two keys, of the table or of one trip: the rows themselves, or their keys. last is null
-- when there are fewer than asked.
create or replace function mirror.{{table}}_slice(trip text, after1 text, after2 text, upto1 text, upto2 text,
                                                  row_limit integer, want text,
                                                  out result text, out n integer, out last1 text, out last2 text)
language plpgsql stable as $mirror$
begin
  execute case want when 'keys' then $slice$ select {{key_lists}} $slice$ else $slice$ select {{lists}} $slice$ end
    || $slice$ , count(*)::integer, {{last_key_6}} from (select distinct on ({{order}}) $slice$
    || case want when 'keys' then $slice$ {{key_columns}} $slice$ else $slice$ {{columns}} $slice$ end
    || $slice$ from {{relation}} as {{alias}} where $slice$
    || case when after1 is null then $slice$ {{visible}} $slice$ else $slice$ {{visible_after_2}} $slice$ end
    || case when trip is not null then $slice$ and {{in_trip}} $slice$ else '' end
    || case when upto1 is not null then $slice$ and {{upto}} $slice$ else '' end
    || $slice$ order by {{order}} limit $6) as _projected $slice$
  into result, n, last1, last2 using trip, after1, after2, upto1, upto2, row_limit;
end
$mirror$;

-- The digest of the next rows in key order: the exclusive or of 64 bits of md5 over each row's text. The target computes the
-- same (schema/target/prove.sql). Planned once, for any number of rows, so what only pays for most of a table is ruled out.
create or replace function mirror.{{table}}_digest(after1 text, after2 text, row_limit integer,
                                                   out result text, out n integer, out last1 text, out last2 text)
language plpgsql stable set enable_seqscan = off set enable_sort = off set enable_hashjoin = off as $mirror$
#variable_conflict use_column
begin
  if {{table}}_digest.after1 is null then
    select coalesce(bit_xor(('x' || left(md5({{row_text}}), 16))::bit(64)::bigint), 0)::text, count(*)::integer, {{last_key}}
    into result, n, last1, last2
    from (select distinct on ({{order}}) {{columns}} from {{relation}} as {{alias}}
          where {{visible}} order by {{order}} limit {{table}}_digest.row_limit) as _projected;
  else
    select coalesce(bit_xor(('x' || left(md5({{row_text}}), 16))::bit(64)::bigint), 0)::text, count(*)::integer, {{last_key}}
    into result, n, last1, last2
    from (select distinct on ({{order}}) {{columns}} from {{relation}} as {{alias}}
          where {{visible_after}} order by {{order}} limit {{table}}_digest.row_limit) as _projected;
  end if;
end
$mirror$;

-- Was the table rewritten, or replaced by another one, after the caller's snapshot? TRUNCATE and the ALTER TABLE that rewrite
-- are not MVCC-safe: whoever then reads with that snapshot (because it waited for their lock) finds no rows at all. A query
-- of the catalog sees it as of the snapshot, pg_relation_filenode and to_regclass tell the present.
create or replace function mirror.{{table}}_replaced() returns boolean language plpgsql stable as $mirror$
declare
  _now regclass;
  _partitioned boolean;
  _same boolean;
begin
  _now := to_regclass($relation${{relation}}$relation$);
  select relkind = 'p', relfilenode = pg_relation_filenode(oid) into _partitioned, _same from pg_class where oid = _now;
  if _partitioned then
    select coalesce(bool_and(relfilenode = pg_relation_filenode(oid)), true) into _same from pg_class
    where oid = any (array(select relid from pg_partition_tree(_now) where isleaf));
  end if;
  return _now is not null and not coalesce(_same, false);
exception when insufficient_privilege then
  return false;  -- nor can it be read: that is reported by who tries
end
$mirror$;

-- Can this key exist at all? (An entry written before an id changed its type cannot.)
create or replace function mirror.{{table}}_possible(key1 text, key2 text) returns boolean language plpgsql stable as $mirror$
begin
  perform {{key_cast}};
  return true;
exception when data_exception then
  return false;
end
$mirror$;
{{of_trips}}