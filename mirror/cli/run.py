"""mirror run."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from mirror import daemon
from mirror.config import load_mapping, load_settings
from mirror.ops import logs


def register(commands: Any) -> None:
    command = commands.add_parser("run", help="the daemon")
    command.set_defaults(act=_run)


def _run(_: argparse.Namespace) -> int:
    settings = load_settings()
    mapping = load_mapping(settings.config)
    logs.configure(settings.log_format)
    asyncio.run(daemon.run(settings, mapping))
    return 0
