  -- Who calls: the JWT's `sub`; null where there is none. A block that catches everything is the dear part of a check,
  -- so there is one.
  declare
    _claims text := nullif(current_setting('request.jwt.claims', true), '');
    _json jsonb;
    _sub text;
  begin
    if _claims is null then
      _sub := nullif(current_setting('request.jwt.claim.sub', true), '');
    else
      _json := _claims::jsonb -> 'sub';
      _sub := case when jsonb_typeof(_json) in ('string', 'number') then nullif(_json #>> '{}', '') end;
    end if;
    {{to_me}}
  exception when others then
    _me := null;
  end;
