"""The transport over HTTPS: Supabase's API (PostgREST behind a gateway), for those who have no Postgres URL of it. One
call is one transaction there.

Of the `supabase` client this is the part that speaks to PostgREST, `postgrest`: what it has besides (auth, storage,
realtime, functions, and the cryptography for them) would take 20 MB and is never called; and its front door sends a
secret key as a bearer token, too, which PostgREST refuses, since it is no JWT. The client makes the request; the rest
is done beneath it, in the httpx client that it is given. A batch is JSON already, written by the source: the client
would have it parsed into Python and serialised again (8 ms for 5,000 rows, a quarter of what the target needs to apply
them). Of an error it keeps no HTTP status.

Neither the client nor this module sends anything twice, unless the API says that it does not know the function: a call
whose reply did not come may have been done. HTTP/1.1 is enough for one call after the other; streams would bring their
terminations (GOAWAY after so many requests) and a window that makes large bodies wait for a round trip every 64 kB."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from postgrest import AsyncPostgrestClient

from mirror.config import INSTALL_BY_HAND
from mirror.errors import TOO_LARGE, ConfigError, MirrorError, Refused, UnknownOutcome, Unreachable
from mirror.https import Https
from mirror.limits import ANSWER_S, CONNECT_S
from mirror.target.target import ARGUMENT
from mirror.translation import UNDEFINED_FUNCTION, answer

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 30.0  # sending, and all else; a silence ends it before that
_TIMEOUT = httpx.Timeout(CONNECT_S, read=ANSWER_S, write=ANSWER_S)
# Shorter than gateways keep an idle connection (60 s and more), so that theirs is rarely the end we did not see coming.
_LIMITS = httpx.Limits(max_connections=2, max_keepalive_connections=1, keepalive_expiry=45.0)
PIECE_BYTES = 131_072
_KEY_HINT = "Check SUPABASE_SECRET_KEY: a secret key (sb_secret_...) of the project that SUPABASE_URL names."
_BETWEEN = (
    "Something on the way answers for Supabase: SUPABASE_URL is https://<project>.supabase.co, with no proxy before it."
)
_HINTS = {
    "PGRST106": "Add public to the exposed schemas: Project Settings, Data API.",
    "PGRST203": "There are functions of the mirror's names besides its own: drop them, then install the target again.",
    "PGRST301": _KEY_HINT,
    "PGRST302": _KEY_HINT,
    "PGRST303": _KEY_HINT,
    "21000": "It was installed by an old release, whose statements Supabase's API refuses: install the target again.",
    "42501": _KEY_HINT,
    "57014": "The target gave up after its time limit; the next batch is smaller.",
    "401": _KEY_HINT,
    "402": "The project is over its quota: see Usage in Supabase's dashboard; the daemon goes on when it is lifted.",
    "403": _KEY_HINT,
    "404": "Check SUPABASE_URL.",
    "405": f"Something on the way allows no POST. {_BETWEEN}",
    "406": _BETWEEN,
    "408": "The way to Supabase is slow for what is sent: set MIRROR_BATCH_ROWS lower if this goes on.",
    "409": _BETWEEN,
    TOO_LARGE: "A gateway takes no body of that size; the next batch is half of it.",
    "415": _BETWEEN,
    "429": "Others use up the project's rate limit, or MIRROR_POLL_INTERVAL is very short; the daemon waits as told.",
    "540": "The project is paused: restore it in Supabase's dashboard.",
}
_AWAY = ("PGRST000", "PGRST001", "PGRST002", "PGRST003")  # PostgREST's own words for: the database does not answer
# The API has its schema cache of before an install, or none yet: the function was not called, and may be called again.
_UNNOTICED = ("PGRST202", "PGRST002")
_UNNOTICED_HINT = f"{INSTALL_BY_HAND}; if that was done, the API has not noticed: notify pgrst, 'reload schema';"
PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 2.0
RETRY_AFTER_MAX_S = 60.0  # whatever a gateway says: a revocation waits meanwhile
_call: ContextVar[tuple[bytes, float]] = ContextVar("_call")  # the body, and how long the API may take to notice


class _Wire(httpx.AsyncClient):
    """What the client sends through. Follows no redirect: the key goes to one host only."""

    async def request(self, *arguments: Any, **options: Any) -> httpx.Response:
        body, noticed_within_s = _call.get()
        _call.set((b"", 0.0))
        options["headers"] = {**options["headers"], "Content-Length": str(len(body))}
        for pause_s in pauses(noticed_within_s):
            async with asyncio.timeout(CALL_TIMEOUT_S):  # each attempt; the pauses have a bound of their own
                response = await super().request(*arguments, **options | {"content": _pieces(body)})
            if response.is_success:
                return response
            if pause_s is None or not is_unnoticed(response):
                break
            log.info("waiting for Supabase's API to notice the mirror's functions")
            await asyncio.sleep(pause_s)
        raise translate(response)


def pauses(within_s: float) -> Iterator[float | None]:
    """Between attempts, longer and longer; None after the last one."""
    pause_s = PAUSE_MIN_S
    while within_s > 0:
        yield min(pause_s, within_s)
        within_s -= pause_s
        pause_s = min(PAUSE_MAX_S, pause_s * 1.5)
    yield None


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """Each layer beneath keeps a copy of what it is given."""
    for at in range(0, len(body), PIECE_BYTES):
        yield body[at : at + PIECE_BYTES]


class Rest:
    seconds_aimed = 2.0
    install_hint = _UNNOTICED_HINT

    def __init__(self, https: Https, noticed_within_s: float = 0.0) -> None:
        self._noticed_within_s = noticed_within_s
        with proxies_usable():
            self._wire = _Wire(http2=False, timeout=_TIMEOUT, limits=_LIMITS, trust_env=https.proxied)
        self._client = AsyncPostgrestClient(
            f"{https.url}/rest/v1", headers=key_headers(https), retry_enabled=False, http_client=self._wire
        )

    async def call(self, function: str, argument: str | None) -> Any:
        """A batch never waits for the API to notice: the daemon starts over, and waits when it claims."""
        name = ARGUMENT[function]
        within_s = 0.0 if function == "mirror_apply" else self._noticed_within_s
        _call.set((b"{}" if name is None else f'{{"{name}":{argument}}}'.encode(), within_s))
        with _translated(function):
            return (await self._client.rpc(function, {}).execute()).data

    async def close(self) -> None:
        await self._wire.aclose()


def key_headers(https: Https) -> dict[str, str]:
    """A legacy key is a JWT, and a bearer token besides; PostgREST refuses a secret key as one."""
    key = https.key.get_secret_value()
    return {"apikey": key} | ({"Authorization": f"Bearer {key}"} if key.count(".") == 2 else {})


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
        raise UnknownOutcome(
            "target", f"no reply to {function}: {reason}", hint=error.hint, retry_after_s=error.retry_after_s
        ) from error


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def is_unnoticed(response: httpx.Response) -> bool:
    return _json(response).get("code") in _UNNOTICED


def translate(response: httpx.Response) -> MirrorError:
    """PostgREST's errors carry PostgreSQL's SQLSTATE, or a code of its own, and mean what they mean in a session of our
    own; a gateway's carry nothing but a status (their pages are not quoted: who knows what is in them)."""
    said = _json(response)
    code, text = str(said.get("code") or ""), str(said.get("message") or "")
    if code == "PGRST202":
        text = "the API does not know the mirror's functions"
        return Refused("target", text, hint=_UNNOTICED_HINT, sqlstate=UNDEFINED_FUNCTION)
    if code in _AWAY:
        return Unreachable("target", text)
    if code.startswith("PGRST") or code in _HINTS:
        return Refused("target", text, hint=_HINTS.get(code, ""), sqlstate=code)
    if len(code) == 5:
        return answer(code, text, str(said.get("hint") or ""), "target", str(said.get("details") or ""))
    return _gateways(response)


def _gateways(response: httpx.Response) -> MirrorError:
    status = response.status_code
    text, hint = f"the gateway answers {status} {response.reason_phrase}".rstrip(), _HINTS.get(str(status), "")
    if status >= 500 or status in (408, 429):
        return Unreachable("target", text, hint=hint, retry_after_s=_retry_after_s(response))
    return Refused("target", text, hint=hint or _HINTS["404"], sqlstate=str(status))


def _retry_after_s(response: httpx.Response) -> float:
    """Seconds, or a date; what is neither asks for nothing."""
    said = response.headers.get("retry-after", "").strip()
    if said.isascii() and said.isdecimal():
        return float(min(RETRY_AFTER_MAX_S, int(said[:9])))
    try:
        wait_s = parsedate_to_datetime(said).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(RETRY_AFTER_MAX_S, max(0.0, wait_s))


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        said = json.loads(response.content)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
