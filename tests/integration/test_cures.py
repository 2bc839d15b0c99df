"""What a cure says is true: each one that is printed is applied here as it stands, and then we look who is in."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mirror.cli import main
from mirror.mapping import load_mapping
from tests.bed.findings import examined_source
from tests.bed.source_side import read_slice

pytestmark = pytest.mark.sql

Connection = psycopg.Connection[Any]
PROPOSED = re.compile(r"in mirror\.toml, under \[(\w+)\]: (\w+ = .*)", re.IGNORECASE)
INDEX = re.compile(r"create unique index .*;")
# Two users, two trips, and who is in them: 1 in 1, 1 in 2, 2 in 1.
ROWS = """
insert into users (id) select lpad(n::text, 32, '0')::uuid from generate_series(1, 2) as n;
insert into trips (id, name) select lpad(n::text, 32, '0')::uuid, n from generate_series(1, 2) as n;
insert into trip_memberships (trip_id, user_id)
  select t.id, u.id from trips as t, users as u where (t.name, right(u.id::text, 1)) <> ('2', '2');
"""
ALL = {"11", "12", "21"}
# By the name of the trouble: what is there, mirror.toml, and who is to be in: user and trip.
CASES: dict[str, tuple[str, str, set[str]]] = {
    "no status": ("alter table trip_memberships drop column status", "", ALL),
    "no status, and other words count": (
        "alter table trip_memberships drop column status",
        '[access]\nactive = ["o\'k"]',
        ALL,
    ),
    "no role": ("alter table trip_memberships drop column role", "", ALL),
    "nothing but keys": (
        (
            "alter table users drop column email, drop column username; alter table trips drop column created_by;"
            "alter table trips rename name to title"
        ),
        "[trips]\nname = 'title'",
        ALL,
    ),
    "names with capital letters": (
        (
            'alter table trip_memberships rename trip_id to "tripId";'
            'alter table trip_memberships rename user_id to "userId"'
        ),
        "",
        ALL,
    ),
    "capital letters without quotes": (
        'alter table trips add column "deletedAt" timestamptz; update trips set "deletedAt" = now() where name = \'2\'',
        "[trips]\nwhere = \"deletedAt is null and name <> 'deletedAt'\"",
        {"11", "21"},
    ),
    "an id of another type": ("alter table trip_memberships alter user_id type text", "", ALL),
    "an id of another type, named with capital letters": (
        'alter table trip_memberships alter user_id type text; alter table trip_memberships rename user_id to "userId"',
        "",
        ALL,
    ),
    "ids that are numeric": (
        (
            "alter table trip_memberships drop constraint if exists trip_memberships_trip_id_fkey;"
            "alter table trips alter id type numeric using right(id::text, 1)::numeric;"
            "alter table trip_memberships alter trip_id type numeric using right(trip_id::text, 1)::numeric"
        ),
        "",
        ALL,
    ),
    "no unique key": ("alter table trip_memberships drop constraint trip_memberships_trip_id_user_id_key", "", ALL),
    "no unique key of a partitioned table": (
        (
            "alter table trip_memberships rename to flat;"
            "create table trip_memberships (like flat) partition by hash (trip_id);"
            "create table part partition of trip_memberships for values with (modulus 1, remainder 0);"
            "insert into trip_memberships select * from flat"
        ),
        "",
        ALL,
    ),
    "a partial unique key only": (
        (
            "alter table trip_memberships drop constraint trip_memberships_trip_id_user_id_key, drop column id;"
            'alter table trip_memberships add "goneAt" date;'
            'create unique index on trip_memberships (trip_id, user_id) where "goneAt" is null;'
            "update trip_memberships set \"goneAt\" = now() where trip_id::text like '%2';"
            "insert into trip_memberships select * from trip_memberships where trip_id::text like '%2'"
        ),
        "",
        {"11", "21"},
    ),
    "a partial unique key only, beside a filter": (
        (
            "alter table trip_memberships drop constraint trip_memberships_trip_id_user_id_key, drop column id;"
            "alter table trip_memberships add gone date;"
            "create unique index on trip_memberships (trip_id, user_id) where gone is null;"
            "update trip_memberships set gone = now() where trip_id::text like '%2'"
        ),
        "[trip_memberships]\nwhere = \"user_id::text like '%1' or status = 'x'\"",
        {"11"},
    ),
}


@pytest.fixture
def admin(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as connection:
        connection.execute(ROWS)
        yield connection


@pytest.fixture
def config(source_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIRROR_SOURCE_URL", source_url)
    return tmp_path / "mirror.toml"


def put(config: Path, said: str) -> int:
    """Each proposal, as a person would paste it: a line under its section, in place of one that is there."""
    document = tomllib.loads(config.read_text(encoding="utf-8"))
    proposals = PROPOSED.findall(said)
    for section, line in proposals:
        document.setdefault(section, {}).update(tomllib.loads(line))
    config.write_text("".join(f"[{s}]\n" + "".join(_lines(keys)) for s, keys in document.items()), encoding="utf-8")
    return len(proposals)


def _lines(section: dict[str, Any]) -> Iterator[str]:
    for key, value in section.items():
        quoted = value if not isinstance(value, str) else "'''" + value + "'''"
        yield f"{key} = {quoted}\n"


def members(admin: Connection) -> set[str]:
    """The rows that are mirrored: the last digits of user and trip."""
    rows = read_slice(admin, "trip_memberships")
    return {row["user_id"][-1] + row["trip_id"][-1] for row in rows}


@pytest.mark.parametrize("case", CASES)
def test_the_cure_of_a_mapping(config: Path, admin: Connection, capsys: pytest.CaptureFixture[str], case: str) -> None:
    prepare, toml, expected = CASES[case]
    admin.execute(prepare)
    config.write_text(toml, encoding="utf-8")
    for _ in range(6):
        if main(["install", "source"]) == 0:
            break
        said = capsys.readouterr().err
        for index in INDEX.findall(said):
            admin.execute(index)
        assert put(config, said) or INDEX.search(said), said
    else:
        pytest.fail(config.read_text())
    assert members(admin) == expected
    if "status" in case:
        assert {row["status"] for row in read_slice(admin, "trip_memberships")} == set(
            load_mapping(config).access.active[:1]
        )


SOFT_DELETES: dict[str, tuple[str, str]] = {
    "a moment": ('"deletedAt" timestamptz', "now()"),
    "a flag": ("is_deleted boolean", "true"),
    "a flag that is false": ("is_deleted boolean not null default false", "true"),
    "a number": ("deleted integer default 0", "1"),
    "a reserved word": ('"left" boolean', "true"),
    "words": ("archived text", "'yes'"),
}


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("case", SOFT_DELETES)
def test_the_cure_of_a_soft_delete(config: Path, source_url: str, admin: Connection, case: str, filtered: bool) -> None:
    """It takes out who is deleted, lets the others in, and keeps the filter that is there."""
    column, gone = SOFT_DELETES[case]
    admin.execute(
        f"alter table trip_memberships add {column};"
        f"update trip_memberships set {re.sub(' .*', '', column)} = {gone} where trip_id::text like '%2'"
    )
    config.write_text("[trip_memberships]\nwhere = \"user_id::text like '%1' or false\"\n" if filtered else "")
    cures = [f.cure for f in examined_source(source_url, load_mapping(config)) if f.check == "soft deletes"]
    found = sum(put(config, cure) for cure in cures if "[trip_memberships]" in cure)
    assert found == (0 if case == "words" else 1)
    assert main(["install", "source"]) == 0
    deleted = set() if found else {"12"}
    assert members(admin) == ({"11"} if filtered else {"11", "21"}) | deleted


def test_the_cure_of_a_part_of_a_table(config: Path, source_url: str, admin: Connection) -> None:
    admin.execute(
        'create table "Members" (like trip_memberships) partition by hash (trip_id);'
        'create table part partition of "Members" for values with (modulus 1, remainder 0);'
        'insert into "Members" select * from trip_memberships;'
        'create unique index on "Members" (trip_id, user_id)'
    )
    config.write_text("[trip_memberships]\nfrom = 'part'\n")
    cures = [f.cure for f in examined_source(source_url, load_mapping(config)) if f.check == "tables"]
    assert sum(put(config, cure) for cure in cures) == 1
    assert main(["install", "source"]) == 0
    assert members(admin) == ALL
