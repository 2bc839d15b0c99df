"""Making the directory a server lives in: `data` below it, owned by the user PostgreSQL runs as."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mirror.demo.binaries import UNPRIVILEGED, ServerError, reachable, run_as


@contextmanager
def temporary_directory(prefix: str = "mirror-", parent: Path | None = None) -> Iterator[Path]:
    """A directory for servers: removed at the end, and open to the user they run as."""
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        directory.chmod(0o755)
        yield directory
    finally:
        shutil.rmtree(directory)


def prepare(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    data = directory / "data"
    data.mkdir(exist_ok=True)
    own(data)
    if not reachable(directory):
        raise ServerError(
            f"the user {UNPRIVILEGED}, as whom PostgreSQL runs, may not enter {directory}: "
            "take a directory from mirror.demo.servers.temporary_directory()"
        )


def own(path: Path) -> None:
    """Private to the user PostgreSQL runs as."""
    path.chmod(0o700)
    if wanted := run_as():
        os.chown(path, wanted["user"], wanted["group"])


def initialise(binaries: Path, directory: Path, password: str | None) -> None:
    # Nobody needs a cluster whose making was cut off: it need not be on disk before it is used.
    command: list[str | Path] = [binaries / "initdb", "-D", directory / "data", "-U", "postgres", "-E", "UTF8", "-N"]
    with _authentication(directory, password) as authentication:
        try:
            _run(directory, *command, *authentication, "--locale=C.UTF-8")
        except ServerError as error:
            if "invalid locale name" not in str(error):
                raise
            _run(directory, *command, *authentication, "--locale=C")  # older macOS has no C.UTF-8


@contextmanager
def _authentication(directory: Path, password: str | None) -> Iterator[list[str]]:
    """Arguments of initdb; a password goes through a file, since everybody can read command lines."""
    if password is None:
        yield ["-A", "trust"]
        return
    path = directory / "password"
    path.touch(mode=0o600)
    try:
        path.write_text(f"{password}\n")
        own(path)
        yield ["-A", "scram-sha-256", f"--pwfile={path}"]
    finally:
        path.unlink()


def _run(directory: Path, *command: str | Path) -> None:
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment(),
        start_new_session=True,  # Ctrl-C in a terminal is for Python, which waits for this and then cleans up
        **run_as(),
    )
    if done.returncode:
        raise ServerError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")


def environment() -> dict[str, str]:
    """Ours without PGDATA, PGPORT and their like, which are meant for other servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
