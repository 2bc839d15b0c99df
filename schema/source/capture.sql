-- {{event}}: the keys are gathered in a read-only subtransaction (it needs no transaction id of its own, so a transaction
-- of thousands of statements does not overflow the subtransaction cache) and marked outside of it. Most frequent by far is a
-- statement over one row that is inserted, deleted, or updated and keeps its key and its place in the projection: that is
-- looked at without sorting and grouping, and _changed is null if it is something else, or may not be marked. (A loop,
-- because it costs less than asking in the query whether there are more rows; _many is null when there is none.) A statement
-- over more than 1,000 keys marks them a thousand at a time, so that memory stays flat. What cannot be expressed (a column was
-- dropped, renamed or retyped) is marked coarsely: null, the whole table. It runs with the rights and the search_path of
-- whoever changes the table (a SET here would cost 5 % of the application's writes), so all names are written in full.
create or replace function mirror.{{table}}_{{event}}() returns trigger language plpgsql as $mirror$
#variable_conflict use_column
declare
  _k1 pg_catalog.text;
  _k2 pg_catalog.text;
  _changed pg_catalog.bool;
  _many pg_catalog.bool;
  _tbl pg_catalog.text[];
  _keys1 pg_catalog.text[];
  _keys2 pg_catalog.text[];
  _gone pg_catalog.bool[];
  _row pg_catalog.record;
begin
  begin
    for _k1, _k2, _changed in {{one}} loop
      _many := _many is not null;
      exit when _many;
    end loop;
    if _many or _changed is null and _many is not null then
      _changed := null;
      select pg_catalog.array_agg(tbl), pg_catalog.array_agg(k1), pg_catalog.array_agg(k2), pg_catalog.array_agg(gone)
      into _tbl, _keys1, _keys2, _gone
      from ({{dirty}} limit 1001) as _dirty;
      if pg_catalog.cardinality(_tbl) operator(pg_catalog.>) 1000 then
        _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
        for _row in {{dirty}} loop
          if pg_catalog.cardinality(_tbl) operator(pg_catalog.=) 1000 then
            perform {{mark_all}};
            _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
          end if;
          _tbl := pg_catalog.array_append(_tbl, _row.tbl);
          _keys1 := pg_catalog.array_append(_keys1, _row.k1);
          _keys2 := pg_catalog.array_append(_keys2, _row.k2);
          _gone := pg_catalog.array_append(_gone, _row.gone);
        end loop;
      end if;
    end if;
  exception when others then
    raise log 'mirror: capture of {{table}} failed (%): %; the whole table is marked', sqlstate, sqlerrm;
    _changed := null;
    _tbl := {{together}};
    _keys1 := null; _keys2 := null; _gone := null;
  end;
  if _changed or _tbl is not null then
    if _tbl is null then
      _changed := mirror.mark('{{table}}', _k1, _k2, {{gone}});
    elsif {{may_mark}} then
      perform {{mark_all}};
    else
      raise log 'mirror: % may not call mirror.mark: a change of {{table}} was not marked', current_user;
    end if;
  end if;
  return null;
end
$mirror$;
