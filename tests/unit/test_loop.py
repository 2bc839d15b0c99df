"""When the loop takes a breath."""

import pytest

from mirror.batch import Reading
from mirror.loop import BREATH_ENTRIES, breath_s


@pytest.mark.parametrize(
    ("entries", "backlog", "breathes"),
    [(0, False, False), (1, False, False), (BREATH_ENTRIES, False, True), (5000, True, False)],
)
def test_only_a_crowd_that_is_no_backlog_is_given_time_to_gather(
    entries: int, *, backlog: bool, breathes: bool
) -> None:
    reading = Reading("1:1:", "then", "", entries, backlog, (), {}, None, 0.0, {}, None, None, False, None)
    assert (breath_s(reading) > 0) is breathes
