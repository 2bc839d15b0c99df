"""GET /wait: the copy has everything that a token stands for, or the reason why nobody can say so."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mirror.known import Known
from mirror.ops.answers import JSONResponse
from mirror.ops.wait import Answer, Waiters
from mirror.token import Garbage, Token, read_token

DEFAULT_S, MAX_S = 10.0, 60.0
FIELDS_MAX = 10


class Waiting:
    def __init__(self, waiters: Waiters, look: Callable[[], Known]) -> None:
        self._waiters = waiters
        self._look = look

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _read(scope["query_string"])
        response = _has_not(asked) if isinstance(asked, Answer) else await self._wait(*asked, receive)
        await response(scope, receive, send)

    async def _wait(self, token: Token, timeout_s: float, receive: Receive) -> Response:
        known = self._look()
        if known.standby:
            return _has_not(Answer(503, "this daemon stands by, another one leads: ask that one"))
        if not known.leader:
            return _has_not(Answer(503, "; ".join(known.why_not_ready()) or "the daemon is starting"))
        began = time.monotonic()
        answer = await self._waiters.wait(token, timeout_s, partial(_gone, receive))
        if not answer.has:
            return _has_not(answer, *self._look().why_not_ready())
        return JSONResponse({"has": True, "waited_seconds": round(time.monotonic() - began, 4)})


def _read(query: bytes) -> tuple[Token, float] | Answer:
    try:
        fields = parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=FIELDS_MAX)
        timeout_s = float(fields.get("timeout", [str(DEFAULT_S)])[-1])
    except ValueError:
        timeout_s, fields = -1.0, {}
    if not 0 <= timeout_s <= MAX_S:
        return Answer(400, f"timeout is a number of seconds from 0 to {MAX_S:g}")
    given = fields.get("token", [])
    token = read_token(given[0]) if len(given) == 1 else Garbage("exactly one token is wanted")
    return Answer(400, token.reason) if isinstance(token, Garbage) else (token, timeout_s)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _has_not(answer: Answer, *more: str) -> Response:
    headers = {"retry-after": "1"} if answer.status == 503 else None
    return JSONResponse({"has": False, "reason": "; ".join([answer.reason, *more])}, answer.status, headers)
