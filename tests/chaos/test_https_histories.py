"""Through HTTPS, whatever happens on the way and to the daemon: every position that the target ever stored is the
truth, and in the end both sides are equal. Replies are lost before and within their bodies, connections are cut in the
middle of requests, the network stands still, and the daemon is killed again and again."""

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.bed.daemons import NEVER, SOFT, becomes_equal, environ, install, process, value
from tests.bed.eventually import eventually
from tests.bed.histories import check_positions, play, watch
from tests.bed.ways import Way

pytestmark = [pytest.mark.slow, pytest.mark.chaos]
Connection = psycopg.AsyncConnection[Any]
SEED = int(os.environ.get("MIRROR_TEST_SEED", "1"))
ROUND_S, LOST_MIN, POSITIONS_MIN = 2.0, 3, 20
MAPPING = """
[trips]
where = "deleted_at is null"
[trip_memberships]
where = "status = 'ACTIVE'"
"""


async def spoil(way: Way, dice: random.Random, lost: list[bool]) -> None:
    """`lost`: so many replies."""
    while True:
        await asyncio.sleep(dice.uniform(0.02, 0.2))
        match dice.choice(("lose", "lose", "cut", "stall")):
            case "lose":
                swallowed = way.proxy.swallow_replies(dice.choice((0, 30, 150)))
                await asyncio.sleep(0.1)  # not until there is one: a daemon that starts again would never get through
                way.proxy._swallow_after_bytes = None
                lost += [True] * swallowed.is_set()
            case "cut":
                way.proxy.cut()
            case _:
                way.proxy.stall(dice.choice(("to_server", "to_client")))
                await asyncio.sleep(0.1)
                way.proxy.resume()


async def killed(settings: dict[str, str], dice: random.Random) -> None:
    """kill -9 for the one that leads, and a new one in its place."""
    while True:
        async with process(settings) as daemon:
            await daemon.says("leading")
            await asyncio.sleep(dice.uniform(0.3, 1.5))
            daemon.send(signal.SIGKILL)


@pytest.fixture
def settings(source_url: str, target_url: str, way: Way, tmp_path: Path) -> dict[str, str]:
    install(source_url, target_url, SOFT)
    (tmp_path / "mirror.toml").write_text(MAPPING)
    return environ(source_url, way.url, **NEVER, MIRROR_CONFIG=str(tmp_path / "mirror.toml"))


@pytest.mark.parametrize("way", ["https"], indirect=True)
async def test_every_position_was_the_truth(
    source: Connection, target: Connection, source_url: str, way: Way, settings: dict[str, str]
) -> None:
    async with process(settings):  # first load: not part of what is promised
        await eventually(lambda: value(target, "select primed_at is not null from mirror.state"))
    await watch(source, target)
    dice, lost = random.Random(SEED), list[bool]()
    tasks = [asyncio.create_task(killed(settings, dice)), asyncio.create_task(spoil(way, dice, lost))]
    committed, rounds = 0, 0
    async with asyncio.timeout(60):
        while len(lost) < LOST_MIN or await value(target, "select count(*) < %s from positions", POSITIONS_MIN):
            committed += await play(source_url, SEED + rounds, ROUND_S, truncates=False)
            rounds += 1
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    way.proxy.resume()
    assert all(task.cancelled() for task in tasks), "until then they had work to do"
    async with process(settings):
        await becomes_equal(source, target, SOFT, timeout_s=20.0)
        await eventually(lambda: value(source, "select count(*) = 0 from mirror.outbox"))
    assert committed > 0
    assert await check_positions(source, target, every_batch=True) >= POSITIONS_MIN
    assert await value(target, "select epoch from mirror.state") > 3
