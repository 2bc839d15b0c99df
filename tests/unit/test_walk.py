"""Walks: which slice is next, when a walk is through, and which marks it settles."""

from typing import Any

from mirror.batch import Reading
from mirror.producers.walk import Walks
from mirror.scope import Wide

USERS, MEMBERS, TRIP = Wide("users"), Wide("trip_memberships"), Wide("trip_memberships", "7")


def reading(*wide: Wide, snapshot: str = "1:1:", **others: Any) -> Reading:
    values: dict[str, Any] = {
        "snapshot": snapshot, "as_of": "", "scopes": "", "entries": 0, "backlog": False, "wide": wide, "broken": {},
        "looked": None, "slice": None, "lag_s": 0.0, "ages_s": {}, "waiting": None, "outbox_bytes": 0, "asleep": False,
        "taken": None,
    }  # fmt: skip
    return Reading(**(values | others))


def until(*upto: str | None) -> dict[str, Any]:
    return {"rows": 10, "upto1": upto[0], "upto2": upto[1]}


def test_nothing_to_walk() -> None:
    assert Walks().next_slice(10, ()) is None


def test_slice_after_slice_and_then_the_marks_are_forgotten_as_of_the_beginning() -> None:
    walks = Walks()
    walks.read(reading(MEMBERS, snapshot="5:5:"), ())
    first = walks.next_slice(10, ())
    assert first is not None
    assert first.after == (None, None)
    walks.settle(first, reading(MEMBERS, slice=until("a", "b")))
    second = walks.next_slice(10, ())
    assert second is not None
    assert second.after == ("a", "b")
    assert not list(walks.forget)
    walks.settle(second, reading(MEMBERS, snapshot="9:9:", slice=until(None, None)))
    assert list(walks.forget) == [(MEMBERS, "5:5:")]
    assert walks.next_slice(10, ()) is None


def test_a_slice_that_was_not_read_is_asked_for_again() -> None:
    walks = Walks()
    walks.read(reading(USERS), ())
    asked = walks.next_slice(10, ())
    assert asked is not None
    walks.settle(asked, reading(USERS, broken={"users": "gone"}))
    assert walks.next_slice(10, ()) == asked


def test_parents_come_first_and_unreadable_tables_not_at_all() -> None:
    walks = Walks()
    walks.read(reading(MEMBERS, TRIP, USERS), ())
    assert [s and s.wide for s in (walks.next_slice(1, ()), walks.next_slice(1, ("users",)))] == [USERS, MEMBERS]
    assert walks.next_slice(1, ("users", "trip_memberships")) is None


def test_a_mark_that_somebody_else_settled_ends_its_walk() -> None:
    walks = Walks()
    walks.read(reading(USERS, TRIP), ())
    walks.read(reading(TRIP), ())
    assert len(walks) == 1
    walks.read(reading(backlog=True), ())
    assert len(walks) == 1, "a backlog does not name all marks"
    walks.read(reading(), ("trip_memberships",))
    assert len(walks) == 1, "a table that was left out names none"
    walks.read(reading(), ())
    assert len(walks) == 0


def test_the_marks_of_a_finished_walk_do_not_begin_another_before_they_are_forgotten() -> None:
    walks = Walks()
    walks.read(reading(USERS), ())
    asked = walks.next_slice(1, ())
    assert asked is not None
    walks.settle(asked, reading(USERS, slice=until(None, None)))
    walks.read(reading(USERS), ())
    assert len(walks) == 0
    walks.forgotten()
    walks.read(reading(USERS, snapshot="9:9:"), ())  # a new mark, made during the walk
    assert len(walks) == 1
