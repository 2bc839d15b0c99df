"""One truth: for each reason, the daemon's surfaces and what Supabase itself answers say the same."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mirror.cli import main
from mirror.daemon import Daemon
from mirror.known import INFINITE
from tests.bed.clients import clients
from tests.bed.daemons import environ, install, leading, running, value
from tests.bed.eventually import eventually
from tests.bed.target_side import an_id

pytestmark = pytest.mark.sql
Connection = psycopg.AsyncConnection[Any]
SETTINGS = {"MIRROR_HEARTBEAT_INTERVAL": "1s", "MIRROR_POLL_INTERVAL": "500ms", "MIRROR_STALE_AFTER": "3s"}


class World:
    def __init__(self, source: Connection, target: Connection, daemon: Daemon) -> None:
        self.source = source
        self.target = target
        self.daemon = daemon

    async def brake(self) -> None:
        async with self.source.transaction():
            await self.source.execute("alter table users disable trigger user")
            await self.source.execute("delete from users")
            for event in ("insert", "update", "delete", "truncate"):
                await self.source.execute(f"alter table users enable always trigger mirror_{event}")
        await self.source.execute("select mirror.resync()")

    async def capture(self) -> None:
        await self.source.execute("drop trigger mirror_delete on trips")

    async def unreadable(self) -> None:
        await self.source.execute("alter table trips rename column name to title")
        await self.source.execute(f"insert into trips (id, title) values ('{an_id(7)}', 'x')")

    async def parked(self) -> None:
        await self.target.execute("alter table public.users add constraint no_evil check (username <> 'EVIL')")
        await self.source.execute(f"insert into users (id, username) values ('{an_id(999)}', 'EVIL')")


@pytest.fixture
async def world(source: Connection, target: Connection, source_url: str, target_url: str) -> AsyncIterator[World]:
    people = ", ".join(f"('{an_id(n)}', 'user {n}')" for n in range(1, 301))
    await source.execute(f"insert into users (id, username) values {people}")
    install(source_url, target_url)
    async with running(source_url, target_url, SETTINGS) as daemon:
        await leading(daemon)
        await eventually(lambda: daemon.known.proven_at and daemon.known.verdict == "fresh")
        yield World(source, target, daemon)


@pytest.fixture
def status(
    source_url: str,
    target_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[[], Awaitable[tuple[int, dict[str, Any]]]]:
    monkeypatch.chdir(tmp_path)
    for name, setting in environ(source_url, target_url, **SETTINGS).items():
        monkeypatch.setenv(name, setting)

    async def call() -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = await asyncio.to_thread(main, ["status", "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


REASONS = ["brake", "capture", "unreadable", "parked"]
PAIRS = [("brake", "parked"), ("capture", "parked"), ("unreadable", "capture"), ("unreadable", "parked")]


@pytest.mark.parametrize("reasons", [(), *((one,) for one in REASONS), *PAIRS], ids=lambda r: "+".join(r) or "none")
async def test_the_daemon_and_supabase_say_the_same(world: World, status: Any, reasons: tuple[str, ...]) -> None:
    daemon, target = world.daemon, world.target
    for reason in reasons:
        await getattr(world, reason)()
    wrong = set(reasons)
    stale = bool(wrong - {"parked"})

    async def agree() -> bool:
        known = daemon.known
        told = await value(target, "select mirror_status()")
        kinds = {d["kind"] for d in told["doubts"]}
        here = {d.kind for d in known.doubts} | ({"parked"} if known.parked_rows else set())
        return here == kinds == wrong and (known.verdict == "stale") is stale

    await eventually(agree, 20.0)
    known = daemon.known
    is_fresh = await value(target, "select mirror_is_fresh(interval '3 seconds')")
    age_s = await value(target, "select mirror_staleness()")
    has = await value(target, "select mirror_status()->'equal'")
    async with clients(daemon.port) as client:
        served = (await client.get("/api/status")).json
        readyz = await client.get("/readyz")
    code, said = await status()

    assert is_fresh is not stale
    assert (age_s == INFINITE) is (known.staleness_s == INFINITE) is ("brake" in wrong)
    if age_s != INFINITE:
        assert age_s == pytest.approx(known.staleness_s, abs=2.5)
    assert served["verdict"] == said["verdict"] == known.verdict == ("stale" if stale else "fresh")
    assert served["equal"] is said["equal"] is has is (not wrong)
    assert code == (1 if stale else 0)
    assert readyz.status == (503 if stale else 200)
    expected = wrong | ({"stale"} if stale and "brake" not in wrong else set())
    assert {d["kind"] for d in served["doubts"]} == {d["kind"] for d in said["doubts"]} == expected
    told = (await value(target, "select mirror_status()"))["doubts"]
    for kind in wrong:
        mine, theirs, all_that_was_told = (
            [d["reason"] for d in x if d["kind"] == kind] for x in (served["doubts"], said["doubts"], told)
        )
        assert mine == theirs == all_that_was_told
    assert bool(wrong) is not said["sentence"].startswith("the target equals")
