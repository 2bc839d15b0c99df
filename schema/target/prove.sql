-- The target side: proving equality. The source sends the digest of a slice together with the batch that brings the target
-- to the snapshot it was taken in, so a difference is drift and never lag.

-- Does a slice have this many rows and this digest here too?
create or replace function mirror.check_digest(asked jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off
set max_parallel_workers_per_gather = 0 set jit = off as $mirror$
declare
  _n bigint;
  _digest bigint;
begin
  execute format('select count(*), coalesce(bit_xor((''x'' || left(md5(%s), 16))::bit(64)::bigint), 0) from public.%I as t where %s',
                 case asked->>'table' when 'users' then $text${{users_text}}$text$ when 'trips' then $text${{trips_text}}$text$
                                      else $text${{memberships_text}}$text$ end,
                 asked->>'table', mirror.within(asked))
  into _n, _digest;
  return jsonb_build_object('equal', _n = (asked->>'n')::bigint and _digest::text = asked->>'digest' and not asked ? 'unreadable',
                            'n', _n, 'digest', _digest::text);
end
$mirror$;

-- What differs within a scope, row by row: counted, the first of them named with both rows. Parked keys, keys that the source
-- cannot read, and those of pending (scopes that wait to be applied) differ for a known reason and do not count; of a
-- membership that the source cannot read it is drift to be here at all. refused: so many keys are still to be parked.
create or replace function mirror.explain(scope jsonb, pending jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off
set max_parallel_workers_per_gather = 0 set jit = off as $mirror$
declare
  _explained jsonb;
  _columns text := case scope->>'table' when 'users' then 't.id, t.subject, t.email, t.username'
                                        when 'trips' then 't.id, t.name, t.created_by'
                                        else 't.trip_id, t.user_id, t.role, t.status' end;
begin
  execute format($query$
    with s as (select r as row, coalesce(r->>'trip_id', r->>'id') as k1, coalesce(r->>'user_id', '') as k2
               from mirror.objects($1->>'table', $1->'rows') as r),
         t as (select r as row, coalesce(r->>'trip_id', r->>'id') as k1, coalesce(r->>'user_id', '') as k2
               from (select to_jsonb(x) as r from (select %s from public.%I as t where %s) as x) as y),
         x as (select k1, k2, s.row as source, t.row as target,
                      case when t.row is null then 'missing' when s.row is null then 'extra' else 'changed' end as direction
               from s full join t using (k1, k2) where s.row is distinct from t.row),
         u as (select x.*, exists (select from mirror.parked as p where p.tbl = $1->>'table' and p.k1 = x.k1 and p.k2 = x.k2)
                           or exists (select from mirror.refused($1) as f
                                      where $1->>'table' <> 'trip_memberships' and f->>'k1' = x.k1) as is_parked
               from x),
         d as (select * from u
               where not is_parked
                 and not exists (select from jsonb_array_elements($2) as w,
                                             lateral (select mirror.objects(w->>'table', w->'rows') union all
                                                      select jsonb_array_elements(coalesce(w->'gone', '[]'))) as k(r)
                                 where w->>'table' = $1->>'table' and coalesce(r->>'trip_id', r->>'id') = u.k1
                                   and coalesce(r->>'user_id', '') = u.k2)
                 and not exists (select from jsonb_array_elements($2) as w where w->'trips' ? u.k1 and u.k2 <> '')),
         w as (select k1, k2 from u where is_parked
               union all
               select f->>'k1', coalesce(f->>'k2', '') from mirror.refused($1) as f
               where (f->>'k1', coalesce(f->>'k2', '')) not in (select k1, k2 from u))
    select jsonb_build_object('table', $1->>'table',
      'missing', count(*) filter (where direction = 'missing'), 'extra', count(*) filter (where direction = 'extra'),
      'changed', count(*) filter (where direction = 'changed'),
      'parked', (select count(*) from w),
      'parked_rows', coalesce((select jsonb_agg(to_jsonb(f)) from (
         select w.k1, nullif(w.k2, '') as k2,
                coalesce((select p.reason from mirror.parked as p where p.tbl = $1->>'table' and p.k1 = w.k1 and p.k2 = w.k2),
                         (select f->>'reason' from mirror.refused($1) as f
                          where f->>'k1' = w.k1 and coalesce(f->>'k2', '') = w.k2)) as reason
         from w order by k1, k2 limit 100) as f), '[]'),
      'refused', (select count(*) from mirror.refused($1) as f
                  where (f->>'k1', coalesce(f->>'k2', '')) not in (select p.k1, p.k2 from mirror.parked as p where p.tbl = $1->>'table')),
      'rows', coalesce((select jsonb_agg(to_jsonb(f)) from (
                 select k1, nullif(k2, '') as k2, direction, source, target from d order by k1, k2 limit 100) as f), '[]'))
    from d $query$, _columns, scope->>'table', mirror.within(scope))
  into _explained using scope, pending;
  return _explained;
end
$mirror$;

-- The same questions by somebody who only looks: nothing is applied, what waits to be applied does not count as different.
--   batch  {scopes, check}, as for mirror_apply; the dry scope is explained
create or replace function public.mirror_compare(batch jsonb) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $mirror$
  select jsonb_build_object('clock', clock_timestamp(),
    'check', case when batch ? 'check' then mirror.check_digest(batch->'check') end,
    'explained', (select jsonb_agg(mirror.explain(s, jsonb_path_query_array(batch, '$.scopes[*] ? (!exists(@.dry))')))
                  from jsonb_array_elements(batch->'scopes') as s where s ? 'dry'))
$mirror$;

-- Another source, after a person has looked: from here on the target mirrors that one. Nothing is fresh until it was compared.
create or replace function public.mirror_adopt(source jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $mirror$
#variable_conflict use_column
declare
  _old mirror.state;
  _new mirror.state := mirror.blank();
begin
  perform mirror.make_durable();
  select * into _old from mirror.state for update;
  _new.rendered := coalesce(_old.rendered, '');
  _new.source := mirror_adopt.source - 'snapshot' - 'life' - 'crash_loses_s';
  _new.epoch := mirror.next_epoch(_old);
  perform mirror.keep(_new);
  return jsonb_build_object('clock', clock_timestamp());
end
$mirror$;
