"""`mirror doctor target`: each check in a project in which it fires, and none of them in a healthy one."""

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from mirror.config import load_settings
from mirror.doctor import pair, target
from mirror.doctor.finding import Finding, exit_code
from mirror.mapping import AccessOptions, Mapping
from tests.bed.eventually import eventually
from tests.bed.findings import NOWHERE, Found, examined_target, fired, silent, wrong
from tests.bed.source_side import role
from tests.bed.supabase_api import api
from tests.bed.target_side import (
    RESEAL,
    UUIDS,
    Writer,
    an_id,
    as_role,
    membership,
    position,
    put_in_place,
    scope,
    user,
)

Connection = psycopg.Connection[Any]
SOURCE = {"system": "7", "timeline": None, "database": "app", "install": "8c7d", "snapshot": "9:9:"}
TEXT_SUBJECTS = Mapping.model_validate({"users": {"subject": "clerk_id"}})
CHAT = """
create table public.messages (id bigint primary key, body text, trip_id uuid references public.trips,
                              author uuid references public.users on delete cascade);
alter table public.messages enable row level security;
grant select on public.messages to authenticated;
"""


@pytest.fixture
def installed(target_url: str) -> str:
    """As a customer can: hosted_postgres is no superuser."""
    put_in_place(as_role(target_url, "hosted_postgres"))
    return target_url


@pytest.fixture
def admin(target_url: str) -> Iterator[Connection]:
    with psycopg.connect(target_url, autocommit=True) as connection:
        yield connection


async def load(url: str, *users: dict[str, Any], **more: Any) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        writer = Writer(connection)
        await writer.claim(SOURCE)
        await writer.apply(scope("users", users), *more.get("scopes", ()), position=position("9:9:"))


@pytest.mark.sql
async def test_a_healthy_project_has_nothing(installed: str) -> None:
    members = scope("trip_memberships", [membership(an_id(1), an_id(1))])
    await load(installed, user(an_id(1), "ana"), scopes=[members])
    notes: dict[str, Any] = {"identity": SOURCE, "types": UUIDS}
    findings = await asyncio.to_thread(examined_target, as_role(installed, "hosted_postgres"), None, notes)
    silent([*findings, *pair.examine(notes)])
    assert {"security", "policy recursion", "channel policies", "cascades", "clock"} <= {f.check for f in findings}
    assert [f.check for f in pair.examine(notes)] == ["same source"]


def test_what_is_known_of_the_usual_one(installed: str) -> None:
    findings = examined_target(installed)
    silent(findings, "excess rights", "loaded")
    fired(wrong(findings), "excess rights", "warning: postgres is a superuser")
    fired(wrong(findings), "loaded", "warning: the first load is not complete")


def test_an_absent_install_is_said_and_the_rest_looked_at(target_url: str) -> None:
    findings = examined_target(as_role(target_url, "hosted_postgres"))
    silent(findings, "installed", "realtime policies")
    fired(wrong(findings), "installed", "error: the mirror is not installed here -> Run `mirror install target`.")
    fired(wrong(findings), "realtime policies", "lets anybody in: every private channel answers 403")


def test_an_older_install_is_said_and_the_rest_looked_at(installed: str, admin: Connection) -> None:
    admin.execute(
        "drop function public.mirror_insecurities(), mirror.insecurities(); update mirror.state set version = 0"
    )
    found = wrong(examined_target(installed))
    fired(found, "installed", "error: its schema is version 0, this mirror is")
    fired(found, "security", "unknown: could not be asked: function mirror.insecurities() does not exist")
    fired(found, "security", "installed by another version: run `mirror install target`")


def test_installed_from_another_mapping_or_changed_since(installed: str, admin: Connection) -> None:
    fired(
        wrong(examined_target(installed, TEXT_SUBJECTS)), "installed", "warning: its functions are of another release"
    )
    allowing = Mapping.model_validate({"target": {"allow_cascade": ["public.messages"]}})
    fired(wrong(examined_target(installed, allowing)), "installed", "warning: [target] allow_cascade")
    admin.execute("alter table public.users add column note text")
    fired(wrong(examined_target(installed)), "installed", "error: somebody has changed what the mirror made here")


@pytest.fixture
def sick(installed: str, admin: Connection) -> Found:
    """Many faults at once."""
    asyncio.run(load(installed, user(an_id(1), "ana", subject="user_2x")))
    admin.execute(CHAT)
    name = sql.Identifier(admin.info.dbname)
    admin.execute(sql.SQL("alter role authenticated in database {} set statement_timeout = '900ms'").format(name))
    admin.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(name))
    admin.execute(
        "create policy raising on realtime.messages for select to authenticated using (exists (select from "
        "  public.trip_memberships as m where m.user_id = auth.uid() and m.trip_id::text = realtime.topic()"
        "  and m.status = 'ACTIVE'));"
        "create policy each_row on realtime.messages for insert to authenticated with check ("
        "  public.is_topic_member(realtime.topic()));"
        "create policy once_in_it on public.messages for select to authenticated using (exists ("
        "  select from public.trip_memberships as m where m.trip_id = messages.trip_id and m.user_id = auth.uid()))"
    )
    admin.execute(
        "create policy round on public.trip_memberships for select to authenticated using (trip_id in ("
        "  select m.trip_id from public.trip_memberships as m where m.status = 'ACTIVE'))"
    )
    admin.execute("drop index public.trip_memberships_user_mirror; grant select on public.users to anon")
    admin.execute("alter publication supabase_realtime add table public.trips")
    admin.execute(
        f"insert into public.trip_memberships (trip_id, user_id, status) values ('{an_id(1)}', '{an_id(1)}', 'JOINED');"
        "insert into mirror.parked (tbl, k1, reason) values ('users', 'x', 'too long');"
        "alter table public.trip_memberships set unlogged;"
        """update mirror.state set braked = '{"trips": {"rows": 900, "would_delete": 800}}';"""
        f"{RESEAL}"
    )
    return wrong(examined_target(installed))


def test_damage_after_the_install(sick: Found) -> None:
    fired(sick, "writable", "error: this database is read only")
    fired(sick, "time limits", "warning: authenticated has a statement_timeout of 900ms")
    fired(sick, "tables", "error: public.trip_memberships is unlogged")
    fired(sick, "security", "error: public.trips is in the publication supabase_realtime")
    fired(sick, "security", "error: anon may select on public.users -> revoke SELECT on public.users from anon;")
    fired(sick, "cascades", "error: the foreign key messages_author_fkey of public.messages would delete")
    fired(sick, "references", "warning: messages_trip_id_fkey of public.messages keeps public.trips")
    fired(sick, "indexes", "warning: there is no index on public.trip_memberships (user_id, trip_id)")
    fired(sick, "statuses", "a status that counts as a member's; they say 'JOINED'")
    fired(sick, "parked", "warning: 1 rows of users are refused")
    fired(sick, "brake", "warning: a comparison of trips would delete 800 of 900 rows")


def test_policies_that_raise_recurse_or_let_too_many_in(sick: Found) -> None:
    fired(sick, "channel policies", "error: policy raising of realtime.messages calls auth.uid()")
    fired(sick, "channel policies", "warning: policy each_row of realtime.messages asks the mirror for each row")
    assert not any("mirror: " in line for line in sick["channel policies"]), "our own are in order"
    fired(sick, "policy errors", "warning: policy once_in_it of public.messages calls auth.uid()")
    fired(sick, "policy status", "warning: policy once_in_it of public.messages asks for a membership and not for its")
    assert not any("raising" in line for line in sick["policy status"])
    fired(sick, "policy indexes", "warning: policy raising of realtime.messages compares trip_id::text")
    fired(sick, "policy recursion", "error: every query of public.trip_memberships fails: infinite recursion")


def test_with_uuids_and_a_filter_the_same_policies_do_no_harm(installed: str, admin: Connection) -> None:
    admin.execute(CHAT)
    admin.execute(
        "create policy once_in_it on public.messages for select to authenticated using (exists ("
        "  select from public.trip_memberships as m where m.trip_id = messages.trip_id and m.user_id = auth.uid()))"
    )
    filtered = Mapping.model_validate({"trip_memberships": {"where": "status = 'ACTIVE'"}})
    found = wrong(examined_target(installed, filtered))
    assert not {"policy errors", "policy status", "policy recursion"} & set(found)


def test_where_realtime_is_missing_or_lets_nobody_send(installed: str, admin: Connection) -> None:
    admin.execute('drop policy "mirror: members send" on realtime.messages')
    fired(
        wrong(examined_target(installed)),
        "realtime policies",
        "warning: no policy of realtime.messages lets anybody send",
    )
    nobody = Mapping(access=AccessOptions(send=()))
    assert "realtime policies" not in wrong(examined_target(installed, nobody)), "nobody is meant to"
    admin.execute("drop schema realtime cascade")
    fired(wrong(examined_target(installed)), "realtime", "warning: there is no table realtime.messages")


def test_tables_that_are_gone_and_a_source_in_their_place(installed: str, admin: Connection) -> None:
    admin.execute("drop table public.trips cascade; create table mirror.outbox ()")
    found = wrong(examined_target(installed))
    fired(found, "tables", "error: public.trips is gone")
    fired(found, "own database", "error: the mirror is installed here as the source")


def test_a_role_that_may_not(installed: str) -> None:
    with role(installed, "doctor_reader", "login in role pg_read_all_data") as url:
        found = wrong(examined_target(url))
    fired(found, "rights", "error: doctor_reader may not call public.mirror_apply(jsonb)")


def test_what_the_two_sides_do_not_agree_on() -> None:
    notes = {"types": UUIDS, "target types": dict.fromkeys(UUIDS, "text"), "identity": SOURCE, "snapshot": "10:10:"}
    known = {name: value for name, value in SOURCE.items() if name != "snapshot"}
    found = wrong(pair.examine(notes | {"known": known}))
    fired(
        found, "key types", "error: its keys are created_by text, trip_id text, user_id text, those of the primary are"
    )
    fired(found, "same source", "error: the primary went back in time")
    fired(
        wrong(pair.examine(notes | {"known": known | {"install": "0"}})),
        "same source",
        "error: it mirrors another primary",
    )
    assert (
        wrong(
            pair.examine(notes | {"target types": UUIDS, "known": known | {"database": "renamed"}, "snapshot": "9:9:"})
        )
        == {}
    )
    assert list(pair.examine({})) == []


def test_unreachable_or_not_set() -> None:
    fired(wrong(examined_target(NOWHERE)), "connection", "unknown: target: connection to server")
    fired(wrong(examined_target("")), "settings", "error: MIRROR_TARGET_URL is not set")
    publishable = {"SUPABASE_URL": "https://abcdefgh.supabase.co", "SUPABASE_SECRET_KEY": "sb_publishable_hunter2"}
    fired(wrong(https(publishable)), "settings", "error: SUPABASE_SECRET_KEY must be a secret key")
    port = "postgresql://postgres.ref:hunter2@aws-0-eu.pooler.supabase.com:6543/postgres"
    fired(wrong(examined_target(port)), "connection", "error: MIRROR_TARGET_URL names Supabase's transaction pooler")


async def test_through_https(installed: str, admin: Connection) -> None:
    async with api(as_role(installed, "hosted_postgres")) as supabase:
        findings = await asyncio.to_thread(https, supabase.settings)
        silent(findings, "loaded", "strangers")
        assert exit_code(findings) == 0, wrong(findings)
        fired(wrong(findings), "strangers", "warning: not tried through HTTPS")
        fine = {f.check for f in findings if f.verdict == "ok"}
        assert {"key", "connection", "exposed schemas", "security", "writes", "reach"} <= fine
        admin.execute(
            "grant select on public.users to anon;insert into mirror.parked (tbl, k1, reason) values ('users', 'x', '')"
        )
        found = wrong(await asyncio.to_thread(https, supabase.settings))
        fired(found, "security", "error: anon may select on public.users")
        fired(found, "parked", "warning: 1 rows are refused")
        wrong_key = supabase.settings | {"SUPABASE_SECRET_KEY": "sb_secret_hunter2"}
        found = wrong(await asyncio.to_thread(https, wrong_key))
        fired(found, "connection", "error: target: ")
        assert "hunter2" not in str(found)
    fired(wrong(await asyncio.to_thread(https, supabase.settings)), "connection", "unknown: target: ")


async def test_what_the_daemon_writes_is_tried_through_https(installed: str, admin: Connection) -> None:
    """As the API's own role, and undone: a daemon that leads goes on leading."""
    before = admin.execute("select to_jsonb(s) from mirror.state as s").fetchone()
    async with api(as_role(installed, "hosted_postgres")) as supabase:
        assert "writes" not in wrong(await asyncio.to_thread(https, supabase.settings))
        assert admin.execute("select to_jsonb(s) from mirror.state as s").fetchone() == before
        admin.execute("create table public.chat (trip_id uuid references public.trips on delete cascade)")
        found = wrong(await asyncio.to_thread(https, supabase.settings))
        fired(found, "writes", "error: the API refuses what the daemon writes: target: a foreign key would take rows")
        admin.execute("drop table public.chat")
        admin.execute("create function public.no() returns trigger language plpgsql as $$ begin "
                      "raise insufficient_privilege; end $$")  # fmt: skip
        admin.execute("create trigger no before delete on public.trips for each statement execute function public.no()")
        found = wrong(await asyncio.to_thread(https, supabase.settings))
        fired(found, "writes", "error: the API refuses what the daemon writes: target: insufficient_privilege")
        admin.execute("drop function public.mirror_try(); notify pgrst, 'reload schema'")

        async def is_noticed() -> bool:
            return "older release" in str(wrong(await asyncio.to_thread(https, supabase.settings)))

        await eventually(is_noticed)


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        (None, ""), ("ready", ""), ("missing", "warning: private channels are closed: there is no realtime.messages"),
        ("closed", "error: private channels are closed: realtime.messages lacks policies"),
    ],
)  # fmt: skip
async def test_closed_channels_through_https(
    installed: str, admin: Connection, channels: str | None, said: str
) -> None:
    if channels:
        admin.execute("alter function public.mirror_status() rename to told")
        admin.execute(f"""create function public.mirror_status() returns jsonb language sql security definer as $$
                          select public.told() || '{{"channels": "{channels}"}}' $$""")
        admin.execute("alter function public.mirror_status() owner to hosted_postgres")
    async with api(as_role(installed, "hosted_postgres")) as supabase:
        found = wrong(await asyncio.to_thread(https, supabase.settings))
    if said:
        fired(found, "channels", said)
    else:
        assert "channels" not in found


async def test_through_https_with_the_wrong_schemas(installed: str, admin: Connection) -> None:
    admin.execute("create schema api")
    async with api(as_role(installed, "hosted_postgres"), schemas=("public", "mirror")) as supabase:
        found = wrong(await asyncio.to_thread(https, supabase.settings))
        fired(found, "exposed schemas", "error: schema mirror is served by the API")
    async with api(as_role(installed, "hosted_postgres"), schemas=("api",)) as supabase:
        found = wrong(await asyncio.to_thread(https, supabase.settings))
        fired(found, "connection", "Invalid schema: public -> Add public to the exposed schemas")


def https(environ: dict[str, str]) -> list[Finding]:
    return list(target.examine(load_settings(environ), Mapping(), {}))
