"""What `mirror install` leaves in the catalog is what stands in schema/*/expected.sql, on every PostgreSQL."""

import difflib

import psycopg
import pytest

from tests.expected import SIDES, describe, expected

pytestmark = pytest.mark.sql


@pytest.mark.parametrize("side", SIDES)
def test_the_schema_is_the_expected_one(side: str, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue(f"{side}_url")
    _, install = SIDES[side]
    install(url)
    with psycopg.connect(url, autocommit=True) as connection:
        found = describe(connection)
    lines = difflib.unified_diff(expected(side).splitlines(), found.splitlines(), "expected.sql", "installed", n=0)
    assert not list(lines), "if this is meant: python -m tests.expected --write"
