"""A real PgBouncer in transaction mode in front of one of the servers: what a "pooled" connection string leads to."""

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tests.bed.eventually import eventually

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
NOBODY = 65534


@contextlib.asynccontextmanager
async def pooled(url: str) -> AsyncIterator[str]:
    """The same database through a pooler."""
    assert PROGRAM is not None
    parts = urlsplit(url)
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as name:
        port = _free_port()
        ini = _configuration(Path(name), str(parts.username), f"host={parts.hostname} port={parts.port}", port)
        process = await asyncio.create_subprocess_exec(
            PROGRAM, "-q", str(ini),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            user=NOBODY if os.getuid() == 0 else None,  # it refuses to run as root
        )  # fmt: skip
        try:
            await eventually(lambda: _answers(port))
            user = f"{parts.username}@" if parts.username else ""
            yield urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{port}"))
        finally:
            process.kill()
            await process.wait()


def _configuration(directory: Path, user: str, server: str, port: int) -> Path:
    users, ini = directory / "users", directory / "ini"
    users.write_text(f'"{user}" ""\n')
    ini.write_text(
        f"[databases]\n* = {server}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\npool_mode = transaction\n"
        f"auth_type = trust\nauth_file = {users}\nlogfile = {directory / 'log'}\n"
    )
    for path in (directory, users, ini):
        path.chmod(0o777)
    return ini


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
