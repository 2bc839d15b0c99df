"""The test bed: one pair of servers for the whole run, two databases of its own for each test that asks for them."""

import os
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from tests.bed.backends import Pair, chosen, open_pair
from tests.bed.databases import Template, template
from tests.bed.templates import prepare_source, prepare_target
from tests.bed.ways import WAYS, Way, open_way


def pytest_report_header() -> str:
    return chosen()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With MIRROR_TEST_BOTH_SIDES set, only what needs both databases: in a matrix of majors, a test of one side has
    nothing to learn from another major on the other side."""
    if os.environ.get("MIRROR_TEST_BOTH_SIDES"):
        both = {"source_url", "target_url"}
        left_out = [item for item in items if not both <= set(getattr(item, "fixturenames", ()))]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def servers() -> Iterator[Pair]:
    with open_pair() as pair:
        yield pair


@pytest.fixture(scope="session")
def source_template(servers: Pair) -> Iterator[Template]:
    with template(servers.source, "source", prepare_source) as made:
        yield made


@pytest.fixture(scope="session")
def target_template(servers: Pair) -> Iterator[Template]:
    with template(servers.target, "target", prepare_target) as made:
        yield made


@pytest.fixture
def source_url(source_template: Template) -> Iterator[str]:
    with source_template.clone() as url:
        yield url


@pytest.fixture
def target_url(target_template: Template) -> Iterator[str]:
    with target_template.clone() as url:
        yield url


@pytest.fixture
async def source(source_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(source_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
async def target(target_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(target_url, autocommit=True) as conn:
        yield conn


@pytest.fixture(params=WAYS)
async def way(request: pytest.FixtureRequest, target_url: str) -> AsyncIterator[Way]:
    """How the mirror reaches the target: a test that asks for this runs on each of the two."""
    async with open_way(request.param, target_url) as opened:
        yield opened
