-- Everything of the target side in one transaction, which nobody else has to wait for longer than this.
begin;
set local lock_timeout = '5s';
set local check_function_bodies = off;
set local client_min_messages = warning;
do $mirror$
declare _version integer;
begin
  if to_regclass('mirror.state') is not null then
    execute 'select version from mirror.state' into _version;
    if _version > {{version}} then
      raise exception 'it was installed by a newer mirror (schema version %, this one knows {{version}})', _version
        using errcode = 'PT428', hint = 'Use that version of the mirror.';
    end if;
  end if;
end
$mirror$;
