"""The mirror's own commands as processes, run as an operator runs them: settings in the environment, a log file."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from mirror.demo import processes

DEFAULT_PORT = 9464
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.02
LOG_LINES_SHOWN = 40


class DemoError(RuntimeError):
    """The demo cannot go on; the message ends with what the mirror said last."""


def environment(source_url: str, target_url: str, mapping: Path) -> dict[str, str]:
    """Ours without any setting that is meant for another mirror or another database."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MIRROR_", "SUPABASE_", "PG"))}
    return own | {
        "MIRROR_SOURCE_URL": source_url,
        "MIRROR_TARGET_URL": target_url,
        "MIRROR_CONFIG": str(mapping),
        "MIRROR_LOG_FORMAT": "json",
        "MIRROR_HTTP_PORT": str(_port()),
        "MIRROR_ADMIN_TOKEN": secrets.token_hex(8),
    }


async def mirror(command: str, settings: dict[str, str]) -> None:
    """One command that ends by itself."""
    process = await _spawn(command, settings, PIPE)
    try:
        said, _ = await process.communicate()
    finally:
        await _end(process)
    if process.returncode:
        raise DemoError(f"`mirror {command}` failed:\n{said.decode(errors='replace').strip()}")


@dataclass(frozen=True)
class Daemon:
    process: Process
    port: int
    token: str  # that the status page asks for before it starts a resync
    log: Path

    async def ended(self) -> None:
        """Never returns; raises when the daemon is no more."""
        await self.process.wait()
        raise self.failure(f"ended with exit code {self.process.returncode}")

    def failure(self, what: str) -> DemoError:
        return DemoError(f"the daemon {what}; it said last:\n{tail(self.log)}")


@asynccontextmanager
async def running(settings: dict[str, str], directory: Path) -> AsyncIterator[Daemon]:
    """The daemon, up and primed."""
    log = directory / "daemon.log"
    with log.open("wb") as written:
        process = await _spawn("run", settings, written.fileno())
    # Should this process be killed, nothing of it stays.
    dog = processes.watchdog(process.pid, directory, signal.SIGKILL)
    daemon = Daemon(process, int(settings["MIRROR_HTTP_PORT"]), settings["MIRROR_ADMIN_TOKEN"], log)
    try:
        await _until_ready(daemon)
        yield daemon
    finally:
        await _end(process)
        processes.dismiss(dog)


async def _spawn(command: str, settings: dict[str, str], output: int) -> Process:
    """In a session of its own: Ctrl-C in the terminal is for us, who then stop it in good order."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mirror", command,
        env=settings, stdin=DEVNULL, stdout=output, stderr=STDOUT, start_new_session=True,
    )  # fmt: skip


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()


async def _until_ready(daemon: Daemon) -> None:
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            while not await asyncio.to_thread(_ready, daemon.port):
                if daemon.process.returncode is not None:
                    await daemon.ended()
                await asyncio.sleep(POLL_INTERVAL_S)
    except TimeoutError:
        raise daemon.failure(f"was not ready within {READY_TIMEOUT_S:.0f} s") from None


def _ready(port: int) -> bool:
    with suppress(ConnectionError, TimeoutError, HTTPException):
        return get(port, "/readyz")[0] == 200
    return False


def get(port: int, path: str) -> tuple[int, bytes]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


def _port() -> int:
    """The daemon's usual one, where people look for metrics, or any other when it is taken."""
    for port in (DEFAULT_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise DemoError("no free port on 127.0.0.1")


def tail(log: Path) -> str:
    """The last lines of the daemon's log."""
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    return "\n".join(_line(line) for line in lines) or "(it said nothing)"


def _line(text: str) -> str:
    """The daemon logs JSON; what Python itself says, a traceback for one, is text."""
    try:
        record = json.loads(text)
    except json.JSONDecodeError:
        record = None
    if not isinstance(record, dict):
        return f"  {text}"
    said = [str(record.pop(name, "")) for name in ("at", "level", "message")]
    return "  " + " ".join([*said, *(f"{name}={value}" for name, value in record.items())])
