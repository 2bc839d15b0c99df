-- {{event}}: the keys are gathered in a read-only subtransaction (it needs no transaction id of its own, so a transaction
-- of thousands of statements does not overflow the subtransaction cache) and marked outside of it. Most frequent by far is a
-- statement over one row that is inserted, deleted, or updated and keeps its key and its place in the projection: that is
-- looked at without sorting and grouping, and _changed is null if it is something else. (A loop, because it costs less than
-- asking in the query whether there are more rows; _many is null when there is none.) A statement over more than 1,000 keys
-- marks them a thousand at a time, so that memory stays flat. What cannot be expressed (a column was dropped, renamed or
-- retyped) is marked coarsely: null, the whole table.
-- SECURITY DEFINER: the application's roles need no right on the outbox, and can write nothing of their own there. So no name
-- is looked up in a schema of the caller's, where a type or an operator of his would run as the owner, or hide a change: our
-- names are written in full, and a mapping with more than plain columns gets a search_path (which costs 4 us a statement).
-- It must not raise, and must not write inside a subtransaction (each would need a transaction id), so what could go wrong
-- is looked at first: an outbox is gone, or rights on it. What writers pay is mostly the making ready of expressions, anew in
-- each transaction: each one here counts, and one key is by far the most frequent. lock_timeout: the caller's may be shorter
-- than the few milliseconds in which mirror.tidy holds an outbox.
create or replace function mirror.{{table}}_{{event}}() returns trigger
language plpgsql security definer set lock_timeout = 0{{search_path}} as $mirror$
#variable_conflict use_column
declare
  _k1 pg_catalog.text;
  _k2 pg_catalog.text;
  _changed pg_catalog.bool;
  _many pg_catalog.bool;
  _place pg_catalog.int4;
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
    if _changed and not _many then
      _place := {{place}};
    elsif _many or _changed is null and _many is not null then
      _changed := null;
      select pg_catalog.array_agg(tbl), pg_catalog.array_agg(k1), pg_catalog.array_agg(k2), pg_catalog.array_agg(gone)
      into _tbl, _keys1, _keys2, _gone
      from ({{dirty}} limit 1001) as _dirty;
      if _tbl is not null then
        _place := {{place_of_many}};
      end if;
      if _place is not null and pg_catalog.cardinality(_tbl) operator(pg_catalog.>) 1000 then
        _tbl := '{}'; _keys1 := '{}'; _keys2 := '{}'; _gone := '{}';
        for _row in {{dirty}} loop
          if pg_catalog.cardinality(_tbl) operator(pg_catalog.=) 1000 then
            perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
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
    _tbl := {{together}};
    _keys1 := null; _keys2 := null; _gone := null;
    {{place_safely}}
  end;
  if _place is null then
    if _changed or _tbl is not null then
      raise log 'mirror: the outbox is gone: a change of {{table}} was not marked';
    end if;
  elsif _tbl is not null then
    perform mirror.mark_keys(_place, _tbl, _keys1, _keys2, _gone);
  else
    if _place operator(pg_catalog.=) 0 then
      insert into mirror.outbox (tbl, k1, k2, gone) values ('{{table}}', _k1, _k2, {{gone}});
    elsif _place operator(pg_catalog.=) 1 then
      insert into mirror.outbox_1 (tbl, k1, k2, gone) values ('{{table}}', _k1, _k2, {{gone}});
    elsif _place operator(pg_catalog.=) 2 then
      insert into mirror.outbox_2 (tbl, k1, k2, gone) values ('{{table}}', _k1, _k2, {{gone}});
    else
      insert into mirror.outbox_3 (tbl, k1, k2, gone) values ('{{table}}', _k1, _k2, {{gone}});
    end if;
    if not pg_catalog.pg_try_advisory_xact_lock_shared({{doorbell}}) then
      if {{rings}} then
        perform pg_catalog.pg_notify('mirror', '');
      end if;
    end if;
  end if;
  return null;
end
$mirror$;
