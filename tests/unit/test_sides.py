"""What HTTP asks the target beside the loop: nobody who looks is kept waiting by a target that hangs."""

import asyncio
import time
from typing import Any

from mirror.known import Known
from mirror.ops.sides import Parked
from mirror.target.target import Transport

ROW = {"tbl": "users", "k1": "7", "k2": "", "reason": "too long", "since": "2026-01-01T00:00:00+00:00", "tries": 2}


STATUS = {
    "clock": ROW["since"], "version": 1, "epoch": 1, "batch": 0, "types": {}, "source": None, "snapshot": None,
    "primed_at": None, "staleness_seconds": None, "braked": {}, "proof": None,
}  # fmt: skip


class Hanging:
    """A target that says nothing until it is let go."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.opened = 0

    async def open(self) -> Transport:
        self.opened += 1
        await self.let_go.wait()
        return self  # type: ignore[return-value]  # the two methods that are used

    async def call(self, *_: Any) -> dict[str, Any]:
        return STATUS | {"parked": [ROW | {"retry_at": ROW["since"]}]}

    async def close(self) -> None: ...


async def test_a_target_that_hangs_is_asked_once_and_keeps_nobody_waiting() -> None:
    target = Hanging()
    parked = Parked(target.open, lambda: Known(parked={"users": 1}))
    began = time.monotonic()
    assert await asyncio.gather(*(parked.keys() for _ in range(20))) == [[]] * 20
    assert time.monotonic() - began < 2
    assert target.opened == 1
    target.let_go.set()
    assert [row["key"] for row in await parked.keys()] == [["7", None]]
    assert target.opened == 1


async def test_nothing_is_asked_while_nothing_is_parked() -> None:
    target = Hanging()
    assert await Parked(target.open, lambda: Known(parked={"users": 0})).keys() == []
    assert target.opened == 0
