-- Asks each query of a list as its caller, and leaves a list of SQLSTATEs: M1001 (yes), M1000 (no), M1002 (done), or an
-- error's. One round trip, however many there are. Each of them ends in an error of our own, so that nothing of it
-- remains: neither the role and the claims, nor what a policy's functions may have done.
do $mirror$
declare
  _try jsonb;
  _answer boolean;
  _said jsonb := '[]';
begin
  for _try in select t from pg_catalog.jsonb_array_elements({{tries}}::pg_catalog.jsonb) as t loop
    begin
      perform pg_catalog.set_config('request.jwt.claims', _try->>'claims', true),
              pg_catalog.set_config('request.jwt.claim.sub', _try->>'sub', true),
              pg_catalog.set_config('request.jwt.claim.role', _try->>'role_claim', true),
              pg_catalog.set_config('realtime.topic', _try->>'topic', true),
              pg_catalog.set_config('search_path', 'public, extensions', true),
              pg_catalog.set_config('role', _try->>'role', true);
      _answer := null;
      if (_try->>'is_write')::pg_catalog.bool then
        execute _try->>'query';
      else
        execute _try->>'query' into _answer;
      end if;
      raise exception using errcode = case when _answer then 'M1001' when not _answer then 'M1000' else 'M1002' end;
    exception when lock_not_available then
      raise;
    when others then
      _said := _said || pg_catalog.to_jsonb(sqlstate);
    end;
  end loop;
  perform pg_catalog.set_config('mirror.answers', _said::pg_catalog.text, true);
end
$mirror$;
select pg_catalog.current_setting('mirror.answers')
