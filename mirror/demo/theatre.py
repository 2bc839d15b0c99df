"""Plays the demo in one event loop. Ctrl-C, SIGTERM and a closed terminal end it from inside: all is cleaned up."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any

from mirror.demo import story
from mirror.demo.commands import tail
from mirror.demo.ink import Ink, progress
from mirror.demo.live import live
from mirror.demo.traffic import seed
from mirror.demo.view import State, farewell
from mirror.demo.world import world

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Act = Callable[[], Coroutine[Any, Any, int]]


def play(act: Act) -> int:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # names of people and places in a terminal that has no UTF-8
    return asyncio.run(_until_told_to_stop(act))


async def _until_told_to_stop(act: Act) -> int:
    """A second signal does nothing: cleaning up is under way, and is bounded."""
    playing = asyncio.create_task(act())
    told: list[int] = []

    def stop(number: int) -> None:
        if not told:
            told.append(number)
            playing.cancel()

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        return await playing
    except asyncio.CancelledError:
        return 128 + told[0]


async def once() -> int:
    with progress() as say:
        async with world(say, story.populate) as opened:
            say("playing the story")
            trip, chapters = await story.tell(opened)
            right = all(chapter.right for chapter in chapters)
            log = "" if right else f"\nThe daemon said last:\n{tail(opened.daemon.log)}"
    print(story.table(trip, chapters, Ink.on(sys.stdout)) + log)
    return 0 if right else 1


async def endless() -> int:
    """Ctrl-C is how this is meant to end, so it is no failure."""
    random = Random()  # noqa: S311 - names of people and places
    with progress() as say:
        async with world(say, lambda app: seed(app, random)) as opened:
            say.clear()
            state = State(opened)
            with suppress(asyncio.CancelledError):
                await live(state, random)
            say("stopping")
    print(farewell(state, Ink.on(sys.stdout)))
    return 0
