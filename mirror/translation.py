"""The border where psycopg's errors, and what databases say through an API, become
ours: once, and nothing secret passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from mirror.errors import ConfigError, Incompatible, MirrorError, Refused, Superseded, Unreachable
from mirror.tls import PERMISSION

UNDEFINED_FUNCTION = "42883"
UNDEFINED = frozenset({UNDEFINED_FUNCTION, "42P01", "3F000"})  # or a table, or a schema
# What our functions raise on purpose (HTTP statuses through PostgREST).
_ANSWERS: dict[str, type[MirrorError]] = {"PT409": Superseded, "PT412": Incompatible, "PT428": Incompatible}
SETTING = {"source": "MIRROR_SOURCE_URL", "target": "MIRROR_TARGET_URL"}


@contextmanager
def translated(side: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, side) from error


def translate(error: psycopg.Error, side: str) -> MirrorError:
    """Once, here. A lost connection is Unreachable, an answer of the server is Refused."""
    state = error.sqlstate
    if state is None:
        return _translate_connection(_text(error), side)
    said = error.diag
    return answer(state, said.message_primary or _text(error), said.message_hint or "", side, said.message_detail or "")


def answer(state: str, text: str, hint: str, side: str, detail: str = "") -> MirrorError:
    """What a server says of itself, whichever way it reached us. What our own functions raise says in the detail what
    it is about: PostgREST makes the message the reason of the status line, which others' text would break. Of other
    errors the detail is not shown: it quotes rows."""
    about = " ".join(detail.split()) if state.startswith("PT") else ""
    if about:
        text = f"{text}: {about}"
    if state in _ANSWERS:
        return _ANSWERS[state](f"{side}: {text}", hint=hint)
    if state == "42501":
        return Refused(side, text, hint="The role of this URL lacks a right; see `mirror install`.", sqlstate=state)
    if state[:2] in ("08", "57") and state != "57014":
        return Unreachable(side, text)
    return Refused(side, text, hint=hint, sqlstate=state, about=about)


def _text(error: psycopg.Error) -> str:
    """One line of libpq's many; of several addresses that were tried, the first one's."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if lines[0].startswith("Multiple connection attempts failed") and len(lines) > 1:
        return lines[1].removeprefix("- ")
    return lines[0]


def _translate_connection(text: str, side: str) -> MirrorError:
    """While connecting, libpq tells the server's SQLSTATE to nobody: only the words are left."""
    text = text.removeprefix("connection failed: ").replace("FATAL:  ", "")
    if text.startswith("connection is bad: "):
        return ConfigError(f"{SETTING[side]}: {text.removeprefix('connection is bad: ')}")
    hint = ""
    if "server does not support SSL" in text:
        text = "the server does not offer TLS, so it was not told the password"
        hint = f"If it has none, and the network is trusted: sslmode=disable in {SETTING[side]}, and {PERMISSION}=yes."
    elif "certificate" in text:
        hint = (
            "The host must be the name that the certificate is made out to, and its authority must be known: one that "
            f"this machine does not know is named by sslrootcert=/path/to/ca.crt in {SETTING[side]}."
        )
    elif "unsupported startup parameter" in text:
        hint = "This looks like a connection pooler; use the server's own host."
    elif any(words in text for words in ("authentication failed", "no password supplied", "does not exist")):
        hint = f"Check user, password and database in {SETTING[side]}."
    return Unreachable(side, text, hint=hint)
