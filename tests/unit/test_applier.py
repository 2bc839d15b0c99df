"""THE operation, against the two seams: what is asked of the source, what is written, what is forgotten."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from mirror.applier import BYTES_MAX, Applier
from mirror.batch import Fence, Outcome, Reading, Request, Taken
from mirror.errors import LOCKED, Refused, Superseded, Unreachable
from mirror.pace import SLICE_EVERY
from mirror.scope import Keys, Range, Wide
from tests.unit.test_walk import reading


class Both:
    """A source that answers what the test says, and a target that notes what it is given."""

    seconds_aimed = 2.0

    def __init__(self) -> None:
        self.answers: list[Reading] = []
        self.asked: list[Request] = []
        self.applied: list[tuple[Fence, bool, float]] = []
        self.outcome = Outcome()
        self.calls: list[str] = []
        self.fails = False
        self.refuses: Refused | None = None
        self.leads = True
        self.read_meanwhile = 0
        self._batch = 0

    async def drain(self, request: Request) -> Reading:
        self.calls.append("drain")
        self.asked.append(request)
        return self.answers.pop(0)

    async def assure_lead(self) -> None:
        if not self.leads:
            raise Superseded("another daemon took the lead")

    def next_fence(self) -> Fence:
        self.calls.append("fence")
        self._batch += 1
        return Fence(1, self._batch)

    async def apply(
        self, reading: Reading, fence: Fence, *, position: bool, began: float, notes: Mapping[str, Any]
    ) -> Outcome:
        del reading, notes
        self.calls.append("apply")
        asked = len(self.asked)
        await asyncio.sleep(0)
        self.read_meanwhile = len(self.asked) - asked
        if self.refuses is not None:
            raise self.refuses
        if self.fails:
            raise Unreachable("target", "gone")
        self.applied.append((fence, position, began))
        return self.outcome


class Turning:
    def __init__(self) -> None:
        self.now = 100.0
        self.both = Both()
        self.applier = Applier(rows=10, heartbeat_s=5.0, clock=lambda: self.now)
        self.begin()

    def begin(self) -> None:
        """A new epoch, of a target that has nothing yet."""
        self.applier.begin(empty=("users", "trips", "trip_memberships"), walks=())

    async def step(self, answer: Reading) -> Any:
        self.both.answers.append(answer)
        return await self.applier.step(self.both, self.both, may_sleep=False)

    @property
    def asked(self) -> Request:
        return self.both.asked[-1]


REQUEST = {"id": 1, "kind": "resync", "tbl": None, "trip": None, "usr": None, "cancelled": False}


def entries(n: int = 1, **others: Any) -> Reading:
    values: dict[str, Any] = {"entries": n, "scopes": "{}", "taken": Taken(f"{{{n}}}", f"{{{n}}}")}
    return reading(**values | others)


async def test_the_fence_is_taken_before_the_snapshot() -> None:
    turning = Turning()
    await turning.step(entries())
    assert turning.both.calls == ["fence", "drain", "apply"]
    assert turning.both.applied == [(Fence(1, 1), True, 100.0)]


async def test_without_the_lead_nothing_is_applied() -> None:
    turning = Turning()
    turning.both.leads = False
    with pytest.raises(Superseded):
        await turning.step(entries())
    assert turning.both.calls == ["fence", "drain"]


async def test_exactly_what_was_applied_is_forgotten_and_only_then() -> None:
    turning = Turning()
    await turning.step(entries(3))
    turning.both.fails = True
    with pytest.raises(Unreachable):
        await turning.step(entries(4))
    turning.begin()
    turning.both.fails = False
    await turning.step(entries(5))
    await turning.step(reading())
    forgotten = [request.forget for request in turning.both.asked]
    assert forgotten == [(), (Taken("{3}", "{3}"),), (), (Taken("{5}", "{5}"),)]


async def test_how_far_the_target_is_when_entries_are_forgotten_is_noted_once_a_second_and_at_last() -> None:
    turning = Turning()
    await turning.step(entries(snapshot="20:20:"))
    await turning.step(entries(snapshot="30:30:"))  # 20 is noted
    await turning.step(reading())  # a moment later
    turning.now += 1.0
    await turning.step(reading())  # 30 is, though nobody writes any more
    turning.now += 1.0
    await turning.step(entries(snapshot="40:40:", broken={"trips": "renamed"}))  # nothing was forgotten since
    turning.now += 5.0
    await turning.step(reading(snapshot="50:50:"))  # a batch with a table that cannot be read was no position
    await turning.step(reading())  # this one was
    noted = [request.reached for request in turning.both.asked]
    assert noted == [None, "20:20:", None, "30:30:", None, None, "50:50:"]
    turning.begin()
    await turning.step(reading(snapshot="60:60:"))
    turning.now += 1.0
    await turning.step(reading())
    assert [request.reached for request in turning.both.asked[-2:]] == [None, "60:60:"], "whatever got lost before"


async def test_an_empty_batch_is_applied_when_a_position_is_due() -> None:
    turning = Turning()
    await turning.step(reading())
    assert len(turning.both.applied) == 1, "the first, to say where the target is"
    await turning.step(reading())
    assert len(turning.both.applied) == 1
    assert turning.applier.until_due() == 5.0
    turning.now += 5.0
    assert turning.applier.until_due() == 0.0
    await turning.step(reading())
    assert len(turning.both.applied) == 2, "the heartbeat"


async def test_a_first_load_is_compared_as_soon_as_it_is_through() -> None:
    turning = Turning()
    turning.applier.begin(empty=(), walks=(), prove=True)
    await turning.step(entries(broken={"trips": "renamed"}))
    turning.now += 5.0
    await turning.step(reading())
    assert [request.slice for request in turning.both.asked] == [None, None], "not before there is a position"
    await turning.step(reading())
    assert turning.asked.slice == Range(Wide("users"), rows=2000, want="digest")


async def test_it_sleeps_over_marks_that_are_left_and_looks_at_them_again() -> None:
    turning = Turning()
    applier, mark = turning.applier, Wide("users")
    applier.begin(empty=(), walks=())
    await turning.step(reading(mark))
    everything = {"missing": 0, "extra": 1000, "changed": 0, "parked": 0, "refused": 0, "rows": []}
    turning.both.outcome = Outcome(check={"equal": False, "n": 1000}, explained=(everything,))
    whole = {"rows": 0, "upto1": None, "upto2": None, "check": {"n": 0, "digest": "0"}}
    await turning.step(reading(mark, slice=whole))
    await turning.step(reading(mark, slice=whole))
    turning.now += 10.0  # no position can be told meanwhile
    await turning.step(reading(mark))
    assert [request.left for request in turning.both.asked] == [(), (), (), (mark,)]
    assert applier.until_due() == 5.0
    turning.now += 5.0
    await turning.step(reading(mark))
    assert turning.asked.slice == Range(mark, rows=2000, want="digest")


@pytest.mark.parametrize(
    "incomplete",
    [
        entries(backlog=True),
        reading(Wide("users"), entries=1, scopes="{}", taken=Taken("{1}", "{1}")),
        entries(broken={"users": "renamed"}),
    ],
    ids=["backlog", "wide", "broken"],
)
async def test_the_position_stands_still_while_anything_is_missing(incomplete: Reading) -> None:
    turning = Turning()
    await turning.step(incomplete)
    assert [position for _, position, _ in turning.both.applied] == [False]


async def test_a_broken_table_is_left_alone_for_a_while_and_then_tried_again() -> None:
    turning = Turning()
    await turning.step(reading(broken={"users": "renamed"}))
    assert turning.applier.outbox.broken == {"users": "renamed"}
    assert 0 < turning.applier.until_due() <= 5.0
    await turning.step(reading())
    assert list(turning.asked.skip) == ["users"]
    assert not turning.both.applied, "without that table it is no position"
    turning.now += 5.0
    await turning.step(reading(broken={"users": "renamed"}))
    assert not list(turning.asked.skip)
    assert turning.applier.until_due() == 5.0
    turning.now += 5.0
    await turning.step(reading())
    assert turning.applier.outbox.broken == {}
    assert [position for _, position, _ in turning.both.applied] == [True]


@pytest.mark.parametrize(
    "seen",
    [
        reading(asleep=True, requests=(REQUEST | {"trip": "1"},)),
        reading(asleep=True, requests=(REQUEST | {"usr": "1"},)),
        reading(asleep=True, wide=(Wide("trip_memberships", "1"),)),
    ],
)
async def test_what_the_last_look_before_sleeping_finds_is_worked_off_at_once(seen: Reading) -> None:
    """Who asked had the doorbell's lock before the daemon did, and so did not ring."""
    turning = Turning()
    await turning.step(seen)
    assert turning.applier.until_due() == 0.0


async def test_a_table_that_is_locked_in_the_target_is_left_out_for_a_while() -> None:
    turning = Turning()
    turning.both.refuses = Refused("target", "a table is locked", hint="by pid 7", sqlstate=LOCKED, about="users")
    step = await turning.step(entries(1))
    assert turning.applier.outbox.locked == {"users": "by pid 7"}
    assert (step.outcome, step.position) == (None, False)
    turning.both.refuses = None
    await turning.step(entries(1))
    assert list(turning.asked.skip) == ["users"]
    assert not turning.asked.forget, "nothing of that batch was applied"
    assert [(fence.batch, position) for fence, position, _ in turning.both.applied] == [(2, False)]
    assert turning.applier.outbox.locked == {"users": "by pid 7"}
    assert 0 < turning.applier.until_due() <= 5.0
    turning.now += 5.0
    turning.both.refuses = Refused("target", "a table is locked", hint="by pid 8", sqlstate=LOCKED, about="users")
    await turning.step(entries(1))
    assert turning.applier.outbox.locked == {"users": "by pid 8"}
    turning.both.refuses = None
    turning.now += 5.0
    await turning.step(entries(1))
    assert not list(turning.asked.skip)
    assert turning.applier.outbox.locked == {}
    assert [position for _, position, _ in turning.both.applied] == [False, True]


async def test_with_a_batch_read_ahead_a_locked_table_is_left_out_by_a_new_epoch() -> None:
    turning = Turning()
    turning.both.refuses = Refused("target", "a table is locked", hint="by pid 7", sqlstate=LOCKED, about="users")
    turning.both.answers = [entries(n, backlog=True) for n in (1, 2)]
    with pytest.raises(Refused):
        await turning.applier.step(turning.both, turning.both, may_sleep=False)
    await turning.applier.rest()
    turning.applier.begin(empty=(), walks=())
    turning.both.refuses = None
    await turning.step(entries(3, backlog=True))
    assert list(turning.asked.skip) == ["users"]
    assert turning.applier._ahead is None, "nothing is read ahead while a table may have no room"


@pytest.mark.parametrize("about", ["", "chat"])
async def test_what_is_locked_and_is_none_of_the_tables_is_an_error(about: str) -> None:
    turning = Turning()
    turning.both.refuses = Refused("target", "busy", sqlstate=LOCKED, about=about)
    with pytest.raises(Refused):
        await turning.step(entries(1))


async def test_in_a_backlog_a_walk_has_its_turn_now_and_then() -> None:
    turning = Turning()
    turning.both.answers.append(reading(Wide("users"), backlog=True, entries=10, scopes="{}"))  # for what is read ahead
    await turning.step(reading(Wide("users"), backlog=True, entries=10, scopes="{}"))
    slices = []
    for _ in range(2 * SLICE_EVERY):
        await turning.step(reading(Wide("users"), backlog=True, entries=10, scopes="{}"))
        slices.append(turning.asked.slice)
    assert len([s for s in slices if isinstance(s, Range)]) == 2


async def test_a_backlog_of_nothing_but_wide_marks_is_walked_at_once() -> None:
    turning = Turning()
    await turning.step(reading(Wide("trip_memberships", "1"), backlog=True))
    await turning.step(reading(Wide("trip_memberships", "1"), backlog=True))
    assert isinstance(turning.asked.slice, Range)


async def test_what_was_parked_is_tried_again_when_the_target_says_so() -> None:
    turning = Turning()
    turning.both.outcome = Outcome(due=(("users", "1", None), ("trips", "2", None), ("users", "3", None)))
    await turning.step(entries())
    turning.both.outcome = Outcome()
    await turning.step(entries())
    assert turning.asked.slice == Keys("users", (("1", None), ("3", None)))
    await turning.step(entries())
    assert turning.asked.slice == Keys("trips", (("2", None),))
    await turning.step(entries())
    assert turning.asked.slice is None


async def test_during_a_walk_the_next_slice_is_read_while_this_one_is_applied() -> None:
    turning = Turning()
    turning.both.answers = [reading(Wide("users"))]
    await turning.step(turning.both.answers.pop())
    more = reading(Wide("users"), scopes="{}", slice={"rows": 10, "upto1": "m", "upto2": None})
    turning.both.answers = [more, reading(Wide("users"), scopes="{}", slice={"rows": 3, "upto1": None, "upto2": None})]
    turning.both.calls.clear()
    await turning.applier.step(turning.both, turning.both, may_sleep=False)
    assert turning.both.read_meanwhile == 1
    await turning.applier.step(turning.both, turning.both, may_sleep=False)
    assert turning.both.read_meanwhile == 0
    assert turning.both.calls == ["fence", "drain", "apply", "fence", "drain", "apply"]
    assert [fence.batch for fence, _, _ in turning.both.applied] == [2, 3]
    slices = [request.slice for request in turning.both.asked[1:]]
    assert slices == [Range(Wide("users"), rows=10), Range(Wide("users"), ("m", None), rows=10)]
    assert not turning.asked.forget_wide, "not before the last slice is applied"
    await turning.step(reading())
    assert [wide for wide, _ in turning.asked.forget_wide] == [Wide("users")]


async def test_what_was_read_ahead_is_thrown_away_when_the_apply_fails() -> None:
    turning = Turning()
    await turning.step(reading(Wide("users")))
    turning.both.fails = True
    more = reading(Wide("users"), scopes="{}", slice={"rows": 10, "upto1": "m", "upto2": None})
    turning.both.answers = [more, more]
    with pytest.raises(Unreachable):
        await turning.applier.step(turning.both, turning.both, may_sleep=False)
    turning.both.fails = False
    walks = ({"table": "users", "trip": None, "since": "1:1:", "after": ["f", None], "rows": 5},)
    turning.applier.begin(empty=(), walks=walks)
    turning.both.answers = [reading(Wide("users"))]
    await turning.applier.step(turning.both, turning.both, may_sleep=False)
    assert turning.asked.slice == Range(Wide("users"), ("f", None), rows=10), "as far as the target says"


async def test_in_a_backlog_the_next_batch_is_read_while_this_one_is_applied() -> None:
    turning = Turning()
    turning.both.answers = [entries(n, backlog=n < 4) for n in (1, 2, 3, 4)]
    for _ in range(4):
        await turning.applier.step(turning.both, turning.both, may_sleep=False)
    assert turning.both.calls == ["fence", "drain", *["apply", "fence", "drain"] * 3, "apply"]
    assert [fence.batch for fence, _, _ in turning.both.applied] == [1, 2, 3, 4]
    assert [position for _, position, _ in turning.both.applied] == [False, False, False, True]
    await turning.step(reading())
    in_hand = [request.in_hand and request.in_hand.id for request in turning.both.asked]
    forgotten = [[taken.id for taken in request.forget] for request in turning.both.asked]
    assert in_hand == [None, "{1}", "{2}", "{3}", None], "what is being applied is not read again"
    assert forgotten == [[], [], ["{1}"], ["{2}"], ["{3}", "{4}"]], "nor forgotten before it is, and each once"


async def test_a_slice_that_is_being_applied_is_not_asked_for_again() -> None:
    turning = Turning()
    turning.both.outcome = Outcome(due=(("users", "1", None),))
    await turning.step(entries())
    turning.both.outcome = Outcome()
    turning.both.answers = [entries(2, backlog=True, slice={}), entries(3)]
    await turning.applier.step(turning.both, turning.both, may_sleep=False)
    await turning.applier.step(turning.both, turning.both, may_sleep=False)
    slices = [request.slice for request in turning.both.asked]
    assert slices == [None, Keys("users", (("1", None),)), None]


async def test_what_was_read_ahead_in_a_backlog_is_thrown_away_with_what_failed() -> None:
    turning = Turning()
    turning.both.fails = True
    turning.both.answers = [entries(1, backlog=True), entries(2, backlog=True)]
    with pytest.raises(Unreachable):
        await turning.applier.step(turning.both, turning.both, may_sleep=False)
    turning.both.fails = False
    await turning.applier.rest()
    turning.begin()
    await turning.step(entries(3))
    assert (turning.asked.in_hand, turning.asked.forget) == (None, ())
    assert [fence.batch for fence, _, _ in turning.both.applied] == [3]


async def test_keys_that_change_again_and_again_are_read_many_entries_at_a_time() -> None:
    turning = Turning()
    for n, keys in ((10, 10), (10, 2), (50, 2), (100, 100)):
        await turning.step(entries(n, keys=keys))
    await turning.step(entries())
    assert [request.entries for request in turning.both.asked] == [10, 10, 50, 100, 10]


async def test_large_rows_make_batches_smaller_and_small_ones_larger_again() -> None:
    turning = Turning()
    large = entries(scopes="x" * BYTES_MAX)
    for rows in (10, 5, 2, 1, 1):
        await turning.step(large)
        assert turning.asked.rows == rows
    for rows in (1, 2, 4, 8, 10):
        await turning.step(entries())
        assert turning.asked.rows == rows


class Slow(Both):
    """A target that takes its time, and gives up after eight seconds, as Supabase does."""

    def __init__(self, turning: "Turning", per_row_s: float) -> None:
        super().__init__()
        self._turning = turning
        self.per_row_s = per_row_s

    async def apply(
        self, reading: Reading, fence: Fence, *, position: bool, began: float, notes: Mapping[str, Any]
    ) -> Outcome:
        took_s = (reading.entries + (int(reading.slice["rows"]) if reading.slice else 0)) * self.per_row_s
        self._turning.now += min(took_s, 8.0)
        if took_s > 8.0:
            raise Refused("target", "canceling statement due to statement timeout", sqlstate="57014")
        return await super().apply(reading, fence, position=position, began=began, notes=notes)


async def test_a_slow_target_gets_smaller_batches_also_when_it_gave_up() -> None:
    turning = Turning()
    turning.both = Slow(turning, per_row_s=2.0)
    with pytest.raises(Refused):
        await turning.step(entries(10))
    await turning.step(entries(2))
    assert turning.asked.rows == 2, "ten took too long; four times fewer"
    await turning.step(entries(1))
    assert turning.asked.rows == 1


async def test_a_first_load_of_a_slow_target_goes_in_smaller_slices() -> None:
    turning = Turning()
    turning.both = Slow(turning, per_row_s=0.5)
    wide = Wide("users")
    await turning.step(reading(wide))
    for n in range(4):
        now = {"rows": 8, "upto1": str(n), "upto2": None}
        turning.both.answers += [reading(wide, slice=now), reading(wide)]
        await turning.applier.step(turning.both, turning.both, may_sleep=False)
    sizes = [request.slice.rows for request in turning.both.asked if isinstance(request.slice, Range)]
    assert (sizes[0], sizes[-1]) == (10, 5), "eight rows took four seconds, aimed at are two"
