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
PLAYED_S = 4.0
MAPPING = """
[trips]
where = "deleted_at is null"
[trip_memberships]
where = "status = 'ACTIVE'"
"""


async def spoil(way: Way, dice: random.Random) -> int:
    """Until it is cancelled; the number of replies that were lost."""
    lost = 0
    try:
        while True:
            await asyncio.sleep(dice.uniform(0.02, 0.2))
            match dice.choice(("lose", "lose", "lose", "cut", "stall")):
                case "lose":
                    await way.proxy.swallow_replies(dice.choice((0, 30, 150))).wait()
                    lost += 1
                case "cut":
                    way.proxy.cut()
                case _:
                    way.proxy.stall(dice.choice(("to_server", "to_client")))
                    await asyncio.sleep(0.1)
                    way.proxy.resume()
    except asyncio.CancelledError:
        return lost


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
    dice = random.Random(SEED)
    killing = asyncio.create_task(killed(settings, dice))
    spoiling = asyncio.create_task(spoil(way, dice))
    committed = await play(source_url, SEED, PLAYED_S, truncates=False)
    killing.cancel()
    spoiling.cancel()
    await asyncio.wait((killing, spoiling))
    way.proxy.resume()
    async with process(settings):
        await becomes_equal(source, target, SOFT, timeout_s=20.0)
        await eventually(lambda: value(source, "select count(*) = 0 from mirror.outbox"))
    assert killing.cancelled(), "until then it had work to do"
    assert committed > 50
    assert spoiling.result() >= 1
    assert await check_positions(source, target, every_batch=True) > 3
    assert await value(target, "select epoch from mirror.state") > 3
