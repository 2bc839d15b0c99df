"""The capture triggers as they are in the catalog: which are missing or wrong, and which are left over."""

from __future__ import annotations

from mirror.source.expression import Connection
from mirror.source.projection import Source
from mirror.tables import TABLES, Table

_TYPES = {"insert": 4, "delete": 8, "update": 16, "truncate": 32}  # pg_trigger.tgtype of AFTER ... STATEMENT triggers


def trigger_faults(connection: Connection, source: Source, table: Table) -> list[str]:
    """What is wrong with the triggers of one table, in words."""
    rows = connection.execute(
        "select tgname, tgenabled = 'A', (tgtype::int, p.proname::text, coalesce(tgoldtable::text, ''), "
        "  coalesce(tgnewtable::text, ''), tgqual is null)::text "
        "from pg_trigger t join pg_proc p on p.oid = t.tgfoid "
        "where tgrelid = %s and p.pronamespace = to_regnamespace('mirror')",
        [source.of(table).origin.oid],
    ).fetchall()
    found = {name: (enabled, made) for name, enabled, made in rows}
    faults = []
    for event, kind in _TYPES.items():
        old = "old_rows" if event in ("update", "delete") else '""'
        new = "new_rows" if event in ("update", "insert") else '""'
        enabled, made = found.get(f"mirror_{event}", (False, None))
        if made is None:
            faults.append(f"no trigger mirror_{event} on {table.name}")
        elif made != f"({kind},{table.name}_{event},{old},{new},t)":
            faults.append(f"trigger mirror_{event} on {table.name} is not ours")
        elif not enabled:
            faults.append(f"trigger mirror_{event} on {table.name} is not enabled always")
    return faults


def strays(connection: Connection, source: Source | None) -> dict[str, str]:
    """Triggers that call us from where the mapping does not (any more), by relation: the statements that drop them."""
    wanted = [(source.of(t).origin.oid, f"mirror_{event}") for t in TABLES for event in _TYPES] if source else []
    rows = connection.execute(
        "select t.tgrelid::regclass::text, "
        "  string_agg(format('drop trigger if exists %%I on %%s;', t.tgname, t.tgrelid::regclass), ' ') "
        "from pg_trigger t join pg_proc p on p.oid = t.tgfoid "
        "where p.pronamespace = to_regnamespace('mirror') and not t.tgisinternal "
        "and not exists (select from unnest(%s::oid[], %s::text[]) as w(relation, name) "
        "                where w.relation = t.tgrelid and w.name = t.tgname) group by t.tgrelid order by 1",
        [[oid for oid, _ in wanted], [name for _, name in wanted]],
    ).fetchall()
    return dict(rows)
