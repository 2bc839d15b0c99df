"""When the loop takes a breath."""

import pytest

from mirror.batch import Reading
from mirror.loop import BREATH_ENTRIES, BREATH_MAX_S, BREATH_MIN_S, breath_s


@pytest.mark.parametrize(
    ("entries", "backlog", "breath"),
    [(0, False, 0), (1, False, 0), (BREATH_ENTRIES, False, BREATH_MIN_S), (5000, False, BREATH_MAX_S), (5000, True, 0)],
)
def test_only_a_crowd_that_is_no_backlog_is_given_time_to_gather(entries: int, *, backlog: bool, breath: float) -> None:
    reading = Reading("1:1:", "then", "", entries, backlog, (), {}, None, 0.0, {}, None, None, False, None)
    assert breath_s(reading) == breath
