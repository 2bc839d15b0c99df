"""What a database says is shown, never obeyed: names and keys with escape sequences and marks of writing direction."""

import asyncio
import io
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mirror.cli import main
from mirror.mapping import load_mapping
from mirror.ops.logs import Human
from tests.bed import daemons
from tests.bed.clients import clients
from tests.bed.eventually import eventually

Connection = psycopg.AsyncConnection[Any]
EVIL = "x\x1b[2J\x1b]0;owned\x07\u202egnp.exe\u2066\x9b31m\nFRESH: all is well"
MAPPING = """
[users]
from = "public.people"
[trips]
from = "public.journeys"
created_by = "null"
[trip_memberships]
from = "public.travellers"
role = "role"
status = "'ACTIVE'"
"""
TABLES = """
    create table public.people (id text primary key, email text, username text);
    create table public.journeys (id text primary key, name text);
    create table public.travellers (trip_id text, user_id text, role text, primary key (trip_id, user_id))
"""


@pytest.fixture
async def evil(  # noqa: PLR0917 (fixtures)
    source: Connection, target: Connection, source_url: str, target_url: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> str:  # fmt: skip
    """Both sides full of it: a user, a trip, a membership that is refused with a reason that quotes it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mirror.toml").write_text(MAPPING)
    mapping = load_mapping(None)
    for name, value in daemons.environ(source_url, target_url).items():
        monkeypatch.setenv(name, value)
    await source.execute(TABLES)
    daemons.install(source_url, target_url, mapping)
    await target.execute("alter table public.trip_memberships add constraint no_evil check (role <> 'EVIL')")
    for query in (
        "insert into public.people values (%(evil)s, %(evil)s, %(evil)s)",
        "insert into public.journeys values (%(evil)s, %(evil)s)",
        "insert into public.travellers values (%(evil)s, %(evil)s, 'EVIL')",
    ):
        await source.execute(query, {"evil": EVIL})
    stream = io.StringIO()
    lines = logging.StreamHandler(stream)
    lines.setFormatter(Human())
    logging.getLogger("mirror").addHandler(lines)
    try:
        async with daemons.running(source_url, target_url, mapping=mapping) as daemon:
            await eventually(lambda: daemon.known.leader and any(daemon.known.parked.values()))
            await daemons.leading(daemon)
            async with clients(daemon.port) as client:  # curl prints it as it comes
                document = (await client.get("/api/status")).body
            assert document.isascii()
            assert "u202e" in document
            await target.execute("update public.trips set name = 'Rome' || name")
            daemon._reconcile_soon()
            await eventually(lambda: "drift" in stream.getvalue())
    finally:
        logging.getLogger("mirror").removeHandler(lines)
    await target.execute("update public.trips set name = 'Oslo' || name")
    await target.execute("delete from public.users")
    return stream.getvalue()


def harmless(said: str) -> bool:
    return all(line.isprintable() for line in said.split("\n")) and "\nFRESH: all is well" not in said


@pytest.mark.sql
async def test_no_command_and_no_log_line_obeys_a_name(evil: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "\\u202e" in evil
    assert harmless(evil), evil
    for command in (
        ["verify"], ["status"], ["why", EVIL, EVIL], ["why", "stranger" + EVIL, EVIL, "--topic", EVIL], ["doctor"],
        ["verify", "--json"], ["status", "--json"], ["why", EVIL, EVIL, "--json"], ["doctor", "--json"],
    ):  # fmt: skip
        await asyncio.to_thread(main, command)
        said, erred = capsys.readouterr()
        assert harmless(said), (command, said)
        assert harmless(erred), (command, erred)
        if command[0] in ("verify", "why", "status"):
            assert "u202e" in said, (command, said)


async def test_errors_of_a_database_are_shown_and_not_obeyed(
    source_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server quotes what it was asked for; so does the mapping's check."""
    monkeypatch.setenv("MIRROR_SOURCE_URL", source_url.rpartition("/")[0] + "/no%1b%5b2J%e2%80%ae%0adatabase")
    monkeypatch.setenv("MIRROR_TARGET_URL", source_url)
    for command in (["status"], ["verify"], ["install", "source"], ["why", "a", "b"], ["doctor"]):
        await asyncio.to_thread(main, command)
        said, erred = capsys.readouterr()
        assert harmless(said), (command, said)
        assert harmless(erred), (command, erred)
        assert "\\u202e" in said + erred, (command, said, erred)


def test_nor_is_a_terminal_told_by_a_process_of_its_own(source_url: str, tmp_path: Path) -> None:
    (tmp_path / "mirror.toml").write_text('[users]\nfrom = "\\u001b[2J\\u202e"\n')
    environ = {**os.environ, "MIRROR_SOURCE_URL": source_url, "MIRROR_TARGET_URL": source_url}
    environ["MIRROR_CONFIG"] = str(tmp_path / "mirror.toml")
    done = subprocess.run(
        [sys.executable, "-m", "mirror", "install", "source"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env=environ,
    )
    assert done.returncode == 2
    assert harmless(done.stderr), done.stderr
