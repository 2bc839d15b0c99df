"""Waiting for a condition with a deadline: the only way a test waits for anything."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

T = TypeVar("T")


@overload
async def eventually(condition: Callable[[], Awaitable[T]], timeout_s: float = ..., interval_s: float = ...) -> T: ...
@overload
async def eventually(condition: Callable[[], T], timeout_s: float = ..., interval_s: float = ...) -> T: ...
async def eventually(
    condition: Callable[[], Awaitable[T]] | Callable[[], T], timeout_s: float = 10.0, interval_s: float = 0.01
) -> T:
    """Asks until the answer is truthy, and returns it.

    An exception counts as "not yet": what is being waited for is often a server that is coming back. The message of
    the failure tells the last answer, or carries the last exception as its cause.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        error: Exception | None = None
        answer: T | str = ""
        try:
            answer = await _ask(condition, deadline)
        except Exception as raised:  # noqa: BLE001 (reported with its cause when the time is up)
            error = raised
        else:
            if answer:
                return answer
        if time.monotonic() >= deadline:
            last = f"last raised {error!r}" if error else f"last answered {answer!r}"
            raise AssertionError(f"not within {timeout_s} s: {_name(condition)} {last}") from error
        await asyncio.sleep(interval_s)


async def _ask(condition: Callable[[], Awaitable[T]] | Callable[[], T], deadline: float) -> T:
    answer = condition()
    if inspect.isawaitable(answer):
        async with asyncio.timeout(max(deadline - time.monotonic(), 0.01)):
            return await cast("Awaitable[T]", answer)
    return answer


def _name(condition: object) -> str:
    return getattr(condition, "__qualname__", repr(condition))
