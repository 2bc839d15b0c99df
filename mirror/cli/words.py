"""What the commands say: answers to standard output, everything else to standard error, one line each."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

from mirror.plain import plain

SECRET_SETTINGS = (
    "MIRROR_SOURCE_URL", "MIRROR_TARGET_URL", "SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY", "MIRROR_ADMIN_TOKEN",
)  # fmt: skip
_PACKAGE = Path(__file__).parents[1]
_SECRET_MIN = 4  # what is shorter cannot be told from ordinary text


def show(text: str) -> None:
    """For whoever reads standard output. When nobody does any more (`| head`), there is nothing left to do."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit
        raise SystemExit(0) from None


def say(line: str) -> None:
    print(plain(line), file=sys.stderr, flush=True)


def bug(error: BaseException) -> str:
    """An exception that nobody expected, in one line: what, and where in the mirror. Nobody knows what its message
    carries, so the secrets of the settings are taken out of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    said = veiled(" ".join(str(error).split()))
    return f"unexpected {type(error).__name__}: {said} (at {_trail(error)}). This is a bug; please report this line."


def veiled(text: str, environ: Mapping[str, str] | None = None) -> str:
    for secret in sorted(_secrets(os.environ if environ is None else environ), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets(environ: Mapping[str, str]) -> Iterator[str]:
    for name in SECRET_SETTINGS:
        value = environ.get(name, "").strip()
        password = value.rpartition("@")[0].partition("://")[2].partition(":")[2]
        yield from (part for part in (value, password, unquote(password)) if len(part) >= _SECRET_MIN)


def _trail(error: BaseException) -> str:
    """Innermost first, our own modules only."""
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    ours = [f"{path.relative_to(_PACKAGE.parent)}:{line}" for path, line in frames if path.is_relative_to(_PACKAGE)]
    return " < ".join(reversed(ours)) or "an unknown place"
