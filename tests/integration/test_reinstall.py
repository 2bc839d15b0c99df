"""The schema of the mirror is made anew, or a changed mirror.toml is installed on one side only: the daemon comes back
by itself, or says the one command that is missing. It never calls fresh what it has not compared."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mirror.mapping import load_mapping
from mirror.postgres import connect_blocking
from mirror.target import install as target_side
from tests.bed import source_side
from tests.bed.daemons import becomes_equal, environ, install, leading, process, running, value
from tests.bed.eventually import eventually
from tests.bed.proofs import seed
from tests.bed.target_side import put_in_place

Connection = psycopg.AsyncConnection[Any]
FRESH = "select fresh_at is not null and primed_at is not null from mirror.state"


@contextlib.asynccontextmanager
async def writing(url: str) -> AsyncIterator[None]:
    """An application that goes on and on; a statement that fails ends the test."""

    async def write() -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as writer:
            while True:
                await writer.execute("insert into users (id) values (gen_random_uuid())")
                await writer.execute("update trip_memberships set role = null where random() < 0.1")
                await asyncio.sleep(0.01)

    task = asyncio.create_task(write())
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def test_uninstalled_and_installed_again_under_load(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """Other sessions hold the old functions' plans, and what was written in between no trigger saw."""
    await seed(source)
    install(source_url, target_url)
    async with running(source_url, target_url) as daemon, writing(source_url):
        await leading(daemon)
        before = await value(target, "select source->>'install' from mirror.state")
        await asyncio.to_thread(source_side.uninstall, source_url)
        await source.execute("delete from users where id = (select min(id::text)::uuid from users)")
        await eventually(lambda: not daemon.known.leader)
        said = await asyncio.to_thread(source_side.install, source_url)
        assert said[-1] == "source: installed; the daemon will load users, trips, trip_memberships."
        await eventually(lambda: value(target, "select source->>'install' <> %s from mirror.state", before), 20)
        await eventually(lambda: value(target, FRESH), 20)
    async with running(source_url, target_url) as daemon:
        await becomes_equal(source, target)


async def test_a_target_is_uninstalled_and_installed_again_under_a_daemon(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    await seed(source)
    install(source_url, target_url)
    async with running(source_url, target_url) as daemon:
        await leading(daemon)
        await asyncio.to_thread(uninstall, target_url)
        await source.execute(
            "update users set username = 'meanwhile' where id = (select min(id::text)::uuid from users)"
        )
        await eventually(lambda: not daemon.known.leader)
        await asyncio.to_thread(put_in_place, target_url)
        await eventually(lambda: value(target, FRESH), 20)
        await becomes_equal(source, target)


def uninstall(url: str) -> None:
    with connect_blocking(url, "target") as connection:
        target_side.uninstall(connection, lambda _: None)


async def test_nothing_is_claimed_between_the_new_install_and_the_comparison(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """A trigger sees each position that is claimed, and if it is true."""
    await seed(source)
    install(source_url, target_url)
    async with running(source_url, target_url) as daemon:
        await leading(daemon)
        await becomes_equal(source, target)
    source_side.uninstall(source_url)
    gone = await value(
        source,
        "delete from trip_memberships where ctid = (select min(ctid) from trip_memberships) returning user_id::text",
    )
    source_side.install(source_url)
    await target.execute(
        f"""
        create table claimed (is_true boolean);
        create function claim() returns trigger language plpgsql as $$ begin
          insert into public.claimed select (select count(*) from public.trip_memberships where user_id = '{gone}') = 3;
          return null;
        end $$;
        create trigger claim after update on mirror.state for each row when (new.fresh_at is not null)
          execute function claim()
        """
    )
    async with running(source_url, target_url) as daemon:
        await leading(daemon)
        await eventually(lambda: value(target, "select exists (select from claimed)"))
    assert await value(target, "select bool_and(is_true) from claimed")


@pytest.mark.parametrize("first", ["id", "subject"])
async def test_a_target_that_finds_callers_otherwise_is_refused(  # noqa: PLR0917 - fixtures
    source: Connection, target: Connection, source_url: str, target_url: str, tmp_path: Path, first: str
) -> None:
    """`subject` was mapped, or is not any more, and only `mirror install source` was run."""
    config = tmp_path / "mirror.toml"
    contents = ["", "[users]\nsubject = \"'auth|' || id\"\n"]
    if first == "subject":
        contents.reverse()
    await seed(source)
    config.write_text(contents[0])
    install(source_url, target_url, load_mapping(config))
    config.write_text(contents[1])
    source_side.install(source_url, load_mapping(config))
    settings = environ(source_url, target_url, MIRROR_CONFIG=str(config))
    async with process(settings) as daemon:
        assert await daemon.ended() == 2, daemon.output
        second = "subject" if first == "id" else "id"
        assert f"the target finds callers by {first}, mirror.toml wants them found by {second}" in daemon.output
        assert "mirror install target" in daemon.output
        assert "Traceback" not in daemon.output
    assert await value(target, "select fresh_at is null from mirror.state")
    async with process(settings, "install", "target") as command:
        assert await command.ended(20) == 0, command.output
    async with process(settings) as daemon:
        await daemon.says("leading")
        await eventually(lambda: value(target, FRESH))


async def test_another_access_than_installed_is_said(source_url: str, target_url: str, tmp_path: Path) -> None:
    config = tmp_path / "mirror.toml"
    install(source_url, target_url)
    config.write_text('[access]\nactive = ["in"]\n[target]\nallow_cascade = ["public.t"]\n')
    async with process(environ(source_url, target_url, MIRROR_CONFIG=str(config))) as daemon:
        await daemon.says("leading")
        said = (
            "the target was installed with another active, allow_cascade than mirror.toml says: "
            "Run `mirror install target`"
        )
        assert said in daemon.output
