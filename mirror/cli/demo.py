"""mirror demo: the product's main job on two embedded servers."""

from __future__ import annotations

import argparse
from typing import Any

from mirror.errors import ConfigError


def register(commands: Any) -> None:
    command = commands.add_parser("demo", help="two embedded Postgres servers, the daemon, live traffic")
    command.add_argument("--once", action="store_true", help="play the story 403 -> 200 -> 403 once and exit")
    command.set_defaults(act=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    raise ConfigError("the demo is not built yet")
