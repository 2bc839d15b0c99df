"""The transport over a Postgres connection: direct, or Supabase's session pooler."""

from __future__ import annotations

from typing import Any

from mirror.errors import UnknownOutcome, Unreachable
from mirror.limits import ANSWER_S, STATEMENT_S
from mirror.postgres import Session, connect, fetched
from mirror.target.target import ARGUMENT
from mirror.translation import translated

CALL_TIMEOUT_S = ANSWER_S
_BRIEFLY = f"set statement_timeout = '{STATEMENT_S:.0f}s'"


class Direct:
    seconds_aimed = 4.0
    install_hint = "Run `mirror install target`."

    def __init__(self, connection: Session) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, url: str) -> Direct:
        connection = await connect(url, "target")
        await fetched(connection, "target", _BRIEFLY, within_s=CALL_TIMEOUT_S)
        return cls(connection)

    async def call(self, function: str, argument: str | None) -> Any:
        place, values = ("", None) if ARGUMENT[function] is None else ("%s::jsonb", [argument])
        try:
            async with self._connection.given_up_after(CALL_TIMEOUT_S):
                with translated("target"):
                    cursor = await self._connection.execute(f"select public.{function}({place})", values)
                    row = await cursor.fetchone()
        except TimeoutError as error:
            raise UnknownOutcome("target", f"no reply to {function} within {CALL_TIMEOUT_S:.0f} s") from error
        except Unreachable as error:
            reason = error.message.removeprefix("target: ")
            raise UnknownOutcome("target", f"no reply to {function}: {reason}", hint=error.hint) from error
        if row is None:
            raise AssertionError("a function returns a row")
        return row[0]

    async def close(self) -> None:
        await self._connection.close()
