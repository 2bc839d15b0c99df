"""PostgreSQL servers of our own, without Docker and without installation: for the demo, the tests and the bench.

A server lives in one directory (`data` and `log` below it), listens on 127.0.0.1 only, runs as an unprivileged user
even under root, and dies with the Python process that started it. The calls block: about half a second for a start.
Every server is initialised afresh and never copied from another one's files: copies would share the system
identifier, by which the mirror tells databases apart.
"""

import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from mirror.demo import processes
from mirror.demo.binaries import ServerError, binaries, first_available, program, run_as
from mirror.demo.cluster import environment, initialise, own, prepare, temporary_directory

__all__ = ["Server", "ServerError", "StopMode", "binaries", "first_available", "temporary_directory"]

StopMode = Literal["smart", "fast", "immediate"]
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
STARTS_MAX = 5
POLL_INTERVAL_S = 0.01
# Below the range from which the kernel gives ports to outgoing connections: a server that is restarted on its port
# must not find a stranger's connection there.
PORTS = range(20_000, 32_000)


class Server:
    """One running server. Stop it, or use it as a context manager."""

    def __init__(self, major: int, directory: Path, settings: Mapping[str, str], password: str | None) -> None:
        self.major = major
        self.directory = directory
        self.settings = dict(settings)
        self.port = 0
        self._password = password
        self._binaries = binaries(major)
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None

    @classmethod
    def start(
        cls, major: int, directory: Path, *, settings: Mapping[str, str] | None = None, password: str | None = None
    ) -> Self:
        """Starts a server in this directory, which is made if need be; a cluster that is there already is used.

        Without a password everybody on this machine may log in as anybody; with one, SCRAM is asked for.
        """
        server = cls(major, Path(directory).absolute(), settings or {}, password)
        prepare(server.directory)
        if not server._data.joinpath("PG_VERSION").exists():
            initialise(server._binaries, server.directory, password)
        server._launch_on_free_port()
        return server

    def url(self, dbname: str = "postgres", user: str = "postgres") -> str:
        secret = f":{quote(self._password, safe='')}" if self._password and user == "postgres" else ""
        return f"postgresql://{quote(user, safe='')}{secret}@127.0.0.1:{self.port}/{quote(dbname, safe='')}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def program(self, name: str) -> Path:
        """`psql`, `pgbench` and their like, of this server's major where it came with them."""
        return program(name, self.major)

    def stop(self, mode: StopMode = "fast") -> None:
        """Returns when the server has ended; does nothing when it has already."""
        if self._process is None:
            return
        if self.running:
            processes.thaw(self._process.pid)
            processes.send(self._process.pid, STOP_SIGNALS[mode])
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(f"PostgreSQL in {self.directory} did not stop ({mode}) and was killed") from None
        self._forget_process()

    def kill(self) -> None:
        """kill -9 for the postmaster and everything it started: what a crash of the machine leaves behind."""
        if self._process is None:
            return
        if self.running:
            processes.kill_all(self._process.pid)
        self._process.wait(STOP_TIMEOUT_S)
        self._forget_process()

    def restart(self, mode: StopMode = "fast") -> None:
        """Comes back on the same port; after a kill it recovers like after a crash."""
        self.stop(mode)
        self._launch()

    def pause(self) -> None:
        """The server stands still and keeps its connections: like a machine that does not answer any more."""
        processes.freeze(self._pid)

    def resume(self) -> None:
        processes.thaw(self._pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _pid(self) -> int:
        if self._process is None:
            raise ServerError(f"PostgreSQL in {self.directory} is not running")
        return self._process.pid

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _log(self) -> Path:
        return self.directory / "log"

    def _launch_on_free_port(self) -> None:
        for attempt in range(1, STARTS_MAX + 1):
            self.port = _free_port()
            try:
                return self._launch()
            except ServerError as error:
                # Between our look and its bind somebody else may take the port.
                if attempt == STARTS_MAX or "could not bind" not in str(error):
                    raise
        return None

    def _launch(self) -> None:
        self._sockets = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has 103 bytes at most
        own(self._sockets)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._sockets),
            **self.settings,
        }
        log_start = self._log.stat().st_size if self._log.exists() else 0
        arguments = [f"--{key}={value}" for key, value in options.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._data,
                env=environment(),
                start_new_session=True,  # Ctrl-C in a terminal is for Python, which then stops us in good order
                **run_as(),
            )
        self._watchdog = processes.watchdog(self._process.pid, self._sockets)
        self._wait_until_ready(log_start)

    def _wait_until_ready(self, log_start: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._says_ready():
            if not self.running or time.monotonic() > deadline:
                self.kill()
                said = self._log.read_bytes()[log_start:].decode(errors="replace").strip()
                raise ServerError(f"PostgreSQL {self.major} did not start in {self.directory}: {said}")
            time.sleep(POLL_INTERVAL_S)

    def _says_ready(self) -> bool:
        """The postmaster writes its state into the eighth line of its pid file; pg_ctl looks there, too."""
        try:
            lines = self._data.joinpath("postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self._pid) and lines[7].strip() == "ready"

    def _forget_process(self) -> None:
        if self._watchdog is not None:
            processes.dismiss(self._watchdog)
        if self._sockets is not None:
            shutil.rmtree(self._sockets)
        self._process = self._watchdog = self._sockets = None


def _free_port() -> int:
    for port in random.sample(PORTS, k=100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerError(f"no free port on 127.0.0.1 from {PORTS.start} to {PORTS.stop}")
