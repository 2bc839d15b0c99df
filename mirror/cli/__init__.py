"""The command line: nothing but words and exit codes. 0 = fine, 1 = the answer is no, 2 = usage or configuration,
3 = could not tell (unreachable)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mirror import __version__
from mirror.cli import demo, install, run, status
from mirror.errors import MirrorError


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="mirror",
        description="Keeps a minimal, provably fresh copy of users, trips and memberships in Supabase.",
        epilog="Settings come from the environment, the mapping from mirror.toml; see README.md.",
    )
    top.add_argument("--version", action="version", version=f"mirror {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (install, run, status, demo):
        module.register(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        code: int = arguments.act(arguments)
    except MirrorError as error:
        print(f"mirror: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return code
