"""`mirror doctor source`: each check in a primary in which it fires, and none of them in a healthy one."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from mirror.demo.servers import Server, temporary_directory
from mirror.doctor import catalog, source
from mirror.mapping import Mapping
from mirror.source import doorbell
from tests.bed import pgbouncer
from tests.bed.backends import SETTINGS
from tests.bed.findings import NOWHERE, examined_source, examined_target, fired, silent, wrong
from tests.bed.source_side import SOFT, install, role

Connection = psycopg.Connection


@pytest.fixture
def installed(source_url: str) -> str:
    install(source_url, SOFT)
    return source_url


@pytest.fixture
def admin(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as connection:
        yield connection


@pytest.mark.sql
def test_a_healthy_primary_has_nothing(installed: str) -> None:
    """Asked with the rights of the daemon's role, which suffice for every check."""
    with role(installed, "doctor_daemon", "login in role mirror_daemon") as url:
        findings = examined_source(url, SOFT)
    silent(findings)
    assert {"doorbell", "clock", "mapping", "rights", "triggers", "functions", "outbox"} <= {f.check for f in findings}


def test_what_is_known_of_the_usual_one(source_url: str) -> None:
    """A superuser's URL, and a soft delete that the mapping does not know."""
    install(source_url)
    findings = examined_source(source_url)
    silent(findings, "excess rights", "soft deletes")
    fired(wrong(findings), "soft deletes", "public.trips has a column deleted_at")
    fired(wrong(findings), "soft deletes", 'where = "deleted_at is null"')


def test_an_absent_install_is_said_and_the_rest_looked_at(source_url: str) -> None:
    findings = examined_source(source_url, SOFT)
    silent(findings, "excess rights", "installed")
    fired(wrong(findings), "installed", "error: the mirror is not installed here -> Run `mirror install source`.")


def test_an_older_install_is_said_and_the_rest_looked_at(installed: str, admin: Connection) -> None:
    admin.execute("drop table mirror.request cascade; update mirror.install set version = version - 1")
    found = wrong(examined_source(installed, SOFT))
    fired(found, "installed", "error: its schema is version")
    fired(found, "outbox rights", "unknown: could not be asked: relation")
    fired(found, "outbox rights", "installed by another version")
    assert "outbox" not in found


def test_damage_after_the_install(installed: str, admin: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    name = sql.Identifier(admin.info.dbname)
    admin.execute("drop trigger mirror_update on public.trips; alter table public.users disable trigger mirror_insert")
    admin.execute("create table public.elsewhere (id uuid)")
    admin.execute(
        "create trigger stray after truncate on public.elsewhere execute function mirror.users_truncate();"
        "revoke execute on function mirror.token from public; alter table mirror.outbox_1 set unlogged;"
        "create publication everything for all tables; update mirror.install set unsettled = '{trips}';"
        "insert into mirror.outbox (tbl) values ('trips')"
    )
    admin.execute(sql.SQL("alter database {} set idle_session_timeout = '30s'").format(name))
    admin.execute(sql.SQL("alter database {} set neon.max_cluster_size = '5MB'").format(name))
    for limit in ("waits_seconds", "outbox_bytes", "queue_share"):
        monkeypatch.setitem(source.LIMITS, limit, "-1")
    found = wrong(examined_source(installed, SOFT))
    fired(found, "triggers", "error: no trigger mirror_update on trips")
    fired(found, "triggers", "error: trigger mirror_insert on users is not enabled always")
    fired(found, "triggers", "warning: public.elsewhere still has triggers and is not mapped any more")
    fired(found, "token rights", "warning: PUBLIC may not call mirror.token()")
    fired(found, "functions", "error: something in schema mirror is not as the mirror left it")
    fired(found, "outbox logged", "error: mirror.outbox_1 is unlogged")
    fired(found, "outbox", "s, and no daemon leads -> Start it: mirror run")
    fired(found, "outbox size", "warning: the outbox takes 0 MB")
    fired(found, "subscribers", "warning: publication everything is FOR ALL TABLES")
    fired(found, "install finished", "warning: an install was interrupted while it waited for writers of trips")
    fired(found, "doorbell kept", "warning: idle_session_timeout of 30s")
    fired(found, "disk", "% of the 5MB that it may have")
    fired(found, "notification queue", "warning: the queue of notifications is 0 % full")


def test_tables_that_triggers_do_not_see(source_url: str, admin: Connection) -> None:
    admin.execute(
        "create table public.people (like public.users) partition by list (id);"
        "create table public.tours (like public.trips) partition by list (id);"
        "create table public.tours_1 partition of public.tours default;"
        "create unlogged table public.riders (like public.trip_memberships);"
    )
    mapping = {"users": {"from": "people"}, "trips": {"from": "public.tours_1"}, "trip_memberships": {"from": "riders"}}
    found = wrong(examined_source(source_url, Mapping.model_validate(mapping)))
    fired(found, "tables", "warning: public.people has parts")
    fired(found, "tables", "error: public.tours_1 is a part of public.tours")
    fired(found, "tables", 'In mirror.toml, under [trips]: from = "public.tours"')
    fired(found, "tables", "warning: public.riders is unlogged")
    fired(found, "mapping", "error: ")
    gone = wrong(examined_source(source_url, Mapping.model_validate({"users": {"from": "public.nobody"}})))
    fired(gone, "tables", "there is no table for [users]")
    fired(gone, "mapping", "error: the source has no table public.nobody")


def test_another_mapping_than_the_one_installed(installed: str, admin: Connection) -> None:
    fired(wrong(examined_source(installed)), "installed", "error: its triggers were made from another mapping")
    admin.execute("update mirror.install set rendered = 'older'")
    fired(wrong(examined_source(installed, SOFT)), "installed", "warning: its functions are of another release")


def test_rights_too_small_and_row_security(installed: str, admin: Connection) -> None:
    with role(installed, "doctor_stranger") as url:
        found = wrong(examined_source(url, SOFT))
        fired(found, "rights", "error: doctor_stranger may not read")
        fired(found, "connection", "permission denied for table install")
    with role(installed, "doctor_half", "login in role mirror_daemon") as url:
        admin.execute(
            "revoke delete on mirror.outbox from mirror_daemon; alter table public.users enable row level security"
        )
        found = wrong(examined_source(url, SOFT))
    fired(found, "outbox rights", "error: doctor_half may not delete mirror.outbox")
    fired(found, "row security", "error: row level security of public.users applies to doctor_half")
    assert "excess rights" not in found


def test_rights_too_large(installed: str, admin: Connection) -> None:
    with role(installed, "doctor_owner", "login createrole in role mirror_daemon") as url:
        admin.execute("alter table public.trips owner to doctor_owner; grant insert on public.users to doctor_owner")
        found = wrong(examined_source(url, SOFT))
        admin.execute("alter table public.trips owner to current_user")
    (said,) = found["excess rights"]
    assert said.startswith("warning: doctor_owner can do more than a mirror needs: it may change public.users, ")
    assert "may create roles, owns public.trips" in said


def test_long_transactions_name_the_pid(installed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(source.LIMITS, "long_seconds", "-1")
    monkeypatch.setitem(source.LIMITS, "long_transactions", "-1")
    with psycopg.connect(installed) as busy, role(installed, "doctor_blind", "login in role mirror_daemon") as url:
        busy.execute("select pg_current_xact_id()")
        fired(wrong(examined_source(installed, SOFT)), "long transactions", f"pid {busy.info.backend_pid} (postgres, ")
        seen = wrong(examined_source(url, SOFT))  # may not see what others do, but their locks
        fired(seen, "long transactions", f"pid {busy.info.backend_pid} holds a transaction open since")
        fired(seen, "long transactions", f"select pg_terminate_backend({busy.info.backend_pid});")


def test_read_only_and_without_the_right_to_look(installed: str, admin: Connection) -> None:
    admin.execute(
        sql.SQL("alter database {} set default_transaction_read_only = on").format(sql.Identifier(admin.info.dbname))
    )
    found = wrong(examined_source(installed, SOFT))
    fired(found, "writable", "error: this database is read only")
    fired(found, "mapping", "unknown: could not be looked at")


def test_a_server_with_prepared_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(source.LIMITS, "long_seconds", "-1")
    with temporary_directory("mirror-doctor-") as directory, ExitStack() as stack:
        settings = SETTINGS | {"max_prepared_transactions": "2"}
        server = stack.enter_context(Server.start(16, Path(directory), settings=settings))
        connection = stack.enter_context(psycopg.connect(server.url(), autocommit=True))
        connection.execute("begin; create table t (); prepare transaction 'forgotten'")
        found = wrong(examined_source(server.url()))
        connection.execute("rollback prepared 'forgotten'")
    fired(found, "doorbell allowed", "warning: max_prepared_transactions is 2, so nobody rings")
    fired(found, "long transactions", "warning: the prepared transaction forgotten is open for")


@pytest.mark.skipif(pgbouncer.PROGRAM is None, reason="pgbouncer is not installed")
async def test_a_real_pooler_is_found_by_a_round_trip(source_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "PROOF_TIMEOUT_S", 0.5)
    async with pgbouncer.pooled(source_url) as url:
        findings = await asyncio.to_thread(examined_source, url)
    silent(findings, "connection")
    fired(wrong(findings), "connection", "error: a NOTIFY on this connection does not arrive")
    fired(wrong(findings), "connection", "direct host")


def test_a_pooled_host_is_known_by_its_name() -> None:
    findings = examined_source("postgresql://u:hunter2@ep-x-pooler.eu.aws.neon.tech/db")
    silent(findings, "connection")
    fired(wrong(findings), "connection", "error: MIRROR_SOURCE_URL names the pooled host")


def test_unreachable_or_not_set() -> None:
    fired(wrong(examined_source(NOWHERE)), "connection", "unknown: source: connection to server")
    fired(wrong(examined_source("")), "connection", "error: MIRROR_SOURCE_URL is not set")


def test_versions_that_nobody_has_tried(source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalog.TESTED, "newest", "14")
    fired(wrong(examined_source(source_url)), "version", "is tested on PostgreSQL 15 to 14.")
    fired(wrong(examined_target(target_url)), "version", "warning: PostgreSQL ")
    monkeypatch.setitem(catalog.TESTED, "oldest", "99")
    fired(wrong(examined_target(target_url)), "version", "error: PostgreSQL ")
