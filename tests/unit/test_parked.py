"""The producer of second chances without databases: whom it asks for, when, and how many."""

from typing import Any

import pytest

from mirror.batch import Outcome
from mirror.producers.parked import HURRY_S, MANY, PAUSE_MAX_S, PAUSE_MIN_S, SAMPLE, Parked
from mirror.scope import Keys
from tests.unit.test_walk import reading


class Desk:
    """A producer, and a target of which so many trips and users are parked."""

    def __init__(self, **parked: int) -> None:
        self.now = 100.0
        self.parked = parked
        self.producer = Parked(lambda: self.now)
        self.hears()
        self.now += PAUSE_MIN_S

    def hears(self, *due: str) -> None:
        asked = self.producer.asks()
        self.producer.note(Outcome(parked=dict(self.parked), due=tuple(("trips", key, None) for key in due)), asked)

    def tries(self, *due: str, fit: int = 0) -> None:
        piece = self.producer.next_slice(())
        assert piece is not None
        self.parked["trips"] -= fit
        self.hears(*due)
        self.producer.settle(piece, reading(slice={}), Outcome(parked=dict(self.parked)), 0.0)


def test_a_sample_is_tried_with_growing_pauses_while_nothing_fits() -> None:
    desk, pauses = Desk(trips=100_000), []
    for _ in range(6):
        assert desk.producer.wants()
        assert desk.producer.asks() == {"trips": SAMPLE}
        desk.hears("1", "2")
        assert desk.producer.asks() == {}
        desk.tries()
        began = desk.now
        while not desk.producer.wants():
            desk.now += 1.0
        pauses.append(desk.now - began)
    assert pauses == [PAUSE_MIN_S, 10.0, 20.0, PAUSE_MAX_S, PAUSE_MAX_S, PAUSE_MAX_S]


def test_when_one_fits_all_are_tried_in_larger_batches_until_none_is_due() -> None:
    desk = Desk(trips=5000, users=1)
    desk.hears("1")
    desk.tries(fit=1)
    assert desk.producer.asks() == {"trips": MANY, "users": SAMPLE}, "users may have waited for the trips, or not"
    desk.hears("2")
    desk.tries("3", fit=1000)
    assert desk.producer.next_slice(()) == Keys("trips", (("3", None),)), "the next ones came with the same batch"
    desk.hears()
    assert desk.producer.asks() == {}
    desk.now += PAUSE_MIN_S
    assert "trips" in desk.producer.asks()


def test_the_hurry_ends_when_nothing_fits_for_a_while() -> None:
    desk = Desk(trips=5000)
    desk.hears("1")
    desk.tries(fit=1)
    assert desk.producer.asks() == {"trips": MANY}
    desk.hears("2")
    desk.tries("3")
    desk.now += HURRY_S
    desk.tries()
    assert desk.producer.asks() == {}
    desk.now += PAUSE_MIN_S
    assert desk.producer.asks() == {"trips": SAMPLE}


def test_nobody_is_asked_for_while_nothing_is_parked() -> None:
    desk = Desk()
    assert (desk.producer.asks(), desk.producer.wants()) == ({}, False)
    desk.producer.reset()
    assert desk.producer.asks(), "a new epoch does not know"
    assert not desk.producer.wants()


@pytest.mark.parametrize("skip", [(), ("trips",)])
def test_a_table_that_cannot_be_read_waits(skip: tuple[str, ...]) -> None:
    desk = Desk(trips=1)
    desk.hears("1")
    piece: Any = desk.producer.next_slice(skip)
    assert piece == (None if skip else Keys("trips", (("1", None),)))
