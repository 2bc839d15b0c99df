"""The rendered SQL of the source: complete, and with every name in full where the application's search_path reaches."""

import re
from dataclasses import replace

import pytest

from mirror.source import capture
from mirror.source.expression import Relation
from mirror.source.projection import Projection, Source
from mirror.tables import MEMBERSHIPS, TABLES, TRIPS, USERS, Table


def projection(table: Table, oid: int) -> Projection:
    expressions = {column: f'"{column}"' for column in table.columns}
    types = dict.fromkeys((*table.keys, "created_by"), "uuid")
    return Projection(table, Relation(oid, "app", table.name, False), expressions, "seen is null", types, table.columns)


@pytest.fixture
def source() -> Source:
    return Source(projection(USERS, 1), projection(TRIPS, 2), projection(MEMBERSHIPS, 3))


def test_every_place_is_filled(source: Source) -> None:
    rendered = capture.functions_sql(source) + "".join(capture.triggers_sql(source, table) for table in TABLES)
    assert "{{" not in rendered
    assert "}}" not in rendered


def test_rendering_is_the_same_each_time(source: Source) -> None:
    assert capture.functions_sql(source) == capture.functions_sql(source)


FUNCTION = re.compile(r"create or replace function mirror\.(\w+)\(.*?\$mirror\$(.*?)\$mirror\$", re.DOTALL)
CALLED = re.compile(r"(?<!as )(?<![\w.\"])(\w+)\s*\(")
KEYWORDS = {
    "and",
    "as",
    "by",
    "case",
    "coalesce",
    "else",
    "elsif",
    "exists",
    "filter",
    "from",
    "if",
    "in",
    "operator",
    "row",
    "select",
    "values",
    "when",
    "where",
}


def written_for_the_application(source: Source) -> dict[str, str]:
    """The bodies that run with the application's search_path, without comments and literals."""
    bodies = dict(FUNCTION.findall(capture.functions_sql(source)))
    names = [f"{table.name}_{event}" for table in TABLES for event in capture.EVENTS]
    names += ["rings", "slot", "turn"]
    return {name: re.sub(r"--.*|'(?:[^']|'')*'", "", bodies[name]) for name in names}


def test_functions_are_named_with_their_schema(source: Source) -> None:
    for name, body in written_for_the_application(source).items():
        assert {called.lower() for called in CALLED.findall(body)} <= KEYWORDS, name


def test_operators_and_types_are_named_with_their_schema(source: Source) -> None:
    for name, body in written_for_the_application(source).items():
        assert not re.search(r"::\s*(?!pg_catalog\.)\w", body), name
        assert not re.search(r"^\s*_\w+ (?!pg_catalog\.)[\w\[\]]+;", body, re.MULTILINE), name
        bare = re.sub(r"operator\(pg_catalog\.[<>=*/+-]+\)|:=|::|count\(\*\)", " ", body)
        assert not re.search(r"[<>=*/+-]", bare), name


def test_what_reads_the_outbox_and_the_tables_compares_no_other_texts(source: Source) -> None:
    """Values of both sides of an update are compared byte by byte."""
    update = written_for_the_application(source)["users_update"]
    for column in USERS.columns:
        assert f'(("{column}"\n)::pg_catalog.text collate pg_catalog."C") as' in update


PATH = "set search_path = pg_catalog, pg_temp"


@pytest.mark.parametrize(
    ("where", "plain"),
    [
        ("true", True),
        ('"deleted_at" is null and not banned', True),
        ("deleted_at is not null or archived", True),
        ("users.deleted_at is null", False),
        ("status = 'ACTIVE'", False),
        ("status::text is null", False),
        ("lower(status) is null", False),
        ("status between role and role", False),
        ("status in (role)", False),
    ],
)
def test_what_looks_up_a_name_has_a_search_path(source: Source, where: str, plain: bool) -> None:
    """An operator, a type or a function of the mapping is pg_catalog's, unless it is written in full."""
    mapped = replace(source, users=replace(source.users, where=where))
    headers = dict(
        re.findall(r"create or replace function mirror\.(\w+)\(\)[^$]*?language (.*?) as", functions(mapped))
    )
    assert (PATH in headers["users_update"]) is not plain
    assert PATH not in headers["trips_update"]


def functions(source: Source) -> str:
    return capture.functions_sql(source)
