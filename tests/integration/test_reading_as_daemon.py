"""Every command that only reads works with the rights of the daemon's role: it owns nothing and may not insert."""

import asyncio
import secrets
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mirror.cli import main
from mirror.mapping import load_mapping
from tests.bed import daemons
from tests.bed.source_side import role
from tests.bed.target_side import an_id

Connection = psycopg.AsyncConnection[Any]
ANA, ROME = an_id(1), an_id(2)
KEYS = {
    "a partial key": "create unique index on trip_memberships (trip_id, user_id) where status <> 'GONE'",
    "a partial key over expressions": "create unique index on trip_memberships ((trip_id), (user_id)) "
    "where status <> 'GONE'",
}
COMMANDS = [
    ["why", ANA, ROME],
    ["why", "ana", ROME],
    ["verify"],
    ["status"],
    ["doctor", "source"],
    ["install", "source", "--print"],
    ["install", "target", "--print"],
]


@pytest.mark.parametrize("key", KEYS)
async def test_with_a_partial_unique_key(  # noqa: PLR0917 - fixtures
    source: Connection,
    source_url: str,
    target_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    await source.execute(
        "alter table trip_memberships drop constraint trip_memberships_trip_id_user_id_key;"
        f"{KEYS[key]}; insert into users (id, username) values ('{ANA}', 'ana');"
        f"insert into trips (id, name) values ('{ROME}', 'Rome');"
        f"insert into trip_memberships (trip_id, user_id, status) values ('{ROME}', '{ANA}', 'ACTIVE')"
    )
    (tmp_path / "mirror.toml").write_text("[trip_memberships]\nwhere = \"status <> 'GONE'\"\n")
    mapping = load_mapping(None)
    daemons.install(source_url, target_url, mapping)
    with role(source_url, f"reading_{secrets.token_hex(4)}", "login in role mirror_daemon") as url:
        async with daemons.running(url, target_url, mapping=mapping) as daemon:
            await daemons.leading(daemon)
            for name, value in daemons.environ(url, target_url).items():
                monkeypatch.setenv(name, value)
            for command in COMMANDS:
                code = await asyncio.to_thread(main, command)
                said = capsys.readouterr()
                assert code == 0, (command, said)
                assert "permission denied" not in said.out + said.err
