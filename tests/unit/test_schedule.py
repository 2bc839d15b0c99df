"""When the reconcile runs by itself."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from mirror.ops.schedule import JITTER_S, _trigger, scheduled
from tests.bed.eventually import eventually

NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("when", "seconds", "jitter"),
    [("*/15 * * * *", 900, JITTER_S), ("0 * * * *", 3600, JITTER_S), ("30m", 1800, JITTER_S), ("10s", 10, 1.0)],
)
def test_cron_or_interval_with_a_jitter_that_is_small_beside_it(when: str, seconds: float, jitter: float) -> None:
    trigger = _trigger(when)
    assert trigger.jitter == jitter
    trigger.jitter = None
    first = trigger.get_next_fire_time(NOON, NOON)
    assert trigger.get_next_fire_time(first, first + timedelta(milliseconds=1)) - first == timedelta(seconds=seconds)


async def test_an_interval_comes_again_until_the_block_is_left() -> None:
    runs = 0

    def act() -> None:
        nonlocal runs
        runs += 1

    with scheduled("50ms", act):
        await eventually(lambda: runs >= 3)
    seen = runs
    stopped = asyncio.get_running_loop().time()
    await eventually(lambda: asyncio.get_running_loop().time() > stopped + 0.15)
    assert runs == seen


async def test_off_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AsyncIOScheduler, "start", lambda _: pytest.fail("nothing is to be started"))
    with scheduled("off", lambda: None):
        pass


async def test_runs_that_were_missed_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine slept, or the loop was busy: one run is due, however long it was, and it is not too late for it."""
    jobs = []
    add = AsyncIOScheduler.add_job

    def noting(self: AsyncIOScheduler, *arguments: object, **options: object) -> object:
        jobs.append(add(self, *arguments, **options))
        return jobs[-1]

    monkeypatch.setattr(AsyncIOScheduler, "add_job", noting)
    with scheduled("1h", lambda: None):
        (job,) = jobs
        assert (job.coalesce, job.max_instances, job.misfire_grace_time) == (True, 1, None)
