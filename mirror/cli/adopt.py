"""mirror adopt: after a person has looked, believe another source: a restored branch, a new project, a move."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from typing import Any

from mirror.cli.words import show
from mirror.config import Settings, load_settings
from mirror.errors import Refused
from mirror.postgres import refuse_pooled_host
from mirror.source.lead import Holder
from mirror.source.primary import Primary
from mirror.target.target import Target
from mirror.target.ways import check, open_transport


def register(commands: Any) -> None:
    command = commands.add_parser("adopt", help="make the target the mirror of another source than before")
    command.add_argument("--yes", action="store_true", help="I have looked: this source is the right one")
    command.set_defaults(act=_adopt)


def _adopt(arguments: argparse.Namespace) -> int:
    settings = load_settings()
    refuse_pooled_host(settings.source())
    check(settings)
    return asyncio.run(_work(settings, yes=arguments.yes))


async def _work(settings: Settings, *, yes: bool) -> int:
    async with contextlib.AsyncExitStack() as stack:
        source = await Primary.open(settings.source(), Holder("adopt"))
        stack.push_async_callback(source.close)
        transport = await open_transport(settings)
        stack.push_async_callback(transport.close)
        await source.installed()
        target = Target(transport)
        known, here = (await target.status())["source"], await source.identity()
        show(f"the target mirrors {json.dumps(known)}\nthe source is       {json.dumps(here)}")
        if not yes:
            show("nothing was changed; if this source is the right one, run `mirror adopt --yes`")
            return 1
        if not await source.lead():
            raise Refused("source", "a daemon leads", hint="Stop it first.")
        await target.adopt(json.dumps({name: value for name, value in here.items() if name != "snapshot"}))
        await source.mark_unmarked()
        show("adopted; the daemon will compare all three tables, and the brake stands guard: see `mirror status`")
        return 0
