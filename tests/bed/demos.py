"""`mirror demo` as a process of its own, and what it leaves behind."""

import asyncio
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mirror.demo import processes

ROOT = Path(__file__).parents[2]
ANSWER_TIMEOUT_S = 30.0


@dataclass
class Traces:
    """The processes and directories of a demo that was seen running."""

    pids: set[int]
    directories: set[Path]

    def left(self) -> list[object]:
        return [pid for pid in self.pids if _alive(pid)] + [path for path in self.directories if path.exists()]


class Demo:
    def __init__(self, process: Process) -> None:
        self.process = process

    @property
    def directories(self) -> set[Path]:
        return set(Path(tempfile.gettempdir()).glob(f"mirror-demo-{self.process.pid}-*"))

    def descendants(self, saying: str = "") -> set[int]:
        """Processes that it started, and theirs, whose command line says this."""
        parents = processes._processes()
        found, new = set[int](), {self.process.pid}
        while new:
            new = {pid for pid, parent in parents if parent in new} - found
            found |= new
        return {pid for pid in found if saying in _command_line(pid)}

    def traces(self) -> Traces:
        pids = self.descendants()
        sockets = {
            Path(word.partition("=")[2])
            for pid in pids
            for word in _command_line(pid).split()
            if word.startswith("--unix_socket_directories=")
        }
        return Traces(pids | {self.process.pid}, self.directories | sockets)

    async def line(self) -> str:
        if self.process.stdout is None:
            raise AssertionError("started with a pipe")
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return (await self.process.stdout.readline()).decode()

    async def end(self, number: signal.Signals | None = None) -> tuple[int, str, str]:
        """Exit code and what it said, after this signal or by itself."""
        if number is not None:
            self.process.send_signal(number)
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            out, err = await self.process.communicate()
        return self.process.returncode or 0, (out or b"").decode(), (err or b"").decode()


@asynccontextmanager
async def demo(*arguments: str, stdout: int = PIPE, **environment: str) -> AsyncIterator[Demo]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mirror", "demo", *arguments,
        cwd=ROOT, env=os.environ | environment, stdout=stdout, stderr=PIPE, start_new_session=True,
    )  # fmt: skip
    started = Demo(process)
    try:
        yield started
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def command_lines() -> list[str]:
    """Of all processes of this machine."""
    return [_command_line(pid) for pid, _ in processes._processes()]


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def _alive(pid: int) -> bool:
    """A zombie, whose new parent does not care, is dead."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
