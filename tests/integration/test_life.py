"""The lives of the primary, at a SQL prompt: numbered once, told by every token, and never on a replica."""

import asyncio
from typing import Any

import psycopg
import pytest

from tests.bed.daemons import install, value
from tests.bed.lives import a_primary
from tests.bed.source_side import role
from tests.expected import install_source

pytestmark = pytest.mark.sql
Connection = psycopg.AsyncConnection[Any]


async def life_in(source: Connection) -> str:
    """As a token says it."""
    return "/".join(str(await value(source, "select mirror.token()")).split("/")[1:-2])


async def test_a_life_is_numbered_once_and_every_token_tells_it(source: Connection, source_url: str) -> None:
    install_source(source_url)
    assert await life_in(source) == "", "no daemon with lives has led: a token is as it was in releases without"
    sessions = [await psycopg.AsyncConnection.connect(source_url, autocommit=True) for _ in range(6)]
    begun = await asyncio.gather(*(value(session, "select mirror.begin_life()") for session in sessions))
    assert len({(life["number"], life["name"]) for life in begun}) == 1
    for session in sessions:
        await session.close()
    assert await life_in(source) == f"1.{begun[0]['name']}"
    await source.execute("delete from mirror.alive")  # what a crash does
    assert await life_in(source) == "2"
    again = await value(source, "select mirror.begin_life()")
    assert (again["number"], await life_in(source)) == (2, f"2.{again['name']}")
    install_source(source_url)
    assert await life_in(source) == f"2.{again['name']}"


async def test_it_remembers_the_last_renewal_and_forgets_what_the_target_had_reached(
    source: Connection, source_url: str
) -> None:
    install_source(source_url)
    await source.execute("update mirror.lead set renewed_at = '2026-01-01', until = '2026-01-01 00:00:12'")
    await source.execute("update mirror.reached set snapshot = '9:9:'")
    life = await value(source, "select mirror.begin_life()")
    assert (life["remembered"][:10], life["lease_s"]) == ("2026-01-01", 12)
    assert await value(source, "select snapshot from mirror.reached") is None


async def test_a_token_can_be_had_in_any_transaction_and_writes_nothing(source: Connection, source_url: str) -> None:
    install_source(source_url)
    await value(source, "select mirror.begin_life()")
    with role(source_url, "life_app") as url, psycopg.connect(url, autocommit=True) as app:
        app.execute("begin transaction isolation level serializable, read only, deferrable")
        assert app.execute("select mirror.token()").fetchone()
        app.execute("rollback")
        for forbidden in (
            "select mirror.begin_life()",
            "delete from mirror.alive",
            "update mirror.life set number = 9",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute(forbidden)
    async with source.transaction():
        await value(source, "select mirror.token()")
        assert await value(source, "select pg_current_xact_id_if_assigned()") is None


@pytest.mark.slow
async def test_a_replica_says_that_it_cannot_tell(target_url: str) -> None:
    async with a_primary() as primary:
        install(primary.server.url(), target_url)
        async with await psycopg.AsyncConnection.connect(primary.server.url(), autocommit=True) as source:
            await value(source, "select mirror.begin_life()")
        replica = await asyncio.to_thread(primary.copy)
        try:
            async with await psycopg.AsyncConnection.connect(replica.url(), autocommit=True) as session:
                for _ in range(2):
                    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="a replica cannot tell"):
                        await session.execute("select mirror.token()")
                await session.execute("select pg_promote()")
                assert await life_in(session) == "2", "the old primary's life ended here"
        finally:
            await asyncio.to_thread(replica.stop, "immediate")
