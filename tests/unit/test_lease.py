"""The lease of the lead: trusted for less than it lasts, by our own clock, from before the request."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

import mirror.source.lead
from mirror.errors import MirrorError, Superseded, Unreachable
from mirror.source.lead import TRUST, Holder, Lease, lease_s

ANSWER_S = 5.0
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
URL = "postgresql://primary"


class Session:
    """A working session whose server takes its time to answer."""

    def __init__(self) -> None:
        self.info = self
        self.backend_pid = 7
        self.description = True
        self.now = 100.0
        self.true = 1.0  # seconds pass for one of ours
        self.silent_s = 0.0
        self.answer: bool | MirrorError = True
        self.asked: list[str] = []

    async def execute(self, query: str, _values: list[Any]) -> "Session":
        self.asked.append(query)
        self.now += ANSWER_S
        if isinstance(self.answer, MirrorError):
            raise self.answer
        return self

    async def fetchone(self) -> tuple[bool, datetime]:
        return self.answer is True, self.theirs(self.now)

    def theirs(self, now: float) -> datetime:
        """The server's clock, which is right."""
        return BEGAN + timedelta(seconds=self.true * (now - 100.0))

    async def close(self) -> None: ...


def leasing(seconds: float = 12.0) -> tuple[Session, Lease]:
    session = Session()
    return session, Lease(cast("Any", session), Holder("run"), seconds, lambda: session.now)


async def test_it_counts_from_before_the_request() -> None:
    session, lease = leasing()
    assert lease.left_s == 0.0
    assert await lease.take()
    assert lease.left_s == pytest.approx(TRUST * 12.0 - ANSWER_S)
    assert lease.request() is not None, "a third of it is over"
    session.now += 4.0  # until that drain has answered
    lease.renewed(session.theirs(session.now).isoformat())
    assert lease.left_s == pytest.approx(TRUST * 12.0 - 4.0)


async def test_a_slow_clock_keeps_it_no_longer_than_it_lasts() -> None:
    session, lease = leasing()
    session.true = 2.0
    await lease.take()
    session.now += 2.0
    left_s = lease.left_s
    lease.heard(session.theirs(session.now).isoformat())
    assert lease.left_s == pytest.approx(min(left_s, TRUST * 12.0 - 2.0 * 2.0))
    session.now += 4.0
    lease.heard(session.theirs(session.now).isoformat())
    assert lease.left_s < 0.0, "12 s have passed"
    assert lease.request() is not None
    lease.renewed(session.theirs(session.now).isoformat())
    assert lease.left_s == pytest.approx(TRUST * 12.0)


async def test_it_is_renewed_when_a_third_is_over_and_by_its_holder_only() -> None:
    session, lease = leasing()
    assert lease.request() is None
    await lease.take()
    session.now = 103.9
    assert lease.request() is None
    session.now = 104.1
    assert lease.request() is not None
    session.answer = False
    assert not await lease.take()
    assert (lease.left_s, lease.request()) == (0.0, None)


def test_it_outlasts_two_sleeps() -> None:
    assert lease_s(1.0) == 12.0
    assert lease_s(3600.0) == 2.4 * 3600.0


async def test_it_is_given_back_once_and_whatever_the_source_says() -> None:
    session, lease = leasing()
    await lease.give_back()
    assert session.asked == [], "it was never ours"
    await lease.take()
    session.answer = Unreachable("source", "gone")
    await lease.give_back()
    await lease.give_back()
    assert [("unlead" in query) for query in session.asked] == [False, True]
    assert lease.left_s == 0.0


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Session:
    """The session that `keep` opens."""
    session = Session()

    async def connect(url: str, side: str) -> Session:
        assert (url, side) == (URL, "source")
        return session

    monkeypatch.setattr(mirror.source.lead, "connect", connect)
    monkeypatch.setattr(mirror.source.lead, "AGAIN_S", 0.0)
    return session


@pytest.mark.parametrize(("alive", "answer", "reason"), [
    (False, True, "nothing was done for too long"),
    (True, False, "another daemon took the lead"),
    (True, Unreachable("source", "gone"), "could not be renewed in time"),
])  # fmt: skip
async def test_who_cannot_keep_it_steps_aside(
    beside: Session, *, alive: bool, answer: bool | MirrorError, reason: str
) -> None:
    session, lease = leasing()
    await lease.take()
    session.now += 2.0  # half of it is over, some of it is left
    beside.answer = answer
    keeping = asyncio.create_task(lease.keep(URL, lambda: alive))
    while not keeping.done():
        await asyncio.sleep(0)
        session.now += 0.1
    with pytest.raises(Superseded, match=reason):
        await keeping
    assert session.now < 100.0 + 12.0, "before it is over"
