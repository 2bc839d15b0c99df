"""The target as the applier means it: fences, the clock by which freshness is told, and what goes over the wire."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mirror.batch import Fence, Outcome, Reading
from mirror.errors import Incompatible
from mirror.target.replies import Claimed
from mirror.target.target import Target

THEIR_CLOCK = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE_CLOCK = datetime(2020, 1, 1, tzinfo=UTC)  # told by the application's server
READING = Reading(
    snapshot="5:7:5", as_of="2020-01-01T00:00:00+00:00", scopes='{"table":"users","rows":[]}', entries=1, backlog=False,
    wide=(), broken={}, slice=None, lag_s=0.0, ages_s={}, waiting=None, outbox_bytes=0, asleep=False,
    taken=None,
)  # fmt: skip


class Wire:
    """Remembers what was sent; answers with what it was given, and with the target's clock."""

    def __init__(self, **reply: Any) -> None:
        self.reply = {
            "version": 1,
            "epoch": 7,
            "types": {"user_id": "uuid"},
            "primed": True,
            "snapshot": "1:1:",
            "empty": ["trips"],
            "walks": [],
            "proof": None,
        } | reply
        self.reply |= {"counts": {}, "parked": {}, "due": [], "check": None, "explained": None}
        self.reply |= {"clock": THEIR_CLOCK.isoformat()}
        self.sent: list[tuple[str, Any]] = []
        self.takes: Callable[[], None] = lambda: None
        self.closed = False

    seconds_aimed = 2.0
    install_hint = "Install it."

    async def call(self, function: str, argument: str | None) -> dict[str, Any]:
        self.sent.append((function, argument and json.loads(argument)))
        self.takes()
        return self.reply

    async def close(self) -> None:
        self.closed = True


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_claim_begins_an_epoch_of_batches() -> None:
    wire = Wire()
    target = Target(wire)
    assert await target.claim('{"system": "1"}') == Claimed(
        THEIR_CLOCK, 1, 7, {"user_id": "uuid"}, primed=True, snapshot="1:1:", empty=("trips",), walks=(), proof=None
    )
    assert wire.sent == [("mirror_claim", {"system": "1"})]
    assert [target.next_fence(), target.next_fence()] == [Fence(7, 1), Fence(7, 2)]
    await target.claim("{}")
    assert target.next_fence() == Fence(7, 1)


@pytest.mark.parametrize("version", [0, 2])
async def test_another_version_of_the_schema_is_refused(version: int) -> None:
    with pytest.raises(Incompatible, match=f"schema is version {version}, this daemon needs 1. Install it."):
        await Target(Wire(version=version)).claim("{}")


async def test_a_batch_without_a_position() -> None:
    wire = Wire(counts={"users": {"upsert": 2, "delete": 1}})
    wire.reply |= {
        "counts": {"users": {"upsert": 2, "delete": 1}}, "parked": {"trips": 3},
        "due": [{"table": "users", "k1": "1", "k2": None}, {"table": "trip_memberships", "k1": "1", "k2": "2"}],
    }  # fmt: skip
    target = Target(wire)
    outcome = await target.apply(READING, Fence(7, 3), position=False, began=0.0, notes={"walks": []})
    assert outcome == Outcome(
        {"users": {"upsert": 2, "delete": 1}}, {"trips": 3}, (("users", "1", None), ("trip_memberships", "1", "2"))
    )
    assert outcome.rows == 3
    sent = {"epoch": 7, "batch": 3, "walks": [], "scopes": [{"table": "users", "rows": []}]}
    assert wire.sent == [("mirror_apply", sent)]


class Three:
    """A claim at 0 and batches, on three clocks of which each runs at its own rate."""

    def __init__(self, ours: float = 1.0, source: float = 1.0) -> None:
        self.now = 0.0  # the truth, and the target's clock
        self.ours, self.source = ours, source
        self.jumped = 0.0
        self.wire = Wire()
        self.target = Target(self.wire, self.clock)

    def clock(self) -> float:
        return 1000.0 + self.ours * self.now + self.jumped

    async def claim(self) -> None:
        self.wire.reply["clock"] = (THEIR_CLOCK + timedelta(seconds=self.now)).isoformat()
        await self.target.claim("{}")

    async def apply(self, read_s: float = 0.5, apply_s: float = 1.0) -> tuple[float, Outcome]:
        """How much later than the snapshot the target was told that it is; and what came of it."""
        began, true = self.clock(), self.now
        return await self.applied(began, true, read_s, apply_s)

    async def applied(self, began: float, true: float, read_s: float, apply_s: float) -> tuple[float, Outcome]:
        as_of = SOURCE_CLOCK + timedelta(seconds=self.source * true)
        self.now += read_s
        self.wire.takes = lambda: self._answer(apply_s)
        reading = replace(READING, as_of=as_of.isoformat())
        outcome = await self.target.apply(reading, Fence(7, 1), position=True, began=began)
        fresh_at = datetime.fromisoformat(self.wire.sent[-1][1]["position"]["fresh_at"])
        return (fresh_at - THEIR_CLOCK).total_seconds() - true, outcome

    def _answer(self, apply_s: float) -> None:
        """Half of it before the target looks at its clock."""
        self.now += apply_s / 2
        self.wire.reply["clock"] = (THEIR_CLOCK + timedelta(seconds=self.now)).isoformat()
        self.now += apply_s / 2


@pytest.mark.parametrize("ours", [1.0, 2.0, 1.05, 10.0, 0.5, 0.1])
async def test_no_clock_makes_it_look_fresher(ours: float) -> None:
    three = Three(ours)
    await three.claim()
    for wait_s in (0.0, 10.0, 0.0, 60.0, 3600.0, 0.1):
        three.now += wait_s
        later_s, _ = await three.apply()
        assert later_s <= 0.0


async def test_with_right_clocks_it_is_told_as_fresh_as_it_is() -> None:
    three = Three()
    await three.claim()
    await three.apply()
    for wait_s in (0.0, 10.0, 3600.0):
        three.now += wait_s
        later_s, outcome = await three.apply()
        assert -1.0 <= later_s <= 0.0, "less the way of the last reply"
        assert outcome.clock is None


@pytest.mark.parametrize("source", [2.0, 0.5])
async def test_the_sources_clock_may_run_as_it_likes(source: float) -> None:
    three = Three(1.0, source)
    await three.claim()
    for wait_s in (0.0, 10.0, 60.0):
        three.now += wait_s
        later_s, outcome = await three.apply()
        assert later_s <= 0.0
        assert outcome.clock is None, "it is not ours that is wrong"


@pytest.mark.parametrize("jump_s", [3600.0, -5.0])
async def test_a_clock_that_jumps_is_seen_and_not_believed(jump_s: float) -> None:
    three = Three()
    await three.claim()
    await three.apply()
    three.now += 20.0
    three.jumped = jump_s
    later_s, outcome = await three.apply()
    assert later_s <= 0.0
    assert outcome.clock is not None
    assert ("fast" if jump_s > 0 else "slow") in outcome.clock
    three.now += 20.0
    assert (await three.apply())[1].clock is None, "now it goes on as it should"


async def test_a_batch_that_was_read_ahead_is_as_old_as_it_is() -> None:
    """Its snapshot was begun before the last reply was heard."""
    for ours in (1.0, 2.0, 0.5):
        three = Three(ours)
        await three.claim()
        await three.apply()
        three.now += 1.0
        await three.apply()
        began, true = three.clock(), three.now
        await three.apply(apply_s=8.0)
        later_s, _ = await three.applied(began, true, 0.0, 1.0)
        assert later_s <= 0.0


@pytest.mark.parametrize(("ours", "said"), [
    (2.0, "this machine's clock runs fast by 100 %"), (1.2, "fast by 20 %"), (0.5, "slow by 50 %"),
    (1.005, None), (1.0, None),
])  # fmt: skip
async def test_a_clock_that_runs_apart_from_both_databases_is_said_once(ours: float, said: str | None) -> None:
    three = Three(ours)
    await three.claim()
    words = set()
    for _ in range(5):
        three.now += 10.0
        _, outcome = await three.apply(0.01, 0.02)
        words.add(outcome.clock)
    assert (outcome.clock is None) is (said is None)
    assert (said or "") in (outcome.clock or "")
    assert len(words - {None}) == (said is not None)


async def test_a_position_needs_a_claim_first() -> None:
    with pytest.raises(AssertionError, match="claim comes before apply"):
        await Target(Wire()).apply(READING, Fence(1, 1), position=True, began=0.0)


async def test_the_status_and_the_end_are_passed_on() -> None:
    wire = Wire(batch=3, source=None, primed_at=None, staleness_seconds=None, braked={}, more="told, too")
    wire.reply["parked"] = []
    target = Target(wire)
    assert (await target.status())["epoch"] == 7
    assert await target.status() == wire.reply
    assert wire.sent == [("mirror_status", None)] * 2
    await target.close()
    assert wire.closed
