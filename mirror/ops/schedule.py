"""When the reconcile runs by itself: a cron expression or an interval, with some jitter, so that many daemons do not
march in step. Runs that were missed while the machine slept become one."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from mirror.config import parse_seconds

JITTER_S = 10


@contextlib.contextmanager
def scheduled(when: str, act: Callable[[], None]) -> Iterator[None]:
    """`when` as the settings have checked it: five fields of cron, a duration, or off."""
    if when == "off":
        yield
        return
    scheduler = AsyncIOScheduler(timezone="UTC")
    scheduler.add_job(act, _trigger(when), coalesce=True, max_instances=1, misfire_grace_time=None)
    scheduler.start()
    try:
        yield
    finally:
        scheduler.shutdown(wait=False)


@functools.lru_cache(maxsize=8)
def next_run(when: str, after: float) -> float | None:
    """The first run after this moment, jitter aside, both in seconds since 1970; None when there is none."""
    if when == "off":
        return None
    if " " not in when:
        return after + float(str(parse_seconds(when)))
    found = CronTrigger.from_crontab(when, timezone="UTC").get_next_fire_time(None, datetime.fromtimestamp(after, UTC))
    return None if found is None else found.timestamp()


def _trigger(when: str) -> BaseTrigger:
    if " " in when:
        trigger: BaseTrigger = CronTrigger.from_crontab(when, timezone="UTC")
        trigger.jitter = JITTER_S
        return trigger
    seconds = float(str(parse_seconds(when)))
    return IntervalTrigger(seconds=seconds, jitter=min(JITTER_S, seconds / 10))
