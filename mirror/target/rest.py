"""The transport over HTTPS: Supabase's API (PostgREST behind a gateway), for those who have no Postgres URL of it. One
call is one transaction there.

Of the `supabase` client this is the part that speaks to PostgREST, `postgrest`: what it has besides (auth, storage,
realtime, functions, and the cryptography for them) would take 20 MB and is never called; and its front door sends a
secret key as a bearer token, too, which PostgREST refuses, since it is no JWT. The client makes the request; the rest
is done beneath it, in the httpx client that it is given. A batch is JSON already, written by the source: the client
would have it parsed into Python and serialised again (8 ms for 5,000 rows, a quarter of what the target needs to apply
them). Of an error it keeps no HTTP status.

Nothing is ever sent twice, by whomever: a call whose reply did not come may have been done. HTTP/1.1 is enough for one
call after the other; streams would bring their terminations (GOAWAY after so many requests) and a window that makes
large bodies wait for a round trip every 64 kB."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpx
from postgrest import AsyncPostgrestClient

from mirror.config import INSTALL_BY_HAND, Https
from mirror.errors import ConfigError, MirrorError, Refused, UnknownOutcome, Unreachable
from mirror.postgres import UNDEFINED_FUNCTION, answer

CALL_TIMEOUT_S = 30.0  # sending, the 8 s that the target gives a statement, and waiting for its locks
_TIMEOUT = httpx.Timeout(10.0, read=CALL_TIMEOUT_S, write=CALL_TIMEOUT_S)
# Shorter than gateways keep an idle connection (60 s and more), so that theirs is rarely the end we did not see coming.
_LIMITS = httpx.Limits(max_connections=2, max_keepalive_connections=1, keepalive_expiry=45.0)
PIECE_BYTES = 131_072
_ARGUMENT = {
    "mirror_claim": "source",
    "mirror_apply": "batch",
    "mirror_compare": "batch",
    "mirror_adopt": "source",
    "mirror_status": None,
}
_KEY_HINT = "Check SUPABASE_SECRET_KEY: a secret key (sb_secret_...) of the project that SUPABASE_URL names."
_UNNOTICED = "if that was done, the API has not noticed yet: notify pgrst, 'reload schema';"
_HINTS = {
    "PGRST106": "Add public to the exposed schemas: Project Settings, Data API.",
    "PGRST301": _KEY_HINT,
    "PGRST302": _KEY_HINT,
    "PGRST303": _KEY_HINT,
    "42501": _KEY_HINT,
    "57014": "The target gave up after its time limit; the next batch is smaller.",
    "401": _KEY_HINT,
    "403": _KEY_HINT,
    "404": "Check SUPABASE_URL.",
    "540": "The project is paused: restore it in Supabase's dashboard.",
}
_AWAY = ("PGRST000", "PGRST001", "PGRST002", "PGRST003")  # PostgREST's own words for: the database does not answer
_body: ContextVar[bytes] = ContextVar("_body")


class _Wire(httpx.AsyncClient):
    """What the client sends through. Follows no redirect: the key goes to one host only."""

    async def request(self, *arguments: Any, **options: Any) -> httpx.Response:
        body = _body.get()
        _body.set(b"")
        options["headers"] = {**options["headers"], "Content-Length": str(len(body))}
        response = await super().request(*arguments, **options | {"content": _pieces(body)})
        if response.is_success:
            return response
        raise translate(response)


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """Each layer beneath keeps a copy of what it is given."""
    for at in range(0, len(body), PIECE_BYTES):
        yield body[at : at + PIECE_BYTES]


class Rest:
    seconds_aimed = 2.0
    install_hint = f"{INSTALL_BY_HAND}."

    def __init__(self, https: Https) -> None:
        key = https.key.get_secret_value()
        headers = {"apikey": key}
        if key.count(".") == 2:  # a legacy key is a JWT
            headers["Authorization"] = f"Bearer {key}"
        with proxies_usable():
            self._wire = _Wire(http2=False, timeout=_TIMEOUT, limits=_LIMITS, trust_env=https.proxied)
        self._client = AsyncPostgrestClient(
            f"{https.url}/rest/v1", headers=headers, retry_enabled=False, http_client=self._wire
        )

    async def call(self, function: str, argument: str | None) -> dict[str, Any]:
        name = _ARGUMENT[function]
        _body.set(b"{}" if name is None else f'{{"{name}":{argument}}}'.encode())
        with _translated(function):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                reply = (await self._client.rpc(function, {}).execute()).data
        if not isinstance(reply, dict):
            raise UnknownOutcome("target", f"no reply to {function}, but something else", hint=_HINTS["404"])
        return reply

    async def close(self) -> None:
        await self._wire.aclose()


@contextmanager
def proxies_usable() -> Iterator[None]:
    """httpx looks at the environment's proxies when a client is made."""
    try:
        yield
    except (ImportError, ValueError, httpx.InvalidURL):
        raise ConfigError(
            "the proxy that HTTPS_PROXY or ALL_PROXY names cannot be used",
            hint="It has to be an http:// URL; NO_PROXY names the hosts that are asked without one.",
        ) from None  # the cause may carry the proxy's password


@contextmanager
def _translated(function: str) -> Iterator[None]:
    """Whatever happened to the conversation. Only what never left is certain not to have been done."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
        raise Unreachable("target", _text(error)) from error
    except TimeoutError as error:
        raise UnknownOutcome("target", f"no reply to {function} within {CALL_TIMEOUT_S:.0f} s") from error
    except httpx.HTTPError as error:
        raise UnknownOutcome("target", f"no reply to {function}: {_text(error)}") from error
    except Unreachable as error:
        reason = error.message.removeprefix("target: ")
        raise UnknownOutcome("target", f"no reply to {function}: {reason}", hint=error.hint) from error


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def translate(response: httpx.Response) -> MirrorError:
    """PostgREST's errors carry PostgreSQL's SQLSTATE, or a code of its own, and mean what they mean in a session of our
    own; a gateway's carry nothing but a status (their pages are not quoted: who knows what is in them)."""
    said = _json(response)
    code, text = str(said.get("code") or ""), str(said.get("message") or "")
    if code == "PGRST202":
        text = "the API does not know the mirror's functions"
        return Refused("target", text, hint=f"{INSTALL_BY_HAND}; {_UNNOTICED}", sqlstate=UNDEFINED_FUNCTION)
    if code in _AWAY:
        return Unreachable("target", text)
    if code.startswith("PGRST") or code in _HINTS:
        return Refused("target", text, hint=_HINTS.get(code, ""), sqlstate=code)
    if len(code) == 5:
        return answer(code, text, str(said.get("hint") or ""), "target")
    status = response.status_code
    text, hint = f"the gateway answers {status} {response.reason_phrase}".rstrip(), _HINTS.get(str(status), "")
    if status >= 500 or status == 429:
        return Unreachable("target", text, hint=hint)
    return Refused("target", text, hint=hint or _HINTS["404"], sqlstate=str(status))


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        said = json.loads(response.content)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
