"""How many rows a batch may ask for: bounded by bytes and by the target's time, each for its own reason."""

from mirror.allowance import BYTES_MIN, Allowance

AIMED_S = 2.0


def allowed(rows: int = 1000) -> Allowance:
    return Allowance(rows, bytes_max=4_000_000)


def test_a_slow_batch_is_followed_by_one_that_should_take_the_time_aimed_at() -> None:
    allowance = allowed()
    allowance.applied(1000, 4.0, AIMED_S)
    assert allowance.rows == 500
    allowance.applied(500, 1.5, AIMED_S)
    assert allowance.rows == 500, "near enough: no to and fro"
    allowance.applied(500, 0.4, AIMED_S)
    assert allowance.rows == 1000
    allowance.applied(1000, 0.4, AIMED_S)
    assert allowance.rows == 1000, "never more than the setting"


def test_a_target_that_takes_a_second_for_a_row_is_asked_for_one_at_a_time() -> None:
    allowance = allowed()
    for rows in (250, 62, 15, 3, 1, 1):
        allowance.applied(1000, 8.0, AIMED_S)
        assert allowance.rows == rows


def test_a_small_batch_says_nothing_about_a_large_one() -> None:
    allowance = allowed()
    allowance.applied(1000, 8.0, AIMED_S)
    for _ in range(10):
        allowance.applied(3, 0.01, AIMED_S)
    assert allowance.rows == 250


def test_bytes_and_seconds_do_not_mix() -> None:
    allowance = allowed()
    allowance.applied(1000, 8.0, AIMED_S)
    allowance.read(4_000_000)
    assert allowance.rows == 250, "500 by its bytes"
    allowance.read(100)
    assert allowance.rows == 250, "small rows do not make the target faster"
    for _ in range(3):
        allowance.read(4_000_000)
    assert allowance.rows == 125


def test_what_a_gateway_refuses_as_too_large_is_halved_until_it_passes() -> None:
    """And stays so: a gateway does not change its mind, and each attempt at more would be refused again."""
    allowance = allowed()
    allowance.too_large(3_000_000)
    assert allowance.bytes_max == 1_500_000
    assert allowance.rows == 500
    allowance.too_large(1_500_000)
    allowance.read(100)
    assert (allowance.bytes_max, allowance.rows) == (750_000, 500), "rows come back, bytes do not"
    for _ in range(20):
        allowance.too_large(allowance.bytes_max)
    assert allowance.bytes_max == BYTES_MIN
    assert allowance.rows == 1
