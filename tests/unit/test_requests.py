"""What operators ask, between the source's table of requests and the producers that can do it."""

from typing import Any

from mirror.batch import Aside, Outcome, Reading
from mirror.producers.reconcile import Reconcile
from mirror.producers.requests import Requests
from mirror.producers.resync import Resync
from mirror.scope import Keys, OfUser, Range, Wide


def request(number: int, **more: Any) -> dict[str, Any]:
    usual = {"id": number, "kind": "resync", "tbl": None, "trip": None, "usr": None}
    return usual | {"rewrite": False, "force": False, "cancelled": False} | more


def reading(**piece: Any) -> Reading:
    return Reading("1:1:", "then", "", 0, False, (), {}, piece or None, 0.0, {}, None, None, False, None)


class Desk:
    def __init__(self) -> None:
        self.reconcile = Reconcile(rows_per_s=1e9, brake_share=0.2, rows=100)
        self.resync = Resync(100)
        self.requests = Requests(self.reconcile, self.resync)

    @property
    def known(self) -> set[int]:
        return self.reconcile.known_requests | self.resync.known_requests


def test_each_request_goes_once_to_whoever_can_do_it() -> None:
    desk = Desk()
    for _ in range(2):
        desk.requests.read(
            (request(1), request(2, trip="t"), request(3, usr="u"), request(4, kind="verify", tbl="trips"))
        )
    assert desk.reconcile.known_requests == {1, 4}
    assert desk.resync.known_requests == {2, 3}
    assert desk.resync.next_slice(()) == Keys("trips", (("t", None),))


def test_taken_back_while_it_runs_it_ends_once() -> None:
    desk = Desk()
    desk.requests.read((request(1), request(2, usr="u")))
    desk.reconcile.next_slice(())
    for _ in range(2):
        desk.requests.read((request(1, cancelled=True), request(2, usr="u", cancelled=True)))
    assert desk.known == set()
    assert [(r.request, r.state) for r in desk.requests.due()] == [(1, "cancelled"), (2, "cancelled")]


def test_taken_back_before_it_began_it_is_not_done() -> None:
    """mirror.cancel_resync() ends such a request by itself: it is simply not there any more."""
    desk = Desk()
    desk.requests.read((request(1), request(2), request(3, trip="t")))
    desk.requests.read((request(1),))
    assert desk.known == {1}
    assert desk.requests.due() == []


def test_a_request_that_the_list_has_no_room_for_is_not_taken_for_cancelled() -> None:
    desk = Desk()
    desk.requests.read((request(9), request(10)))
    desk.requests.read(tuple(request(n) for n in range(1, 6)))
    assert desk.known == {1, 2, 3, 4, 5, 9, 10}
    desk.requests.read(tuple(request(n) for n in (1, 2, 4, 5, 9)))
    assert desk.known == {1, 2, 4, 5, 9, 10}


def test_after_a_failure_requests_begin_anew() -> None:
    desk = Desk()
    desk.requests.read((request(1, trip="t"),))
    desk.resync.reset()
    desk.requests.reset()
    desk.requests.read((request(1, trip="t"),))
    assert desk.resync.known_requests == {1}


def test_a_trip_goes_in_slices_and_a_user_in_two_steps() -> None:
    desk = Desk()
    desk.resync.want(1, trip="t", user=None)
    desk.resync.want(2, trip=None, user="u")
    row = {"k1": "t", "k2": "u", "reason": "no"}
    changed = Outcome(counts={"trip_memberships": {"upsert": 3}}, refused={"trip_memberships": Aside(1, (row,))})
    seen = []
    for upto in (None, "m", None, None, None):
        piece = desk.resync.next_slice(())
        assert piece is not None
        seen.append(piece)
        desk.resync.settle(piece, reading(rows=1, upto1=upto and "t", upto2=upto), changed, 0.0)
    assert seen == [
        Keys("trips", (("t", None),)),
        Range(Wide("trip_memberships", "t"), rows=100),
        Range(Wide("trip_memberships", "t"), ("t", "m"), rows=100),
        Keys("users", (("u", None),)),
        OfUser("u"),
    ]
    desk.requests.settle(())
    assert [(r.request, r.state, r.result) for r in desk.requests.due()] == [
        (1, "done", {"rows_changed": 9, "parked": 2, "parked_rows": [row, row]}),
        (2, "done", {"rows_changed": 6, "parked": 1, "parked_rows": [row]}),
    ]  # fmt: skip


def test_what_the_source_refuses_ends_the_request_with_its_reason() -> None:
    desk = Desk()
    desk.resync.want(1, trip="nonsense", user=None)
    piece = desk.resync.next_slice(())
    assert piece is not None
    desk.resync.settle(piece, reading(error="no uuid"), Outcome(), 0.0)
    desk.requests.settle(())
    assert [(r.state, r.result) for r in desk.requests.due()] == [("failed", {"error": "no uuid"})]
