"""`mirror status` asks the databases and /api/status the daemon: they tell the same truth."""

import asyncio
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mirror.cli import main
from tests.bed import daemons
from tests.bed.clients import clients
from tests.bed.eventually import eventually
from tests.bed.target_side import an_id

Connection = psycopg.AsyncConnection[Any]


@pytest.fixture
def status(
    source_url: str,
    target_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Any:
    monkeypatch.chdir(tmp_path)
    for name, value in daemons.environ(source_url, target_url).items():
        monkeypatch.setenv(name, value)
    daemons.install(source_url, target_url)

    async def call(*arguments: str) -> str:
        capsys.readouterr()
        await asyncio.to_thread(main, ["status", *arguments])
        return capsys.readouterr().out

    return call


async def test_the_same_truth_in_a_terminal_and_over_http(
    source: Connection, target: Connection, source_url: str, target_url: str, status: Any
) -> None:
    await source.execute(f"insert into users (id, username) values ('{an_id(1)}', 'ana')")
    await target.execute("alter table public.users add constraint no_evil check (username <> 'EVIL')")
    async with daemons.running(source_url, target_url) as daemon, clients(daemon.port) as client:
        await daemons.leading(daemon)
        await source.execute("select mirror.resync()")
        await eventually(lambda: (daemon.knowledge.record.proof or {}).get("reason") == "resync")
        await source.execute(f"insert into users (id, username) values ('{an_id(2)}', 'EVIL')")
        await eventually(lambda: daemon.known.parked and daemon.known.outbox_entries == 0)
        served = (await client.get("/api/status")).json
        told = json.loads(await status("--json"))
        mine, theirs = told["target"], told["source"]

        assert told["verdict"] == served["verdict"] == "fresh"
        assert told["stale_after_seconds"] == served["stale_after_seconds"]
        assert mine["epoch"] == served["epoch"]
        assert theirs["leader"] is (served["state"] == "leading") is True
        assert theirs["outbox_entries"] == served["outbox"]["entries"]
        assert theirs["lag_seconds"] == pytest.approx(served["lag_seconds"], abs=5)
        assert mine["staleness_seconds"] == pytest.approx(served["staleness_seconds"], abs=10)
        assert [(p["tbl"], p["k1"], p["reason"]) for p in mine["parked"]] == [
            (p["table"], p["key"][0], p["reason"]) for p in served["parked"]
        ]
        assert len(mine["parked"]) == served["tables"]["users"]["parked"] == 1
        digests = {name: (t["rows"], t["digest"]) for name, t in mine["proof"]["tables"].items()}
        assert digests == {name: (t["rows"], t["digest"]) for name, t in served["proof"]["tables"].items()}
        assert mine["proof"]["snapshot"] == served["proof"]["snapshot"]
        assert theirs["resync"] is None is served["resync"]
        assert set(mine["braked"]) == {t for t, told in served["tables"].items() if told["braked"]}


async def test_faults_and_requests_that_wait(source: Connection, status: Any) -> None:
    await source.execute(
        "drop trigger mirror_update on public.trips; alter table public.users disable trigger mirror_insert"
    )
    request = await daemons.value(source, "select mirror.resync('trips')")
    said = await status()
    line = "capture: changes of trips are not captured: trigger mirror_update on public.trips is missing. "
    assert f"{line}Run `mirror install source`." in said
    assert "is not enabled always. Run" in said
    assert f"resync {request}: waiting." in said
    assert " kB." in said
    progress = {"phase": "compare", "table": "trips", "rows_checked": 50, "rows_expected": 200}
    await source.execute("select mirror.report(%s, 'running', %s, null)", [request, json.dumps(progress)])
    assert f"resync {request}: running, compare trips, 50 of 200 rows." in await status()
    resync = json.loads(await status("--json"))["source"]["resync"]
    assert resync == {
        "id": request, "state": "running", "reason": "resync", "table": "trips", "phase": "compare",
        "done_rows": 50, "total_rows": 200,
    }  # fmt: skip


async def test_a_hostile_reason_does_not_reach_the_terminal(target: Connection, status: Any) -> None:
    await target.execute(
        "insert into mirror.parked (tbl, k1, reason) values ('users', E'\\x1b]0;owned\\x07', E'\\x1b[2J')"
    )
    said = await status()
    assert "\x1b" not in said
    assert r"parked: users \x1b]0;owned\x07: \x1b[2J" in said
