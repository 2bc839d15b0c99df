"""Who waits for what: thousands of requests, one number each, no database connection.

Waiters live in the thread that serves HTTP; the daemon's loop only says which position the target has reached, and
hears at most that somebody wants a new one. Each waiter stands at ONE transaction that it still lacks, and is looked at
again when a position sees that one: ten thousand that wait cost a position nothing.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

from mirror.token import Life, Snapshot, Token, read_life, read_snapshot

PAUSE_MIN_S, PAUSE_MAX_S = 0.02, 0.25  # between positions that are taken only because somebody waits


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    reason: str = ""

    @property
    def has(self) -> bool:
        return self.status == 200


HAS = Answer(200)
FUTURE = Answer(409, "the token is from this source's future: was the source restored to an earlier state?")
FOREIGN = Answer(409, "the token is from another source than the one that is mirrored")
LATER = 2**64  # no transaction has this id: the token is of a life that the position is not of yet
TOO_MANY = Answer(503, "too many requests are waiting already")


@dataclass(frozen=True, slots=True)
class _Here:
    """Where the target is, as one value: it is replaced by one thread and read by another."""

    install: str
    life: Life | None
    position: Snapshot | None = None
    began: float = 0.0

    def is_foreign(self, token: Token) -> bool:
        """Of another source; or of a server that went on after the same life as ours (a promoted replica, or the
        primary that it replaced)."""
        names = {life.name for life in (self.life, token.life) if life is not None}
        return token.install != self.install or (self.later(token) == 0 and len(names - {None}) == 2)

    def later(self, token: Token) -> int:
        """By how many lives; negative when its life was over before ours began."""
        return 0 if token.life is None else token.life.number - (self.life.number if self.life else 0)

    def lacks(self, token: Token) -> int | None:
        """A transaction that the token stands for and the target has not; None when it has all."""
        later = self.later(token)
        if later > 0:
            return LATER
        if self.position is None:
            return 0
        return None if later < 0 else token.lacks(self.position)


class _Waiter:
    __slots__ = ("answer", "lacks", "patience", "since", "token")

    def __init__(self, token: Token, now: float, patience: asyncio.Timeout) -> None:
        self.token, self.since, self.lacks = token, now, 0
        self.answer: Answer | None = None
        self.patience = patience

    def end(self, answer: Answer) -> None:
        """An answer is what ends its patience, unless that is just ending by itself: no task nor future of its own, for
        there may be ten thousand."""
        if self.answer is None:
            self.answer = answer
            if not self.patience.expired():
                self.patience.reschedule(asyncio.get_running_loop().time())


class Waiters:
    def __init__(self, waiters_max: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max = waiters_max
        self._clock = clock
        self._count = 0
        # Written by the daemon's loop:
        self._here: _Here | None = None
        self._closed = ""
        self._told = False
        self._want_position: Callable[[], object] = lambda: None
        # Of the thread that serves:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._at: dict[int, set[_Waiter]] = {}
        self._order: list[int] = []  # the keys of that
        self._untested: OrderedDict[_Waiter, None] = OrderedDict()  # whose token may be from the future
        self._timer: asyncio.TimerHandle | None = None
        self._asked_at = float("-inf")
        self._pause_s = PAUSE_MIN_S

    def __len__(self) -> int:
        return self._count

    # What the daemon's loop calls.

    def leads(self, install: str, life: str | None, step_soon: Callable[[], None]) -> None:
        """`step_soon`: to be called in this event loop. Where the target is, the first batch will tell. All positions
        until the next call are of this life."""
        self._want_position = partial(asyncio.get_running_loop().call_soon_threadsafe, step_soon)
        self._here, self._closed = _Here(install, read_life(life)), ""
        self._post(self._look_anew)

    def reached(self, snapshot: str, began: float) -> None:
        """The position is written before the waiters are counted, and a waiter counts itself before it reads the
        position: one of the two sees the other."""
        position = read_snapshot(snapshot)
        if position is None or self._here is None:
            raise AssertionError(snapshot)
        self._here = replace(self._here, position=position, began=began)
        if self._count and not self._told:
            self._told = True
            self._post(self._look)

    def dismiss(self, reason: str) -> None:
        """Nobody is waited for here any more."""
        self._closed = reason
        self._post(self._send_away)

    def _post(self, act: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act)

    # What the thread that serves calls.

    def serve(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def wait(self, token: Token, timeout_s: float, gone: Callable[[], Awaitable[None]]) -> Answer:
        """`gone` comes back when nobody is interested in the answer any more."""
        if self._closed:
            return Answer(503, self._closed)
        if self._here is None or self._here.is_foreign(token):
            return FOREIGN
        if self._count >= self._max:
            return TOO_MANY
        self._count += 1
        waiter = _Waiter(token, self._clock(), asyncio.timeout(timeout_s))
        self._untested[waiter] = None
        try:
            async with waiter.patience:
                self._place(waiter, self._here)
                if waiter.answer is None:
                    self._ask()
                    await gone()
        except TimeoutError:
            pass
        finally:
            self._count -= 1
            self._leave(waiter)
        return waiter.answer or Answer(504, f"not within {timeout_s:g} s")

    def _place(self, waiter: _Waiter, here: _Here) -> None:
        lacks = here.lacks(waiter.token)
        if lacks is None:
            self._pause_s = PAUSE_MIN_S
            waiter.end(HAS)
            return
        waiter.lacks = lacks
        if lacks not in self._at:
            self._at[lacks] = set()
            insort(self._order, lacks)
        self._at[lacks].add(waiter)

    def _leave(self, waiter: _Waiter) -> None:
        self._untested.pop(waiter, None)
        here = self._at.get(waiter.lacks, set())
        if waiter in here:
            here.discard(waiter)
        if not here and waiter.lacks in self._at:
            del self._at[waiter.lacks], self._order[bisect_left(self._order, waiter.lacks)]

    def _look_anew(self) -> None:
        """Another epoch, perhaps of another life, in which other transactions are lacking."""
        waiting, here = [waiter for at in self._at.values() for waiter in at], self._here
        self._at.clear()
        self._order.clear()
        for waiter in waiting:
            if here is None or here.is_foreign(waiter.token):
                waiter.end(FOREIGN)
            else:
                self._place(waiter, here)

    def _look(self) -> None:
        self._told = False  # before looking, never after
        here = self._here
        if here is None or here.position is None:
            return
        for xid in self._order[: bisect_left(self._order, here.position.xmax)]:
            if here.position.sees(xid):
                at = self._at.pop(xid)
                del self._order[bisect_left(self._order, xid)]
                for waiter in at:
                    self._place(waiter, here)
        while self._untested and next(iter(self._untested)).since < here.began:
            waiter, _ = self._untested.popitem(last=False)
            # The source had not come that far after we were asked, in the same life.
            if here.later(waiter.token) == 0 and waiter.token.seen.xmax > here.position.xmax:
                waiter.end(FUTURE)

    def _send_away(self) -> None:
        for waiter in [waiter for here in self._at.values() for waiter in here]:
            waiter.end(Answer(503, self._closed))

    def _ask(self) -> None:
        """A position soon. Where asking helps nobody (a transaction that does not end, an invented token), it is asked
        less and less."""
        if self._timer is None:
            delay_s = max(0.0, self._asked_at + self._pause_s - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._asks)

    def _asks(self) -> None:
        self._timer = None
        if self._order:
            self._asked_at = self._clock()
            self._pause_s = min(PAUSE_MAX_S, self._pause_s * 2)
            self._want_position()
            self._ask()
