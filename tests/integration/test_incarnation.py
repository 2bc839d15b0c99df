"""The target knows which source it mirrors: any other one is refused, until a person has looked."""

import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from mirror.demo.servers import Server, temporary_directory
from tests.bed.backends import SETTINGS, Pair
from tests.bed.daemons import MIRRORED, asleep, becomes_equal, environ, equal, install, leading, process, rows, value
from tests.bed.eventually import eventually
from tests.bed.proofs import ASKED_ONLY, quiet, seed
from tests.bed.templates import prepare_source

Connection = psycopg.AsyncConnection[Any]
# A restored server uses numbers of transactions, too (autovacuum, the refused daemons): it must not catch up meanwhile.
A_DAY = "do $$ begin for _ in 1..1000 loop perform pg_current_xact_id(); commit; end loop; end $$"


async def kept(target: Connection) -> Any:
    """All that a daemon that is refused must leave as it is."""
    return await value(target, "select to_jsonb(s) from mirror.state as s"), await rows(target, MIRRORED)


async def loaded(source: Connection, source_url: str, target_url: str, users: int = 30) -> None:
    await seed(source, users)
    install(source_url, target_url)
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await asleep(source)


async def refused(source_url: str, target_url: str, target: Connection, says: str) -> None:
    before = await kept(target)
    async with process(environ(source_url, target_url)) as daemon:
        assert await daemon.ended() == 2
        assert says in daemon.output
        assert "mirror adopt" in daemon.output
        assert "Traceback" not in daemon.output
    assert await kept(target) == before


async def adopt(source_url: str, target_url: str, *arguments: str) -> tuple[int, str]:
    async with process(environ(source_url, target_url), "adopt", *arguments) as command:
        return await command.ended(20), command.output


async def test_another_source_is_refused_and_adopted_by_a_person(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await loaded(source, source_url, target_url)
    name = urlsplit(source_url).path.lstrip("/")
    await source.execute(f"alter database {name} set \"neon.timeline_id\" = 'another'")
    await source.execute("alter table users disable trigger user; delete from users where email = '~'")
    await refused(source_url, target_url, target, "the target mirrors another source")
    before = await kept(target)
    code, said = await adopt(source_url, target_url)
    assert (code, await kept(target)) == (1, before)
    assert said.startswith("the target mirrors {")
    assert "adopt --yes" in said
    code, said = await adopt(source_url, target_url, "--yes")
    assert (code, await rows(target, MIRRORED)) == (0, before[1])
    assert await value(target, "select primed_at is null and proof is null and fresh_at is null from mirror.state")
    install(source_url, target_url)  # the triggers, without which nothing is fresh
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await becomes_equal(source, target)
        assert await eventually(lambda: value(target, "select primed_at is not null from mirror.state"))
        code, said = await adopt(source_url, target_url, "--yes")
        assert (code, "a daemon leads. Stop it first." in said) == (1, True), said


async def test_the_url_of_another_project_is_refused(
    servers: Pair, source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """A copy made beside the original (by CREATE DATABASE ... TEMPLATE or from a dump) is another project as well."""
    await loaded(source, source_url, target_url)
    name = urlsplit(source_url).path.lstrip("/")
    await source.close()
    async with await psycopg.AsyncConnection.connect(servers.source.admin_url, autocommit=True) as admin:
        await admin.execute(f"create database {name}_copy template {name}")
        try:
            await refused(servers.source.url(f"{name}_copy"), target_url, target, "the target mirrors another source")
        finally:
            await admin.execute(f"drop database {name}_copy with (force)")


async def test_a_renamed_database_is_the_same_source(
    servers: Pair, source: Connection, source_url: str, target_url: str
) -> None:
    await loaded(source, source_url, target_url)
    name = urlsplit(source_url).path.lstrip("/")
    await source.close()
    async with await psycopg.AsyncConnection.connect(servers.source.admin_url, autocommit=True) as admin:
        await admin.execute(f"alter database {name} rename to {name}_new")
        try:
            async with quiet(servers.source.url(f"{name}_new"), target_url) as daemon:
                await leading(daemon)
        finally:
            await admin.execute(f"alter database {name}_new rename to {name}")


async def test_a_target_that_was_restored_is_not_called_fresh_before_it_is_compared(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """What it lacks is forgotten in the source. A trigger sees each position that is claimed, and if it is true."""
    await loaded(source, source_url, target_url)
    await target.execute("create temp table backup as select * from mirror.state")
    late = "00000000-0000-0000-0000-00000000001a"
    async with quiet(source_url, target_url) as daemon:
        await leading(daemon)
        await source.execute("insert into users (id) values (%s)", [late])
        await becomes_equal(source, target)
        await asleep(source)
    assert await value(source, "select count(*) from mirror.outbox") == 0
    await target.execute("delete from users where id = %s", [late])
    await target.execute("delete from mirror.state; insert into mirror.state select * from backup")
    await target.execute(
        f"""
        create table claimed (there boolean);
        create function claim() returns trigger language plpgsql as $$ begin
          insert into public.claimed select exists (select from public.users where id = '{late}');
          return null;
        end $$;
        create trigger claim after update on mirror.state for each row
          when (new.fresh_at is distinct from old.fresh_at) execute function claim()
        """
    )
    async with quiet(source_url, target_url) as daemon:
        await becomes_equal(source, target)
        await leading(daemon)
        await eventually(lambda: value(target, "select exists (select from claimed)"))
    assert await value(target, "select bool_and(there) from claimed")


@contextlib.asynccontextmanager
async def a_server() -> AsyncIterator[tuple[Server, Path]]:
    """One that a test may take back to yesterday."""
    with temporary_directory() as directory, Server.start(16, directory / "server", settings=SETTINGS) as server:
        yield server, directory


def copy(old: Path, new: Path) -> None:
    subprocess.run(["rm", "-rf", new], check=True)
    subprocess.run(["cp", "-a", old, new], check=True)


@pytest.mark.slow
async def test_a_branch_restored_to_yesterday_ends_the_daemon_and_deletes_nothing(
    target: Connection, target_url: str
) -> None:
    """Under the running daemon the server goes back to an older copy of its files, with all identifiers the same."""
    async with a_server() as (server, directory):
        async with await psycopg.AsyncConnection.connect(server.url(), autocommit=True) as source:
            await prepare_source(source)
            await seed(source, 10)
            install(server.url(), target_url)
            async with quiet(server.url(), target_url) as daemon:
                await leading(daemon)
                await asleep(source)
        server.stop()
        copy(directory / "server" / "data", directory / "yesterday")
        server.restart()
        async with process(environ(server.url(), target_url, **ASKED_ONLY)) as running:
            await running.says("leading")
            async with await psycopg.AsyncConnection.connect(server.url(), autocommit=True) as source:
                await source.execute(A_DAY)
                await source.execute("insert into users (id) select gen_random_uuid() from generate_series(1, 300)")
                await becomes_equal(source, target)
                await asleep(source)
            server.stop("immediate")
            copy(directory / "yesterday", directory / "server" / "data")
            server.restart()
            assert await running.ended(20) == 2
            assert "the source went back in time" in running.output
            assert "mirror adopt" in running.output
        assert await value(target, "select count(*) from users") == 310
        await refused(server.url(), target_url, target, "the source went back in time")
        assert (await adopt(server.url(), target_url))[0] == 1
        assert (await adopt(server.url(), target_url, "--yes"))[0] == 0
        async with quiet(server.url(), target_url) as daemon:
            await eventually(lambda: "users" in daemon.known.about("brake"))
            assert await value(target, "select count(*) from users") == 310, "the brake stands guard"
            assert not daemon.known.primed
            async with process(environ(server.url(), target_url), "resync", "--force", "--json") as forced:
                assert await forced.ended(20) == 0
                assert json.loads(forced.output)["result"]["tables"]["users"]["extra"] == 300
            async with await psycopg.AsyncConnection.connect(server.url(), autocommit=True) as source:
                assert await equal(source, target)
            await eventually(lambda: daemon.known.primed)


async def test_adopt_could_not_tell_is_exit_code_3(source_url: str, target_url: str) -> None:
    install(source_url, target_url)
    dead = "postgresql://postgres@127.0.0.1:1/x"
    assert (await adopt(dead, target_url, "--yes"))[0] == 3
    assert (await adopt(source_url, dead, "--yes"))[0] == 3
