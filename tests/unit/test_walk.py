"""Walks: which slice is next, when a walk is through, and which marks it settles."""

import json
from typing import Any

from mirror.batch import Outcome, Reading
from mirror.producers.walk import Walks
from mirror.scope import Wide

USERS, MEMBERS, TRIP = Wide("users"), Wide("trip_memberships"), Wide("trip_memberships", "7")


def reading(*wide: Wide, snapshot: str = "1:1:", **others: Any) -> Reading:
    values: dict[str, Any] = {
        "snapshot": snapshot, "as_of": "", "scopes": "", "entries": 0, "backlog": False, "wide": wide, "broken": {},
        "slice": None, "lag_s": 0.0, "ages_s": {}, "waiting": None, "outbox_bytes": 0, "asleep": False,
        "taken": None,
    }  # fmt: skip
    return Reading(**(values | others))


def until(*upto: str | None) -> dict[str, Any]:
    return {"rows": 10, "upto1": upto[0], "upto2": upto[1]}


def begun(*wide: Wide, snapshot: str = "1:1:") -> Walks:
    walks = Walks(rows=10)
    for one in wide:
        walks.begin(one, snapshot)
    return walks


def test_nothing_to_walk() -> None:
    assert begun().next_slice(()) is None


def test_slice_after_slice_and_then_the_marks_are_forgotten_as_of_the_beginning() -> None:
    walks = begun(MEMBERS, snapshot="5:5:")
    first = walks.next_slice(())
    assert first is not None
    assert first.after == (None, None)
    walks.settle(first, reading(MEMBERS, slice=until("a", "b")), Outcome(), 0.0)
    second = walks.next_slice(())
    assert second is not None
    assert second.after == ("a", "b")
    assert not list(walks.forget)
    walks.settle(second, reading(MEMBERS, snapshot="9:9:", slice=until(None, None)), Outcome(), 0.0)
    assert list(walks.forget) == [(MEMBERS, "5:5:")]
    assert walks.next_slice(()) is None


def test_a_slice_that_was_not_read_is_asked_for_again() -> None:
    walks = begun(USERS)
    asked = walks.next_slice(())
    assert asked is not None
    walks.settle(asked, reading(USERS, broken={"users": "gone"}), Outcome(), 0.0)
    assert walks.next_slice(()) == asked


def test_parents_come_first_and_unreadable_tables_not_at_all() -> None:
    walks = begun(MEMBERS, TRIP, USERS)
    assert [s and s.wide for s in (walks.next_slice(()), walks.next_slice(("users",)))] == [USERS, MEMBERS]
    assert walks.next_slice(("users", "trip_memberships")) is None


def test_a_mark_that_somebody_else_settled_ends_its_walk() -> None:
    walks = begun(USERS, TRIP)
    walks.read(reading(TRIP), ())
    assert len(walks) == 1
    walks.read(reading(backlog=True), ())
    assert len(walks) == 1, "a backlog does not name all marks"
    walks.read(reading(), ("trip_memberships",))
    assert len(walks) == 1, "a table that was left out names none"
    walks.read(reading(), ())
    assert len(walks) == 0


def test_how_far_it_is_is_known_before_the_slice_is_applied_and_after_a_restart() -> None:
    walks = begun(MEMBERS, USERS, snapshot="5:5:")
    asked = walks.next_slice(())
    assert asked is not None
    document = walks.document(asked, reading(slice=until("m", None)))
    assert [(w["table"], w["after"], w["rows"]) for w in document] == [
        ("trip_memberships", (None, None), 0),
        ("users", ("m", None), 10),
    ]
    later = Walks(rows=10)
    later.restore(tuple(json.loads(json.dumps(document))))
    going_on = later.next_slice(())
    assert going_on is not None
    assert (going_on.wide, going_on.after) == (USERS, ("m", None))
    later.settle(going_on, reading(slice=until(None, None)), Outcome(), 0.0)
    assert list(later.forget) == [(USERS, "5:5:")]
    assert walks.document(asked, reading(slice=until(None, None))) == document[:1]
