"""A real Prometheus that scrapes several times a second, with our rules and no patience: alerts fire at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.bed.alerts import RULES
from tests.bed.eventually import eventually

INTERVAL = "200ms"


def missing_prometheus() -> str:
    return "" if shutil.which("prometheus") else "prometheus is not on this machine (Debian: apt install prometheus)"


class Prometheus:
    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def ask(self, query: str) -> list[dict[str, Any]]:
        """The samples, or an error that says what is wrong with the query."""
        reply = (await self._http.get("/api/v1/query", params={"query": query})).json()
        if reply["status"] != "success":
            raise AssertionError(f"{query}: {reply['error']}")
        samples: list[dict[str, Any]] = reply["data"]["result"]
        return samples

    async def alerts(self) -> dict[str, dict[str, Any]]:
        """Those that fire, by name."""
        found = (await self._http.get("/api/v1/alerts")).raise_for_status().json()["data"]["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in found if alert["state"] == "firing"}

    async def rules(self) -> list[dict[str, Any]]:
        groups = (await self._http.get("/api/v1/rules")).raise_for_status().json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


@contextlib.asynccontextmanager
async def watching(*ports: int) -> AsyncIterator[Prometheus]:
    """Scrapes daemons on these ports of this machine."""
    with tempfile.TemporaryDirectory(prefix="prometheus-") as name:
        directory, port = Path(name), _free_port()
        configuration = _configuration(directory, ports)
        process = await asyncio.create_subprocess_exec(
            "prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5) as http:
                await eventually(lambda: _is_ready(http), 20.0, 0.05)
                yield Prometheus(http)
        finally:
            process.kill()
            await process.wait()


def _configuration(directory: Path, ports: tuple[int, ...]) -> Path:
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for group in document["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
    (directory / "rules.yml").write_text(json.dumps(document), encoding="utf-8")
    configuration = {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {"job_name": "mirror", "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
        ],
    }
    path = directory / "prometheus.yml"
    path.write_text(json.dumps(configuration), encoding="utf-8")
    return path


async def _is_ready(http: httpx.AsyncClient) -> bool:
    return (await http.get("/-/ready")).status_code == 200


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
