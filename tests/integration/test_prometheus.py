"""A real Prometheus, real daemons: what is exported, the dashboard's queries answered, an alert that comes and goes."""

import asyncio
import contextlib
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mirror.daemon import Daemon
from tests.bed.alerts import DEPLOY, missing_promtool, rules
from tests.bed.daemons import NEVER, asleep, becomes_equal, install, leading, running, value
from tests.bed.eventually import eventually
from tests.bed.postgrest_jwt import token
from tests.bed.prometheus import Prometheus, missing_prometheus, watching
from tests.bed.proofs import asked, verified
from tests.bed.proxy import Proxy
from tests.bed.supabase_api import api
from tests.integration.test_daemon_seen import get
from tests.unit.test_metrics import NOT_OF_A_STANDBY

Connection = psycopg.AsyncConnection[Any]
DASHBOARD = json.loads((DEPLOY / "grafana" / "mirror.json").read_text(encoding="utf-8"))
LEGACY_KEY = token("service_role")
VARIABLES = {"$__rate_interval": "1m", "$job": "mirror"}

needs_prometheus = pytest.mark.skipif(bool(missing_prometheus()), reason=missing_prometheus())


async def exposition(daemon: Daemon) -> str:
    status, text = await get(daemon, "/metrics")
    assert status == 200
    return text


def exported(text: str) -> dict[str, set[str]]:
    """The labels of each sample, by its name."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def queries() -> Iterator[tuple[str, str]]:
    """Every query of the dashboard, with its legend."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            query = target["expr"]
            for variable, chosen in VARIABLES.items():
                query = query.replace(variable, chosen)
            yield query, target["legendFormat"]


def names_in(query: str) -> set[str]:
    return set(re.findall(r"\b(?:mirror|process)_\w+", query))


def labels_in(query: str) -> set[str]:
    grouped = [name.strip() for inner in re.findall(r"\b(?:by|on) \(([^)]*)\)", query) for name in inner.split(",")]
    matched = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query)
    return {*grouped, *matched}


@contextlib.asynccontextmanager
async def with_a_legacy_key(source_url: str, target_url: str) -> AsyncIterator[Daemon]:
    """Through HTTPS, with the one thing that only then has a metric."""
    settings = {**NEVER, "SUPABASE_SECRET_KEY": LEGACY_KEY}
    async with api(target_url) as supabase, running(source_url, supabase.url, settings) as daemon:
        yield daemon


async def everything_known(source: Connection, target: Connection, daemon: Daemon) -> None:
    """The daemon has led, applied, proven: each metric has something to say."""
    await leading(daemon)
    await source.execute("insert into users (id) select gen_random_uuid() from generate_series(1, 7)")
    await becomes_equal(source, target)
    await asked(source, "resync()")
    await eventually(lambda: daemon.known.proven_at)


@pytest.mark.skipif(bool(missing_promtool()), reason=missing_promtool())
async def test_promtool_finds_nothing_wrong_with_the_metrics(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    async with with_a_legacy_key(source_url, target_url) as daemon:
        await everything_known(source, target, daemon)
        text = await exposition(daemon)
    done = subprocess.run(  # noqa: ASYNC221 (a moment, and nothing else runs)
        ["promtool", "check", "metrics"], input=text, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert LEGACY_KEY not in text
    known = exported(text)
    for rule in rules():
        assert names_in(str(rule["expr"])) <= known.keys(), rule


@pytest.mark.slow
@needs_prometheus
async def test_every_query_of_the_dashboard_has_an_answer(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    async with with_a_legacy_key(source_url, target_url) as daemon:
        await everything_known(source, target, daemon)
        known = exported(await exposition(daemon))
        async with watching(daemon.port) as prometheus:
            await eventually(lambda: prometheus.ask("count_over_time(mirror_build_info[1m]) >= 3"))
            for query, legend in queries():
                names = names_in(query)
                assert names, query
                assert names <= known.keys(), query
                assert labels_in(query) <= {"job", "instance"}.union(*(known[name] for name in names)), query
                samples = await prometheus.ask(query)
                assert samples, f"no data: {query}"
                for label in re.findall(r"{{(\w+)}}", legend):
                    assert all(label in sample["metric"] for sample in samples), (query, legend)


def test_the_dashboard_can_be_imported() -> None:
    (asked_for,) = DASHBOARD["__inputs"]
    datasource, job = DASHBOARD["templating"]["list"]
    assert (
        (asked_for["type"], asked_for["pluginId"])
        == ("datasource", datasource["query"])
        == ("datasource", "prometheus")
    )
    assert datasource["current"]["value"] == f"${{{asked_for['name']}}}"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in [*DASHBOARD["panels"], job]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert job["query"]["query"] == "label_values(mirror_build_info, job)"
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used == {"DS_PROMETHEUS", "datasource", "job", "__rate_interval"}
    assert {panel["type"] for panel in DASHBOARD["panels"]} == {
        needed["id"] for needed in DASHBOARD["__requires"] if needed["type"] == "panel"
    }
    assert not overlaps([panel["gridPos"] for panel in DASHBOARD["panels"]])
    shown = {re.sub(r"_(bucket|total|info)$", "", name) for query, _ in queries() for name in names_in(query)}
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    table = readme.split("\n## Metrics\n")[1].split("\n## ")[0]
    documented = {
        re.sub(r"_(total|info)$", "", name) for name in re.findall(r"^\| `(mirror_\w+)`", table, flags=re.MULTILINE)
    }
    assert documented - shown == set(), "every metric can be seen"


def overlaps(boxes: list[dict[str, int]]) -> list[tuple[dict[str, int], dict[str, int]]]:
    return [
        (a, b)
        for i, a in enumerate(boxes)
        for b in boxes[:i]
        if a["x"] < b["x"] + b["w"]
        and b["x"] < a["x"] + a["w"]
        and a["y"] < b["y"] + b["h"]
        and b["y"] < a["y"] + a["h"]
    ]


@pytest.mark.slow
@needs_prometheus
async def test_an_alert_fires_and_clears(source: Connection, source_url: str, target_url: str) -> None:
    install(source_url, target_url)
    async with Proxy.to(source_url) as proxy, running(proxy.url(source_url), target_url, NEVER) as daemon:
        await leading(daemon)
        await asleep(source)
        async with watching(daemon.port) as prometheus:
            assert {rule["name"] for rule in await prometheus.rules()} == {rule["alert"] for rule in rules()}
            await eventually(lambda: prometheus.ask("mirror_leader == 1"))
            await eventually(lambda: firing(prometheus, set()))
            proxy.refuse()
            proxy.cut()
            await eventually(lambda: firing(prometheus, {"MirrorSourceDown"}), 15.0)
            (alert,) = (await prometheus.alerts()).values()
            assert alert["labels"] == {"alertname": "MirrorSourceDown", "job": "mirror", "severity": "critical"}
            assert alert["annotations"]["summary"] == "The primary does not answer the mirror."
            await proxy.accept()
            await eventually(lambda: firing(prometheus, set()), 15.0)
            assert await prometheus.ask("mirror_leader == 1")


async def firing(prometheus: Prometheus, names: set[str]) -> bool:
    health = [rule["health"] for rule in await prometheus.rules()]
    return set(health) == {"ok"} and (await prometheus.alerts()).keys() == names


async def test_a_standby_exports_what_it_knows(
    source: Connection, target: Connection, source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(source_url, target_url)
    async with running(source_url, target_url, NEVER) as first:
        await everything_known(source, target, first)
        async with running(source_url, target_url, NEVER) as second:
            await eventually(lambda: second.known.standby)
            leads, waits = exported(await exposition(first)), exported(await exposition(second))
            assert {f"mirror_{name}" for name in NOT_OF_A_STANDBY} <= leads.keys()
            assert waits.keys() == leads.keys() - {f"mirror_{name}" for name in NOT_OF_A_STANDBY}
            assert "mirror_leader 0.0" in await exposition(second)
            assert "mirror_standby 1.0" in await exposition(second)
            await eventually(lambda: value(target, "select proof is not null from mirror.state"))
            monkeypatch.setattr(second._applier.reconcile, "want", lambda _: None)
            first.stop()
            await leading(second)
            assert second.known.proven_at == pytest.approx(first.known.proven_at, abs=5), "others prove as well"
            assert "mirror_standby 0.0" in await exposition(second)
            assert {f"mirror_{name}" for name in NOT_OF_A_STANDBY} <= exported(await exposition(second)).keys()


async def test_the_side_that_is_gone_is_the_one_that_is_down(
    source: Connection, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    async with Proxy.to(target_url) as proxy, running(source_url, proxy.url(target_url), NEVER) as daemon:
        await leading(daemon)
        await asleep(source)
        proxy.refuse()
        proxy.cut()
        await source.execute("insert into users (id) values (gen_random_uuid())")
        await eventually(lambda: daemon.known.target_up is False)
        errors = daemon.knowledge.metrics.errors.labels("Unreachable")._value
        tried = errors.get()
        while errors.get() < tried + 2:  # through two more attempts, whatever the moment of a scrape
            text = await exposition(daemon)
            assert "mirror_source_up 1.0" in text
            assert "mirror_target_up 0.0" in text
            await asyncio.sleep(0)
        await proxy.accept()
        await leading(daemon)
        assert "mirror_target_up 1.0" in await exposition(daemon)


async def test_a_source_that_falls_silent_makes_both_ages_grow(source_url: str, target_url: str) -> None:
    """Nothing is refused and nothing is cut: the network lost its way, and nobody is told."""
    install(source_url, target_url)
    settings = {"MIRROR_HEARTBEAT_INTERVAL": "300ms"}
    async with Proxy.to(source_url) as proxy, running(proxy.url(source_url), target_url, settings) as daemon:
        await leading(daemon)
        assert daemon.known.lag_s < 0.3
        proxy.stall()
        await eventually(lambda: daemon.known.lag_s > 1.5)
        assert daemon.known.staleness_s > 1.5
        assert daemon.known.leader, "it still waits for the answer"
        found = {s.name: s.value for f in text_string_to_metric_families(await exposition(daemon)) for s in f.samples}
        assert found["mirror_lag_seconds"] > 1.5
        assert found["mirror_staleness_seconds"] > 1.5


async def test_requests_count_by_their_end_and_verifications_do_not(
    source: Connection, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    async with running(source_url, target_url, NEVER) as daemon:
        await leading(daemon)
        await verified(source)
        await asked(source, "resync(usr => gen_random_uuid()::text)")
        await asked(source, "resync(usr => 'no uuid')")
        await asked(source, "resync('users')")

        def counted() -> dict[str, float]:
            ends = ("done", "failed", "braked", "cancelled")
            return {end: daemon.knowledge.metrics.resyncs.labels(end)._value.get() for end in ends}

        await eventually(lambda: counted() == {"done": 2, "failed": 1, "braked": 0, "cancelled": 0})


async def test_the_outbox_is_measured(source: Connection, source_url: str, target_url: str) -> None:
    install(source_url, target_url)
    async with running(source_url, target_url, NEVER) as daemon:
        await leading(daemon)

        async def measured() -> bool:
            await source.execute("insert into users (id) select gen_random_uuid() from generate_series(1, 100)")
            return daemon.known.outbox_bytes > 0

        await eventually(measured)
        assert f"mirror_outbox_bytes {float(daemon.known.outbox_bytes)}" in await exposition(daemon)
