"""Hosted Supabase refuses UPDATE and DELETE without WHERE for requests, and its SQL editor asks before it runs what
looks destructive. Nothing that the mirror brings to the target is either."""

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

import mirror
from mirror.mapping import AccessOptions, Mapping
from mirror.render import parts, render
from mirror.render import template as sql_file
from mirror.target import install as target_side
from tests.bed import safeupdate
from tests.bed.target_side import BIGINTS, TEXTS, UUIDS, Writer, an_id, as_role, position, put_in_place, scope, user

FULL = Mapping.model_validate(
    {
        "users": {"subject": "id"},
        "access": {"topics": ["trip:{id}:{epoch}", "trip:{id}"], "announce": "user:{sub}", "max_staleness": 60},
    }
)
MAPPINGS = {"default": Mapping(), "everything": FULL, "nothing": Mapping(access=AccessOptions(topics=(), send=()))}
UUID = an_id(1)
RECIPES = Path(mirror.__file__).parents[1] / "schema" / "target" / "recipes"
SAID = dict.fromkeys(("let_send", "foreign_subjects", "status_filtered"), "true")
ASKED: dict[str, dict[str, str]] = {
    "doctor": SAID | {"oldest": "15", "newest": "18"},
    "doctor_installed": {"is_active": "true", "needs_user": "true", "few": "1"},
    "doctor_holes": {},
    "why": {},
}


def script(types: dict[str, str], mapping: str) -> str:
    return target_side.script(types, MAPPINGS[mapping])


@pytest.mark.parametrize("mapping", list(MAPPINGS))
@pytest.mark.parametrize("types", [UUIDS, TEXTS, BIGINTS], ids=["uuid", "text", "bigint"])
def test_nothing_is_updated_or_deleted_without_where(types: dict[str, str], mapping: str) -> None:
    assert safeupdate.unsafe(script(types, mapping)) == []


def test_nor_by_uninstall_and_the_recipes() -> None:
    assert safeupdate.unsafe(target_side.uninstall_script()) == []
    for recipe in RECIPES.glob("*.sql"):
        assert safeupdate.unsafe(recipe.read_text()) == [], recipe.name


@pytest.mark.parametrize("name", list(ASKED))
def test_nor_by_the_doctor_and_why(name: str) -> None:
    places = ASKED[name] | {"policies": sql_file("target/doctor_policies.sql")}
    for title, _, query in parts(f"target/{name}.sql", places):
        assert safeupdate.unsafe(re.sub(r"%\(\w+\)s", "'x'", query).replace("%%", "%")) == [], title


def test_nor_by_what_the_doctor_tries_as_a_stranger() -> None:
    assert safeupdate.unsafe(render("target/doctor_tries.sql", {"tries": "'[]'"})) == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("update t set a = 1", True),
        ("update t set a = 1 where true", False),
        ("with d as (delete from t returning *) select * from d", True),
        ("insert into t values (1) on conflict (a) do update set a = 2", False),
        ("do $$ begin if true then delete from t; end if; end $$", True),
        ("do $$ begin execute format('update %I set a = %L', 'x', 1); end $$", True),
        (
            "do $$ begin execute 'delete from t' || ' where ' || 'a'; end $$",
            True,
        ),  # a string of its own is judged alone
        ("do $$ declare _q text := 'delete from t where b'; begin execute _q; end $$", False),
        ("create function f() returns void language sql as $$ update t set a = 1 $$", True),
        ("create function f() returns int language plpgsql as $$ begin return (select 1); end $$", False),
    ],
)
def test_the_parser_finds_what_safeupdate_refuses(statement: str, found: bool) -> None:
    assert bool(safeupdate.unsafe(statement)) is found


# What Studio's SQL editor warns of, in words of our own: it looks at the text, comments left out, also into bodies.
VERB = r"(drop|delete|truncate)\b"
DESTRUCTIVE = {
    "a statement that drops or deletes": rf"(\A|;)\s*{VERB}",
    "alter table ... drop column": r"(\A|;)\s*alter\s+table\b.*\bdrop\s+column\b",
    "a string that is executed": rf"\bexecute\s[^;]*['\"]\s*({VERB}|alter\s+table[^;]*\bdrop\s+column\b)",
    "a dollar-quoted string that is executed": rf"\bexecute\s+\$\w*\$\s*{VERB}",
    "concat that is executed": rf"\bexecute\s+concat\w*\s*\([^)]*\b{VERB}",
}


def warnings(sql: str) -> list[str]:
    sql = re.sub(r"/\*.*?\*/", "", re.sub(r"--.*$", "", sql, flags=re.MULTILINE), flags=re.DOTALL)
    said = [why for why, pattern in DESTRUCTIVE.items() if re.search(pattern, sql, re.IGNORECASE | re.DOTALL)]
    updates = (s.strip() for s in sql.split(";") if re.match(r"\s*update\s+\S+\s+set\s", s, re.IGNORECASE))
    said += [f"update without where: {u}" for u in updates if not re.search(r"\bwhere\s", u, re.IGNORECASE)]
    made = set(re.findall(r"create\s+table\s+(?:if\s+not\s+exists\s+)?([\w.]+)", sql, re.IGNORECASE))
    secured = set(re.findall(r"alter\s+table\s+([\w.]+)\s+enable\s+row\s+level\s+security", sql, re.IGNORECASE))
    return said + [f"{table} is made without row level security" for table in sorted(made - secured)]


@pytest.mark.parametrize("mapping", list(MAPPINGS))
@pytest.mark.parametrize("types", [UUIDS, TEXTS, BIGINTS], ids=["uuid", "text", "bigint"])
def test_the_sql_editor_warns_of_nothing(types: dict[str, str], mapping: str) -> None:
    assert warnings(script(types, mapping)) == []


def test_nor_of_the_recipes() -> None:
    for recipe in RECIPES.glob("*.sql"):
        assert warnings(recipe.read_text()) == [], recipe.name


def test_the_editors_warnings_are_known() -> None:
    for sql in (
        "select 1; drop table t",
        "do $$ begin execute format('drop policy %I', x); end $$",
        "alter table t drop column c",
        "update t set a = 1",
        "create table t (a int)",
    ):
        assert warnings(sql) != [], sql
    assert warnings("create table t (a int); alter table t enable row level security; update t set a = 1 where b") == []


@pytest.fixture
def project(target_url: str) -> str:
    put_in_place(as_role(target_url, "hosted_postgres"))
    return target_url


@pytest.mark.sql
async def test_the_daemon_works_through_the_api_of_a_hosted_project(project: str) -> None:
    url = as_role(project, "authenticator")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("set role service_role")
        writer = Writer(connection)
        await writer.claim()
        await writer.apply(scope("users", [user(UUID)]), position=position("1:1:"))
        await writer.apply()
        assert (await writer.status())["snapshot"] == "1:1:"
        await writer._call("mirror_adopt", {"install": "other"})


CARELESS = {
    "a": "language plpgsql security definer as $$ begin update public.users set email = 'x'; end $$",
    "b": "language plpgsql as $$ begin perform 1; delete from public.users; end $$",
    "c": "language plpgsql as $$ begin execute 'update public.users set email = null'; end $$",
    "d": "language plpgsql as $$ begin update public.users set email = 'x' where true; end $$",
    "e": "language sql as $$ delete from public.users $$",
    "f": "language plpgsql as $$ begin perform public.a(); end $$",
}


@pytest.mark.sql
def test_the_imitation_refuses_as_safeupdate_does(project: str) -> None:
    """But for `e`: of a statement in an SQL function it has no text. The parser above finds those."""
    refused: dict[str, Any] = {}
    with psycopg.connect(project, autocommit=True) as admin:
        admin.execute("grant all on public.users to service_role")
        for name, body in CARELESS.items():
            admin.execute(f"create function public.{name}() returns void {body}".encode())
    with psycopg.connect(as_role(project, "authenticator"), autocommit=True) as request:
        request.execute("set role service_role")
        for statement in ("update public.users set email = 'x'", *(f"select public.{name}()" for name in CARELESS)):
            try:
                request.execute(statement.encode())
            except psycopg.errors.CardinalityViolation as error:
                refused[statement[-3:-2] if statement.startswith("select") else "plain"] = error.diag.message_primary
    update, delete = "UPDATE requires a WHERE clause", "DELETE requires a WHERE clause"
    assert refused == {"plain": update, "a": update, "b": delete, "c": update, "f": update}
