"""What the target's SQL raises goes through PostgREST, which makes an HTTP answer of it."""

import re

import pytest

from mirror.mapping import Mapping
from mirror.render import template
from mirror.target.install import script

UUIDS = {"user_id": "uuid", "trip_id": "uuid", "created_by": "uuid"}
RAISED = re.compile(r"raise\s+(?!notice|warning|info|debug|log)[^;]*;", re.IGNORECASE)
# The text, in quotes; then nothing that would be put into it: what follows is USING.
PLAIN = re.compile(r"raise\s+exception\s+'(?P<text>(?:[^'%]|'')*)'\s+using\s", re.IGNORECASE)
STATE = re.compile(r"errcode\s*=\s*'(?P<state>\w{5})'", re.IGNORECASE)


def statements() -> list[str]:
    sql = script(UUIDS, Mapping()) + template("target/uninstall.sql")
    sql = re.sub(r"--.*", "", sql)
    return [s for s in RAISED.findall(sql) if not re.fullmatch(r"raise\s*;", s)]


def test_they_are_found() -> None:
    assert len(statements()) > 10


@pytest.mark.parametrize("statement", statements())
def test_the_message_is_one_line_of_plain_ascii_without_data_of_anybody(statement: str) -> None:
    """PostgREST makes it the reason phrase of the status line."""
    found = PLAIN.match(statement)
    assert found, statement
    assert re.fullmatch(r"[ -~]+", found["text"])


@pytest.mark.parametrize("statement", statements())
def test_no_error_makes_postgrest_read_its_schema_anew_or_try_again_without_end(statement: str) -> None:
    """Any answer of status 503 does the one, 40001 and 40P01 the other."""
    found = STATE.search(statement)
    assert found, f"P0001 says nothing to the daemon: {statement}"
    assert not re.match(r"PT5|08|53|57|40|XX", found["state"]), statement
