"""What the stand-in for PostgREST (tests/bed/postgrest.py) knows of the database: as it was when it last looked."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tests.bed.postgrest_answers import RefusedError

Connection = psycopg.AsyncConnection[Any]
ROWS_MAX = 1_000
_HOISTED = ("statement_timeout", "plan_filter.statement_cost_limit", "default_transaction_isolation")
_FUNCTIONS = """
    select p.pronamespace::regnamespace::text, p.proname, p.provolatile = 'v', p.proretset,
           p.prorettype = 'void'::regtype, coalesce(p.proconfig, '{}'),
           coalesce((select json_agg(json_build_object('name', a.name, 'type', format_type(a.type, null),
                                                       'required', a.n <= p.pronargs - p.pronargdefaults) order by a.n)
                     from unnest(p.proargnames[1:p.pronargs], p.proargtypes::oid[])
                          with ordinality as a(name, type, n)), '[]')
    from pg_proc as p
    where p.pronamespace = any (%s::regnamespace[]) and p.prokind = 'f' order by p.oid
"""
# Of the role alone: what ALTER ROLE ... IN DATABASE says is not asked for. And what a user may set.
_ROLES = """
    select r.rolname, split_part(s, '=', 1), substr(s, strpos(s, '=') + 1)
    from pg_roles as r, unnest(r.rolconfig) as s
    where r.rolname <> current_user and pg_has_role(current_user, r.oid, 'member')
      and exists (select from pg_settings as g where g.name = split_part(s, '=', 1) and g.context = 'user')
"""


@dataclass(frozen=True)
class Function:
    schema: str
    name: str
    writes: bool
    returns_rows: bool
    returns_nothing: bool
    settings: dict[str, str]
    arguments: tuple[Mapping[str, Any], ...]

    def takes(self, given: set[str]) -> bool:
        required = {a["name"] for a in self.arguments if a["required"]}
        return required <= given <= {a["name"] for a in self.arguments}

    def call(self, given: set[str]) -> sql.Composed:
        """The body goes to the database as it is, and is taken apart there."""
        arguments = [a for a in self.arguments if a["name"] in given]
        columns = [sql.SQL("{} " + a["type"]).format(sql.Identifier(a["name"])) for a in arguments]
        passed = [sql.SQL("{0} => a.{0}").format(sql.Identifier(a["name"])) for a in arguments]
        columns = columns or [sql.SQL("nothing text").format()]
        body = sql.SQL("json_to_record(%s::json) as a({})").format(sql.SQL(", ").join(columns))
        call = sql.SQL("{}({})").format(sql.Identifier(self.schema, self.name), sql.SQL(", ").join(passed))
        if self.returns_rows:
            rows = sql.SQL("select r from {}, lateral {} as r limit {}").format(body, call, ROWS_MAX)
            return sql.SQL("select coalesce(json_agg(t.r), '[]')::text from ({}) as t").format(rows)
        if self.returns_nothing:
            return sql.SQL("select {} from {}").format(call, body)
        return sql.SQL("select coalesce(to_json({}), 'null')::text from {}").format(call, body)


@dataclass(frozen=True)
class SchemaCache:
    functions: Mapping[tuple[str, str], tuple[Function, ...]]
    roles: Mapping[str, dict[str, str]]

    def choose(self, schema: str, name: str, given: Iterable[str]) -> Function:
        keys = set(given)
        fitting = [f for f in self.functions.get((schema, name), ()) if f.takes(keys)]
        if len(fitting) > 1:
            candidates = ", ".join(f"{schema}.{f.name}({', '.join(a['name'] for a in f.arguments)})" for f in fitting)
            message = f"Could not choose the best candidate function between: {candidates}"
            hint = "Try renaming the parameters or the function itself in the database"
            raise RefusedError(300, "PGRST203", message, hint)
        if not fitting:
            called = f"{schema}.{name}" + (f"({', '.join(sorted(keys))})" if keys else " without parameters")
            raise RefusedError(404, "PGRST202", f"Could not find the function {called} in the schema cache")
        return fitting[0]


async def read(connection: Connection, schemas: tuple[str, ...]) -> SchemaCache:
    functions: dict[tuple[str, str], tuple[Function, ...]] = {}
    cursor = await connection.execute(_FUNCTIONS, [list(schemas)])
    for schema, name, writes, rows, nothing, config, arguments in await cursor.fetchall():
        settings = dict(setting.split("=", 1) for setting in config)
        hoisted = {key: value for key, value in settings.items() if key in _HOISTED}
        made = Function(schema, name, writes, rows, nothing, hoisted, tuple(arguments))
        functions[schema, name] = (*functions.get((schema, name), ()), made)
    roles: dict[str, dict[str, str]] = {}
    for role, name, value in await (await connection.execute(_ROLES)).fetchall():
        roles.setdefault(role, {})[name] = value
    return SchemaCache(functions, roles)
