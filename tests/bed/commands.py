"""`mirror ...` in this process: the fixture `command` of tests/conftest.py."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping

import pytest

from mirror.cli import main

Command = Callable[..., Awaitable[tuple[int, str]]]


def commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Takes settings and arguments; gives the exit code and what was said. No other settings are in the environment."""

    async def run(settings: Mapping[str, str], *arguments: str) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("MIRROR_", "SUPABASE_"))]:
                patch.delenv(name)
            for name, setting in settings.items():
                patch.setenv(name, setting)
            code = await asyncio.to_thread(main, arguments)
        said = capsys.readouterr()
        return code, said.out + said.err

    return run
