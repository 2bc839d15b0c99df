"""mirror run."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from mirror import daemon
from mirror.config import load_settings
from mirror.mapping import load_mapping
from mirror.ops import logs
from mirror.target.ways import refuse_one_side


def register(commands: Any) -> None:
    command = commands.add_parser("run", help="the daemon")
    command.set_defaults(act=_run)


def _run(_: argparse.Namespace) -> int:
    settings = load_settings()
    mapping = load_mapping(settings.config)
    refuse_one_side(settings)
    logs.configure(settings.log_format)
    asyncio.run(daemon.run(settings, mapping))
    return 0
