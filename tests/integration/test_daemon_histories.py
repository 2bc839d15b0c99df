"""Whatever the application does, in whatever order it commits, and however often the daemon is killed: every position
that the target ever stored is the truth, and in the end both sides are equal."""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.bed.daemons import NEVER, SOFT, becomes_equal, environ, install, process, value
from tests.bed.eventually import eventually
from tests.bed.histories import check_positions, play, watch

pytestmark = [pytest.mark.slow, pytest.mark.chaos]
Connection = psycopg.AsyncConnection[Any]
SEED = int(os.environ.get("MIRROR_TEST_SEED", "1"))
MAPPING = """
[trips]
where = "deleted_at is null"
[trip_memberships]
where = "status = 'ACTIVE'"
"""


@contextlib.asynccontextmanager
async def daemons(settings: dict[str, str], dice: random.Random) -> AsyncIterator[None]:
    """One that leads, one that stands by; kill -9 for one of them again and again, and a new one in its place."""

    async def live(lives_s: tuple[float, float]) -> None:
        while True:
            async with process(settings) as daemon:
                await daemon.says("serving metrics and health")
                await asyncio.sleep(dice.uniform(*lives_s))
                daemon.send(signal.SIGKILL)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(live((0.3, 3.0))), group.create_task(live((1.0, 5.0)))]
        yield
        for task in tasks:
            task.cancel()


async def cut(connection: Connection, dice: random.Random) -> None:
    """Somebody ends the mirror's sessions, one here, one there."""
    while True:
        await asyncio.sleep(dice.uniform(0.2, 1.5))
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'mirror' and datname = current_database() order by random() limit 1"
        )


@pytest.mark.parametrize(("rows", "truncates"), [("5000", False), ("5000", True), ("3", True)])
async def test_every_position_was_the_truth(
    source: Connection,
    target: Connection,
    source_url: str,
    target_url: str,
    tmp_path: Path,
    *,
    rows: str,
    truncates: bool,
) -> None:
    install(source_url, target_url, SOFT)
    (tmp_path / "mirror.toml").write_text(MAPPING)
    settings = environ(
        source_url, target_url, **NEVER, MIRROR_BATCH_ROWS=rows, MIRROR_CONFIG=str(tmp_path / "mirror.toml")
    )
    async with process(settings):  # first load: not part of what is promised
        await eventually(lambda: value(target, "select primed_at is not null from mirror.state"))
    await watch(source, target)
    dice = random.Random(SEED)
    async with daemons(settings, dice), asyncio.TaskGroup() as group:
        cuts = [group.create_task(cut(side, dice)) for side in (source, target)]
        committed = await play(source_url, SEED, 10.0, truncates=truncates)
        await eventually(lambda: value(target, "select epoch > 5 from mirror.state"), 30.0)  # the lead went over
        for task in cuts:
            task.cancel()
    async with process(settings):
        await becomes_equal(source, target, SOFT, timeout_s=20.0)
        await eventually(lambda: value(source, "select count(*) = 0 from mirror.outbox"))
    assert committed > 100
    checked = await check_positions(source, target, every_batch=not truncates)
    assert checked > 10
