"""The final schema of each side as text, the same on every PostgreSQL: schema/source/expected.sql and
schema/target/expected.sql. A change of the schema shows in review as what it leaves in the catalog.

    python -m tests.expected --write    writes both files anew, from two embedded servers
"""

import argparse
from contextlib import ExitStack
from pathlib import Path

import psycopg

from mirror.mapping import Mapping
from mirror.postgres import connect_blocking
from mirror.source import install as source_side
from tests.bed.backends import open_pair
from tests.bed.databases import template
from tests.bed.target_side import put_in_place
from tests.bed.templates import prepare_source, prepare_target

SCHEMA = Path(__file__).parent.parent / "schema"

# One line, or several, per object of the schemas mirror and public. What the owner may do is not said (he may do
# everything, and releases differ in what that is), nor is NOT NULL as a constraint (only some releases have it).
_OBJECTS = r"""
with relations as (
  select c.oid::regclass::text as name, c.* from pg_class as c
  where c.relnamespace in (to_regnamespace('mirror'), 'public'::regnamespace)
), functions as (
  select p.oid, p.oid::regprocedure::text as name, p.proowner, p.proacl, p.prokind from pg_proc as p
  where p.pronamespace in (to_regnamespace('mirror'), 'public'::regnamespace)
), grants (object, kind, name, grantor, grantee, privilege, holder) as (
  select 'schema', '', n.nspname::text, g.grantor, g.grantee, g.privilege_type, n.nspowner
  from pg_namespace as n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) as g where n.nspname = 'mirror'
  union all
  select 'table', '', r.name, g.grantor, g.grantee, g.privilege_type, r.relowner
  from relations as r, aclexplode(r.relacl) as g where r.relkind in ('r', 'p', 'v', 'S')
  union all
  select 'table', format('(%I)', a.attname), r.name, g.grantor, g.grantee, g.privilege_type, r.relowner
  from relations as r join pg_attribute as a on a.attrelid = r.oid, aclexplode(a.attacl) as g
  union all
  select 'function', '', f.name, g.grantor, g.grantee, g.privilege_type, f.proowner
  from functions as f, aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) as g
)
select 1, n.nspname::text, 'create schema mirror;' from pg_namespace as n where n.nspname = 'mirror'
union all
select 2, r.name, format('create %s %s (%s);',
  case r.relkind when 'v' then 'view' when 'c' then 'type' else 'table' end, r.name,
  (select string_agg(concat_ws(' ', E'\n  ' || quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
     case when a.attcollation not in (0, 100) then 'collate ' || a.attcollation::regcollation end,
     case when a.attnotnull then 'not null' end,
     case when a.attidentity <> '' then 'generated as identity'
          else 'default ' || pg_get_expr(d.adbin, d.adrelid) end), ',' order by a.attnum)
   from pg_attribute as a left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
   where a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped)
  || coalesce((select string_agg(format(E',\n  constraint %I %s', k.conname, pg_get_constraintdef(k.oid)), ''
                                 order by k.conname)
               from pg_constraint as k where k.conrelid = r.oid and k.contype <> 'n'), '') || E'\n')
  || case when r.relrowsecurity then format(E'\nalter table %s enable row level security;', r.name) else '' end
  || coalesce((select E'\nalter table ' || r.name || ' inherit ' || string_agg(i.inhparent::regclass::text, ', ') || ';'
               from pg_inherits as i where i.inhrelid = r.oid), '')
  || coalesce(E'\nalter table ' || r.name || ' set (' || array_to_string(r.reloptions, ', ') || ');', '')
from relations as r where r.relkind in ('r', 'p', 'v', 'c')
union all
select 3, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) || ';'
from pg_index as i join relations as r on r.oid = i.indrelid
where not exists (select from pg_constraint as k where k.conindid = i.indexrelid)
union all
select 4, f.name, rtrim(pg_get_functiondef(f.oid), E'\n') || ';' from functions as f where f.prokind in ('f', 'p')
union all
select 5, r.name || ' ' || t.tgname, pg_get_triggerdef(t.oid) || ';' ||
       case t.tgenabled when 'O' then '' else E'\n-- enabled: ' || t.tgenabled::text end
from pg_trigger as t join relations as r on r.oid = t.tgrelid where not t.tgisinternal and t.tgname <> 'safeupdate'
union all
select 6, p.polrelid::regclass || ' ' || p.polname,
       format('create policy %I on %s for %s to %s', p.polname, p.polrelid::regclass,
         case p.polcmd when 'r' then 'select' when 'a' then 'insert' else p.polcmd::text end,
         (select string_agg(case m when 0 then 'public' else m::regrole::text end, ', ') from unnest(p.polroles) as m))
       || coalesce(E'\n  using ' || pg_get_expr(p.polqual, p.polrelid), '')
       || coalesce(E'\n  with check ' || pg_get_expr(p.polwithcheck, p.polrelid), '') || ';'
from pg_policy as p
union all
select 7, g.object || ' ' || g.name || g.kind || g.grantee,
       format('grant %s%s on %s %s to %s;', string_agg(lower(g.privilege), ', ' order by g.privilege), g.kind,
              g.object, g.name, case when g.grantee = 0 then 'public' else g.grantee::regrole::text end)
from grants as g where g.grantee <> g.holder group by g.object, g.kind, g.name, g.grantee
"""
_SORTED = f'select line from ({_OBJECTS}) as o(part, name, line) order by part, name collate "C", line collate "C"'


def describe(connection: psycopg.Connection) -> str:
    """Everything in the schemas mirror and public."""
    with connection.transaction():
        connection.execute("set local search_path = ''")
        lines = [line for (line,) in connection.execute(_SORTED)]  # type: ignore[arg-type, unused-ignore]
    return "\n\n".join(lines) + "\n"


def expected(side: str) -> str:
    return (SCHEMA / side / "expected.sql").read_text(encoding="utf-8")


def install_source(url: str) -> None:
    with connect_blocking(url, "source") as connection:
        source_side.install(connection, Mapping(), lambda _: None)


def install_target(url: str) -> None:
    put_in_place(url)


SIDES = {"source": (prepare_source, install_source), "target": (prepare_target, install_target)}


def _write() -> None:
    with ExitStack() as stack:
        pair = stack.enter_context(open_pair())
        for side, (prepare, install) in SIDES.items():
            made = stack.enter_context(template(getattr(pair, side), side, prepare))
            url = stack.enter_context(made.clone())
            install(url)
            with psycopg.connect(url, autocommit=True) as connection:
                (SCHEMA / side / "expected.sql").write_text(describe(connection), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", required=True)
    parser.parse_args()
    _write()
