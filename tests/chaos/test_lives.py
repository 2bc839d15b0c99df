"""The primary crashes and hands transaction ids out again: no token is answered yes before its row is there, no
position outlasts a comparison that it does not stand up to, and the daemon goes on by itself.

    MIRROR_TEST_CRASHES=300 pytest tests/chaos/test_lives.py -k rounds -s -o faulthandler_timeout=0     more of them
"""

import asyncio
import os
import random
import time

import psycopg
import pytest

from tests.bed.daemons import environ, install, leading, process, running
from tests.bed.lives import CRASHES, Application, Primary, a_primary

pytestmark = [pytest.mark.chaos, pytest.mark.slow]
ROUNDS = int(os.environ.get("MIRROR_TEST_CRASHES", str(len(CRASHES))))
SETTINGS = {"MIRROR_HEARTBEAT_INTERVAL": "1s", "MIRROR_RECONCILE_CRON": "off"}


async def test_rounds_of_crashes(target_url: str) -> None:
    async with a_primary() as primary:
        install(primary.server.url(), target_url)
        async with running(primary.url, target_url, SETTINGS) as daemon:
            await leading(daemon)
            application = Application(primary.url, target_url, daemon.port)
            with application.at_work():
                for n in range(ROUNDS):
                    await one_round(primary, application, CRASHES[n % len(CRASHES)])
            assert application.figures.early == []
            assert application.figures.false_positions == []
            crashes = sum(CRASHES[n % len(CRASHES)] != "restart" for n in range(ROUNDS))
            assert len(application.figures.lives) == crashes, "a clean restart begins no life"


async def test_a_copy_from_long_ago_is_refused(target_url: str) -> None:
    """With all identifiers the same, and in a later life: but it has lost more than a crash loses."""
    async with a_primary() as primary:
        install(primary.server.url(), target_url)
        async with running(primary.url, target_url, SETTINGS) as daemon:
            await leading(daemon)
        async with await psycopg.AsyncConnection.connect(primary.url, autocommit=True) as source:
            await source.execute("update mirror.lead set renewed_at = now() - interval '1 hour', until = null")
        copy = await asyncio.to_thread(primary.copy)
        async with process(environ(primary.url, target_url, **SETTINGS)) as daemon:
            await daemon.says("leading")
            await asyncio.to_thread(copy.stop, "immediate")
            (copy.directory / "data" / "standby.signal").unlink()
            await asyncio.to_thread(copy.restart)
            await primary.switch_to(copy)
            assert await daemon.ended(30) == 2
            assert "the source went back in time" in daemon.output
            assert "mirror adopt" in daemon.output
            assert "Traceback" not in daemon.output


async def one_round(primary: Primary, application: Application, way: str) -> None:
    """`running` sees to it that the daemon has not ended by itself."""
    began, found = time.monotonic(), application.figures
    application.go_on()
    await application.writes(random.randint(20, 80))
    await primary.crash(way)
    await application.writes(random.randint(0, 40))
    await application.rest()
    await application.settle()
    found.rounds += 1
    print(
        f"{found.rounds} rounds ({way}: {time.monotonic() - began:.1f} s), {len(found.lives)} lives, "
        f"{found.tokens} tokens, {found.yes} yes, {found.lost} of them lost in crashes, {len(found.early)} early,"
        f" {len(found.false_positions)} false positions",
        flush=True,
    )
