"""Renders schema/source/ from the three projections. The only place that knows what stands in the {{places}}."""

from __future__ import annotations

import re

from psycopg import sql

from mirror.render import render, row_text, template
from mirror.source.projection import Projection, Source
from mirror.tables import MEMBERSHIPS, TABLES, TRIPS, Table

VERSION = 1
EVENTS = ("insert", "update", "delete")
DOORBELL = "1835627122, 1"  # the advisory lock that says that the daemon sleeps
KEY_BYTES_MAX = 1_000  # of an id that is text; a row with a longer one is not mirrored: no index could hold it
VALUE_BYTES_MAX = 16_384  # of any other value; a row with a larger one is refused by its key, and nobody waits for it
_RINGS = "pg_catalog.current_setting('max_prepared_transactions') operator(pg_catalog.=) '0'"
# Which of the four outboxes a transaction writes to; null, or an error, when that is gone or may not be written to.
_PLACE = (
    "case when pg_catalog.has_table_privilege((array['mirror.outbox', 'mirror.outbox_1', 'mirror.outbox_2', "
    "'mirror.outbox_3'])[mirror.turn() operator(pg_catalog.+) 1], 'insert') then mirror.turn() end"
)
_PLACE_OF_MANY = (
    "case when pg_catalog.has_function_privilege('mirror.mark_keys(pg_catalog.int4,pg_catalog.text[],pg_catalog.text[],"
    f"pg_catalog.text[],pg_catalog.bool[])', 'execute') then {_PLACE} end"
)
_SHARED = {
    "doorbell": DOORBELL,
    "rings": _RINGS,
    "place": _PLACE,
    "place_of_many": _PLACE_OF_MANY,
    "place_safely": f"begin _place := {_PLACE_OF_MANY}; exception when others then _place := null; end;",
}
# An expression of plain columns calls nothing that could be looked up in a schema of the caller's.
_NAME = r'(?:\w+|"[^"]+")'
_TERM = rf"(?:not )?{_NAME}(?:\.{_NAME})?(?: is(?: not)? null)?"
_PLAIN = re.compile(rf"\s*{_TERM}(?: (?:and|or) {_TERM})*\s*", re.IGNORECASE)


def functions_sql(source: Source) -> str:
    """Everything but the triggers. None of it locks a table of the application."""
    tables = [_table_sql(source, table) for table in TABLES]
    base, lead = render("source/base.sql", _SHARED), template("source/lead.sql")
    drain = render("source/drain.sql", {"key_bytes": str(KEY_BYTES_MAX)})
    return "\n".join([base, *tables, _requests_sql(source), lead, drain, _grants_sql(source)])


def triggers_sql(source: Source, table: Table) -> str:
    return render("source/triggers.sql", {"table": table.name, "relation": source.of(table).relation})


def _table_sql(source: Source, table: Table) -> str:
    values = _SHARED | _places(source, table)
    values["capture"] = "\n".join(
        render("source/capture.sql", values | {"event": event} | _queries(source.of(table), event)) for event in EVENTS
    )
    values["of_trips"] = render("source/of_trips.sql", values) if table is MEMBERSHIPS else ""
    return render("source/table.sql", values)


def _requests_sql(source: Source) -> str:
    relations = ", ".join(f"('{table.name}', {sql.Literal(source.of(table).relation).as_string()})" for table in TABLES)
    return render("source/requests.sql", _SHARED | {"relations": relations})


def _grants_sql(source: Source) -> str:
    lines = []
    for table in TABLES:
        p = source.of(table)
        columns = ", ".join(_quoted(c) for c in p.columns)
        lines.append(f"grant usage on schema {_quoted(p.schema)} to mirror_daemon;")
        lines.append(f"grant select ({columns}) on {p.relation} to mirror_daemon;")
    return render("source/grants.sql", {"columns": "\n  ".join(lines), "given": given_sql()})


def fingerprint_sql() -> str:
    """A query over the catalog: has anybody changed what we made?"""
    return template("source/fingerprint.sql").strip()


def given_sql() -> str:
    """A query over the catalog: what may others do with what is the mirror's?"""
    return template("source/given.sql").rstrip()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _key(p: Projection, i: int) -> str:
    """The i-th key as an expression over the relation's row."""
    return f"({p.expressions[p.table.keys[i]]}\n)"


def _cast(p: Projection, i: int, text: str) -> str:
    return f"({_readable(p, text, p.types[p.table.keys[i]])})::{p.types[p.table.keys[i]]}"


def _readable(p: Projection, text: str, kind: str = "text") -> str:
    """An error of this row where the bytes are no text that anybody else could read: else all of a batch is refused."""
    return f"convert_from(convert_to({text}, 'SQL_ASCII'), 'UTF8')" if p.any_bytes and kind == "text" else text


def _ordered(p: Projection, i: int) -> str:
    """Text sorts by bytes on both sides, whatever collation a database was created with."""
    return f'{_key(p, i)} collate "C"' if p.types[p.table.keys[i]] == "text" else _key(p, i)


def _columns(p: Projection) -> str:
    kinds = {c: p.types[c] if c in (*p.table.keys, "created_by") else "text" for c in p.table.columns}
    typed = {c: f"({p.expressions[c]}\n)::{kind}" for c, kind in kinds.items()}
    return ", ".join(f"{_bounded(p, c, _readable(p, typed[c], kind), kind)} as {c}" for c, kind in kinds.items())


def _bounded(p: Projection, column: str, value: str, kind: str) -> str:
    """A value, or an error that refuses its row: for its length a large one is not fetched from where it is stored."""
    if kind != "text" or column in p.table.keys:
        return value
    size, most = f"octet_length({value})", VALUE_BYTES_MAX
    return f"case when {size} > {most} then mirror.too_large('{column}', {size}, {most}) else {value} end"


def _has_key(p: Projection) -> str:
    """A row without a key is not mirrored (a null key in the outbox would mean the whole table), nor one whose key no
    index holds."""
    keys = [f"{_key(p, i)} is not null" for i in range(len(p.table.keys))]
    keys += [
        f"pg_catalog.octet_length({_key(p, i)}::pg_catalog.text) operator(pg_catalog.<=) {KEY_BYTES_MAX}"
        for i, key in enumerate(p.table.keys)
        if p.types[key] == "text"
    ]
    return f"{' and '.join(keys)} and ({p.where}\n)"


def _visible(source: Source, p: Projection, after1: str = "") -> str:
    """In the projection. A membership is, only when its trip is. `after1`: no trip before this one matters."""
    if p.table is not MEMBERSHIPS:
        return _has_key(p)
    t = source.trips
    trips = f"select {_key(t, 0)} from {t.relation} as {t.alias} where {_has_key(t)}"
    bound = f" and {_ordered(t, 0)} >= {_cast(t, 0, after1)}" if after1 else ""
    return f"{_has_key(p)} and {_key(p, 0)} in ({trips}{bound})"


def _places(source: Source, table: Table) -> dict[str, str]:
    p = source.of(table)
    two = len(table.keys) == 2
    keys = range(len(table.keys))
    wanted = ("_wanted.k1", "_wanted.k2")
    bounds = (f"{table.name}_digest.after1", f"{table.name}_digest.after2")
    ordered = ", ".join(_ordered(p, i) for i in keys)
    return {
        "table": table.name,
        "relation": p.relation,
        "alias": p.alias,
        "columns": _columns(p),
        "key_columns": ", ".join(f"{_key(p, i)} as {table.keys[i]}" for i in keys),
        "visible": _visible(source, p),
        "visible_after": f"{_visible(source, p, bounds[0])} and {_after(p, bounds)}",
        "visible_after_2": f"{_visible(source, p, '$2')} and {_after(p, ('$2', '$3'))}",
        "wanted": ", ".join([_cast(p, i, f"_key.k{i + 1}") for i in keys] + ["null"] * (2 - len(table.keys))),
        "key_match": " and ".join(f"{_key(p, i)} = {wanted[i]}" for i in keys),
        "key_json": "json_build_object(" + ", ".join(f"'{table.keys[i]}', {wanted[i]}::text" for i in keys) + ")",
        "key_cast": ", ".join(_cast(p, i, f"key{i + 1}") for i in keys),
        "order": ordered,
        "upto": f"({ordered}) <= ({', '.join(_cast(p, i, f'${i + 4}') for i in keys)})",
        "row_text": row_text("_projected", table, p.types),
        "lists": _lists(p, "_projected", table.columns),
        "found_lists": _lists(p, "_found", table.columns, f" filter (where _found.{table.keys[0]} is not null)"),
        "key_lists": _lists(p, "_projected", table.keys),
        "key": table.keys[0],
        "last_key": _last_key(table, f"{table.name}_digest.row_limit"),
        "last_key_6": _last_key(table, "$6"),
        "in_trip": f"{_key(p, 0)} = {_cast(p, 0, '$1')}",
        "in_wanted_trip": f"{_key(p, 0)} = {_cast(p, 0, '_wanted.k1')}",
        "of_user": f"{_key(p, 1)} = {_cast(p, 1, 'user_key')}" if two else "",
        "together": together(table),
        "search_path": _search_path(p),
    }


def _after(p: Projection, texts: tuple[str, str]) -> str:
    keys = range(len(p.table.keys))
    return f"({', '.join(_ordered(p, i) for i in keys)}) > ({', '.join(_cast(p, i, texts[i]) for i in keys)})"


def _lists(p: Projection, row: str, columns: tuple[str, ...], only: str = "") -> str:
    """Rows as the target takes them: a JSON object with a list for each column, written as an array."""
    lists = []
    for column in columns:
        if column in p.table.keys and p.types[column] != "text":  # never null, nothing to quote or to escape
            lists.append(f"""'"{column}":"{{', string_agg({row}.{column}::text, ','){only}, '}}"'""")
        else:
            lists.append(f"""'"{column}":', to_json(coalesce(array_agg({row}.{column}){only}::text, '{{}}'))""")
    listed = ", ',', ".join(lists)
    return f"concat('{{', {listed}, '}}')"


def _last_key(table: Table, n: str) -> str:
    """Of the rows of a slice, the n-th one's; null when there are fewer."""
    keys = [f"((array_agg(_projected.{key}))[{n}])::text" for key in table.keys]
    return ", ".join([*keys, "null::text"][:2])


def _queries(p: Projection, event: str) -> dict[str, str]:
    """The keys that one statement made dirty. `one`, of a statement over one row: (k1, k2, changed); if changed is
    null, it is left to `dirty`, which tells of any: (tbl, k1, k2, gone)."""
    gone = str(event == "delete").lower()
    if event == "update":
        return {"one": _one_update(p), "dirty": _dirty(p, _update(p)), "gone": gone}
    relation = "new_rows" if event == "insert" else "old_rows"
    rows = f"from {relation} as {p.alias}"
    changed = "null::pg_catalog.bool" if p.table is TRIPS else f"({_has_key(p)}) is true"
    every = f"select {_marked(p)}, true as moved, {gone} as gone {rows} where {_has_key(p)}"
    return {"one": f"select {_marked(p)}, {changed} as changed {rows}", "dirty": _dirty(p, every), "gone": gone}


def _one_update(p: Projection) -> str:
    """One row is compared with itself byte by byte, which needs no text of it. No expression stands here twice without
    need: what costs is to make them ready."""
    keys = [_key(p, i) for i in range(len(p.table.keys))]
    data = list(dict.fromkeys([*keys, *(f"({p.expressions[c]}\n)" for c in p.table.values)]))
    named = ", ".join(f"{expression} as c{n}" for n, expression in enumerate(data))
    old, new = (
        f"(select {_marked(p)}, ({_has_key(p)}) is true as visible, {named} from {relation} as {p.alias}) as _{side}"
        for side, relation in (("old", "old_rows"), ("new", "new_rows"))
    )

    def same(columns: list[str]) -> str:
        sides = (f"row({', '.join(f'_{side}.{column}' for column in columns)})" for side in ("old", "new"))
        return f"pg_catalog.record_image_eq({', '.join(sides)})"

    columns = [f"c{n}" for n in range(len(data))]
    stays = f"_old.visible and _new.visible and {same(columns[: len(keys)])}"
    return (
        f"select _new.k1, _new.k2, case when {same(['visible', *columns])} then false "
        f"when {stays} then true end as changed from {old}, {new}"
    )


def _dirty(p: Projection, keys: str) -> str:
    """A trip that enters or leaves the projection takes its memberships along; elsewhere `moved` is not asked for."""
    if p.table is not TRIPS:
        return f"select '{p.table.name}' as tbl, k1, k2, gone from ({keys}) as _keys"
    return (
        f"select tbl, k1, k2, case when tbl operator(pg_catalog.=) '{p.table.name}' then gone else true end as gone "
        f"from ({keys}) as _keys, pg_catalog.unnest({together(p.table)}) as tbl "
        f"where moved or tbl operator(pg_catalog.=) '{p.table.name}'"
    )


def together(table: Table) -> str:
    """A table, and whose rows depend on it."""
    names = [table.name, MEMBERSHIPS.name] if table is TRIPS else [table.name]
    return f"array{names}"


def _update(p: Projection) -> str:
    """Compares the projections of both sides, so a change of anything that is not mirrored marks nothing; moved = the
    trip entered or left the projection, gone = the key left it. Grouping spills to disk; EXCEPT would keep a statement
    over millions of rows in memory."""
    data = "".join(f", {_text(p, c)} as {c}" for c in p.table.values)
    sides = [
        f"select {_marked(p)}{data}, {side} as _side from {relation} as {p.alias} where {_has_key(p)}"
        for side, relation in enumerate(("old_rows", "new_rows"))
    ]
    return (
        "select k1, k2, pg_catalog.count(*) operator(pg_catalog.=) 1::pg_catalog.int8 as moved, "
        "pg_catalog.max(_side) operator(pg_catalog.=) 0 as gone from ("
        f"select k1, k2, pg_catalog.min(_side) as _side from ({' union all '.join(sides)}) as _sides "
        f"group by k1, k2, {', '.join(p.table.values)} "
        "having pg_catalog.min(_side) operator(pg_catalog.=) pg_catalog.max(_side)) as _changed group by k1, k2"
    )


def _marked(p: Projection) -> str:
    """The key as the outbox carries it."""
    k2 = _text(p, p.table.keys[1]) if len(p.table.keys) == 2 else "null::pg_catalog.text"
    return f"{_text(p, p.table.keys[0])} as k1, {k2} as k2"


def _text(p: Projection, column: str) -> str:
    """Compared byte by byte: a collation may take different texts for equal ones."""
    return f'(({p.expressions[column]}\n)::pg_catalog.text collate pg_catalog."C")'


def _search_path(p: Projection) -> str:
    """What the capture of one table needs; a SET costs 4 us a statement."""
    plain = all(_PLAIN.fullmatch(text) for text in (*p.expressions.values(), p.where))
    return "" if plain else " set search_path = pg_catalog, pg_temp"
