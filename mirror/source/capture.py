"""Renders schema/source/ from the three projections. The only place that knows what stands in the {{places}}."""

from __future__ import annotations

from psycopg import sql

from mirror.render import render, row_text, template
from mirror.source import dirty
from mirror.source.projection import KEY_BYTES_MAX, Projection, Source
from mirror.tables import MEMBERSHIPS, TABLES, Table

VERSION = 1
EVENTS = ("insert", "update", "delete")
DOORBELL = "1835627122, 1"  # the advisory lock that says that the daemon sleeps
VALUE_BYTES_MAX = 16_384  # of any other value; a row with a larger one is refused by its key, and delays no other
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


def functions_sql(source: Source) -> str:
    """Everything but the triggers. None of it locks a table of the application."""
    tables = [_table_sql(source, table) for table in TABLES]
    base, lead = render("source/base.sql", _SHARED), template("source/lead.sql") + "\n" + template("source/life.sql")
    requests = render("source/requests.sql", _SHARED)
    drain = render("source/drain.sql", {"key_bytes": str(KEY_BYTES_MAX)})
    return "\n".join([base, *tables, requests, _faults_sql(source), lead, drain, _grants_sql(source)])


def triggers_sql(source: Source, table: Table) -> str:
    relation = source.of(table).relation
    literal = sql.Literal(relation).as_string()
    return render("source/triggers.sql", {"table": table.name, "relation": relation, "literal": literal})


def _table_sql(source: Source, table: Table) -> str:
    values = _SHARED | _places(source, table)
    values["capture"] = "\n".join(
        render("source/capture.sql", values | {"event": event} | dirty.queries(source.of(table), event))
        for event in EVENTS
    )
    values["of_trips"] = render("source/of_trips.sql", values) if table is MEMBERSHIPS else ""
    return render("source/table.sql", values)


def _faults_sql(source: Source) -> str:
    mapped = []
    for p in (source.of(table) for table in TABLES):
        named = ", ".join(sql.Literal(text).as_string() for text in (p.table.name, p.schema, p.origin.name))
        columns = ", ".join(sql.Literal(column).as_string() for column in p.columns)
        mapped.append(f"({named}, array[{columns}]::text[])")
    return render("source/faults.sql", {"mapped": ", ".join(mapped)})


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


def _cast(p: Projection, i: int, text: str) -> str:
    return f"({_readable(p, text, p.types[p.table.keys[i]])})::{p.types[p.table.keys[i]]}"


def _readable(p: Projection, text: str, kind: str = "text") -> str:
    """An error of this row where its bytes are no UTF-8: else all of a batch would be refused."""
    return f"convert_from(convert_to({text}, 'SQL_ASCII'), 'UTF8')" if p.any_bytes and kind == "text" else text


def _ordered(p: Projection, i: int) -> str:
    """Text sorts by bytes on both sides, whatever collation a database was created with."""
    return f'{p.key(i)} collate "C"' if p.types[p.table.keys[i]] == "text" else p.key(i)


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


def _visible(source: Source, p: Projection, after1: str = "") -> str:
    """In the projection. A membership is, only when its trip is. `after1`: no trip before this one matters."""
    if p.table is not MEMBERSHIPS:
        return p.has_key
    t = source.trips
    trips = f"select {t.key(0)} from {t.relation} as {t.alias} where {t.has_key}"
    bound = f" and {_ordered(t, 0)} >= {_cast(t, 0, after1)}" if after1 else ""
    return f"{p.has_key} and {p.key(0)} in ({trips}{bound})"


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
        "key_columns": ", ".join(f"{p.key(i)} as {table.keys[i]}" for i in keys),
        "visible": _visible(source, p),
        "visible_after": f"{_visible(source, p, bounds[0])} and {_after(p, bounds)}",
        "visible_after_2": f"{_visible(source, p, '$2')} and {_after(p, ('$2', '$3'))}",
        "wanted": ", ".join([_cast(p, i, f"_key.k{i + 1}") for i in keys] + ["null"] * (2 - len(table.keys))),
        "key_match": " and ".join(f"{p.key(i)} = {wanted[i]}" for i in keys),
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
        "in_trip": f"{p.key(0)} = {_cast(p, 0, '$1')}",
        "in_wanted_trip": f"{p.key(0)} = {_cast(p, 0, '_wanted.k1')}",
        "of_user": f"{p.key(1)} = {_cast(p, 1, 'user_key')}" if two else "",
        "together": dirty.together(table),
        "search_path": dirty.search_path(p),
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
