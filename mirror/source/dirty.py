"""What one statement made dirty, as SQL over its transition tables: what the capture functions ask.

These queries run inside the application's writes, as the triggers' role and perhaps with the writer's search_path, so
every name in them that is ours is written in full.
"""

from __future__ import annotations

import re

from mirror.source.projection import Projection
from mirror.tables import MEMBERSHIPS, TRIPS, USERS, Table

# An expression of plain columns calls nothing that could be looked up in a schema of the caller's. (table.column may be
# a function of the row, once the column is gone.)
_NAME = r'(?:\w+|"[^"]+")'
_TERM = rf"(?:not )?{_NAME}(?: is(?: not)? null)?"
_PLAIN = re.compile(rf"\s*{_TERM}(?: (?:and|or) {_TERM})*\s*", re.IGNORECASE)


def queries(p: Projection, event: str) -> dict[str, str]:
    """The keys that one statement made dirty. `one`, of a statement over one row: (k1, k2, changed); if changed is
    null, it is left to `dirty`, which tells of any: (tbl, k1, k2, gone). `gone`: what the column
    says of one row that keeps its key (schema/source/base.sql)."""
    if event == "update":
        gone = "false" if p.table is MEMBERSHIPS else "null"
        return {"one": _one_update(p), "dirty": _dirty(p, _update(p)), "gone": gone}
    relation, gone = ("new_rows", "null") if event == "insert" else ("old_rows", "true")
    rows = f"from {relation} as {p.alias}"
    changed = "null::pg_catalog.bool" if p.table is TRIPS else f"({p.has_key}) is true"
    every = f"select {_marked(p)}, true as moved, {gone}::pg_catalog.bool as gone {rows} where {p.has_key}"
    return {"one": f"select {_marked(p)}, {changed} as changed {rows}", "dirty": _dirty(p, every), "gone": gone}


def _one_update(p: Projection) -> str:
    """One row is compared with itself byte by byte, which needs no text of it. No expression stands here twice without
    need: what costs is to make them ready. A user whose subject changes is left to `dirty`, like one whose key does."""
    keys = [p.key(i) for i in range(len(p.table.keys))]
    data = list(dict.fromkeys([*keys, *(f"({p.expressions[c]}\n)" for c in p.table.values)]))
    named = ", ".join(f"{expression} as c{n}" for n, expression in enumerate(data))
    old, new = (
        f"(select {_marked(p)}, ({p.has_key}) is true as visible, {named} from {relation} as {p.alias}) as _{side}"
        for side, relation in (("old", "old_rows"), ("new", "new_rows"))
    )

    def same(columns: list[str]) -> str:
        sides = (f"row({', '.join(f'_{side}.{column}' for column in columns)})" for side in ("old", "new"))
        return f"pg_catalog.record_image_eq({', '.join(sides)})"

    columns = [f"c{n}" for n in range(len(data))]
    kept = [*keys, f"({p.expressions['subject']}\n)"] if _has_subject(p) else keys
    stays = f"_old.visible and _new.visible and {same([columns[data.index(expression)] for expression in kept])}"
    return (
        f"select _new.k1, _new.k2, case when {same(['visible', *columns])} then false "
        f"when {stays} then true end as changed from {old}, {new}"
    )


def _dirty(p: Projection, keys: str) -> str:
    """A trip that enters or leaves the projection takes its memberships along; elsewhere `moved` is not asked for."""
    if p.table is not TRIPS:
        return f"select '{p.table.name}' as tbl, k1, k2, gone from ({keys}) as _keys"
    return (
        f"select tbl, k1, k2, gone from ({keys}) as _keys, pg_catalog.unnest({together(p.table)}) as tbl "
        f"where moved or tbl operator(pg_catalog.=) '{p.table.name}'"
    )


def together(table: Table) -> str:
    """A table, and whose rows depend on it."""
    names = [table.name, MEMBERSHIPS.name] if table is TRIPS else [table.name]
    return f"array{names}"


def _update(p: Projection) -> str:
    """Compares the projections of both sides, so a change of anything that is not mirrored marks nothing; moved = the
    trip entered or left the projection. Grouping spills to disk; EXCEPT would keep a statement over millions of rows
    in memory."""
    data = "".join(f", {_text(p, c)} as {c}" for c in p.table.values)
    sides = [
        f"select {_marked(p)}{data}, {side} as _side from {relation} as {p.alias} where {p.has_key}"
        for side, relation in enumerate(("old_rows", "new_rows"))
    ]
    subject = ", subject" if _has_subject(p) else ""
    return (
        "select k1, k2, pg_catalog.count(*) operator(pg_catalog.=) 1::pg_catalog.int8 as moved, "
        f"{_lost(p)} as gone from (select k1, k2{subject}, pg_catalog.min(_side) as _side "
        f"from ({' union all '.join(sides)}) as _sides group by k1, k2, {', '.join(p.table.values)} "
        "having pg_catalog.min(_side) operator(pg_catalog.=) pg_catalog.max(_side)) as _changed group by k1, k2"
    )


def _lost(p: Projection) -> str:
    """Of one key, from the sides (0 = old, 1 = new) on which it has something that the other has not. Who was known by
    another subject, or by none, may have entered by it."""
    left = "pg_catalog.max(_side) operator(pg_catalog.=) 0"
    if p.table is MEMBERSHIPS:
        return f"case when {left} then true when pg_catalog.min(_side) operator(pg_catalog.=) 0 then false end"
    if _has_subject(p):
        by = "coalesce(subject, '')"
        left += f" or pg_catalog.min({by}) operator(pg_catalog.<>) pg_catalog.max({by})"
    return f"case when {left} then true end"


def _has_subject(p: Projection) -> bool:
    """Of its own, beside the key."""
    return p.table is USERS and p.expressions["subject"] != p.expressions["id"]


def _marked(p: Projection) -> str:
    """The key as the outbox carries it."""
    k2 = _text(p, p.table.keys[1]) if len(p.table.keys) == 2 else "null::pg_catalog.text"
    return f"{_text(p, p.table.keys[0])} as k1, {k2} as k2"


def _text(p: Projection, column: str) -> str:
    """Compared byte by byte: a collation may take different texts for equal ones."""
    return f'(({p.expressions[column]}\n)::pg_catalog.text collate pg_catalog."C")'


def search_path(p: Projection) -> str:
    """What the capture of one table needs; a SET costs 4 us a statement."""
    plain = all(_PLAIN.fullmatch(text) for text in (*p.expressions.values(), p.where))
    return "" if plain else " set search_path = pg_catalog, pg_temp"
