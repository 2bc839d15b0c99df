"""SQL files with {{named}} places. Values come quoted (psycopg.sql) or are the operator's own expressions.

Not a template language on purpose: a name that is missing, or left over, is an error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from mirror.tables import Table

_PACKAGED = Path(__file__).parent / "_schema"
_CHECKOUT = Path(__file__).parent.parent / "schema"
_PART = re.compile(r"^-- (?:query|check) (.+?): (.+)$\n", flags=re.MULTILINE)


@cache
def template(name: str) -> str:
    """One file of schema/: shipped inside the package, or beside it in a checkout."""
    root = _PACKAGED if _PACKAGED.exists() else _CHECKOUT
    return (root / name).read_text(encoding="utf-8")


def render(name: str, values: Mapping[str, str] | None = None) -> str:
    values = values or {}
    return re.sub(r"\{\{(\w+)\}\}", lambda place: values[place[1]], template(name))


def parts(name: str, values: Mapping[str, str] | None = None) -> Iterator[tuple[str, str, str]]:
    """A file of several queries: `-- query NAME: a sentence` (or `-- check NAME: ...`), then its SQL."""
    _, *found = _PART.split(render(name, values))
    for title, sentence, query in zip(found[::3], found[1::3], found[2::3], strict=True):
        yield title, sentence, query.strip()


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def array(items: Iterable[str]) -> str:
    return f"array[{', '.join(items)}]::text[]"


def digest(sql: str) -> str:
    return hashlib.sha256(sql.encode()).hexdigest()


def row_text(row: str, table: Table, types: Mapping[str, str]) -> str:
    """What a digest is taken of, the same expression on both sides. No name can forge another row: a text has its
    length before it, and what is no text (`types`) has no space in it."""
    parts = []
    for column in table.columns:
        value = f"{row}.{column}"
        is_text = types.get(column, "text") == "text"
        parts.append(f"length({value}::text), ':', {value}::text" if is_text else f"{value}, ' '")
    return f"concat({', '.join(parts)})"
