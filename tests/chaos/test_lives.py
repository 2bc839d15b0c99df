"""The primary crashes and hands transaction ids out again: no token is answered yes before its row is there, no position
outlasts a comparison that it does not stand up to, and the daemon goes on by itself.

    MIRROR_TEST_CRASHES=300 pytest tests/chaos/test_lives.py -k rounds -s     more of them
"""

import asyncio
import os
import random

import psycopg
import pytest

from tests.bed.daemons import install, leading, running
from tests.bed.lives import CRASHES, Application, Primary, a_primary

pytestmark = [pytest.mark.chaos, pytest.mark.slow]
ROUNDS = int(os.environ.get("MIRROR_TEST_CRASHES", str(len(CRASHES))))
SETTINGS = {"MIRROR_HEARTBEAT_INTERVAL": "1s", "MIRROR_RECONCILE_CRON": "off"}


@pytest.mark.timeout(0) if hasattr(pytest.mark, "timeout_") else pytest.mark.chaos
async def test_rounds_of_crashes(target_url: str) -> None:
    async with a_primary() as primary:
        install(primary.url, target_url)
        async with running(primary.url, target_url, SETTINGS) as daemon:
            await leading(daemon)
            application = Application(primary.url, target_url, daemon.port)
            with application.at_work():
                for n in range(ROUNDS):
                    await one_round(primary, application, CRASHES[n % len(CRASHES)])
            found = application.figures
            print(
                f"{found.rounds} rounds, {len(found.lives)} lives, {found.tokens} tokens, {found.yes} yes, {found.lost} lost "
                f"in crashes, {len(found.early)} early, {len(found.false_positions)} false positions, no exit"
            )
            assert found.early == []
            assert found.false_positions == []
            assert len(found.lives) == ROUNDS - ROUNDS // len(CRASHES) + (ROUNDS < len(CRASHES)) or ROUNDS < 2
            assert found.yes > 20 * ROUNDS


async def one_round(primary: Primary, application: Application, way: str) -> None:
    application.go_on()
    await asyncio.sleep(random.uniform(0.2, 0.8))  # noqa: S311 - the load runs for a while, which is no wait for anything
    await primary.crash(way)
    await asyncio.sleep(random.uniform(0.0, 0.5))  # noqa: S311
    await application.rest()
    await application.settle()
    application.figures.rounds += 1
