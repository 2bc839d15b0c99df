"""What the stand-in for PostgREST (tests/bed/postgrest.py) answers, after src/PostgREST/Error.hs."""

import json
import re
from typing import Any

import psycopg
from starlette.responses import Response

_STATUS_OF = {
    "23503": 409, "23505": 409, "25006": 405, "53400": 500, "57P01": 503, "P0001": 400, "42883": 404, "42P01": 404,
    "42P17": 500,
}  # fmt: skip
_SERVERS_OWN = ("09", "25", "2D", "38", "39", "3B", "40", "54", "55", "57", "58", "F0", "HV", "P0", "XX")
_STATUS_OF_CLASS = {"08": 503, "53": 503, "0L": 403, "0P": 403, "28": 403} | dict.fromkeys(_SERVERS_OWN, 500)


class RefusedError(Exception):
    """An answer of PostgREST's own."""

    def __init__(self, status: int, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "message": message, "details": None, "hint": hint}


class BrokenReplyError(Exception):
    """The message of a PTxyz error is the reason phrase of the status line: PostgREST writes there whatever it is, and
    who reads it takes a second line for a header. Text that is not ASCII some let pass, others do not: none here."""


def refusal(refused: RefusedError) -> Response:
    return answer(refused.status, json.dumps(refused.body), refused.body["code"])


def error(raised: psycopg.Error, *, authenticated: bool) -> Response:
    state, said = raised.sqlstate, raised.diag
    if state is None:
        message = "Database client error. Retrying the connection."
        return refusal(RefusedError(503, "PGRST001", message))
    message = said.message_primary or ""
    body = {"code": state, "message": message, "details": said.message_detail, "hint": said.message_hint}
    status = _status(state, message, authenticated=authenticated)
    if state.startswith("PT") and state[2:].isdecimal() and not re.fullmatch(r"[ -~]*", message):
        raise BrokenReplyError(f"HTTP/1.1 {status} {message}")
    return answer(status, json.dumps(body), state)


def _status(state: str, message: str, *, authenticated: bool) -> int:
    if state.startswith("PT"):
        return int(state[2:]) if state[2:].isdecimal() else 500
    if state == "42501":
        return 403 if authenticated else 401
    if state == "21000":
        return 400 if message.endswith("requires a WHERE clause") else 500
    if state == "22023" and message.startswith("role") and message.endswith("does not exist"):
        return 401
    return _STATUS_OF.get(state) or _STATUS_OF_CLASS.get(state[:2], 400)


def answer(status: int, body: str, code: Any = None) -> Response:
    headers = {"Proxy-Status": f"PostgREST; error={code}"} if code else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 204:
        return Response(None, status, headers)
    return Response(body, status, headers, media_type="application/json")
