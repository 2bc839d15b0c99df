"""docker-compose.yml brought up for real, from a copy of what the image is made of, and taken down without a trace.

Images come from the environment as the compose file says; where that says nothing, this machine's stand-ins (local/*)
are taken when they are there, and the public defaults otherwise. Python packages are fetched by this Python's own pip,
which knows the indexes and certificates of this machine, into wheels/ of the copy: a build needs no network then.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTEXT = (
    "Dockerfile", ".dockerignore", "docker-compose.yml", "deploy", "mirror", "schema", "pyproject.toml",
    "requirements.lock", "README.md", "LICENSE",
)  # fmt: skip
STAND_INS = {
    "PRIMARY_IMAGE": "local/postgres:15",
    "TARGET_IMAGE": "local/postgres:15",
    "PROMETHEUS_IMAGE": "local/prometheus:2",
    "PYTHON_IMAGE": "local/python:3.11",
}
PYTHON_IMAGE = "python:3.11.15-slim-bookworm"  # as the Dockerfile has it
PORTS = ("PRIMARY_PORT", "TARGET_PORT", "DAEMON_PORT", "PROMETHEUS_PORT")
COMMAND_TIMEOUT_S = 300


def docker(*arguments: str) -> str:
    return _run(["docker", *arguments])


def no_engine() -> str:
    """Why there is none; empty when one answers."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    asked = subprocess.run(["docker", "info"], check=False, capture_output=True, text=True, timeout=60)
    return "" if asked.returncode == 0 else f"no docker engine answers: {asked.stderr.strip()}"


@dataclass(frozen=True)
class Compose:
    project: str
    directory: Path
    environ: dict[str, str]

    def __call__(self, *arguments: str) -> str:
        command = [*_compose(), "--project-name", self.project, *arguments]
        return _run(command, cwd=self.directory, env={**os.environ, **self.environ})

    def address(self, service: str, port: int) -> str:
        """host:port as this machine sees it."""
        return self("port", service, str(port)).strip()

    def container(self, service: str) -> str:
        return self("ps", "--quiet", service).strip()


@contextmanager
def brought_up(directory: Path) -> Iterator[Compose]:
    """Under a name, an image and ports of its own, so that it disturbs nothing that is running."""
    name = f"mirror-test-{secrets.token_hex(4)}"
    environ = {"DAEMON_IMAGE": name} | dict.fromkeys(PORTS, "0") | _images()
    compose = Compose(name, _context(directory, environ), environ)
    try:
        compose("up", "--detach", "--build")
        yield compose
    finally:
        print(compose("logs", "--no-color"))  # pytest shows it when a test has failed
        compose("down", "--volumes", "--remove-orphans", "--timeout", "10")
        docker("image", "rm", "--force", name)


def _context(directory: Path, environ: dict[str, str]) -> Path:
    for name in CONTEXT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, directory / name)
    if sys.platform == "linux":  # elsewhere pip would fetch wheels that do not fit into a container
        _fetch_wheels(directory / "wheels", environ.get("PYTHON_IMAGE", PYTHON_IMAGE))
    return directory


def _fetch_wheels(directory: Path, image: str) -> None:
    version = docker("run", "--rm", image, "python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", version]
    locks = [f"--requirement={ROOT / name}" for name in ("requirements.lock", "deploy/build.lock")]
    _run([*pip, "--require-hashes", "--dest", str(directory), *locks])


def _images() -> dict[str, str]:
    return {name: image for name, image in STAND_INS.items() if name not in os.environ and _is_there(image)}


def _is_there(image: str) -> bool:
    asked = subprocess.run(["docker", "image", "inspect", image], check=False, capture_output=True, timeout=60)
    return asked.returncode == 0


def _compose() -> tuple[str, ...]:
    """Compose v2 is a plugin of docker, 1.29 is a program of its own."""
    plugin = subprocess.run(["docker", "compose", "version"], check=False, capture_output=True, timeout=60)
    return ("docker", "compose") if plugin.returncode == 0 else ("docker-compose",)


def _run(command: Sequence[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=cwd, env=env, timeout=COMMAND_TIMEOUT_S
    )
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout
