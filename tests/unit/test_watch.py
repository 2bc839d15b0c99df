"""Beside the copying: what is said of triggers and channels is said when it changes, and once."""

import logging
from typing import Any, cast

import pytest

from mirror.applier import Applier
from mirror.batch import Fault
from mirror.errors import Refused
from mirror.ops.knowledge import Knowledge
from mirror.producers.findings import Order
from mirror.source.primary import Primary
from mirror.target.target import Channels, Target
from mirror.watch import Watch
from tests.bed.told import claimed


class Both:
    """Two sides that answer what the test says."""

    def __init__(self) -> None:
        self.missing: list[Fault] = []
        self.seen: Channels | None = Channels("ready")
        self.asked = 0

    async def faults(self) -> list[Fault]:
        return self.missing

    async def open_channels(self) -> Channels:
        self.asked += 1
        if self.seen is None:
            raise Refused("target", "there is no such function")
        return self.seen


class Watching:
    def __init__(self, channels: str | None) -> None:
        self.now = 0.0
        self.both = Both()
        self.knowledge = Knowledge(clock=lambda: self.now)
        self.leads(channels)
        self.watch = Watch(self.knowledge, Applier(rows=1, heartbeat_s=1.0), clock=lambda: self.now)

    def leads(self, channels: str | None) -> None:
        self.knowledge.leads(claimed(channels=channels), self.now)

    async def look(self, times: int = 2) -> None:
        """It is time for all of it, so often."""
        for _ in range(times):
            self.now += 61.0
            await self.watch.look(cast("Primary", self.both), cast("Target", self.both))

    @property
    def troubles(self) -> list[tuple[str, str, int]]:
        return [(t.kind, t.message, t.times) for t in self.knowledge.record.errors]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


async def test_open_channels_are_said_when_they_were_closed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watching = Watching("ready")
    await watching.look()
    assert said(caplog) == []
    closed = "private channels are closed: there is no realtime.messages yet"
    watching.both.seen = Channels("missing")
    await watching.look()
    assert watching.knowledge.look().channels == "missing"
    assert watching.troubles == [("ChannelsClosed", closed, 1)]
    watching.both.seen = Channels("ready")
    await watching.look()
    assert said(caplog) == [closed, "private channels are open"]


@pytest.mark.parametrize(("known", "lines"), [("ready", 0), ("closed", 1)])
async def test_an_api_that_refuses_to_look_changes_nothing(
    caplog: pytest.LogCaptureFixture, known: str, lines: int
) -> None:
    caplog.set_level(logging.INFO)
    watching = Watching(known)
    watching.both.seen = None
    await watching.look()
    assert watching.knowledge.look().channels == known
    reason = "(target: there is no such function)"
    assert [line.endswith(reason) for line in said(caplog)] == [True] * lines
    assert said(caplog) == [message for _, message, _ in watching.troubles]


async def test_a_target_that_cannot_tell_is_not_asked() -> None:
    watching = Watching(None)
    await watching.look()
    assert watching.both.asked == 0


async def test_each_is_looked_at_now_and_then() -> None:
    """Channels once a minute; when a session begins, only those that its claim did not call open."""
    watching = Watching("ready")
    both: Any = watching.both
    await watching.look(1)
    for _ in range(3):
        await watching.watch.look(both, both)
    assert watching.both.asked == 1
    for known, asked in (("ready", 1), ("closed", 2)):
        watching.leads(known)
        watching.watch.begin()
        await watching.watch.look(both, both)
        assert watching.both.asked == asked


async def test_a_missing_trigger_is_told_once_and_compared_for_twice() -> None:
    """When it went, and when it is back: until then changes were missed, and it stays in doubt until compared."""
    watching = Watching(None)
    watching.both.missing = [Fault("users", "capture", "trigger mirror_insert is missing", "Run it.")]
    await watching.look()
    told = "changes of users are not captured: trigger mirror_insert is missing"
    assert watching.troubles == [("NotCaptured", told, 1)]
    assert watching.knowledge.to_compare() == (Order("triggers"),)
    watching.both.missing = []
    await watching.look()
    assert watching.knowledge.to_compare() == (Order("triggers"),)
    (doubt,) = watching.knowledge.look().doubts
    assert doubt.reason == "changes of users were not captured for a while, and it has not been compared since"
    assert doubt.since is None, "no check has ever found all well before"
