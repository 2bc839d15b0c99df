"""`mirror doctor` as a command: what it says of both sides, and its exit codes."""

import asyncio
import json
from typing import Any

import psycopg
import pytest

from mirror.cli import main
from tests.bed import daemons
from tests.bed.findings import NOWHERE
from tests.bed.source_side import SOFT
from tests.bed.target_side import RESEAL


@pytest.fixture
def environ(source_url: str, target_url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mirror.toml").write_text(
        "[trips]\nwhere = 'deleted_at is null'\n[trip_memberships]\nwhere = \"status = 'ACTIVE'\"\n"
    )
    for name, value in daemons.environ(source_url, target_url).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def installed(source_url: str, target_url: str) -> None:
    daemons.install(source_url, target_url, SOFT)


async def settle(source_url: str, target_url: str) -> None:
    """Once, a daemon has led: the target knows its source and is loaded."""
    async with daemons.running(source_url, target_url, mapping=SOFT) as daemon:
        await daemons.leading(daemon)


async def doctor(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["doctor", *arguments])


@pytest.mark.usefixtures("environ")
async def test_both_sides(source_url: str, target_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await doctor() == 1
    assert "error    installed: the mirror is not installed here" in capsys.readouterr().out

    daemons.install(source_url, target_url, SOFT)
    await settle(source_url, target_url)
    assert await doctor() == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("2 warning(s), "), out  # both roles are superusers here
    assert out.count("excess rights: ") == 2
    assert "same source" in " ".join(out.split())

    assert await doctor("--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == 0
    assert set(document["findings"][0]) == {"side", "check", "verdict", "sentence", "cure"}

    assert await doctor("source") == 0
    assert "\ntarget\n" not in capsys.readouterr().out

    with psycopg.connect(target_url, autocommit=True) as connection:
        connection.execute("update mirror.state set source = jsonb_set(source, '{install}', '\"another\"')")
        connection.execute(RESEAL)
    assert await doctor() == 1
    assert "same source: it mirrors another primary" in capsys.readouterr().out


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("side", ["source", "target"])
async def test_either_side_may_be_away(
    environ: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], side: str
) -> None:
    other = "target" if side == "source" else "source"
    environ.setenv(f"MIRROR_{side.upper()}_URL", NOWHERE)
    assert await doctor("--json") == 3
    found = json.loads(capsys.readouterr().out)["findings"]
    assert {f["check"] for f in found if f["side"] == side} == {"connection"}
    assert len([f for f in found if f["side"] == other]) > 15
    assert await doctor(other) == 0
    environ.setenv(f"MIRROR_{other.upper()}_URL", NOWHERE)
    assert await doctor() == 3


def test_nothing_secret_is_said(environ: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    environ.setenv("MIRROR_SOURCE_URL", "postgresql://ana%40example.org:hunter2@127.0.0.1:1/d")
    environ.delenv("MIRROR_TARGET_URL")
    environ.setenv("SUPABASE_URL", "https://127.0.0.1:1")
    environ.setenv("SUPABASE_SECRET_KEY", "sb_secret_hunter2")
    assert main(["doctor"]) == 3
    said = "".join(capsys.readouterr())
    assert "hunter2" not in said
    assert "example.org" not in said
