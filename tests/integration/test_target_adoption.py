"""Tables that are in Supabase already: adopted with everything they have where the mirror can live in them, else
refused with the reason and the cure; a foreign key that would destroy chat is refused until it is allowed by name."""

from pathlib import Path

import psycopg
import pytest

from mirror.cli import main
from mirror.errors import Incompatible
from mirror.mapping import AccessOptions, Mapping, TargetOptions
from tests.bed.target_side import (
    TEXTS,
    UUIDS,
    Connection,
    Writer,
    an_id,
    as_role,
    membership,
    put_in_place,
    scope,
    span,
    trip,
    user,
)
from tests.expected import describe

pytestmark = pytest.mark.sql

USERS = "create table public.users (id uuid primary key, subject text, email text, username text)"
TRIPS = "create table public.trips (id uuid primary key, name text, created_by uuid)"
MEMBERS = """create table public.trip_memberships (
  trip_id uuid not null, user_id uuid not null, role text, status text, primary key (trip_id, user_id))"""

# A project in use: longer types, enums, surrogate keys, foreign keys both ways, columns that only Supabase knows.
LIVED_IN = """
create type public.member_role as enum ('OWNER', 'MEMBER');
create type public.member_status as enum ('ACTIVE', 'INACTIVE');
create domain public.name as text check (length(value) < 100);
create table public.users (
  id uuid primary key, username varchar(40) unique, avatar_url text, karma integer not null default 0,
  shout text generated always as (upper(username)) stored, seen_at timestamptz default now());
create table public.trips (
  id uuid primary key, name public.name not null, created_by uuid references public.users on delete set null,
  cover text);
create table public.trip_memberships (
  id bigint generated always as identity primary key,
  user_id uuid not null, trip_id uuid not null references public.trips on delete cascade,
  role public.member_role, status public.member_status, muted boolean not null default false,
  unique (user_id, trip_id));
create table public.messages (
  id bigint generated always as identity primary key, body text, trip_id uuid references public.trips,
  author uuid references public.users on delete set null);
alter table public.users enable row level security;
create policy own on public.users for select to authenticated using (id = auth.uid());
insert into public.users (id, username, avatar_url) values
  ('00000000-0000-0000-0000-000000000001', 'ann', 'ann.png'), ('00000000-0000-0000-0000-000000000009', 'old', null);
insert into public.trips values
  ('00000000-0000-0000-0000-000000000001', 'Rome', '00000000-0000-0000-0000-000000000009', 'rome.png');
insert into public.trip_memberships (user_id, trip_id, role, status, muted) values
  ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001', 'MEMBER', 'INACTIVE', true);
insert into public.messages (body, trip_id, author) values
  ('hello', '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000009');
"""


async def test_a_project_in_use_is_adopted_and_keeps_what_it_has(target_url: str, target: Connection) -> None:
    await target.execute(LIVED_IN)
    put_in_place(target_url)
    writer = Writer(target)
    await writer.claim()
    users = [user(an_id(1), "ann"), user(an_id(2), "bob")]
    members = [membership(an_id(1), an_id(1)), membership(an_id(1), an_id(2), "OWNER")]
    reply = await writer.apply(
        span("users", users), span("trips", [trip(an_id(1), "Rome", an_id(1))]), span("trip_memberships", members)
    )
    assert reply["counts"] == {
        "users": {"delete": 1, "upsert": 2}, "trips": {"upsert": 1}, "trip_memberships": {"upsert": 2},
    }  # fmt: skip
    assert reply["parked"] == {}
    assert await writer.rows("select username, avatar_url, karma, shout from public.users order by id") == [
        ("ann", "ann.png", 0, "ANN"), ("bob", None, 0, "BOB"),
    ]  # fmt: skip
    assert await writer.rows("select name, created_by::text, cover from public.trips") == [
        ("Rome", an_id(1), "rome.png")
    ]
    asked = "select role::text, status::text, muted from public.trip_memberships order by user_id"
    assert await writer.rows(asked) == [("MEMBER", "ACTIVE", True), ("OWNER", "ACTIVE", False)]
    assert await writer.rows("select body, author from public.messages") == [("hello", None)]
    assert await writer.rows(
        "select policyname from pg_policies where tablename = 'users' and policyname not like 'mirror: %%'"
    ) == [("own",)]
    versions = (
        "select ctid, xmin::text from public.users union all select ctid, xmin::text from public.trip_memberships"
    )
    before = await writer.rows(versions)
    again = await writer.apply(span("users", users), span("trip_memberships", members))
    assert again["counts"] == {}
    assert await writer.rows(versions) == before
    assert put_in_place(target_url) == ["target: everything is in place already."]


async def test_citext_is_compared_by_its_bytes(target_url: str, target: Connection) -> None:
    """Else a change of case would never arrive."""
    available = await target.execute("select from pg_available_extensions where name = 'citext'")
    if await available.fetchone() is None:
        pytest.skip("this server does not carry citext")
    await target.execute("create extension citext schema extensions")
    await target.execute(USERS.replace("email text", "email extensions.citext"))
    put_in_place(target_url)
    writer = Writer(target)
    await writer.claim()
    await writer.apply(scope("users", [user(an_id(1), email="ann@x")]))
    assert (await writer.apply(scope("users", [user(an_id(1), email="Ann@x")])))["counts"] == {"users": {"upsert": 1}}
    assert await writer.one("select email::text from public.users") == "Ann@x"


async def test_padded_and_short_columns_are_equal_when_they_are(target_url: str, target: Connection) -> None:
    await target.execute(USERS.replace("username text", "username char(10)"))
    put_in_place(target_url)
    writer = Writer(target)
    await writer.claim()
    assert (await writer.apply(scope("users", [user(an_id(1), "ann")])))["counts"] == {"users": {"upsert": 1}}
    assert (await writer.apply(scope("users", [user(an_id(1), "ann")])))["counts"] == {}


@pytest.mark.parametrize("kind", ["bigint generated always as identity", "bigint generated by default as identity"])
async def test_ids_that_the_table_would_generate_are_the_sources(
    target_url: str, target: Connection, kind: str
) -> None:
    await target.execute(f"create table public.users (id {kind} primary key)")
    put_in_place(target_url, dict.fromkeys(UUIDS, "bigint"))
    writer = Writer(target)
    await writer.claim()
    await writer.apply(scope("users", [user(17)]))
    assert await writer.rows("select id from public.users") == [(17,)]


async def test_varchar_keys_hold_the_sources_text(target_url: str, target: Connection) -> None:
    await target.execute(
        "create table public.trip_memberships (trip_id varchar(36) not null, user_id varchar(36) not null, "
        "unique (trip_id, user_id))"
    )
    put_in_place(target_url, TEXTS)
    writer = Writer(target)
    await writer.claim()
    await writer.apply(scope("trip_memberships", [membership("a", "b"), membership("a", "c"), membership("b", "b")]))
    await writer.apply(scope("trip_memberships", [membership("a", "b")], trips=["a"]))
    await writer.apply(span("trip_memberships", after=["a", "z"]))
    assert await writer.rows("select trip_id, user_id from public.trip_memberships") == [("a", "b")]


async def test_a_partitioned_table_is_adopted(target_url: str, target: Connection) -> None:
    await target.execute(MEMBERS + " partition by hash (trip_id)")
    for i in (0, 1):
        await target.execute(
            f"create table public.part_{i} partition of public.trip_memberships "
            f"for values with (modulus 2, remainder {i})"
        )
    put_in_place(target_url)
    writer = Writer(target)
    await writer.claim()
    await writer.apply(scope("trip_memberships", [membership(an_id(t), an_id(1)) for t in range(5)]))
    await writer.apply(span("trip_memberships", after=[an_id(1), an_id(1)], upto=[an_id(3), an_id(1)]))
    assert await writer.one("select count(*) from public.trip_memberships") == 3


# What is there already, what is wrong with it, and the cure.
UNFIT = {
    "a view": (
        "create view public.users as select 1 as id",
        "users cannot be adopted: it is not a table",
        "Rename it, or move it to another schema.",
    ),
    "no key": (
        MEMBERS.replace("trip_id", "trip"),
        "trip_memberships cannot be adopted: it has no column trip_id",
        "Rename its key column to trip_id.",
    ),
    "another key type": (
        USERS.replace("id uuid", "id bigint"),
        "users cannot be adopted: it has id of type bigint, the source has uuid",
        "alter table public.users alter column id type uuid using id::text::uuid;",
    ),
    "text for a key": (
        TRIPS.replace("id uuid", "id text"),
        "trips cannot be adopted: it has id of type text, the source has uuid",
        "alter table public.trips alter column id type uuid using id::text::uuid;",
    ),
    "another type": (
        TRIPS.replace("created_by uuid", "created_by varchar"),
        "trips cannot be adopted: it has created_by of type character varying, the source has uuid",
        "alter table public.trips alter column created_by type uuid using created_by::text::uuid;",
    ),
    "a number for a name": (
        TRIPS.replace("name text", "name integer"),
        "trips cannot be adopted: it has name of type integer, the source has text",
        "alter table public.trips alter column name type text using name::text;",
    ),
    "not unique": (
        MEMBERS.replace(", primary key (trip_id, user_id)", ""),
        "trip_memberships cannot be adopted: it has no unique key on (trip_id, user_id)",
        "alter table public.trip_memberships add unique (trip_id, user_id);",
    ),
    "unique in parts": (
        MEMBERS.replace(", primary key (trip_id, user_id)", "")
        + "; create unique index on public.trip_memberships (trip_id, user_id) where status = 'ACTIVE'",
        "trip_memberships cannot be adopted: it has no unique key on (trip_id, user_id)",
        "alter table public.trip_memberships add unique (trip_id, user_id);",
    ),
    "unique with more": (
        MEMBERS.replace("(trip_id, user_id)", "(trip_id, user_id, role)"),
        "trip_memberships cannot be adopted: it has no unique key on (trip_id, user_id)",
        "alter table public.trip_memberships add unique (trip_id, user_id);",
    ),
    "null keys": (
        MEMBERS.replace("trip_id uuid not null", "trip_id uuid").replace("primary key", "unique"),
        "trip_memberships cannot be adopted: it allows trip_id to be null",
        "alter table public.trip_memberships alter column trip_id set not null;",
    ),
    "another column that must not be null": (
        USERS.replace("email text", "email text, phone text not null"),
        "users cannot be adopted: it has a column phone that the mirror does not know and that must not be null",
        'Give it a default, or: alter table public.users alter column "phone" drop not null;',
    ),
    "generated": (
        USERS.replace("username text", "username text generated always as (email) stored"),
        "users cannot be adopted: it generates username itself, which the mirror has to write",
        "alter table public.users alter column username drop expression;",
    ),
    "another owner": (
        USERS + "; alter table public.users owner to supabase_admin",
        "users cannot be adopted: it belongs to supabase_admin",
        "alter table public.users owner to hosted_postgres;",
    ),
    "hidden rows": (
        USERS + "; alter table public.users force row level security; grant create on schema public to plain; "
        "alter table public.users owner to plain",
        "users cannot be adopted: it hides rows from its owner (force row level security)",
        "alter table public.users no force row level security;",
    ),
}
ROLES = {"hidden rows": "plain", "another owner": "hosted_postgres"}  # who installs; postgres when nothing is said


@pytest.fixture
def environment(source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What somebody who calls `mirror` has set; the mapping file, which is not there yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIRROR_SOURCE_URL", source_url)
    monkeypatch.setenv("MIRROR_TARGET_URL", target_url)
    return tmp_path / "mirror.toml"


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("case", UNFIT)
def test_a_table_that_does_not_fit_is_refused_with_the_reason_and_the_cure(
    case: str, target_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there, reason, cure = UNFIT[case]
    if case in ROLES:
        monkeypatch.setenv("MIRROR_TARGET_URL", as_role(target_url, ROLES[case]))
    with psycopg.connect(target_url, autocommit=True) as connection:
        plain_role(connection)
        connection.execute(there)
        before = describe(connection)
        assert main(["install", "target"]) == 2
        assert capsys.readouterr().err == f"mirror: target: the existing table public.{reason}. {cure}\n"
        assert describe(connection) == before


def plain_role(connection: psycopg.Connection) -> None:
    """Somebody without any attribute, who may create schemas here. Roles belong to the whole server."""
    connection.execute(
        "do $$ begin create role plain login; exception when duplicate_object then null; end $$; "
        "do $$ begin execute format('grant create on database %I to plain', current_database()); end $$"
    )


@pytest.mark.parametrize("case", [case for case, (_, _, cure) in UNFIT.items() if "alter table" in cure])
def test_the_cure_that_is_named_is_one(case: str, target_url: str) -> None:
    there, _, cure = UNFIT[case]
    with psycopg.connect(target_url, autocommit=True) as connection:
        plain_role(connection)
        connection.execute(there)
        if case == "another key type":
            connection.execute("alter table public.users alter column id type uuid using gen_random_uuid()")
        else:
            connection.execute(cure[cure.index("alter table") :])
    # Who has no right at all in schema realtime leaves the channels to somebody else.
    put_in_place(as_role(target_url, ROLES.get(case, "postgres")), mapping=Mapping(access=AccessOptions(topics=())))


def test_every_kind_of_unique_key_will_do(target_url: str) -> None:
    with psycopg.connect(target_url, autocommit=True) as connection:
        connection.execute(MEMBERS.replace(", primary key (trip_id, user_id)", ""))
        connection.execute("create unique index on public.trip_memberships (user_id, trip_id) include (status)")
        put_in_place(target_url)
        ordered = "select count(*) from pg_indexes where indexdef like '%(trip_id, user_id)'"
        assert connection.execute(ordered).fetchone() == (1,), "ranges are in this order"


CHAT = """create table public."Chat" (id bigint generated always as identity, body text,
  trip uuid references public.trips{action}, primary key (id))"""


def allow(mapping: Path, table: str) -> None:
    mapping.write_text(f"[target]\nallow_cascade = ['{table}']\n")


async def test_chat_that_a_delete_would_destroy_is_in_the_way_until_it_is_allowed(
    target_url: str, target: Connection, environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in_place(target_url)
    writer = Writer(target)
    await writer.claim()
    await writer.apply(scope("trips", [trip(an_id(1))]))
    await target.execute(CHAT.format(action=" on delete cascade"))
    await target.execute("insert into public.\"Chat\" (body, trip) values ('hello', %s)", [an_id(1)])
    said = (
        'the foreign key Chat_trip_fkey of public."Chat" would delete its rows together with mirrored public.trips; '
        "replace ON DELETE CASCADE, or run mirror install target with this in mirror.toml, under [target]: "
        'allow_cascade = ["public.\\"Chat\\""]'
    )
    with pytest.raises(psycopg.Error) as raised:
        await writer.claim()
    assert raised.value.sqlstate == "PT428"
    assert raised.value.diag.message_primary == "a foreign key would take rows of others along"
    assert raised.value.diag.message_detail == said
    assert main(["install", "target"]) == 2
    assert f"mirror: target: {said}\n" in capsys.readouterr().err
    allow(environment, 'public."Chat"')
    assert main(["install", "target"]) == 0
    assert (await writer.claim())["epoch"] == 2
    await writer.apply(scope("trips", gone=[{"id": an_id(1)}]))
    assert await writer.one('select count(*) from public."Chat"') == 0
    allow(environment, "public.other")
    assert main(["install", "target"]) == 2


@pytest.mark.parametrize("action", ["", " on delete set null", " on delete restrict", " on update cascade"])
async def test_other_foreign_keys_of_chat_are_no_obstacle(target_url: str, target: Connection, action: str) -> None:
    put_in_place(target_url)
    await target.execute(CHAT.format(action=action))
    assert put_in_place(target_url) == ["target: everything is in place already."]
    assert (await Writer(target).claim())["epoch"] == 1


async def test_a_partitioned_chat_is_named_once(target_url: str, target: Connection) -> None:
    put_in_place(target_url)
    await target.execute(CHAT.format(action=" on delete cascade") + " partition by hash (id)")
    await target.execute('create table public.part partition of public."Chat" for values with (modulus 1, remainder 0)')
    with pytest.raises(Incompatible) as raised:
        put_in_place(target_url)
    assert str(raised.value).count("foreign key") == 1
    put_in_place(target_url, mapping=Mapping(target=TargetOptions(allow_cascade=('public."Chat"',))))


async def test_every_obstacle_is_named(target_url: str, target: Connection) -> None:
    put_in_place(target_url)
    for i, table in enumerate(("users", "trips")):
        await target.execute(f"create table public.chat_{i} (of uuid references public.{table} on delete cascade)")
    with pytest.raises(Incompatible) as raised:
        put_in_place(target_url)
    assert [name for name in ("public.chat_0", "public.chat_1") if name in str(raised.value)] == [
        "public.chat_0", "public.chat_1",
    ]  # fmt: skip
