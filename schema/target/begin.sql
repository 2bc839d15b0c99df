-- Everything of the target side in one transaction, which nobody else has to wait for longer than this.
--
-- Where public.users, public.trips or public.trip_memberships are there already, this adopts them, and takes something
-- away: public, anon, authenticated and service_role lose all rights on them but to select, and public and anon that
-- one, too; row level security is switched on, and holds for the owner as well where the mirror bypasses it. It adds
-- the columns, indexes and policies that are missing. `mirror install target` says beforehand what exactly; `mirror
-- uninstall target` gives it back.
begin;
set local lock_timeout = '5s';
set local check_function_bodies = off;
set local client_min_messages = warning;
do $mirror$
declare
  _version integer;
  _theirs text;
begin
  if to_regclass('mirror.state') is not null then
    execute 'select version from mirror.state' into _version;
    if _version > {{version}} then
      raise exception 'it was installed by a newer mirror' using errcode = 'PT428',
        detail = format('schema version %s, this one knows {{version}}', _version),
        hint = 'Use that version of the mirror.';
    end if;
  end if;
  -- A function of the same name that somebody else has made is not ours to replace, nor to drop one day.
  select string_agg(p.oid::regprocedure::text, ', ') into _theirs from pg_catalog.pg_proc as p join (
{{functions}}) as f(name, callers) on f.name = p.proname
  where p.pronamespace = 'public'::regnamespace
    and not (
  {{is_ours}});
  if _theirs is not null then
    raise exception 'there is a function of the mirror''s name, but not the mirror''s' using errcode = 'PT428',
      detail = _theirs,
      hint = 'Rename it, or drop it and let policies ask the mirror''s instead.';
  end if;
end
$mirror$;
