"""What may be claimed: every combination of reasons, and every surface says the same."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from mirror.applier import Applier
from mirror.batch import Fault, Outcome
from mirror.cli import seen, status
from mirror.doubt import KINDS, SORTS, Doubt, Kind, doubt
from mirror.errors import Unreachable
from mirror.known import INFINITE, Known, all_doubts, may_say_equal, not_ready, sentence, staleness_s, told
from mirror.ops.history import History
from mirror.ops.knowledge import TURN_S, Knowledge
from mirror.ops.metrics import Metrics
from mirror.ops.record import Record
from mirror.ops.report import ready, report
from mirror.producers.findings import Finished, Order, TableReport
from mirror.render import template
from tests.bed.told import THEN, claimed, step

MAX_S, NOW = 60.0, 1000.0
NEVER_EQUAL = {"tampered", "life", "unprimed", "brake", "unreadable", "capture", "parked"}
ENDS = {"tampered", "life", "unprimed", "brake"}
KEEPS_OPEN = {"parked", "clock"}
# Those that can come together in any way; `stale` and `leader` follow from others, or are for those without a daemon.
FREE: tuple[Kind, ...] = (
    "tampered", "life", "brake", "unreadable", "capture", "parked", "clock", "channels", "doorbell",
)  # fmt: skip


def well(**more: Any) -> Known:
    facts: dict[str, Any] = {
        "now": NOW, "role": "leader", "source_up": True, "target_up": True, "primed": True, "fresh_at": NOW - 1,
        "proven_at": 1.0, "led_since": 1.0, "doorbell_proven": True, "channels": "ready", "turned_at": NOW,
        "looked_at": NOW, "next_look_at": NOW + 1,
    }  # fmt: skip
    return Known(**(facts | more))


def with_reasons(kinds: tuple[Kind, ...], since: float | None, fresh_at: float) -> Known:
    given = {"brake", "unreadable", "capture", "tampered", "life", "clock"}
    doubts = tuple(
        doubt(kind, "users" if "{about}" in SORTS[kind].says else None, since=since, why="of this")
        for kind in kinds
        if kind in given
    )
    return well(
        fresh_at=fresh_at,
        doubts=doubts,
        parked={"trips": 2} if "parked" in kinds else {},
        channels="closed" if "channels" in kinds else "ready",
        doorbell_proven="doorbell" not in kinds,
    )


def combinations() -> Iterator[tuple[tuple[Kind, ...], float | None, float]]:
    """The power set, with ages around the limit."""
    for n in range(len(FREE) + 1):
        for kinds in itertools.combinations(FREE, n):
            for since in (NOW - 2, NOW - MAX_S - 1, None):
                for fresh_at in (NOW - 1, NOW - MAX_S - 5):
                    yield kinds, since, fresh_at


def expected_age(kinds: set[str], since: float | None, fresh_at: float) -> float:
    if kinds & ENDS or (since is None and kinds & {"capture", "unreadable"}):
        return INFINITE
    return NOW - (min(fresh_at, since) if since is not None and kinds & {"capture", "unreadable"} else fresh_at)


def from_outside(known: Known) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the two sides would tell `mirror status` of the same: the target was told all that it has to be, and
    knows the rest itself."""
    age_s = staleness_s(known)
    target: dict[str, Any] = {
        "installed": True, "clock": THEN.isoformat(), "primed_at": "x" if known.primed else None, "epoch": 1,
        "batch": 1, "snapshot": "7:7:", "staleness_seconds": None if age_s == INFINITE else age_s,
        "channels": known.channels,
        "parked": [{"tbl": t, "k1": str(n), "k2": "", "reason": "no", "tries": 1} for t, n in _each(known.parked)],
        "proof": {"at": THEN.isoformat(), "snapshot": "7:7:", "tables": {}},
        "doubts": [d.document() | {"since": None} for d in known.doubts],
    }  # fmt: skip
    if age_s != INFINITE:  # the moment, on the target's clock
        for d in target["doubts"]:
            d["since"] = THEN.isoformat()
    source: dict[str, Any] = {
        "installed": True, "leader": True, "outbox_entries": 0, "outbox_bytes": 0, "lag_seconds": 0.0, "lead": None,
        "strangers": [], "resync": None, "faults": [],
    }  # fmt: skip
    return source, target


def _each(counts: Any) -> Iterator[tuple[str, int]]:
    return ((table, i) for table, n in counts.items() for i in range(n))


def test_every_surface_says_the_same_of_every_combination() -> None:
    record = Record()
    history = History(Known, record)
    seen_verdicts = set()
    for kinds, since, fresh_at in combinations():
        known = with_reasons(kinds, since, fresh_at)
        wrong, age_s = set(kinds), expected_age(set(kinds), since, fresh_at)
        verdict = "fresh" if age_s <= MAX_S else "stale"
        seen_verdicts.add(verdict)
        is_ready = not (wrong - KEEPS_OPEN) and verdict == "fresh"
        named = {d.kind for d in all_doubts(known)}
        context = (kinds, since, fresh_at)

        assert known.verdict == verdict, context
        assert staleness_s(known) == pytest.approx(age_s), context
        assert named == wrong | ({"stale"} if MAX_S < age_s < INFINITE else set()), context
        assert may_say_equal(known) is not bool(wrong & NEVER_EQUAL), context

        answer = ready(known)  # /readyz
        assert answer["ready"] is is_ready, context
        assert {d["kind"] for d in answer["doubts"]} == named, context
        assert set(answer["reasons"]) == {d.reason for d in all_doubts(known) if d.kind not in KEEPS_OPEN}, context

        served = report(known, record, history, since=0)  # /api/status, the page
        assert (served["verdict"], served["ready"]) == (verdict, is_ready), context
        assert served["equal"] is may_say_equal(known), context
        assert served["staleness_seconds"] == (None if age_s == INFINITE else pytest.approx(age_s)), context
        assert served["doubts"] == answer["doubts"], context
        json.dumps(served, allow_nan=False)

        source, target = from_outside(known)  # mirror status
        asked = seen.verdict(source, target, MAX_S)
        assert asked["verdict"] == verdict, context
        assert status.EXIT_CODES[asked["verdict"]] == (0 if verdict == "fresh" else 1), context
        assert asked["equal"] is may_say_equal(known), context
        assert {d["kind"] for d in asked["doubts"]} == named - {"doorbell"}, context
        text = status._text(asked | {"source": source, "target": target, "errors": []}, as_json=False)
        assert text.startswith(verdict.upper() + ": "), context
        assert all(f"{kind}: " in text for kind in named - {"doorbell"}), context

        told_kinds = {d.kind for d in told(known)}  # what the target is told
        assert told_kinds == wrong & {"brake", "unreadable", "capture", "clock"}, context

        for said in (served["words"]["sentence"], text.splitlines()[0]):
            if wrong & NEVER_EQUAL:
                assert "equals" not in said, context
                assert "every row" not in said, context
    assert seen_verdicts == {"fresh", "stale"}


def gauges(known: Known) -> dict[str, float]:
    found = {}
    for family in Metrics(lambda: known).registry.collect():
        for sample in family.samples:
            found[sample.name + "".join(f"/{v}" for v in sample.labels.values())] = sample.value
    return found


@pytest.mark.parametrize("kind", FREE)
@pytest.mark.parametrize("other", [None, "parked", "capture"])
def test_the_metrics_say_it_too(kind: Kind, other: Kind | None) -> None:
    kinds = tuple(dict.fromkeys((kind, *([other] if other else []))))
    known = with_reasons(kinds, NOW - 2, NOW - 1)
    found = gauges(known)
    assert found["mirror_staleness_seconds"] == pytest.approx(expected_age(set(kinds), NOW - 2, NOW - 1))
    for name in KINDS:
        assert found[f"mirror_doubts/{name}"] == (name in kinds)
    assert found["mirror_braked/users"] == ("brake" in kinds)
    assert found["mirror_broken/users"] == ("unreadable" in kinds)
    assert found["mirror_capture_faults"] == ("capture" in kinds)
    assert found["mirror_parked_keys/trips"] == (2 if "parked" in kinds else 0)


@pytest.mark.parametrize(
    ("facts", "verdict", "first"),
    [
        ({"source_up": False, "target_up": None, "role": "starting"}, "fresh", "source"),
        ({"source_up": False, "role": "starting", "fresh_at": NOW - 90}, "stale", "source"),
        ({"target_up": False, "role": "starting", "fresh_at": NOW - 90}, "stale", "target"),
        ({"primed": False, "fresh_at": None}, "not primed", "unprimed"),
        ({"fresh_at": None}, "unknown", None),
        ({"fresh_at": None, "primed": False, "role": "starting", "source_up": None}, "unknown", "unprimed"),
        ({"fresh_at": NOW - 90, "turned_at": NOW - 90}, "stale", "stale"),
        ({"fresh_at": NOW - 90, "role": "standby"}, "standby", None),
    ],
)
def test_what_the_daemon_alone_needs(facts: dict[str, Any], verdict: str, first: str | None) -> None:
    known = well(**facts)
    assert known.verdict == verdict
    assert next((d.kind for d in all_doubts(known)), None) == first
    assert bool(not_ready(known)) is (first is not None)
    assert sentence(known)


def test_stale_says_why() -> None:
    lost = well(role="starting", source_up=False, target_up=None, fresh_at=NOW - 90)
    assert sentence(lost).startswith("nothing newer than 90.0 s ago is known to be in the target, because the source")
    hangs = well(fresh_at=NOW - 90, turned_at=NOW - 90)
    assert "because the daemon has done nothing for 90.0 s" in sentence(hangs)
    busy = well(fresh_at=NOW - 90, outbox_entries=12, oldest_at=NOW - 80)
    assert "because 12 entries wait, the oldest for 80.0 s" in sentence(busy)
    missing = well(fresh_at=NOW, doubts=(doubt("capture", "users", since=NOW - 90, why="trigger gone"),))
    assert "90.0 s ago is known to be in the target, because changes of users are not captured" in sentence(missing)


class World:
    """The one object that takes in what happens, with a clock of the test's."""

    def __init__(self) -> None:
        self.now = NOW
        self.knowledge = Knowledge(MAX_S, clock=lambda: self.now)
        self.applier = Applier(rows=10, heartbeat_s=10)
        self.knowledge.answered()
        self.lead()

    def lead(self, **more: Any) -> None:
        self.knowledge.leads(claimed(**more), self.now)

    def turn(self, outcome: Outcome | None = None, **more: Any) -> None:
        self.knowledge.stepped(step(self.now, outcome, **more), self.applier, heard=True)

    def check(self, *faults: Fault) -> None:
        self.knowledge.checked(list(faults), self.now, self.applier)

    def compared(self, order: Order, **reports: TableReport) -> None:
        self.turn(finished=(Finished(order, "done", reports, None, None),))

    @property
    def known(self) -> Known:
        return self.knowledge.look()

    @property
    def kinds(self) -> list[tuple[str, str | None]]:
        return [(d.kind, d.about) for d in self.known.doubts]


GONE = Fault("trips", "capture", "trigger mirror_delete is missing", "Run `mirror install source`.")
EQUAL = {table: TableReport() for table in ("users", "trips", "trip_memberships")}


def test_a_capture_fault_counts_from_the_last_check_that_found_all_well_until_it_is_compared() -> None:
    world = World()
    world.check()
    world.turn()
    world.now += 10
    world.turn()
    world.check(GONE)
    assert world.known.staleness_s == 10, "not 0, although a position was reached just now"
    world.now += 60
    world.turn()
    assert world.known.verdict == "stale"
    world.check()
    world.turn()
    assert world.kinds == [("capture", "trips")], "what was missed is not known yet"
    assert world.known.verdict == "stale"
    world.knowledge.to_compare()
    world.compared(Order("triggers"), trips=TableReport(unreadable="gone again"))
    assert world.kinds == [("capture", "trips")]
    world.compared(Order("triggers"), **EQUAL)
    assert (world.kinds, world.known.verdict) == ([], "fresh")


def test_a_comparison_that_was_under_way_does_not_count() -> None:
    world = World()
    world.check(GONE)
    running = Order("schedule")
    world.applier.reconcile.want(running)
    world.applier.reconcile.next_slice(())
    world.check()
    world.compared(running, **EQUAL)
    assert world.kinds == [("capture", "trips")]
    world.compared(Order("triggers"), **EQUAL)
    assert world.kinds == []


def test_a_table_that_cannot_be_read_counts_from_the_last_position() -> None:
    world = World()
    world.turn()
    world.now += 5
    world.applier.outbox.broke("users", "no column email")
    world.turn(position=False, skipped=("users",))
    assert world.known.about("unreadable") == {"users": "users cannot be read: no column email"}
    assert world.known.staleness_s == 5
    world.check(Fault("users", "unreadable", "public.users has no column email", "Make it again."))
    (one,) = world.known.doubts
    assert (one.reason, one.cure) == ("users cannot be read: public.users has no column email", "Make it again.")
    world.applier.outbox._broken.clear()
    world.check()
    assert world.knowledge.to_compare() == (Order("triggers", ("users",)),)
    world.compared(Order("triggers", ("users",)), users=TableReport())
    assert world.kinds == []


def test_what_the_daemon_before_us_doubted_is_doubted_until_compared() -> None:
    world = World()
    world.turn()
    inherited = {"kind": "capture", "about": "users", "reason": "x", "cure": "y", "since": "2025-12-31T23:59:53+00:00"}
    world.lead(doubts=(inherited, {"kind": "of another release"}), compared=False, tampered=True)
    assert world.kinds == [("tampered", "mirror.state"), ("life", None), ("capture", "users")]
    assert world.known.staleness_s == INFINITE
    world.turn()
    assert world.kinds == [("capture", "users")], "a position ends what the target says of itself"
    assert world.known.staleness_s == 7
    world.compared(Order("start"), **EQUAL)
    assert (world.kinds, world.known.staleness_s) == ([], 0)


def test_what_a_comparison_found_and_did_not_repair_ends_freshness() -> None:
    world = World()
    world.turn()
    unequal = world.applier.reconcile.unequal
    unequal["users"] = TableReport(extra=60, target_rows=100, braked=True)
    world.turn()
    assert world.knowledge.to_tell() == [
        {
            "kind": "brake", "about": "users", "since": None, "cure": SORTS["brake"].cure,
            "reason": "users differs and is not repaired: the brake is on, 60 of 100 rows would go",
        }
    ]  # fmt: skip
    assert (world.known.verdict, world.known.staleness_s) == ("stale", INFINITE)
    unequal["users"] = TableReport(missing=3)
    world.turn()
    assert "3 rows were found by a comparison" in world.known.about("brake")["users"]
    unequal.clear()
    world.compared(Order("resync"), users=TableReport())
    assert (world.kinds, world.known.verdict) == ([], "fresh")


def test_a_clock_that_is_wrong_is_said_and_takes_nothing_away() -> None:
    world = World()
    world.turn(Outcome(clock="this machine's clock runs fast by 3 %"))
    assert world.kinds == [("clock", None)]
    assert (world.known.verdict, world.known.why_not_ready()) == ("fresh", [])
    world.turn(Outcome())
    assert world.kinds == []


def test_ages_grow_while_nothing_is_heard() -> None:
    world = World()
    world.turn()
    world.knowledge.sleeps(10.0)
    world.now += 10
    assert (world.known.lag_s, world.known.staleness_s) == (0, 10)
    world.now += TURN_S + 1
    assert world.known.lag_s == 11 + TURN_S
    assert world.known.turned_ago_s == 11 + TURN_S
    world.now += 60
    assert world.known.verdict == "stale"


def test_the_oldest_entry_gets_older_and_a_table_that_was_left_out_keeps_its_age() -> None:
    world = World()
    reading = step(world.now).reading
    world.turn(position=False, reading=replace(reading, lag_s=2.0))
    world.now += 5
    assert world.known.lag_s == 7
    world.turn(position=False, skipped=("users",), reading=replace(reading, lag_s=0.1))
    assert world.known.lag_s == 7
    world.turn()
    assert world.known.lag_s == 0


def test_a_side_that_is_gone_is_named_and_the_ages_grow() -> None:
    world = World()
    world.turn()
    world.knowledge.sleeps(3600.0)
    world.now += 2
    world.knowledge.ended()
    world.knowledge.failed(Unreachable("target", "gone"))
    known = world.known
    assert (known.source_up, known.target_up, known.leader, known.standby) == (True, False, False, False)
    assert known.lag_s == known.staleness_s == 2
    assert "the target does not answer" in known.why_not_ready()
    world.knowledge.failed(Unreachable("source", "gone"))
    assert world.known.target_up is None, "it is not asked before the source is back"
    assert world.known.why_not_ready()[0] == "the source does not answer"
    assert "the target does not answer" not in world.known.why_not_ready()


def test_before_anything_worked_nothing_is_fresh_but_the_process_is_alive() -> None:
    now = [0.0]
    knowledge = Knowledge(clock=lambda: now[0])
    now[0] = 5.0
    known = knowledge.look()
    assert (known.staleness_s, known.lag_s, known.turned_ago_s) == (INFINITE, 5, 5)
    assert "the source does not answer" in known.why_not_ready()


def test_a_standby_is_ready_and_who_leads_after_it_knows_what_it_was_told() -> None:
    world = World()
    world.knowledge.ended()
    world.knowledge.stands_by()
    assert (world.known.standby, world.known.target_up, world.known.why_not_ready()) == (True, None, [])
    world.lead(proof={"at": THEN.isoformat(), "reason": "schedule", "snapshot": "7:7:", "tables": {}})
    known = world.known
    assert (known.standby, known.leader, known.target_up, known.primed) == (False, True, True, True)
    assert world.known.proven_at == THEN.timestamp()


def test_every_kind_is_sorted() -> None:
    assert set(SORTS) == set(KINDS)
    for kind, sort in SORTS.items():
        assert sort.means, kind
        assert bool(sort.then) is (kind in {"brake", "unreadable", "capture"}), kind
        assert isinstance(doubt(kind, "users", why="x", n=1, age="1 s"), Doubt)


def test_the_target_says_it_in_the_same_words() -> None:
    """What it knows of itself (schema/target/known.sql)."""
    text = template("target/known.sql")
    for kind in ("tampered", "life", "unprimed", "parked"):
        assert f"'{SORTS[kind].says.format(about='%s', n='%s')}'" in text, kind
        assert f"'{SORTS[kind].cure}'" in text, kind
