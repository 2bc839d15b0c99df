"""The producer of proofs without databases: what it asks next, at which pace, and what it makes of the answers."""

from dataclasses import replace
from typing import Any

import pytest

from mirror.batch import Outcome, Reading
from mirror.producers.findings import Order
from mirror.producers.reconcile import (
    AGAIN_FACTOR,
    AGAIN_MIN_S,
    QUIET_S,
    SLICE_MAX,
    SLICE_MIN,
    SLICE_QUIET_SECONDS,
    SLICE_SECONDS,
    Reconcile,
)
from mirror.scope import Range, Wide

NOTHING = {"missing": 0, "extra": 0, "changed": 0, "parked": 0, "refused": 0, "rows": []}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def reading(rows: int = 10, upto: str | None = None, **more: Any) -> Reading:
    piece = {"rows": rows, "upto1": upto, "upto2": None, "check": {"n": rows, "digest": "5"}}
    return replace(Reading("1:1:", "then", "", 0, False, (), {}, piece, 0.0, {}, None, None, False, None), **more)


def equal(n: int = 10) -> Outcome:
    return Outcome(check={"equal": True, "n": n, "digest": "5"})


def different(n: int = 10) -> Outcome:
    return Outcome(check={"equal": False, "n": n, "digest": "6"})


def explained(**counts: int) -> Outcome:
    return Outcome(explained=(NOTHING | counts,))


def reconcile(*, rows_per_s: float = 1e9, brake: float = 0.2) -> tuple[Reconcile, Clock]:
    clock = Clock()
    return Reconcile(rows_per_s=rows_per_s, brake_share=brake, rows=100, clock=clock), clock


def asked(producer: Reconcile, want: str) -> Range:
    piece = producer.next_slice(())
    assert piece is not None
    assert piece.want == want
    return piece


def test_the_target_that_is_not_at_the_snapshot_is_not_compared() -> None:
    """In a backlog it lacks what is on its way: neither a digest nor a row says anything."""
    producer, _ = reconcile()
    producer.want(Order("start", ("users",)))
    first = asked(producer, "digest")
    producer.settle(first, reading(backlog=True), different(), 0.001)
    assert asked(producer, "digest").after == first.after
    producer.settle(asked(producer, "digest"), reading(), different(), 0.001)
    dry = asked(producer, "dry")
    producer.settle(dry, reading(backlog=True), explained(changed=9), 0.001)
    assert asked(producer, "dry") == dry
    trip = (Wide("users", "a large trip"),)
    producer.settle(dry, reading(wide=trip), explained(changed=9), 0.001)
    assert asked(producer, "dry") == dry
    producer.settle(dry, reading(), explained(changed=1), 0.001)
    assert producer.next_slice(()) == Range(Wide("users"), rows=100)
    producer.settle(asked(producer, "rows"), reading(), Outcome(), 0.001)
    (end,) = producer.take_ended()
    assert (end.state, end.tables["users"].changed, end.tables["users"].rows) == ("done", 1, 10)


@pytest.mark.parametrize("error", ["in the slice", "in its entries"])
def test_a_table_that_cannot_be_read_ends_its_part_after_some_tries_and_deletes_nothing(error: str) -> None:
    broken = (
        reading(slice={"error": "no column"})
        if error == "in the slice"
        else reading(slice=None, broken={"users": "no column"})
    )
    producer, _ = reconcile()
    producer.want(Order("start", ("users", "trips")))
    for _ in range(5):
        piece = asked(producer, "digest")
        assert piece.table == "users"
        producer.settle(piece, broken, Outcome(), 0.001)
    assert asked(producer, "digest").table == "trips"
    producer.settle(asked(producer, "digest"), reading(), equal(), 0.001)
    (end,) = producer.take_ended()
    assert (end.state, end.tables["users"].unreadable, end.proves) == ("failed", "no column", False)


def test_a_hiccup_is_no_failure() -> None:
    producer, _ = reconcile()
    producer.want(Order("start", ("users",)))
    for _ in range(3):
        for _ in range(4):
            producer.settle(asked(producer, "digest"), reading(slice={"error": "busy"}), Outcome(), 0.001)
        producer.settle(asked(producer, "digest"), reading(upto="k"), equal(), 0.001)
    producer.settle(asked(producer, "digest"), reading(), equal(), 0.001)
    assert producer.take_ended()[0].state == "done"


@pytest.mark.parametrize(
    ("rows", "extra", "share", "state"),
    [
        (1000, 200, 0.2, "done"),  # exactly a fifth
        (1000, 201, 0.2, "braked"),
        (100, 100, 0.2, "done"),  # all of it, but no more than 100 rows
        (101, 101, 0.2, "braked"),
        (1000, 101, 0.0, "braked"),
        (1000, 1000, 1.0, "done"),
        (100_000, 20_000, 0.2, "done"),
        (100_000, 20_001, 0.2, "braked"),
    ],
)
def test_the_brake_is_on_beyond_its_share_and_a_hundred_rows(rows: int, extra: int, share: float, state: str) -> None:
    for force in (False, True):
        producer, _ = reconcile(brake=share)
        producer.want(Order("resync", ("users",), force=force))
        producer.settle(asked(producer, "digest"), reading(rows - extra), different(rows), 0.001)
        producer.settle(asked(producer, "dry"), reading(), explained(extra=extra), 0.001)
        while producer.running:
            producer.settle(asked(producer, "rows"), reading(), Outcome(), 0.001)
        (end,) = producer.take_ended()
        assert end.state == ("done" if force else state)
        assert ("users" in producer.braked) == (end.state == "braked")
        assert end.tables["users"].repaired == (end.state == "done")


def test_a_source_that_is_emptied_after_it_was_explained_is_braked_while_repairing() -> None:
    for force in (False, True):
        producer, _ = reconcile()
        producer.want(Order("resync", ("users",), force=force))
        producer.settle(asked(producer, "digest"), reading(1000, upto="z"), different(1000), 0.001)
        producer.settle(asked(producer, "digest"), reading(0), equal(0), 0.001)
        for upto in ("g", "p", "z"):
            producer.settle(asked(producer, "dry"), reading(upto=upto), explained(changed=1), 0.001)
        for _ in range(2):
            gone = Outcome(counts={"users": {"delete": 150}})
            producer.settle(asked(producer, "rows"), reading(0), gone, 0.001)
        assert (producer.running is None) != force
        assert ("users" in producer.braked) != force


def test_a_mark_is_settled_by_the_comparison_that_began_after_it() -> None:
    producer, _ = reconcile()
    producer.want(Order("mark", ("users",)))
    assert producer.covers("users")
    mark = (Wide("users"),)
    producer.settle(asked(producer, "digest"), reading(upto="k", snapshot="7:7:", wide=mark), equal(), 0.001)
    assert not producer.forget
    producer.settle(asked(producer, "digest"), reading(snapshot="9:9:", wide=mark), equal(), 0.001)
    assert producer.forget == ((Wide("users"), "7:7:"),)
    assert producer.take_ended()[0].tables["users"].expected


def test_a_braked_table_keeps_its_mark_and_a_verify_settles_none() -> None:
    producer, _ = reconcile()
    for order in (Order("mark", ("users",)), Order("verify", ("users",), repair=False)):
        producer.want(order)
        producer.settle(asked(producer, "digest"), reading(0, wide=(Wide("users"),)), different(1000), 0.001)
        producer.settle(asked(producer, "dry"), reading(0), explained(extra=1000), 0.001)
        assert producer.forget == ()
        assert producer.running is None
        assert producer.covers("users"), "or it would begin again for ever"


def braked(producer: Reconcile, spent_s: float = 0.001) -> None:
    producer.settle(asked(producer, "digest"), reading(0), different(1000), spent_s)
    producer.settle(asked(producer, "dry"), reading(0), explained(extra=1000), 0.001)


def test_what_was_left_unequal_is_compared_again_after_a_pause_and_no_drift_twice() -> None:
    producer, clock = reconcile()
    assert producer.again_in_s() == float("inf")
    for n in range(3):
        if n == 0:
            producer.want(Order("schedule", ("users",)))
        braked(producer)
        (end,) = producer.take_ended()
        assert (end.state, end.tables["users"].expected) == ("braked", n > 0)
        assert producer.left == (Wide("users"),)
        assert producer.next_slice(()) is None
        assert producer.again_in_s() == pytest.approx(AGAIN_MIN_S)
        clock.now += AGAIN_MIN_S
    producer.settle(asked(producer, "digest"), reading(), equal(), 0.001)
    (end,) = producer.take_ended()
    assert (end.order.reason, end.state) == ("again", "done")
    assert producer.unequal == {}
    assert (producer.left, producer.again_in_s()) == ((), float("inf"))


def test_the_pause_grows_with_what_a_comparison_takes() -> None:
    producer, _ = reconcile()
    producer.want(Order("schedule", ("users",)))
    braked(producer, spent_s=30.0)
    assert producer.again_in_s() == pytest.approx(AGAIN_FACTOR * 30.0, rel=0.01)


def test_what_a_verify_finds_is_known_until_it_is_repaired_and_holds_up_no_mark() -> None:
    producer, clock = reconcile()
    producer.want(Order("verify", ("users",), repair=False))
    producer.settle(asked(producer, "digest"), reading(), different(), 0.001)
    producer.settle(asked(producer, "dry"), reading(), explained(changed=1), 0.001)
    assert (producer.unequal["users"].drift, producer.braked) == (1, {})
    assert not producer.covers("users")
    clock.now += AGAIN_MIN_S
    producer.settle(asked(producer, "digest"), reading(), different(), 0.001)
    producer.settle(asked(producer, "dry"), reading(), explained(changed=1), 0.001)
    producer.settle(asked(producer, "rows"), reading(), Outcome(), 0.001)
    assert producer.unequal == {}


def test_a_range_of_more_rows_than_a_batch_is_explained_and_repaired_in_parts() -> None:
    producer, _ = reconcile()
    producer.want(Order("resync", ("users",)))
    producer.settle(asked(producer, "digest"), reading(upto="z"), different(), 0.001)
    producer.settle(asked(producer, "digest"), reading(), equal(), 0.001)
    for upto in ("g", "p", "z"):
        piece = asked(producer, "dry")
        assert (piece.upto, piece.rows) == (("z", None), 100)
        producer.settle(piece, reading(upto=upto), explained(changed=int(upto != "p")), 0.001)
    assert (asked(producer, "rows").after, asked(producer, "rows").upto) == ((None, None), ("g", None))
    producer.settle(asked(producer, "rows"), reading(upto="d"), Outcome(), 0.001)
    assert asked(producer, "rows").after == ("d", None)
    producer.settle(asked(producer, "rows"), reading(), Outcome(), 0.001)
    assert (asked(producer, "rows").after, asked(producer, "rows").upto) == (("p", None), ("z", None))
    producer.settle(asked(producer, "rows"), reading(), Outcome(), 0.001)
    assert producer.take_ended()[0].tables["users"].changed == 2


def test_it_keeps_to_its_rate() -> None:
    """2,000,000 rows at 50,000/s take forty seconds on the clock, whatever one slice takes; nobody waits here."""
    producer, clock = reconcile(rows_per_s=50_000)
    producer.want(Order("start", ("users",)))
    began, rows = clock.now, 0
    while rows < 2_000_000:
        waits = producer.wait_s()
        assert (producer.next_slice(()) is None) == (waits > 0)
        clock.now += waits
        piece = asked(producer, "digest")
        clock.now += 0.002
        rows += piece.rows
        producer.settle(piece, reading(piece.rows, upto=str(rows)), equal(piece.rows), 0.002)
    assert clock.now - began == pytest.approx(40, rel=0.02)


def test_slices_grow_while_they_are_cheap_and_shrink_when_they_are_not() -> None:
    producer, _ = reconcile()
    producer.want(Order("start", ("users",)))
    sizes = []
    for per_row_s in [1e-7] * 10 + [1e-3] * 15:
        piece = asked(producer, "digest")
        sizes.append(piece.rows)
        producer.settle(piece, reading(piece.rows, upto="k"), equal(), piece.rows * per_row_s)
    assert max(sizes) == SLICE_MAX
    assert sizes[-1] == SLICE_MIN


def test_slices_are_short_while_there_are_live_changes() -> None:
    producer, clock = reconcile()
    producer.want(Order("start", ("users",)))

    def sizes(entries: int) -> list[int]:
        found = []
        for _ in range(20):
            piece = asked(producer, "digest")
            found.append(piece.rows)
            clock.now += 0.01
            producer.settle(piece, reading(piece.rows, upto="k", entries=entries), equal(), piece.rows * 2e-6)
        return found

    quiet = sizes(0)[-1]
    assert quiet == pytest.approx(SLICE_QUIET_SECONDS / 2e-6, rel=0.01)
    assert sizes(1)[1] == pytest.approx(SLICE_SECONDS / 2e-6, rel=0.01), "at once"
    clock.now += 2 * QUIET_S
    assert sizes(0)[-1] == pytest.approx(quiet, rel=0.01)


def test_the_next_slice_is_read_while_this_one_is_checked() -> None:
    producer, clock = reconcile()
    producer.want(Order("start", ("users",)))
    first, one = asked(producer, "digest"), reading(upto="b")
    assert producer.go_on(first, one, clock.now - 1)
    second, two = asked(producer, "digest"), reading(upto=None)
    assert second.after == ("b", None)
    producer.settle(first, one, equal(), 0.001)
    assert not producer.go_on(second, two, clock.now - 1), "the last one has none behind it"
    producer.settle(second, two, equal(), 0.001)
    (end,) = producer.take_ended()
    assert (end.state, end.tables["users"].rows) == ("done", 20)


def test_what_was_read_behind_a_slice_that_was_not_compared_does_not_count() -> None:
    producer, clock = reconcile()
    producer.want(Order("start", ("users",)))
    first, one = asked(producer, "digest"), reading(upto="b")
    assert producer.go_on(first, one, clock.now - 1)
    second, two = asked(producer, "digest"), reading(upto="c")
    producer.settle(first, one, Outcome(), 0.001)
    assert not producer.go_on(second, two, clock.now - 1)
    producer.settle(second, two, equal(), 0.001)
    assert asked(producer, "digest").after == first.after
    producer.settle(first, one, equal(), 0.001)
    assert asked(producer, "digest").after == ("b", None)


def test_nothing_is_read_ahead_in_a_backlog_or_faster_than_the_rate() -> None:
    producer, clock = reconcile(rows_per_s=1000)
    producer.want(Order("start", ("users",)))
    first = asked(producer, "digest")
    assert not producer.go_on(first, reading(upto="b", backlog=True), clock.now - 1)
    assert not producer.go_on(first, reading(upto="b"), clock.now)
    assert producer.wait_s() == pytest.approx(0.01)


def test_equal_orders_wait_once_and_requests_each() -> None:
    producer, _ = reconcile()
    for order in (
        Order("start"),
        Order("schedule"),
        Order("triggers"),
        Order("resync", request=1),
        Order("mark", ("trips",)),
    ):
        producer.want(order)
    reasons = []
    while producer.busy:
        producer.settle(piece := asked(producer, "digest"), reading(), equal(), 0.001)
        reasons += [end.order.reason for end in producer.take_ended()]
        assert piece
    assert reasons == ["start", "resync", "mark"]


def test_after_a_failure_what_was_under_way_begins_again() -> None:
    producer, _ = reconcile()
    producer.want(Order("resync", ("users",), request=4))
    producer.settle(asked(producer, "digest"), reading(upto="k"), equal(), 0.001)
    producer.reset()
    assert producer.known_requests == {4}
    assert asked(producer, "digest").after == (None, None)


def test_a_cancelled_order_is_gone_whether_it_runs_or_waits() -> None:
    producer, _ = reconcile()
    for request in (1, 2):
        producer.want(Order("resync", ("users",), request=request))
    running = asked(producer, "digest")
    producer.cancel(2)
    producer.cancel(1)
    producer.settle(running, reading(), equal(), 0.001)
    assert not producer.busy
    assert producer.take_ended() == ()


def test_only_all_three_tables_prove_equality() -> None:
    producer, _ = reconcile()
    for tables in (("users", "trips"), ("users", "trips", "trip_memberships")):
        producer.want(Order("resync", tables))
        for _ in tables:
            producer.settle(asked(producer, "digest"), reading(), equal(), 0.001)
        (end,) = producer.take_ended()
        assert end.proves == (len(tables) == 3)


def test_it_waits_while_its_table_cannot_be_read() -> None:
    producer, _ = reconcile()
    producer.want(Order("start", ("users",)))
    asked(producer, "digest")
    assert producer.next_slice(("users",)) is None
    assert producer.is_held_up(("users",))
    assert not producer.is_held_up(("trips",))
