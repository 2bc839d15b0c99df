"""Ages are computed when somebody looks: they grow when the loop hangs and when a side is gone."""

from mirror.ops.vitals import TURN_S, Vitals


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def leading() -> tuple[Vitals, Clock]:
    clock = Clock()
    vitals = Vitals(clock, stale_after_s=60.0, source_up=True, target_up=True, leader=True, doorbell_proven=True)
    vitals.turned()
    vitals.positioned(clock.now)
    vitals.caught_up(clock.now)
    return vitals, clock


def test_all_is_well() -> None:
    vitals, clock = leading()
    clock.now += 0.5
    assert vitals.lag_s == 0
    assert vitals.staleness_s == 0.5
    assert vitals.why_not_ready() == []


def test_asleep_there_is_no_lag_until_the_sleep_is_over() -> None:
    vitals, clock = leading()
    vitals.sleeps(10.0)
    clock.now += 10.0
    assert vitals.lag_s == 0
    clock.now += TURN_S + 1.0
    assert vitals.lag_s == 11.0 + TURN_S


def test_a_loop_that_hangs_has_a_lag_that_grows() -> None:
    vitals, clock = leading()
    clock.now += 30.0
    assert vitals.lag_s == 30.0
    assert vitals.staleness_s == 30.0
    assert vitals.turned_ago_s == 30.0
    clock.now += 31.0
    assert vitals.why_not_ready() == ["the mirror is stale"]


def test_the_oldest_entry_gets_older() -> None:
    vitals, clock = leading()
    vitals.looked(clock.now, 2.0, everywhere=True)
    clock.now += 1.0
    assert vitals.lag_s == 3.0
    vitals.caught_up(clock.now)
    assert vitals.lag_s == 0


def test_a_table_that_was_left_out_keeps_its_age() -> None:
    vitals, clock = leading()
    vitals.looked(clock.now, 2.0, everywhere=True)
    clock.now += 5.0
    vitals.looked(clock.now, 0.1, everywhere=False)
    assert vitals.lag_s == 7.0
    vitals.looked(clock.now, 0.1, everywhere=True)
    assert round(vitals.lag_s, 6) == 0.1


def test_a_side_that_is_gone_has_a_lag_that_grows() -> None:
    vitals, clock = leading()
    vitals.sleeps(3600.0)
    clock.now += 2.0
    vitals.ended()
    vitals.lost("source")
    assert vitals.lag_s == 2.0
    assert vitals.why_not_ready()[0] == "the source does not answer"
    assert vitals.target_up is None, "nobody asks it before the source is back"
    assert "the target does not answer" not in vitals.why_not_ready()


def test_before_anything_worked_nothing_is_fresh_but_the_process_is_alive() -> None:
    clock = Clock()
    vitals = Vitals(clock)
    clock.now += 5.0
    assert vitals.staleness_s == float("inf")
    assert vitals.lag_s == 5.0
    assert vitals.turned_ago_s == 5.0
    assert "the source does not answer" in vitals.why_not_ready()


def test_a_standby_is_ready() -> None:
    vitals = Vitals(Clock(), source_up=True)
    vitals.stands_by()
    assert vitals.why_not_ready() == []


def test_every_reason_is_named() -> None:
    vitals, _ = leading()
    vitals.target_up = vitals.primed = vitals.doorbell_proven = False
    vitals.broken = {"users": "no such column"}
    assert len(vitals.why_not_ready()) == 4
    assert "users cannot be read: no such column" in vitals.why_not_ready()


def test_a_daemon_whose_target_is_gone_is_no_standby() -> None:
    vitals, clock = leading()
    vitals.ended()
    vitals.lost("target")
    clock.now += 3.0
    assert (vitals.source_up, vitals.target_up, vitals.leader, vitals.standby) == (True, False, False, False)
    assert vitals.lag_s == vitals.staleness_s == 3.0
    assert "the target does not answer" in vitals.why_not_ready()


def test_who_leads_after_standing_by_knows_what_it_was_told() -> None:
    vitals = Vitals(Clock(), source_up=True)
    vitals.stands_by()
    assert (vitals.standby, vitals.target_up) == (True, None)
    vitals.leads(primed=True, proven_at=7.0)
    assert (vitals.standby, vitals.leader, vitals.target_up, vitals.primed) == (False, True, True, True)
    assert vitals.proven_at == 7.0
