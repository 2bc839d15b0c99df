"""Who waits is released by the first position that has what he waits for, and costs nothing until then."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

import mirror.ops.wait
from mirror.ops.wait import FOREIGN, FUTURE, HAS, PAUSE_MAX_S, PAUSE_MIN_S, TOO_MANY, Answer, Waiters
from mirror.token import Snapshot, Token, read_token
from tests.bed.eventually import eventually

INSTALL = "here"
NOW = float("inf")  # a position that was begun after everybody had asked
BEFORE = float("-inf")


class Desk:
    def __init__(self, waiters_max: int = 20_000) -> None:
        self.waiters = Waiters(waiters_max)
        self.asked: list[float] = []
        self.waiters.serve()
        self.waiters.leads(INSTALL, None, lambda: self.asked.append(time.monotonic()))
        self.gone = asyncio.Event()

    def wait(self, seen: str, own: str = "-", timeout_s: float = 10.0, life: str = "") -> asyncio.Task[Answer]:
        text = "/".join(part for part in (INSTALL, life, own, seen) if part)
        return asyncio.create_task(self.waiters.wait(token(text), timeout_s, self.left))

    async def left(self) -> None:
        await self.gone.wait()


def token(text: str) -> Token:
    read = read_token(text)
    assert isinstance(read, Token)
    return read


@asynccontextmanager
async def waiting(desk: Desk, *tasks: asyncio.Task[Answer]) -> AsyncIterator[None]:
    await eventually(lambda: len(desk.waiters) == len(tasks))
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(desk.waiters) == 0
    assert not desk.waiters._at
    assert not desk.waiters._order
    assert not desk.waiters._untested


async def soon(answer: Coroutine[Any, Any, Answer] | asyncio.Task[Answer]) -> Answer:
    return await asyncio.wait_for(answer, 5)


async def test_what_is_there_already_is_answered_at_once_and_nobody_is_asked() -> None:
    desk = Desk()
    desk.waiters.reached("20:20:", BEFORE)
    assert await soon(desk.wait("20:20:", "19")) == HAS
    assert desk.asked == []


async def test_each_is_released_by_the_position_that_has_what_he_waits_for() -> None:
    desk = Desk()
    desk.waiters.reached("10:10:", BEFORE)
    early, late, running = desk.wait("10:12:", "11"), desk.wait("10:30:", "29"), desk.wait("10:15:10", "10")
    async with waiting(desk, early, late, running):
        desk.waiters.reached("10:25:10", BEFORE)
        await eventually(lambda: not desk.waiters._told)
        assert not late.done()
        assert not running.done(), "a position beyond the id of a transaction that still runs has nothing of it"
        assert not early.done(), "it saw 10, which runs at this position"
        desk.waiters.reached("25:25:", BEFORE)
        assert await soon(early) == HAS
        assert await soon(running) == HAS
        assert not late.done()
        desk.waiters.reached("30:30:", BEFORE)
        assert await soon(late) == HAS


async def test_before_the_first_position_everybody_waits_for_it() -> None:
    desk = Desk()
    first = desk.wait("20:20:")
    async with waiting(desk, first):
        desk.waiters.reached("20:20:", BEFORE)
        assert await soon(first) == HAS


async def test_ten_thousand_who_wait_for_others_cost_a_position_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.waiters.reached("10:10:", BEFORE)
    tasks = [desk.wait("10:10:", str(100 + n)) for n in range(5_000)] + [
        desk.wait("10:10:", "10") for n in range(5_000)
    ]
    async with waiting(desk, *tasks):
        looked: list[Token] = []
        lacks = Token.lacks

        def look(self: Token, here: Snapshot) -> int | None:
            looked.append(self)
            return lacks(self, here)

        monkeypatch.setattr(Token, "lacks", look)
        desk.waiters.reached("10:90:10", BEFORE)
        await eventually(lambda: not desk.waiters._told)
        assert looked == []
        desk.waiters.reached("11:104:", BEFORE)
        await eventually(lambda: len(desk.waiters) == 10_000 - 5_000 - 4)
        assert len(looked) == 5_004


async def test_a_token_from_the_future_is_refused_once_it_is_certain() -> None:
    desk = Desk()
    desk.waiters.reached("10:10:", BEFORE)
    future, own = desk.wait("50:50:"), desk.wait("10:20:", "60")
    async with waiting(desk, future, own):
        desk.waiters.reached("20:20:", BEFORE)
        await eventually(lambda: not desk.waiters._told)
        assert not future.done(), "that position was begun before he asked"
        desk.waiters.reached("30:30:", NOW)
        assert await soon(future) == FUTURE
        assert not own.done(), "a transaction may have an id that no ended one has reached"


async def test_a_token_means_something_within_one_life_of_the_primary() -> None:
    desk = Desk()
    desk.waiters.leads(INSTALL, "4.aaaa", lambda: None)
    desk.waiters.reached("10:10:", NOW)
    earlier, same, none = desk.wait("50:50:", life="3.bbbb"), desk.wait("9:9:", life="4"), desk.wait("9:9:", life="")
    assert [await soon(task) for task in (earlier, same, none)] == [HAS] * 3
    assert await soon(desk.wait("9:9:", life="4.bbbb")) == FOREIGN
    later, unnamed, lost = (
        desk.wait("1:1:", life="5.aaaa"),
        desk.wait("1:1:", life="5"),
        desk.wait("50:50:", life="4.aaaa", own="60"),
    )
    async with waiting(desk, later, unnamed, lost):
        desk.waiters.reached("20:20:", BEFORE)
        await eventually(lambda: not desk.waiters._told)
        assert [task.done() for task in (later, unnamed, lost)] == [False] * 3
        desk.waiters.leads(INSTALL, "5.cccc", lambda: None)
        assert await soon(later) == FOREIGN
        await eventually(lambda: len(desk.waiters) == 2)
        assert [unnamed.done(), lost.done()] == [False, False], "nothing is known of this life yet"
        desk.waiters.reached("6:6:", BEFORE)
        assert [await soon(unnamed), await soon(lost)] == [HAS, HAS], "what is left of an earlier life is here"


async def test_foreign_tokens_too_many_and_nobody_to_ask() -> None:
    desk = Desk(waiters_max=1)
    assert await soon(desk.waiters.wait(token("elsewhere/-/1:1:"), 1, desk.left)) == FOREIGN
    first = desk.wait("9:9:")
    async with waiting(desk, first):
        assert await soon(desk.wait("9:9:")) == TOO_MANY
        desk.waiters.dismiss("going home")
        assert await soon(first) == Answer(503, "going home")
    assert (await soon(desk.wait("9:9:"))).status == 503
    desk.waiters.leads(INSTALL, None, lambda: None)
    again = desk.wait("9:9:")
    async with waiting(desk, again):
        assert not again.done()


async def test_whoever_runs_out_of_time_or_goes_away_is_forgotten() -> None:
    desk = Desk()
    assert (await soon(desk.wait("9:9:", timeout_s=0.01))).status == 504
    left = desk.wait("9:9:")
    async with waiting(desk, left):
        desk.gone.set()
        await soon(left)
        assert len(desk.waiters) == 0


async def test_an_answer_that_comes_as_the_time_runs_out_takes_nobody_elses_away() -> None:
    desk = Desk()
    late, patient = desk.wait("10:20:", timeout_s=0), desk.wait("10:20:")
    await asyncio.sleep(0)  # both wait; what ends the time of the first one is next in the loop's queue, ...
    desk.waiters.reached("20:20:", BEFORE)  # ... and the position right behind it
    assert await soon(late) == HAS, "it was there before anybody had said that it was not"
    assert await soon(patient) == HAS


async def test_positions_are_asked_for_together_at_once_and_then_less_and_less() -> None:
    desk = Desk()
    tasks = [desk.wait("9:9:", str(n)) for n in range(10, 110)]
    async with waiting(desk, *tasks):
        await eventually(lambda: len(desk.asked) == 5)
        least = sum(min(PAUSE_MAX_S, PAUSE_MIN_S * 2**n) for n in range(1, 5))
        assert desk.asked[4] - desk.asked[0] > 0.8 * least, desk.asked  # one that comes late makes the next one early
        assert PAUSE_MAX_S >= 0.2, "at most five a second for those whom it does not help"
    asked = len(desk.asked)
    await asyncio.sleep(0)
    assert desk.waiters._timer is None or not desk.waiters._order
    desk.waiters.reached("200:200:", BEFORE)
    assert len(desk.asked) == asked


async def test_a_position_that_helps_makes_the_next_one_prompt_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror.ops.wait, "PAUSE_MAX_S", 1000.0)
    desk = Desk()
    stuck = desk.wait("9:9:", "1000")
    async with waiting(desk, stuck):
        await eventually(lambda: len(desk.asked) == 4)
        desk.waiters.reached("20:20:", BEFORE)
        assert await soon(desk.wait("20:20:")) == HAS
        assert desk.waiters._pause_s == PAUSE_MIN_S
