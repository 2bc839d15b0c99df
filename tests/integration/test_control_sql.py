"""Control from any SQL prompt: what Neon's SQL editor does, with the rights of Neon's owner role (no superuser)."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.bed import pgbouncer
from tests.bed.daemons import install, leading, running, value
from tests.bed.eventually import eventually
from tests.bed.source_side import role
from tests.bed.target_side import an_id, as_role

Connection = psycopg.AsyncConnection[Any]


@pytest.fixture
def owner_url(source_url: str) -> Iterator[str]:
    """As Neon makes it: may create roles and databases, owns its database and everything of the application's."""
    with psycopg.connect(source_url, autocommit=True) as admin:
        admin.execute("do $$ begin create role mirror_daemon; exception when duplicate_object then null; end $$")
        with role(source_url, "neondb_owner", "login createrole createdb") as url:
            database = sql.Identifier(admin.info.dbname)
            admin.execute(sql.SQL("alter database {} owner to neondb_owner").format(database))
            for table in ("users", "trips", "trip_memberships"):
                admin.execute(f"alter table public.{table} owner to neondb_owner")
            yield url
            admin.execute(sql.SQL("alter database {} owner to current_user").format(database))


async def spoilt(target: Connection) -> int:
    return int(await value(target, "select count(*) from public.users where username = 'forged'"))


@pytest.mark.sql
async def test_a_resync_is_asked_for_and_watched_from_sql(
    owner_url: str, target_url: str, source: Connection, target: Connection
) -> None:
    install(owner_url, target_url)
    await source.execute(f"insert into public.users (id, username) values ('{an_id(1)}', 'ana')")
    async with (
        await psycopg.AsyncConnection.connect(owner_url, autocommit=True) as editor,
        running(owner_url, target_url) as daemon,
    ):
        await leading(daemon)
        await target.execute("update public.users set username = 'forged'")
        number = await value(editor, "select mirror.resync('users')")
        await eventually(lambda: value(editor, "select done_at is not null from mirror.resyncs where id = %s", number))
        row = await (await editor.execute("select * from mirror.resyncs")).fetchone()
        assert row is not None
        assert row[:6] == (number, "done", "users", False, False, "neondb_owner")
        assert row[-1]["tables"]["users"]["changed"] == 1
        assert await spoilt(target) == 0
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="there is no mirrored table nonsense"):
            await editor.execute("select mirror.resync('nonsense')")
    async with await psycopg.AsyncConnection.connect(owner_url, autocommit=True) as editor:
        waiting = await value(editor, "select mirror.resync(trip => 'x')")
        assert await value(editor, "select state from mirror.resyncs where id = %s", waiting) == "waiting"
        assert await value(editor, "select mirror.cancel_resync(%s)", waiting)
        assert await value(editor, "select state from mirror.resyncs where id = %s", waiting) == "cancelled"


@pytest.mark.skipif(pgbouncer.PROGRAM is None, reason="pgbouncer is not installed")
async def test_also_through_a_pooler(owner_url: str, source_url: str, target_url: str, target: Connection) -> None:
    """A prompt may go through one; only the daemon may not."""
    install(owner_url, target_url)
    async with running(owner_url, target_url) as daemon, pgbouncer.pooled(as_role(source_url, "neondb_owner")) as url:
        await leading(daemon)
        await target.execute(f"insert into public.users (id, username) values ('{an_id(1)}', 'forged')")
        async with await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=None) as editor:
            number = await value(editor, "select mirror.resync()")
            done = "select done_at is not null from mirror.resyncs where id = %s"
            await eventually(lambda: value(editor, done, number))
        assert await spoilt(target) == 0
