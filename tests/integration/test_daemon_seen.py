"""Looking at the daemon from outside: metrics, health, logs; and what must never be seen there."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

import mirror.ops.endpoints
from mirror.applier import Step
from mirror.daemon import Daemon
from mirror.demo.servers import Server, temporary_directory
from tests.bed.daemons import NEVER, Process, asleep, becomes_equal, environ, install, leading, process, running, value
from tests.bed.eventually import eventually
from tests.bed.proxy import Proxy

Connection = psycopg.AsyncConnection[Any]
PASSWORD = "hunter2-%/:@"
QUOTED = "hunter2-%25%2F%3A%40"


async def get(daemon: Daemon, path: str) -> tuple[int, str]:
    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{daemon.port}{path}", timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


async def metric(daemon: Daemon, name: str) -> float:
    _, text = await get(daemon, "/metrics")
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[-1])


async def test_metrics_and_health(source: Connection, target: Connection, source_url: str, target_url: str) -> None:
    install(source_url, target_url)
    async with running(source_url, target_url, NEVER) as daemon:
        await leading(daemon)
        await source.execute("insert into users (id) select gen_random_uuid() from generate_series(1, 7)")
        await becomes_equal(source, target)
        await asleep(source)
        await eventually(lambda: not daemon.known.why_not_ready())
        status, text = await get(daemon, "/metrics")
        assert status == 200
        for line in (
            'mirror_rows_applied_total{op="upsert",table="users"} 7.0', "mirror_lag_seconds 0.0", "mirror_leader 1.0",
            "mirror_source_up 1.0", "mirror_target_up 1.0", 'mirror_propagation_seconds_count{table="users"} 1.0',
        ):  # fmt: skip
            assert line in text, line
        assert (await get(daemon, "/livez"))[0] == 200
        status, text = await get(daemon, "/readyz")
        assert status == 200, text
        assert json.loads(text)["ready"] is True


async def test_when_a_side_is_gone_lag_and_staleness_grow_and_readyz_says_why(
    source: Connection, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    async with (
        Proxy.to(source_url) as proxy,
        running(proxy.url(source_url), target_url, NEVER) as daemon,
    ):
        await leading(daemon)
        await asleep(source)
        proxy.refuse()
        proxy.cut()
        await eventually(lambda: not daemon.known.leader)
        lag, staleness = await metric(daemon, "mirror_lag_seconds"), await metric(daemon, "mirror_staleness_seconds")
        await eventually(lambda: daemon.known.lag_s > lag + 0.5)
        assert await metric(daemon, "mirror_staleness_seconds") > staleness + 0.4
        status, text = await get(daemon, "/readyz")
        assert status == 503
        assert "the source does not answer" in text
        assert (await get(daemon, "/livez"))[0] == 200, "it is the source that is down"


async def test_when_the_loop_hangs_lag_and_staleness_grow_and_livez_says_so(
    source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(source_url, target_url)
    monkeypatch.setattr(mirror.ops.endpoints, "LIVE_WITHIN_S", 1.0)
    async with running(source_url, target_url, NEVER) as daemon:
        await leading(daemon)
        hung = asyncio.Event()

        async def step(*_: object, **__: object) -> Step:
            await hung.wait()
            raise AssertionError

        monkeypatch.setattr(daemon._applier, "step", step)
        daemon._wake.set()
        await eventually(lambda: daemon.known.lag_s > 1.5)
        assert await metric(daemon, "mirror_staleness_seconds") > 1.5
        assert (await get(daemon, "/livez"))[0] == 503


async def test_freshness_does_not_depend_on_the_sources_clock(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    """fresh_at is on the target's clock, and never after the moment at which the snapshot was begun."""
    install(source_url, target_url)
    async with running(source_url, target_url, NEVER) as daemon:
        await leading(daemon)
        before = await value(target, "select clock_timestamp()")
        await source.execute("insert into users (id) values (gen_random_uuid())")
        await becomes_equal(source, target)
        after = await value(target, "select clock_timestamp()")
        await eventually(lambda: value(target, "select fresh_at >= %s - interval '1 second' from mirror.state", before))
        assert await value(target, "select fresh_at <= %s from mirror.state", after)
        assert await value(target, "select fresh_at <= applied_at from mirror.state")


TWICE_AS_FAST = "import time; _right = time.monotonic; time.monotonic = lambda: 2 * _right()"
WAITS = (
    "select exists (select from pg_stat_activity where application_name = 'mirror' and wait_event_type = 'Lock' "
    "and datname = current_database())"
)


@pytest.mark.slow
async def test_a_clock_that_runs_twice_as_fast_makes_nothing_look_fresher(
    source: Connection, target: Connection, source_url: str, target_url: str, tmp_path: Path
) -> None:
    """All of a daemon, whose whole Python has such a clock. A batch waits in the target: it is as old as it is."""
    install(source_url, target_url)
    (tmp_path / "sitecustomize.py").write_text(TWICE_AS_FAST)
    async with process(environ(source_url, target_url, **NEVER, PYTHONPATH=str(tmp_path))) as daemon:
        await daemon.says("leading")
        await source.execute("insert into users (id) values (gen_random_uuid())")
        await becomes_equal(source, target)
        await daemon.says("reconcile")  # or its batches come behind those that wait
        for _ in range(2):
            await asleep(source)
            began = time.monotonic()
            await eventually(lambda began=began: time.monotonic() - began > 3.0)  # type: ignore[misc]
            async with await psycopg.AsyncConnection.connect(target_url) as blocker:
                await blocker.execute("select from mirror.state for update")
                await source.execute("insert into users (id) values (gen_random_uuid())")
                await eventually(lambda: value(target, WAITS))
                began = time.monotonic()
                await eventually(lambda began=began: time.monotonic() - began > 2.5)  # type: ignore[misc]
            await becomes_equal(source, target)
            # Both servers run here, by one clock. The time of the last batch counts twice: it waited.
            assert await value(target, "select fresh_at <= as_of from mirror.state")
            assert await value(target, "select fresh_at > as_of - interval '4 seconds' from mirror.state")
        await eventually(lambda: "this machine's clock runs fast by" in daemon.output)
        assert daemon.output.count("this machine's clock") == 1
        assert (await daemon.stopped())[0] == 0


async def test_a_batch_that_arrives_late_does_not_look_fresh(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    async with Proxy.to(target_url) as proxy, running(source_url, proxy.url(target_url), NEVER) as daemon:
        await leading(daemon)
        await asleep(source)
        proxy.stall("to_server")
        await source.execute("insert into users (id) values (gen_random_uuid())")
        asked = await value(target, "select clock_timestamp()")
        await eventually(lambda: value(target, "select clock_timestamp() > %s", asked + timedelta(seconds=1.5)))
        proxy.resume()
        await becomes_equal(source, target)
        assert await value(target, "select fresh_at < %s from mirror.state", asked + timedelta(seconds=0.5))


@pytest.mark.slow
async def test_no_password_is_ever_printed(source_url: str, target_url: str) -> None:
    """Whatever goes wrong with a URL, its password is in no log line, no error and no metric."""
    install(source_url, target_url)
    with temporary_directory() as directory, Server.start(16, directory / "locked", password=PASSWORD) as locked:
        right = urlsplit(locked.url())
        wrong = urlunsplit(right._replace(netloc=f"postgres:{QUOTED}wrong@127.0.0.1:{locked.port}"))
        nobody = f"postgresql://postgres:{QUOTED}@127.0.0.1:1/db"
        missing = urlunsplit(right._replace(path="/no_such_db"))
        for settings, says in (
            ({"MIRROR_SOURCE_URL": wrong}, "password authentication failed"),
            ({"MIRROR_SOURCE_URL": nobody}, "refused"),
            ({"MIRROR_SOURCE_URL": missing}, "no_such_db"),
            ({"MIRROR_TARGET_URL": wrong}, "password authentication failed"),
            ({"MIRROR_SOURCE_URL": f"{wrong}?sslmode=require"}, "does not offer TLS"),
            ({"MIRROR_SOURCE_URL": locked.url()}, "mirror install source"),
        ):
            async with process(environ(source_url, target_url) | settings) as daemon:
                await eventually(partial(said, daemon, says))
                await daemon.stopped()
                assert "hunter2" not in daemon.output
                assert "Traceback" not in daemon.output


def said(daemon: Process, text: str) -> bool:
    return text in daemon.output
