-- The target side: does this way here take what the daemon writes? Only doing it tells: the API may refuse statements
-- (safeupdate), a role may lack a right, a trigger of an adopted table may object.

-- The daemon's whole write path, each statement of it once, about no rows; then all of it is undone before it returns.
-- So a daemon that leads goes on leading: it waits for the state's row meanwhile, and finds it as it was.
create or replace function public.mirror_try() returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s'
set statement_timeout = '8s' as $mirror$
declare
  _state mirror.state;
  _table text;
  _epoch jsonb;
begin
  select * into strict _state from mirror.state;
  begin
    _epoch := public.mirror_claim(
      coalesce(_state.source, '{}') || jsonb_build_object('snapshot', _state.snapshot))->'epoch';
    foreach _table in array array['users', 'trips', 'trip_memberships'] loop
      perform mirror.attempt('add', _table, '{}'), mirror.attempt('put', _table, '{}'),
              mirror.attempt('remove', _table, '[]');
    end loop;
    perform mirror.attempt('aside', 'users', '{}'), mirror.revoke('[]');
    perform public.mirror_apply(jsonb_build_object('epoch', _epoch, 'batch', 1, 'scopes', '[]'::jsonb));
    perform public.mirror_apply(jsonb_build_object('epoch', _epoch, 'batch', 2, 'scopes', '[]'::jsonb,
      'position', jsonb_build_object('snapshot', coalesce(_state.snapshot, '1:1:'), 'as_of', now(),
                                     'fresh_at', now())));
    perform public.mirror_adopt('{}');
    raise exception 'tried' using errcode = 'MR000';
  exception when sqlstate 'MR000' then
    return jsonb_build_object('clock', clock_timestamp());
  end;
end
$mirror$;
