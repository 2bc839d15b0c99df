"""`mirror install target`: looks first, adopts what fits, refuses with the reason what does not, never drops a row."""

from __future__ import annotations

import json

import psycopg

from mirror.errors import ConfigError, Incompatible, Refused
from mirror.mapping import Mapping
from mirror.render import array, digest, literal, render, row_text, template
from mirror.tables import MEMBERSHIPS, TABLES, TRIPS, USERS, Table
from mirror.target import adopt
from mirror.target.access import SEAL, access_places, argument_kinds, told
from mirror.target.adopt import Connection, Say, Types
from mirror.target.topics import refuse_ambiguous
from mirror.translation import translated

VERSION = 1
ANEW = "Make it anew: `mirror uninstall target`, then `mirror install target`; the daemon then compares all tables."
FILES = ("base", "known", "adopted", "tables", "write", "park", "prove", "api", "freshness", "access", "epochs", "try")
CHANGES_AT = FILES.index("write")  # what one table needs, before what needs it
THEN = ("policies", "channels", "holes", "security", "grants")
OURS = "permission mirror"  # what each body of ours begins with: whose body it is, is whose function it is


def schema_sql(types: Types, mapping: Mapping) -> str:
    places = types | _orders(types) | _functions() | {"taken": template("target/taken.sql").rstrip()}
    places |= access_places(mapping.access, types, subject_is_id=mapping.users.subject is None)
    places["told"] = literal(json.dumps(told(mapping), sort_keys=True))
    for name, table in (("users_text", USERS), ("trips_text", TRIPS), ("memberships_text", MEMBERSHIPS)):
        places[f"{table.name}_rows"] = _rows(table)
        places[name] = row_text("t", table, types | {"id": _key_types(table, types)[0]})
    places["users_differ"] = _differs(USERS)
    places |= {
        "version": str(VERSION),
        "type_names": literal(json.dumps(types, sort_keys=True)),
        "allow_cascade": array(map(literal, mapping.target.allow_cascade)),
        "seal": SEAL,
    }
    parts = [render(f"target/{name}.sql", places) for name in FILES]
    parts[CHANGES_AT:CHANGES_AT] = [render("target/change.sql", _changes(table, types)) for table in TABLES]
    parts += [
        render("target/member.sql", places | kind) for kind in argument_kinds(types["trip_id"], places["find_me"])
    ]
    sql = "\n".join(parts + [render(f"target/{name}.sql", places) for name in THEN])
    return sql.replace("as $mirror$\n", f"as $mirror$ -- {OURS}\n")


def _rows(table: Table) -> str:
    """The rows that a scope carries, as r. Unnested as they are wanted: in FROM, each list would be copied first."""
    lists = [f"unnest(mirror.list(rows->>'{c}', (null::public.{table.name}).{c})) as {c}" for c in table.columns]
    return f"(select {', '.join(lists)}) as r"


def _changes(table: Table, types: Types) -> dict[str, str]:
    keys = zip(table.keys, _key_types(table, types), strict=True)
    return {
        "table": table.name,
        "rows": _rows(table),
        "columns": ", ".join(table.columns),
        "new_columns": ", ".join(f"s.{column}" for column in table.columns),
        "values": ", ".join(f"{column} = s.{column}" for column in table.values),
        "is_same": " and ".join(f"t.{key} = s.{key}" for key in table.keys),
        "differs": _differs(table),
        "typed_keys": ", ".join(f"{key} {kind}" for key, kind in keys),
    }


def _key_types(table: Table, types: Types) -> list[str]:
    named = {USERS: ["user_id"], TRIPS: ["trip_id"], MEMBERSHIPS: ["trip_id", "user_id"]}[table]
    return [types[name] for name in named]


def _differs(table: Table) -> str:
    """By the bytes of their texts; of an id by its value."""
    old, new = (
        ", ".join(f"{row}.{c}" if c == "created_by" else f"{row}.{c}::text" for c in table.values) for row in "ts"
    )
    return f"record_image_ne(row({old}), row({new}))"


def _functions() -> dict[str, str]:
    ours = {"ours": literal(f" -- {OURS}")}
    listed = template("target/functions.sql").rstrip()
    return ours | {"functions": listed, "is_ours": render("target/ours.sql", ours).rstrip()}


def _orders(types: Types) -> dict[str, str]:
    """The keys as ranges order them: text by its bytes on both sides, whatever collation a database was made with."""

    def ordered(column: str, kind: str) -> str:
        return f'{column} collate "C"' if types[kind] == "text" else column

    return {
        "user_c": ordered("t.id", "user_id"),
        "trip_c": ordered("t.id", "trip_id"),
        "member_trip_c": ordered("t.trip_id", "trip_id"),
        "member_user_c": ordered("t.user_id", "user_id"),
        "user_order": ordered("id", "user_id"),
        "trip_order": ordered("id", "trip_id"),
        "member_order": f"{ordered('trip_id', 'trip_id')}, {ordered('user_id', 'user_id')}",
    }


def script(types: Types, mapping: Mapping) -> str:
    """The whole of it as one migration. Looks at nothing: for people who run SQL themselves."""
    refuse_ambiguous(mapping.access, types["trip_id"])
    sql = schema_sql(types, mapping)
    state = _functions() | {
        "version": str(VERSION),
        "rendered": literal(digest(sql)),
        "types": literal(json.dumps(types, sort_keys=True)),
        "allow_cascade": array(map(literal, mapping.target.allow_cascade)),
    }
    return "\n".join([render("target/begin.sql", state), sql, render("target/commit.sql", state)])


def uninstall_script() -> str:
    return render("target/uninstall.sql", _functions())


def install(connection: Connection, types: Types, mapping: Mapping, say: Say, *, take_rights: bool = False) -> None:
    refuse_ambiguous(mapping.access, types["trip_id"])
    with translated("target"):
        if _is_right(connection, types, mapping):
            say("target: everything is in place already.")
        else:
            _refuse_source(connection)
            for table in TABLES:
                adopt.check(connection, table, types)
            adopt.say_what_changes(connection, say, take_rights=take_rights, triggers=_triggered(mapping))
            _run(connection, script(types, mapping))
            say("target: tables, state and functions are in place.")
        reasons = [reason for (reason,) in connection.execute("select mirror.obstacles()")]
    if reasons:
        raise Incompatible("target: " + "; ".join(reasons))


def _run(connection: Connection, sql: str) -> None:
    """In one transaction. What is there of ours and cannot be put right in place can be made anew."""
    try:
        connection.execute(sql)
    except psycopg.errors.DuplicateObject as error:  # a constraint trigger of that name, which is not ours to drop
        raise Refused("target", str(error.diag.message_primary), hint="Rename it, or drop it.") from error
    except psycopg.Error as error:
        state = error.sqlstate or ""
        if state[:2] != "42" or state == "42501":
            raise
        said = f"it is not as the mirror made it: {error.diag.message_primary}"
        raise Refused("target", said, hint=ANEW) from error


def uninstall(connection: Connection, say: Say) -> None:
    """Takes the mirror's functions and state away. The three tables stay: chat may reference them, and an adopted table
    was never ours, and gets back what was taken."""
    with translated("target"):
        for undo in adopt.taken(connection):
            say(f"target: gives back: {undo};")
        connection.execute(uninstall_script())
    say("target: functions and state are gone; the tables users, trips and trip_memberships stay, with their rows.")


def _triggered(mapping: Mapping) -> tuple[str, ...]:
    """The tables that tell of revocations (schema/target/epochs.sql)."""
    if not mapping.access.announce and not any("{epoch}" in topic for topic in mapping.access.topics):
        return ()
    return ("trip_memberships",) if mapping.access.members_without_user else ("trip_memberships", "users")


def _refuse_source(connection: Connection) -> None:
    """However the two URLs are written: the application's own tables are not to be taken for the copy."""
    if adopt.is_there(connection, "mirror.outbox"):
        raise ConfigError(
            "MIRROR_TARGET_URL is the database that the mirror is installed in as the source",
            hint="The target is Supabase's database.",
        )


def _is_right(connection: Connection, types: Types, mapping: Mapping) -> bool:
    """What was run here is what would be run now, and what it left is still there."""
    if not adopt.is_there(connection, "mirror.state"):
        return False
    state = connection.execute("select version, rendered, allow_cascade, sealed from mirror.state").fetchone()
    if state is None:
        return False
    version, rendered, allowed, sealed = state
    if version > VERSION:
        raise ConfigError(
            f"target: it was installed by a newer mirror (schema version {version}, this one knows {VERSION})",
            hint="Use that version of the mirror.",
        )
    sql = schema_sql(types, mapping)
    if (rendered, allowed) != (digest(sql), list(mapping.target.allow_cascade)):
        return False
    row = connection.execute("select to_regprocedure('mirror.fingerprint()') is not null").fetchone()
    if not (row and row[0]):
        return False
    return connection.execute("select mirror.fingerprint()").fetchone() == (sealed,)
