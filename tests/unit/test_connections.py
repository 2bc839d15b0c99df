"""Clients that are slow, silent, rude or too many; with a server that has nothing else to do."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import mirror.ops.connections
import mirror.ops.http
from mirror.errors import ConfigError
from mirror.ops.connections import connections_max
from mirror.ops.http import HEAD_MAX, serving
from tests.bed.clients import Clients
from tests.bed.eventually import eventually

HELLO = b"GET /hello HTTP/1.1\r\nhost: localhost\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Server(Clients):
    def __init__(self) -> None:
        super().__init__(0)
        self.answer_slow: Callable[[], None] = lambda: None


@asynccontextmanager
async def running(most: int = 100) -> AsyncIterator[Server]:
    server = Server()

    async def hello(_: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    async def slow(_: Request) -> PlainTextResponse:
        loop, allowed = asyncio.get_running_loop(), asyncio.Event()
        server.answer_slow = lambda: (loop.call_soon_threadsafe(allowed.set), None)[1]
        await allowed.wait()
        return PlainTextResponse("at last")

    async def large(_: Request) -> PlainTextResponse:
        return PlainTextResponse("x" * 10_000_000)

    app = Starlette(
        routes=[Route("/hello", hello, methods=["GET", "POST"]), Route("/slow", slow), Route("/large", large)]
    )
    async with serving(app, "127.0.0.1", 0, most) as server._port:
        try:
            yield server
        finally:
            server.leave()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror.ops.connections, "REQUEST_TIMEOUT_S", 0.2)


@pytest.mark.usefixtures("impatient")
async def test_half_a_request_and_silence_is_thrown_out_and_a_whole_one_may_wait() -> None:
    async with running() as server:
        waits = await server.raw(SLOW)
        halves = [
            await server.raw(b""),
            await server.raw(b"GET /hello HT"),
            await server.raw(b"POST /slow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{"),
            await server.raw(HELLO, b"GET /he"),
        ]
        first = [await half.rest() for half in halves]
        assert first[:2] == ["", ""]
        assert first[2].startswith("HTTP/1.1 405"), "what was understood is answered, and the rest not waited for"
        assert first[3].endswith("hello"), "the first request was whole"
        server.answer_slow()
        assert await waits.hears(b"\r\n") == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.usefixtures("impatient")
async def test_a_pipelined_request_that_waits_is_not_taken_for_half_a_one() -> None:
    async with running() as server:
        both = await server.raw(HELLO + SLOW)
        await both.hears(b"hello")
        halves = await server.raw(b"GET")
        assert await halves.rest() == "", "by now more time has passed than anybody is given for a request"
        server.answer_slow()
        await both.hears(b"at last")


async def test_when_there_are_too_many_the_one_that_has_been_silent_for_longest_goes() -> None:
    async with running(3) as server:
        silent = [await server.raw(b"GET ") for _ in range(3)]
        newest = await server.raw(HELLO)
        await newest.hears(b"hello")
        assert await silent[0].rest() == ""
        waiting = [await server.raw(SLOW) for _ in range(3)]
        assert await silent[1].rest() == await silent[2].rest() == ""
        assert await newest.rest() == "", "it has been silent since its answer"
        refused = await server.raw(HELLO)
        assert await refused.rest() == "", "everybody else waits for an answer"
        server.answer_slow()
        assert len(waiting) == 3


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /" + b"x" * 2 * HEAD_MAX + b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"GET /hello HTTP/1.1\r\n" + b"x: y\r\n" * HEAD_MAX,
        b"GET /hello HTTP/1.1\r\n\r\n",
        b"POST /hello HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        HELLO.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n") + b"5\r\n12345\r\nzz\r\n",
    ],
)
async def test_nonsense_is_answered_or_cut_and_nothing_is_logged(
    nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as server:
        client = await server.raw(nonsense)
        said = await client.rest()
        assert said.startswith(("HTTP/1.1 4", "HTTP/1.1 200")) or said == ""
        again = await server.raw(HELLO)
        await again.hears(b"hello")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_nonsense_after_the_answer_is_cut_and_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as server:
        client = await server.raw(HELLO.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n") + b"1\r\n1\r\n")
        await client.hears(b"hello")
        await client.say(b"nonsense\r\n")
        assert await client.rest() == ""
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.usefixtures("impatient")
async def test_who_does_not_take_the_answers_is_thrown_out() -> None:
    async with running() as server:
        client = await server.raw(HELLO.replace(b"hello", b"large") * 3)

        async def is_out() -> bool:
            try:
                await client.say(b"G")
            except ConnectionError:
                return True
            return False

        await eventually(is_out)


async def test_a_body_without_end_is_not_kept() -> None:
    async with running() as server:
        client = await server.raw(b"POST /hello HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n")
        await client.say(b"content-length: 100000000\r\n\r\n")
        with pytest.raises((ConnectionError, TimeoutError)):
            await client.say(b"x" * 100_000_000)


def test_there_is_always_room_for_files_of_our_own() -> None:
    assert 16 <= connections_max() <= mirror.ops.connections.CONNECTIONS_MAX


async def test_a_port_that_is_taken_is_said() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match="Set MIRROR_HTTP_HOST and MIRROR_HTTP_PORT"),
    ):
        async with serving(Starlette(), "127.0.0.1", taken.getsockname()[1], 10):
            raise AssertionError
