"""A mapping that does not fit is refused: one sentence with the exact cure, exit code 2, never a traceback."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mirror.cli import main
from tests.bed.source_side import as_user

pytestmark = pytest.mark.sql

Connection = psycopg.Connection[Any]
Try = Callable[[str, str], str]


@pytest.fixture
def admin(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def refused(
    source_url: str,
    admin: Connection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Try:
    """Prepares the source, writes the mapping, tries to install it; what was said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIRROR_SOURCE_URL", source_url)

    def attempt(prepare: str, mapping: str) -> str:
        admin.execute(prepare)  # type: ignore[arg-type, unused-ignore]
        Path("mirror.toml").write_text(mapping, encoding="utf-8")
        for arguments in (["install", "source"], ["install", "source", "--print"]):
            assert main(arguments) == 2
            said = capsys.readouterr()
            assert said.out == ""
        assert admin.execute("select to_regnamespace('mirror')").fetchone() == (None,)
        assert "\n" not in said.err.strip()
        assert "Traceback" not in said.err
        return said.err.strip()

    return attempt


HANDLES = "create table handles (id uuid primary key, email text, username text, n int, meta json, at timestamptz);"
SECTION = "[users]\nfrom = 'handles'\n"
SLUG = "create function public.slug(text) returns text language sql {} return lower($1);"

CASES: dict[str, tuple[str, str, list[str]]] = {
    # what is wrong: (the source, the mapping, what the message says)
    "missing column": (
        "alter table users drop column username",
        "",
        [
            '[users] username: column "username" does not exist',
            'under [users]: username = "null"',
            '"public"."users" has: id, email, last_seen',
        ],
    ),
    "missing column in the filter": (
        "",
        "[trips]\nwhere = 'archived_at is null'",
        ['[trips] where: column "archived_at" does not exist', "has: id, name, created_by, deleted_at"],
    ),
    "missing table": (
        "",
        "[users]\nfrom = 'app.people'",
        ["the source has no table app.people for [users]", 'from = "schema.table"'],
    ),
    "mixed case without quotes": (
        'create table "People" (id uuid primary key)',
        "[users]\nfrom = 'People'",
        ["the source has no table People for [users]", "'public.\"Users\"'"],
    ),
    "no name of a table": ("", "[users]\nfrom = 'a.b.c.d'", ["[users] from = 'a.b.c.d' is not a table's name"]),
    "another database's table": (
        "",
        "[users]\nfrom = 'other.public.users'",
        ["is not a table's name", "cross-database"],
    ),
    "an empty name": ("", "[users]\nfrom = ''", ["[users]"]),
    "a view": (
        "create view people as select * from users",
        "[users]\nfrom = 'people'",
        ["[users] people is not a table, so it cannot have triggers", "Map the table behind it"],
    ),
    "a materialized view": (
        "create materialized view people as select * from users",
        "[users]\nfrom = 'people'",
        ["people is not a table"],
    ),
    "a key that is no id": (
        HANDLES,
        SECTION + "id = 'meta'",
        ["[users] id is of type json; ids are uuid, text, integer or bigint", 'under [users]: id = "(meta)::text"'],
    ),
    "a creator that is no id": (
        "alter table trips alter created_by type jsonb using null",
        "",
        ["[trips] created_by is of type jsonb", "under [trips]: created_by = '(\"created_by\")::text'"],
    ),
    "a key that may be null": (
        "alter table trip_memberships alter user_id drop not null",
        "",
        [
            "the key column user_id of [trip_memberships] may be null",
            'alter table "public"."trip_memberships" alter column "user_id" set not null;',
        ],
    ),
    "a key that is not unique": (
        "alter table trip_memberships drop constraint trip_memberships_trip_id_user_id_key",
        "",
        [
            "nothing makes the key of [trip_memberships] unique",
            'create unique index concurrently on "public"."trip_memberships" ("trip_id", "user_id");',
        ],
    ),
    "a key that is unique in part": (
        (
            "alter table trip_memberships drop constraint trip_memberships_trip_id_user_id_key;"
            "create unique index on trip_memberships (trip_id, user_id) where status = 'ACTIVE'"
        ),
        "[trip_memberships]\nwhere = \"role = 'x'\"",
        ["nothing makes the key of [trip_memberships] unique"],
    ),
    "a key that is unique with more columns": (
        (
            "alter table trip_memberships drop constraint trip_memberships_trip_id_user_id_key;"
            "create unique index on trip_memberships (trip_id, user_id, status)"
        ),
        "",
        ["nothing makes the key of [trip_memberships] unique"],
    ),
    "a key of no column": ("", "[users]\nid = \"'x'\"", ["nothing makes the key of [users] unique"]),
    "keys of other types": (
        "alter table trip_memberships alter user_id type text",
        "",
        [
            "trip_memberships.user_id is text, users.id is uuid",
            "under [trip_memberships]: user_id = '(\"user_id\")::uuid'",
        ],
    ),
    "more than one expression": (
        HANDLES,
        SECTION + "email = 'email, username'",
        ["[users] email must be one expression"],
    ),
    "an expression that ends early": (
        HANDLES,
        SECTION + "email = 'email) as a, (username'",
        ["[users] email must be one expression, not 'email) as a, (username'"],
    ),
    "no expression": (HANDLES, SECTION + "email = ''", ["[users] email must be an SQL expression in quotes"]),
    "an expression that does not parse": (HANDLES, SECTION + "email = 'lower('", ["[users] email: syntax error"]),
    "a comment that does not end": (
        HANDLES,
        SECTION + "email = 'email /*'",
        ["[users] email: unterminated /* comment"],
    ),
    "an expression that raises": (HANDLES, SECTION + "email = '(1 / 0)::text'", ["[users] email: division by zero"]),
    "a literal that raises": (
        HANDLES,
        SECTION + "where = \"id = 'x'\"",
        ["[users] where: invalid input syntax for type uuid"],
    ),
    "a filter that is no condition": (HANDLES, SECTION + "where = 'n'", ["[users] where is of type integer"]),
    "a function without its schema": (
        SLUG.format("immutable"),
        "[trips]\nname = 'slug(name)'",
        ["[trips] name: function slug(text) does not exist", "outside pg_catalog need their schema: public.f(x)"],
    ),
    "a function that may change its mind": (
        SLUG.format("stable"),
        "[trips]\nname = 'public.slug(name)'",
        ["[trips] name calls public.slug(text)", "IMMUTABLE"],
    ),
    "a clock": (
        HANDLES,
        SECTION + "where = 'at > now()'",
        ["[users] where calls now()", "no trigger sees that", "Keep what it says in a column"],
    ),
    "another clock": (HANDLES, SECTION + "where = 'at::date >= current_date'", ["[users] where calls", "current_date"]),
    "chance": (HANDLES, SECTION + "username = 'random()::text'", ["[users] username calls random()"]),
    "a setting": (
        HANDLES,
        SECTION + "where = \"current_setting('a.b', true) = email\"",
        ["calls current_setting(text,boolean)"],
    ),
    "other rows": (
        HANDLES,
        SECTION + "where = 'exists (select from public.trips where created_by = handles.id)'",
        ["[users] where reads other rows, and a change of those would go unnoticed"],
    ),
    "an aggregate": (HANDLES, SECTION + "email = 'max(email)'", ["[users] email is not an expression over one row"]),
    "a window": (
        HANDLES,
        SECTION + "email = 'row_number() over ()'",
        ["[users] email is not an expression over one row"],
    ),
    "a set": (
        HANDLES,
        SECTION + "email = 'generate_series(1, n)'",
        ["[users] email is not an expression over one row"],
    ),
    "a whole row": (HANDLES, SECTION + "email = 'handles::text'", ["[users] email reads the whole row"]),
    "a system column": (
        HANDLES,
        SECTION + "email = 'ctid::text'",
        ["[users] email reads the whole row, or a system column"],
    ),
    "our own quotes": (HANDLES, SECTION + 'email = "$mirror$"', ["[users] email may not contain $mirror$"]),
    "our own places": (HANDLES, SECTION + "email = \"'{{x}}'\"", ["[users] email may not contain"]),
    "our own quotes in a name": (
        'create table "a$mirror$b" (id uuid primary key)',
        "[users]\nfrom = '\"a$mirror$b\"'",
        ["the table's name may not contain $mirror$"],
    ),
    "one table twice": (
        HANDLES,
        "[users]\nfrom = 'handles'\n[trips]\nfrom = 'public.handles'\nname = 'email'\ncreated_by = 'id'",
        ['[users] and [trips] both come from "public"."handles"', "a table of its own"],
    ),
    "a section that is none": ("", "[user]\nid = 'x'", ["[user] is not a section", "Did you mean users?"]),
    "a column that is none": ("", "[users]\nmail = 'x'", ["[users] mail is not known", "Did you mean email?"]),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_with_the_cure(refused: Try, case: str) -> None:
    prepare, mapping, expected = CASES[case]
    said = refused(prepare, mapping)
    for part in expected:
        assert part in said


def test_a_right_that_is_missing_is_no_mistake_of_the_mapping(
    admin: Connection,
    source_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIRROR_SOURCE_URL", source_url)
    admin.execute("revoke all on users from current_user")
    admin.execute("create role reader login")
    try:
        monkeypatch.setenv("MIRROR_SOURCE_URL", as_user(source_url, "reader"))
        assert main(["install", "source"]) == 1
        assert "permission denied" in capsys.readouterr().err
    finally:
        admin.execute("drop role reader")
