-- The target side: how {{table}} changes.

-- Puts rows where they are missing or differ; equal rows are left alone (no dead tuples, no noise in Realtime's slot): they
-- are compared by the bytes of their texts, whatever an adopted column's collation holds for equal. Each row is looked up by
-- its key: a plan that was made while the table was small must not read all of it when it is not. One plan for all batches:
-- for a single row, planning takes longer than all else.
create or replace function mirror.put_{{table}}(rows jsonb) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $mirror$
declare _n bigint;
begin
  merge into public.{{table}} as t
  using (select r.* from {{rows}}) as s
  on {{is_same}}
  when matched and {{differs}} then
    update set {{values}}
  when not matched then
    insert ({{columns}}) overriding system value values ({{new_columns}});
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;

-- Puts rows into a range that has none here: a first load need not look each of them up.
create or replace function mirror.add_{{table}}(rows jsonb) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $mirror$
declare _n bigint;
begin
  insert into public.{{table}} ({{columns}}) overriding system value select r.* from {{rows}};
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;

create or replace function mirror.remove_{{table}}(keys jsonb) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $mirror$
declare _n bigint;
begin
  delete from public.{{table}} as t
  using jsonb_to_recordset(keys) as s({{typed_keys}}) where {{is_same}};
  get diagnostics _n = row_count;
  return _n;
end
$mirror$;
