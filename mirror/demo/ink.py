"""Colours and measures of terminal text, and the few escape sequences that a calm screen needs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_ESCAPE = re.compile(r"(\x1b\[[0-9;]*m)")
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # alternate screen, no cursor; and back
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def interactive(out: TextIO) -> bool:
    return out.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


class Ink:
    """Paints text where that is wanted: a terminal whose owner has not set NO_COLOR."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    @classmethod
    def on(cls, out: TextIO) -> Ink:
        return cls(colours=interactive(out) and not os.environ.get("NO_COLOR"))

    def __call__(self, text: str, *styles: str) -> str:
        if not (self._colours and styles and text):
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def width(text: str) -> int:
    return len(_ESCAPE.sub("", text))


def pad(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))


def clip(text: str, columns: int) -> str:
    """At most this many columns of painted text, with an ellipsis where something was cut."""
    if width(text) <= columns:
        return text
    kept, left = [], columns - 1
    for part in _ESCAPE.split(text):
        if part.startswith("\x1b"):
            kept.append(part)
        else:
            kept.append(part[:left])
            left -= len(part[:left])
    return "".join(kept).rstrip() + "…"


def between(left: str, right: str, columns: int) -> str:
    """One at each end of the line; the right one is kept whole."""
    left = clip(left, columns - width(right) - 1)
    return pad(left, columns - width(right)) + right


class Screen:
    """The whole terminal, redrawn in place."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows at this moment; some terminals do not tell."""
        columns, rows = os.get_terminal_size(self._out.fileno())
        return columns or 80, rows or 24

    def draw(self, lines: list[str]) -> None:
        columns, rows = self.size
        shown = [clip(line, columns) + _REST_OF_LINE for line in lines[:rows]]
        self._out.write(_HOME + "\n".join(shown) + _REST_OF_SCREEN)
        self._out.flush()


@contextmanager
def screen(out: TextIO) -> Iterator[Screen]:
    out.write(_ENTER)
    try:
        yield Screen(out)
    finally:
        with suppress(OSError):  # the terminal may be the very thing that went away
            out.write(_LEAVE)
            out.flush()


@contextmanager
def progress(err: TextIO = sys.stderr) -> Iterator[Progress]:
    shown = Progress(err)
    try:
        yield shown
    finally:
        shown.clear()


class Progress:
    """What is being done at the moment, on one line of a terminal that is wiped afterwards; nothing elsewhere."""

    def __init__(self, err: TextIO) -> None:
        self._err = err
        self._on = interactive(err)

    def __call__(self, text: str) -> None:
        if self._on:
            self._err.write(f"\r{Ink.on(self._err)(text + ' …', 'dim')}{_REST_OF_LINE}")
            self._err.flush()

    def clear(self) -> None:
        if self._on:
            with suppress(OSError):
                self._err.write(f"\r{_REST_OF_LINE}")
                self._err.flush()
