"""The image and the compose file as an operator uses them: real containers, a real scrape."""

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest

from tests.bed.alerts import rules
from tests.bed.compose import Compose, brought_up, docker, no_engine
from tests.bed.eventually import eventually

pytestmark = [pytest.mark.compose, pytest.mark.slow]

NAMES = "select array_agg(username order by username) from public.users"


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    if reason := no_engine():
        pytest.skip(reason)
    with brought_up(tmp_path_factory.mktemp("compose")) as up:
        yield up


@asynccontextmanager
async def database(
    compose: Compose, service: str, dbname: str, password: str
) -> AsyncIterator[psycopg.AsyncConnection]:
    url = f"postgresql://postgres:{password}@{compose.address(service, 5432)}/{dbname}"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        yield conn


@pytest.fixture
async def primary(compose: Compose) -> AsyncIterator[psycopg.AsyncConnection]:
    async with database(compose, "primary", "app", "primary-demo") as conn:
        yield conn


@pytest.fixture
async def supabase(compose: Compose) -> AsyncIterator[psycopg.AsyncConnection]:
    async with database(compose, "target", "postgres", "supabase-demo") as conn:
        yield conn


async def one(conn: psycopg.AsyncConnection, query: str) -> Any:
    row = await (await conn.execute(query)).fetchone()
    assert row is not None
    return row[0]


def inspected(compose: Compose, service: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(docker("inspect", compose.container(service)))[0]
    return state


def ask_prometheus(compose: Compose, query: str) -> float | None:
    url = f"http://{compose.address('prometheus', 9090)}/api/v1/query"
    found = httpx.get(url, params={"query": query}).raise_for_status().json()["data"]["result"]
    return float(found[0]["value"][1]) if found else None


async def test_a_change_in_the_primary_is_in_the_target(
    primary: psycopg.AsyncConnection, supabase: psycopg.AsyncConnection
) -> None:
    async def loaded() -> bool:
        return bool(await one(supabase, NAMES) == ["ada", "ben", "cleo"])

    async def changed() -> bool:
        return bool(await one(supabase, NAMES) == ["ada", "ben", "cleopatra"])

    await eventually(loaded, timeout_s=30)
    await primary.execute("update public.users set username = 'cleopatra' where username = 'cleo'")
    await eventually(changed)


async def test_prometheus_scrapes_the_lag(compose: Compose) -> None:
    def scraped() -> bool:
        return ask_prometheus(compose, 'mirror_rows_applied_total{table="users",op="upsert"} >= 3') is not None

    await eventually(scraped, timeout_s=30, interval_s=0.2)
    assert ask_prometheus(compose, "mirror_lag_seconds") == pytest.approx(0, abs=5)
    assert ask_prometheus(compose, 'up{job="mirror"}') == 1


async def test_prometheus_has_the_alerts_and_none_fires(compose: Compose) -> None:
    def groups() -> list[dict[str, Any]]:
        url = f"http://{compose.address('prometheus', 9090)}/api/v1/rules"
        found: list[dict[str, Any]] = httpx.get(url).raise_for_status().json()["data"]["groups"]
        return found

    def evaluated() -> bool:
        return all(rule["health"] == "ok" for group in groups() for rule in group["rules"])

    await eventually(evaluated, timeout_s=30, interval_s=0.2)
    (group,) = groups()
    assert {rule["name"] for rule in group["rules"]} == {rule["alert"] for rule in rules()}
    assert [rule["name"] for rule in group["rules"] if rule["state"] == "firing"] == []


async def test_the_container_says_that_it_is_healthy(compose: Compose) -> None:
    def healthy() -> bool:
        return bool(inspected(compose, "mirror")["State"]["Health"]["Status"] == "healthy")

    await eventually(healthy, timeout_s=60, interval_s=0.2)

    def readiness() -> dict[str, Any]:
        body: dict[str, Any] = httpx.get(f"http://{compose.address('mirror', 9464)}/readyz").json()
        return body

    assert readiness()["ready"], readiness()


async def test_the_image_finds_the_roots_to_verify_databases_with(compose: Compose) -> None:
    """psycopg's own OpenSSL does not (see mirror/tls.py)."""
    roots = docker(
        "exec", compose.container("mirror"), "python", "-c", "from mirror.tls import roots; print(open(roots()).read())"
    )
    assert "BEGIN CERTIFICATE" in roots


async def test_a_container_answers_to_its_own_name_and_no_other(compose: Compose) -> None:
    address = compose.address("mirror", 9464)
    for host, status in (("mirror:9464", 200), (address, 200), ("evil.example", 421)):
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"http://{address}/livez", headers={"host": host})).status_code == status, host


async def test_nothing_has_more_rights_than_it_needs(compose: Compose, primary: psycopg.AsyncConnection) -> None:
    assert docker("exec", compose.container("mirror"), "id", "-u").strip() == "10001"
    for service, port in (("primary", 5432), ("target", 5432), ("mirror", 9464), ("prometheus", 9090)):
        assert compose.address(service, port).startswith("127.0.0.1:")
    assert await one(primary, "select count(*) from pg_stat_activity where usename = 'mirror_daemon'") >= 1
    assert await one(primary, "select has_column_privilege('mirror_daemon', 'public.users', 'email', 'select')")
    assert not await one(primary, "select has_column_privilege('mirror_daemon', 'public.users', 'last_seen', 'select')")
    assert not await one(primary, "select has_table_privilege('mirror_daemon', 'public.users', 'update')")


async def test_it_stops_at_once_and_misses_nothing(
    compose: Compose, primary: psycopg.AsyncConnection, supabase: psycopg.AsyncConnection
) -> None:
    container = compose.container("mirror")
    began = time.monotonic()
    docker("stop", container)
    assert time.monotonic() - began < 5
    assert inspected(compose, "mirror")["State"]["ExitCode"] == 0  # and not 143: it was not killed, it went

    await primary.execute("insert into public.users (username) values ('while-away')")
    docker("start", container)

    async def arrived() -> bool:
        return "while-away" in await one(supabase, NAMES)

    await eventually(arrived, timeout_s=30)
