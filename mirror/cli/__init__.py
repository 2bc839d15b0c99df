"""The command line: nothing but words and exit codes. 0 = fine, 1 = the answer is no, 2 = usage or configuration,
3 = could not tell (unreachable)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mirror import __version__
from mirror.cli import adopt, demo, doctor, install, resync, run, status, verify, why
from mirror.cli.words import bug, say
from mirror.errors import MirrorError

COULD_NOT_TELL = 3
INTERRUPTED = 130  # what shells expect of a program that was ended by Ctrl-C


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="mirror",
        description="Keeps a minimal, provably fresh copy of users, trips and memberships in Supabase.",
        epilog="Settings come from the environment, the mapping from mirror.toml; see README.md. "
        "Exit codes: 0 fine, 1 the answer is no, 2 usage or configuration, 3 could not tell.",
    )
    top.add_argument("--version", action="version", version=f"mirror {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (install, run, status, verify, resync, why, doctor, adopt, demo):
        module.register(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        code: int = arguments.act(arguments)
    except MirrorError as error:
        say(f"mirror: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last line: no traceback, whose message may carry a secret
        say(f"mirror: {bug(error)}")
        return COULD_NOT_TELL
    return code
