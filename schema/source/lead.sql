-- The source side: who leads. A lease in a row, judged by this server's clock. Not an advisory lock: any role can take
-- one. Only the owner and mirror_daemon may write the row. Two leaders for a moment are harmless: the target refuses
-- the older one.
create table if not exists mirror.lead (
  one           boolean primary key default true check (one),
  holder        uuid,         -- the process; null = none leads
  name          text,         -- for people
  pid           integer,      -- its working session,
  backend_start timestamptz,  -- which is this one and no later one with the same pid
  taken_at      timestamptz,
  renewed_at    timestamptz,
  until         timestamptz
) with (fillfactor = 20);     -- an update stays on the page, and the page prunes itself
insert into mirror.lead default values on conflict do nothing;

-- Does the holder still lead? The lease may have ended, the clock may have been set back, or the session is gone: every
-- role sees which pids there are; where backend_start is hidden from the caller the pid alone is believed, until the
-- lease ends.
create or replace function mirror.is_alive(l mirror.lead) returns boolean language sql as $mirror$
  select coalesce(clock_timestamp() between l.renewed_at and l.until, false)
     and exists (select from pg_stat_get_activity(l.pid) as a
                 where a.backend_start is null or a.backend_start = l.backend_start)
$mirror$;

-- Takes the lead, or renews it: true if it is free or the caller's already. Never waits in a statement for its turn. A
-- commit of the daemon's session is not durable at once; a crash that forgets one ends the session as well, and so the
-- lease.
create or replace function mirror.lead(holder uuid, seconds float8, name text, session integer) returns boolean
language plpgsql as $mirror$
#variable_conflict use_column
begin
  update mirror.lead as l
  set taken_at = case when l.holder = lead.holder then l.taken_at else clock_timestamp() end,
      holder = lead.holder, name = left(lead.name, 200), pid = lead.session, renewed_at = clock_timestamp(),
      backend_start = (select a.backend_start from pg_stat_get_activity(lead.session) as a),
      until = clock_timestamp() + make_interval(secs => lead.seconds)
  where l.one and (l.holder = lead.holder or not mirror.is_alive(l));
  return found;
end
$mirror$;

-- Gives it back.
create or replace function mirror.unlead(holder uuid) returns void language sql as $mirror$
  update mirror.lead as l set holder = null, name = null, pid = null, until = null
  where l.one and l.holder = unlead.holder
$mirror$;

-- Who leads, for status, doctor, why, and commands that ask something of the leader. No row when no daemon leads.
create or replace function mirror.leader(out name text, out pid integer, out since timestamptz, out until timestamptz)
returns setof record language sql as $mirror$
  select l.name, l.pid, l.taken_at, l.until from mirror.lead as l where mirror.is_alive(l)
$mirror$;

-- Others in our locks. It costs latency, not truth: while the doorbell's lock (1) is taken the daemon cannot sleep and
-- writers ring in vain; lock 3 keeps installs apart. A writer takes lock 1 shared in a transaction that wrote a table
-- of this schema.
create or replace function mirror.strangers(out lock integer, out pid integer, out role text, out application text)
returns setof record language sql as $mirror$
  select h.objid::integer, h.pid, a.usesysid::regrole::text, a.application_name
  from pg_locks as h left join pg_stat_activity as a on a.pid = h.pid
  where h.locktype = 'advisory' and h.classid = 1835627122 and h.objid in (1, 3) and h.objsubid = 2 and h.granted
    and h.database = (select d.oid from pg_database as d where d.datname = current_database())
    and case when h.objid = 3 then
               not pg_has_role(a.usesysid, (select n.nspowner from pg_namespace as n where n.nspname = 'mirror'),
                               'member')
             when h.mode = 'ExclusiveLock' then h.pid is distinct from (select l.pid from mirror.lead as l)
             else not exists (select from pg_locks as w join pg_class as c on c.oid = w.relation
                              where w.virtualtransaction = h.virtualtransaction and w.mode = 'RowExclusiveLock'
                                and w.database = h.database and c.relnamespace = to_regnamespace('mirror')) end
$mirror$;
