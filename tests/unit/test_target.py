"""The target as the applier means it: fences, the clock by which freshness is told, and what goes over the wire."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mirror.batch import Fence, Outcome, Reading
from mirror.errors import Incompatible
from mirror.target.replies import Claimed
from mirror.target.target import Target

THEIR_CLOCK = datetime(2026, 1, 1, tzinfo=UTC)
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
        self.closed = False

    seconds_aimed = 2.0
    install_hint = "Install it."

    async def call(self, function: str, argument: str | None) -> dict[str, Any]:
        self.sent.append((function, argument and json.loads(argument)))
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


async def test_freshness_is_told_by_the_targets_clock_and_ours_never_by_the_sources() -> None:
    clock, wire = Clock(), Wire()
    target = Target(wire, clock)
    await target.claim("{}")  # received at 1000 on our clock, when theirs said midnight
    clock.now = 1060.0
    await target.apply(READING, Fence(7, 1), position=True, began=1012.5)
    _, sent = wire.sent[-1]
    assert sent["position"] == {
        "life": None, "snapshot": "5:7:5",
        "as_of": READING.as_of, "fresh_at": (THEIR_CLOCK + timedelta(seconds=12.5)).isoformat(),
    }  # fmt: skip
    await target.apply(READING, Fence(7, 2), position=True, began=1061.0)  # their clock was heard again, at 1060
    assert wire.sent[-1][1]["position"]["fresh_at"] == (THEIR_CLOCK + timedelta(seconds=1)).isoformat()


async def test_a_snapshot_begun_before_the_last_reply_is_as_old_as_it_is() -> None:
    clock, wire = Clock(), Wire()
    target = Target(wire, clock)
    await target.claim("{}")
    await target.apply(READING, Fence(7, 1), position=True, began=990.0)
    assert wire.sent[-1][1]["position"]["fresh_at"] == (THEIR_CLOCK - timedelta(seconds=10)).isoformat()


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
