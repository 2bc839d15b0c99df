"""POST /resync and GET /api/resyncs/ID.

Asking for a resync takes the bearer token, in its header and nowhere else. That is also why a foreign page cannot make
a browser ask: it does not know the token, and no browser adds this header by itself as it does with a cookie.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from mirror.errors import MirrorError, Refused
from mirror.known import Known
from mirror.ops.answers import JSONResponse
from mirror.ops.sides import Primary
from mirror.tables import TableName

BODY_MAX = 16_384
ID_MAX = 2**63 - 1


def _as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("an id has no control characters")
    return text


_Id = Annotated[str, BeforeValidator(_as_text), Field(min_length=1, max_length=200), AfterValidator(_printable)]


class Asked(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    table: TableName | None = None
    trip: _Id | None = None
    user: _Id | None = None
    rewrite: bool = False
    force: bool = False

    @model_validator(mode="after")
    def _one_scope(self) -> Asked:
        if sum(scope is not None for scope in (self.table, self.trip, self.user)) > 1:
            raise ValueError("at most one of table, trip and user")
        return self


class Resyncs:
    def __init__(self, primary: Primary, look: Callable[[], Known], admin_token: SecretStr | None) -> None:
        self._primary = primary
        self._look = look
        self._token = None if admin_token is None else admin_token.get_secret_value().encode()

    async def ask(self, request: Request) -> Response:
        self._check_token(request)
        asked = _read(await _body(request))
        known = self._look()
        if not known.leader:
            raise HTTPException(503, "this daemon does not lead: " + _why(known))
        try:
            return JSONResponse({"id": await self._primary.ask(**asked.model_dump())}, 202)
        except MirrorError as error:
            raise HTTPException(400 if isinstance(error, Refused) else 503, str(error)) from error

    async def show(self, request: Request) -> Response:
        text = request.path_params["id"]
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
        if not 0 < number <= ID_MAX:
            raise HTTPException(404, "there is no such request")
        try:
            state = await self._primary.state(number)
        except MirrorError as error:
            raise HTTPException(503, str(error)) from error
        if state is None:
            raise HTTPException(404, "there is no such request")
        return JSONResponse(state)

    def _check_token(self, request: Request) -> None:
        if self._token is None:
            raise HTTPException(404, "no MIRROR_ADMIN_TOKEN is set, so nothing can be asked for here")
        given = request.headers.getlist("authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        right = hmac.compare_digest(token.strip().encode("latin-1"), self._token)
        if scheme.lower() != "bearer" or not right:
            raise HTTPException(
                401,
                "send the right token in the header `Authorization: Bearer ...`, and nowhere else",
                headers={"www-authenticate": "Bearer"},
            )


def _why(known: Known) -> str:
    return "another one does" if known.standby else "; ".join(known.why_not_ready()) or "it is starting"


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_MAX:
            raise HTTPException(413, f"the body is larger than {BODY_MAX} bytes", headers={"connection": "close"})
    return bytes(body)


def _read(body: bytes) -> Asked:
    try:
        return Asked.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        known = [str(part) for part in first["loc"] if part in Asked.model_fields]
        about = f"{known[0]}: " if known else ""
        message = "known are " + ", ".join(Asked.model_fields) if first["type"] == "extra_forbidden" else first["msg"]
        raise HTTPException(400, f"{about}{message}") from None
