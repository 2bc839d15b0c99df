"""An attacker with a schema of its own: everything that PostgreSQL has in pg_catalog, and everything of ours, stands
there again under the same name and says, when it is used, who uses it. A function that is caught
runs the attacker's code."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]

# What cannot be shadowed because it is a keyword (bigint, integer, boolean, ...) is int8, int4, bool here.
NAMED_TYPES = (
    *("text", "uuid", "json", "jsonb", "int8", "int4", "bool", "name", "oid", "xid8", "regclass", "regprocedure"),
    *("pg_snapshot", "timestamptz", "numeric", "interval"),
)

PLANTED = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")

# Every function with its owner's rights that exists, wherever it is; with the roles that may call it or fire it.
DEFINERS = """
with definers as (
  select p.oid, p.proowner, n.oid as schema, p.prorettype = 'trigger'::regtype as is_trigger,
         format('%I.%I', n.nspname, p.proname) as name, p.oid::regprocedure::text as signature, p.proconfig,
         array(select t.oid::regtype::text from unnest(p.proargtypes::oid[]) with ordinality as a(type, n)
               join pg_type as t on t.oid = a.type order by a.n) as types
  from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
  where p.prosecdef and p.prokind in ('f', 'p') and n.nspname not in ('pg_catalog', 'information_schema', 'evil')
), roles as (
  select r.oid, r.rolname::text as name from pg_roles as r where not r.rolsuper and r.rolname !~ '^pg_'
)
select d.oid::bigint, d.name, d.signature, d.is_trigger, d.types, d.proconfig, array(
  select r.name from roles as r
  where r.oid <> d.proowner and case when d.is_trigger then exists (
      select from pg_trigger as t where t.tgfoid = d.oid and (
        has_any_column_privilege(r.oid, t.tgrelid, 'insert') or has_any_column_privilege(r.oid, t.tgrelid, 'update')
        or has_table_privilege(r.oid, t.tgrelid, 'delete, truncate')))
    else has_schema_privilege(r.oid, d.schema, 'usage')
         and has_function_privilege(r.oid, d.oid, 'execute') end) as callers
from definers as d order by d.signature
"""


@dataclass(frozen=True)
class Definer:
    oid: int
    name: str
    signature: str
    is_trigger: bool
    types: Sequence[str]
    config: Sequence[str] | None
    callers: Sequence[str]

    @property
    def search_path(self) -> str | None:
        found = [setting.partition("=")[2] for setting in self.config or () if setting.startswith("search_path=")]
        return found[0] if found else None


def definers(connection: Connection) -> list[Definer]:
    return [Definer(*row) for row in connection.execute(DEFINERS)]


def plant(connection: Connection) -> int:
    """The attacker's schema, once for a database; how many shadows stand in it."""
    connection.execute(PLANTED)  # type: ignore[arg-type, unused-ignore]
    row = connection.execute(
        "select evil.plant_callables('evil') + evil.plant_relations('evil') + evil.plant_types('evil', null)"
    ).fetchone()
    assert row is not None
    return int(row[0])


class Attack:
    """One session of one role, its own objects in the way. All it does is rolled back; who was caught is kept."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.caught: list[str] = []
        connection.add_notice_handler(self._hear)

    def _hear(self, notice: psycopg.errors.Diagnostic) -> None:
        if (notice.message_primary or "").startswith("CAUGHT"):
            self.caught.append(notice.message_primary or "")

    def call(self, statement: str, *arguments: Any) -> list[str]:
        """Who was caught when this ran, whatever came of it."""
        self.caught = []
        try:
            with self.connection.transaction(force_rollback=True):
                self.connection.execute(statement, arguments)  # type: ignore[arg-type, unused-ignore]
        except psycopg.Error:
            pass
        return self.caught

    def reached(self, oids: Sequence[int]) -> set[int]:
        calls = "pg_catalog.pg_stat_get_xact_function_calls(o::pg_catalog.oid)"
        query = f"select o from pg_catalog.unnest(%s::pg_catalog.int8[]) as o where {calls} is not null"
        self.connection.execute("reset session authorization")
        return {row[0] for row in self.connection.execute(query, [list(oids)])}


@contextmanager
def attack(
    url: str,
    role: str,
    claims: str,
    *,
    types: Sequence[str] | None = (),
    relations: bool = False,
    first_in_path: bool = False,
) -> Iterator[Attack]:
    """In pg_temp: these types (None: every one), and relations. Or the planted schema, before any other."""
    with psycopg.connect(url) as connection:
        connection.execute("set track_functions = 'all'")
        connection.execute("select set_config('request.jwt.claims', %s, false)", [claims])
        connection.execute(sql.SQL("set session authorization {}").format(sql.Identifier(role)))
        if types is None or types:
            connection.execute("select evil.plant_types('pg_temp', %s)", [list(types) if types is not None else None])
        if relations:
            connection.execute("select evil.plant_relations('pg_temp')")
        if first_in_path:
            connection.execute("set search_path = evil, pg_catalog")
        yield Attack(connection)
        connection.rollback()
