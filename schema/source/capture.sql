
-- {{event}}: the keys are gathered in a read-only subtransaction (it needs no transaction id of its own, so a transaction
-- of thousands of statements does not overflow the subtransaction cache) and marked outside of it. One row is by far the
-- most frequent, and compared without sorting and grouping. A statement over more than 1,000 keys marks them a thousand at
-- a time, so that memory stays flat. What cannot be expressed (a column was dropped, renamed or retyped) is marked
-- coarsely: null, the whole table. It runs with the rights and the search_path of whoever changes the table (a SET here
-- would cost 5 % of the application's writes), so all names are written in full.
create or replace function mirror.{{table}}_{{event}}() returns trigger language plpgsql as $mirror$
#variable_conflict use_column
declare
  _many pg_catalog.bool;
  _k1 pg_catalog.text[];
  _k2 pg_catalog.text[];
  _moved pg_catalog.text[];
  _gone pg_catalog.bool[];
  _row pg_catalog.record;
begin
  if {{may_mark}} is not true then
    raise log 'mirror: % may not call mirror.mark: a change of {{table}} was not marked', current_user;
    return null;
  end if;
  begin
    select many, keys1, keys2, moved, gone into _many, _k1, _k2, _moved, _gone from ({{one}}) as _one;
    if _many then
      select pg_catalog.array_agg(k1), pg_catalog.array_agg(k2), pg_catalog.array_agg(k1) filter (where moved),
             pg_catalog.array_agg(gone)
      into _k1, _k2, _moved, _gone
      from ({{dirty}} limit 1001) as _dirty;
      if pg_catalog.cardinality(_k1) operator(pg_catalog.>) 1000 then
        _k1 := '{}'; _k2 := '{}'; _moved := '{}'; _gone := '{}';
        for _row in {{dirty}} loop
          _k1 := pg_catalog.array_append(_k1, _row.k1);
          _k2 := pg_catalog.array_append(_k2, _row.k2);
          _gone := pg_catalog.array_append(_gone, _row.gone);
          if _row.moved then
            _moved := pg_catalog.array_append(_moved, _row.k1);
          end if;
          if pg_catalog.cardinality(_k1) operator(pg_catalog.=) 1000 then
            perform mirror.mark('{{table}}', _k1, _k2, _moved, _gone);
            _k1 := '{}'; _k2 := '{}'; _moved := '{}'; _gone := '{}';
          end if;
        end loop;
      end if;
    end if;
  exception when others then
    raise log 'mirror: capture of {{table}} failed (%): %; the whole table is marked', sqlstate, sqlerrm;
    _k1 := array[null];
    _k2 := array[null];
    _moved := {{coarse_moved}};
    _gone := null;
  end;
  if _k1 is not null then
    perform mirror.mark('{{table}}', _k1, _k2, _moved, _gone);
  end if;
  return null;
end
$mirror$;
