"""`mirror demo`: traffic, and what becomes of it, until somebody presses Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from random import Random
from typing import Any

from mirror.demo.app import App
from mirror.demo.gauges import scrape
from mirror.demo.ink import Ink, Screen, interactive, screen
from mirror.demo.realtime import Realtime
from mirror.demo.traffic import Traffic, touches
from mirror.demo.view import State, doors, frame, line, summary

FRAME_INTERVAL_S = 0.25
SCRAPE_INTERVAL_S = 0.5
SUMMARY_INTERVAL_S = 10.0
PLAIN_COLUMNS = 100


async def live(state: State, random: Random) -> None:
    """Never returns: ends by being cancelled, or with the first error."""
    ink = Ink.on(sys.stdout)
    if not interactive(sys.stdout):
        await _together(_happen(state, random, plain=ink), _lines(state, ink), *_background(state, random))
        return
    with screen(sys.stdout) as shown:
        await _together(_happen(state, random), _frames(state, ink, shown), *_background(state, random))


def _background(state: State, random: Random) -> list[Coroutine[Any, Any, None]]:
    return [_touch(state, random), _scrape(state), state.world.daemon.ended()]


async def _together(*parts: Coroutine[Any, Any, None]) -> None:
    """All of them until one ends or fails; then none."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _happen(state: State, random: Random, plain: Ink | None = None) -> None:
    world = state.world
    async with App.connect(world.app_url) as app, Realtime.connect(world.realtime_url) as realtime:
        async for happening in Traffic(app, realtime, random).happenings():
            state.saw(happening)
            if plain:
                print(line(happening, plain, PLAIN_COLUMNS), flush=True)


async def _touch(state: State, random: Random) -> None:
    async with App.connect(state.world.app_url) as app:
        async for marked in touches(app, random):
            state.touched(marked=marked)


async def _scrape(state: State) -> None:
    while True:
        state.gauges = await asyncio.to_thread(scrape, state.world.daemon.port)
        await asyncio.sleep(SCRAPE_INTERVAL_S)


async def _frames(state: State, ink: Ink, shown: Screen) -> None:
    while True:
        shown.draw(frame(state, ink, *shown.size))
        await asyncio.sleep(FRAME_INTERVAL_S)


async def _lines(state: State, ink: Ink) -> None:
    """For pipes and files: where to look, then now and then how it goes."""
    print("\n".join(doors(state.world, ink)), flush=True)
    while True:
        await asyncio.sleep(SUMMARY_INTERVAL_S)
        print("\n".join(f"-- {text}" for text in summary(state, ink)), flush=True)
