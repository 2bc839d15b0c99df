"""What the daemon serves: health, reading your own writes, operators' requests; and what it refuses, in words."""

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from starlette.applications import Starlette

from mirror.daemon import Daemon
from mirror.ops import http
from mirror.ops.logs import Human, Json
from tests.bed.clients import Clients, Reply, clients
from tests.bed.daemons import NEVER, asleep, install, leading, running, value
from tests.bed.eventually import eventually
from tests.bed.proxy import Proxy

Connection = psycopg.AsyncConnection[Any]
TOKEN = "a-token-that-is-long-enough"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@asynccontextmanager
async def serving(
    source_url: str, target_url: str, settings: dict[str, str] | None = None
) -> AsyncIterator[tuple[Daemon, Clients]]:
    install(source_url, target_url)
    wanted = NEVER | {"MIRROR_ADMIN_TOKEN": TOKEN} | (settings or {})
    async with running(source_url, target_url, wanted) as daemon, clients(daemon.port) as client:
        yield await leading(daemon), client


async def written(source: Connection) -> str:
    """The token of a transaction that wrote a user."""
    async with source.transaction():
        await source.execute("insert into users (id) values (gen_random_uuid())")
        return str(await value(source, "select mirror.token()"))


async def test_it_stops_when_told_and_not_at_its_next_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.ops.http.TICK_S", 30.0)
    async with asyncio.timeout(10), http.serving(Starlette(), "127.0.0.1", 0, 10) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert b"404" in await reader.readline()
        writer.close()


async def test_whoever_waits_for_his_writes_finds_them_in_the_target(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    async with serving(source_url, target_url) as (_, client):
        for n in range(1, 6):
            await asleep(source)
            reply = await client.get("/wait", token=await written(source), timeout="5")
            assert (reply.status, reply.json["has"]) == (200, True), reply
            assert await value(target, "select count(*) from users") == n


async def test_a_token_of_nothing_that_is_mirrored_is_not_left_to_the_heartbeat(
    source: Connection, source_url: str, target_url: str
) -> None:
    async with serving(source_url, target_url) as (_, client):
        await asleep(source)
        await source.execute("create table unrelated ()")
        token = await value(source, "select mirror.token()")
        reply = await client.get("/wait", token=token, timeout="5")
        assert (reply.status, reply.json["has"]) == (200, True), reply


async def test_a_transaction_that_is_still_open_is_waited_for_and_its_end_is_seen(
    source: Connection, source_url: str, target_url: str
) -> None:
    async with serving(source_url, target_url) as (daemon, client):
        async with source.transaction():
            await source.execute("insert into users (id) values (gen_random_uuid())")
            token = str(await value(source, "select mirror.token()"))
            too_soon = await client.get("/wait", token=token, timeout="0.1")
            assert (too_soon.status, too_soon.json["has"]) == (504, False)
            waiting = asyncio.create_task(client.get("/wait", token=token, timeout="10"))
            await eventually(lambda: len(daemon.waiters) == 1)
        assert (await waiting).status == 200


async def test_hundreds_wait_without_a_connection_each_and_together(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    sessions = "select count(*) from pg_stat_activity where datname = current_database()"
    async with serving(source_url, target_url) as (daemon, client):
        async with source.transaction():
            await source.execute("insert into users (id) values (gen_random_uuid())")
            token = str(await value(source, "select mirror.token()"))
            before = await value(target, sessions)
            waiting = [asyncio.create_task(client.get("/wait", token=token, timeout="20")) for _ in range(400)]
            await eventually(lambda: len(daemon.waiters) == 400)
            assert await value(target, sessions) <= before
            batch = await value(target, "select batch from mirror.state")
            began = asyncio.get_running_loop().time()
            await eventually(lambda: value(target, "select batch > %s from mirror.state", batch))
            taken = await value(target, "select batch from mirror.state") - batch
            assert taken <= 10 * (asyncio.get_running_loop().time() - began) + 6, "positions are taken for all at once"
        assert {reply.status for reply in await asyncio.gather(*waiting)} == {200}
        assert len(daemon.waiters) == 0


async def test_who_goes_away_waits_no_more(source: Connection, source_url: str, target_url: str) -> None:
    async with serving(source_url, target_url) as (daemon, client), source.transaction():
        await source.execute("select pg_current_xact_id()")
        token = await value(source, "select mirror.token()")
        line = f"GET /wait?timeout=60&token={token} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
        leaving = [await client.raw(line) for _ in range(5)]
        await eventually(lambda: len(daemon.waiters) == 5)
        for connection in leaving:
            connection.leave()
        await eventually(lambda: len(daemon.waiters) == 0)


async def test_a_standby_says_so_and_is_ready(source: Connection, source_url: str, target_url: str) -> None:
    async with (
        serving(source_url, target_url) as (_, leader),
        running(source_url, target_url, NEVER) as second,
        clients(second.port) as client,
    ):
        await eventually(lambda: second.known.standby)
        token = await written(source)
        assert (await leader.get("/wait", token=token)).status == 200
        reply = await client.get("/wait", token=token)
        assert reply.status == 503
        assert "another one leads" in reply.json["reason"]
        assert (await client.get("/readyz")).status == 200
        status = (await client.get("/api/status")).json
        assert (status["state"], status["verdict"], status["resync_allowed"]) == ("standby", "standby", False)
        assert status["staleness_seconds"] is None


async def test_tokens_that_cannot_be_waited_for(source: Connection, source_url: str, target_url: str) -> None:
    async with serving(source_url, target_url) as (_, client):
        real = str(await written(source))
        install_id = real.partition("/")[0]
        for status, query in (
            (400, {"token": "garbage"}),
            (400, {"token": "<script>'; drop table users --"}),
            (400, {"token": "9" * 13_000}),
            (400, {}),
            (400, {"token": real, "timeout": "61"}),
            (400, {"token": real, "timeout": "-1"}),
            (400, {"token": real, "timeout": "nan"}),
            (400, {"token": real, "timeout": "soon"}),
            (409, {"token": real.replace(install_id, "another-one")}),
            (409, {"token": f"{install_id}/-/10:99999999:"}),
            (504, {"token": f"{install_id}/99999999/1:1:", "timeout": "0.2"}),
        ):
            reply = await client.get("/wait", **query)
            assert (reply.status, query and query.get("timeout")) == (status, query and query.get("timeout"))
            if "application/json" in reply.head:
                assert reply.json.get("has", False) is False
                assert reply.json.get("reason") or reply.json["error"]
        twice = await client.get(f"/wait?token={real}&token={real}")
        assert twice.status == 400


async def resync(client: Clients, body: Any, headers: dict[str, str] | None = None) -> Reply:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.ask("POST", "/resync", text, BEARER if headers is None else headers)


async def test_an_operator_asks_and_sees_how_it_goes(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    async with serving(source_url, target_url) as (_, client):
        await client.get("/wait", token=await written(source))
        await target.execute("delete from public.users")
        reply = await resync(client, {"table": "users", "rewrite": True})
        assert reply.status == 202, reply
        number = reply.json["id"]

        async def done() -> Any:
            shown = (await client.get(f"/api/resyncs/{number}")).json
            return shown if shown["state"] == "done" else None

        shown = await eventually(done)
        assert shown["result"]["tables"]["users"]["missing"] == 1
        assert await value(target, "select count(*) from users") == 1
        status = (await client.get("/api/status")).json
        assert [(d["table"], d["direction"]) for d in status["drift"]] == [("users", "missing")]
        assert (await resync(client, b"")).json["id"] == number + 1


async def test_whoever_does_not_know_the_token_asks_in_vain(
    source: Connection, source_url: str, target_url: str
) -> None:
    async with serving(source_url, target_url) as (_, client):
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": f"Bearer {TOKEN}x"},
            {"authorization": f"Basic {TOKEN}"},
            {"authorization": TOKEN},
            {"authorization": "Bearer \xff\xfe"},
            {"cookie": f"token={TOKEN}"},
        ):
            reply = await resync(client, {}, headers)
            assert reply.status == 401, headers
            assert "www-authenticate: bearer" in reply.head.lower()
        for query in ({"token": TOKEN}, {"access_token": TOKEN}, {"authorization": f"Bearer {TOKEN}"}):
            assert (await client.ask("POST", "/resync", b"{}", query=query)).status == 401
        assert await value(source, "select count(*) from mirror.request") == 0
    async with serving(source_url, target_url, {"MIRROR_ADMIN_TOKEN": ""}) as (_, client):
        assert (await resync(client, {})).status == 404


async def test_what_cannot_be_asked_for_is_said(source: Connection, source_url: str, target_url: str) -> None:
    async with serving(source_url, target_url) as (_, client):
        for status, body, says in (
            (400, b"{", "JSON"),
            (400, [], "object"),
            (400, {"table": "passwords"}, "users"),
            (400, {"table": "users; drop table users"}, "users"),
            (400, {"tabel": "users"}, "known are table"),
            (400, {"table": "users", "trip": "1"}, "at most one"),
            (400, {"trip": ""}, "trip"),
            (400, {"trip": "x" * 201}, "200"),
            (400, {"user": "a\x00b"}, "control"),
            (400, b'{"user": "\\ud800"}', ""),
            (400, {"rewrite": "yes"}, "rewrite"),
            (400, b"[" * 10_000, ""),
            (413, b"x" * 20_000, "larger than"),
        ):
            reply = await resync(client, body)
            assert reply.status == status, (body, reply)
            assert says in reply.json["error"], (body, reply)
        assert await value(source, "select count(*) from mirror.request") == 0
        hostile = "<img src=x onerror=alert(1)>'; drop table users; --"
        assert (await resync(client, {"trip": hostile})).status == 202
        assert (await resync(client, {"user": 42})).status == 202
        assert await value(source, "select array_agg(coalesce(trip, usr) order by id) from mirror.request") == [
            hostile,
            "42",
        ]
        for number in ("0", "-1", "x", "9" * 30, "99999", hostile.replace(" ", "%20"), "%00"):
            assert (await client.get(f"/api/resyncs/{number}")).status == 404, number


async def test_other_methods_paths_and_names_are_refused_in_words(source_url: str, target_url: str) -> None:
    async with serving(source_url, target_url) as (_, client):
        for method, path, status in (
            ("POST", "/", 405), ("PUT", "/resync", 405), ("GET", "/resync", 405), ("DELETE", "/metrics", 405),
            ("TRACE", "/api/status", 405), ("POST", "/wait", 405), ("BREW", "/livez", 405),
            ("GET", "/../../etc/passwd", 404), ("GET", "/page.js", 404), ("GET", "/%2e%2e/mirror.toml", 404),
            ("GET", "/api/status?since=x", 400), ("GET", "/api/status?since=nan", 400), ("HEAD", "/livez", 200),
        ):  # fmt: skip
            reply = await client.ask(method, path)
            assert reply.status == status, (method, path, reply)
            assert "x-content-type-options: nosniff" in reply.head.lower()
            assert "frame-ancestors 'none'" in reply.head
            assert "cache-control: no-store" in reply.head.lower()
            assert status < 400 or reply.json["error"]
        for host, status in (
            ("evil.example", 421), ("evil.example:9464", 421), ("127.0.0.1.evil.example", 421), ("localhost.", 421),
            ("127.0.0.1:9464", 200), ("[::1]:9464", 200), ("mirror.localhost", 200), ("10.0.0.1", 200),
        ):  # fmt: skip
            assert (await client.ask("GET", "/api/status", headers={"host": host})).status == status, host


ROUTES = (
    "/", "/metrics", "/livez", "/readyz", "/wait", "/wait?token=x", "/api/status", "/api/resyncs/1", "/api/resyncs/x",
    "/resync", "/nothing", "/wait/", "/%77ait", "//wait", "*", "/api/resyncs/%00", "/wait?token=%00&timeout=%ff",
)  # fmt: skip
METHODS = (
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "BREW", "get", "head",
    "A" * 200,
)  # fmt: skip


async def test_no_method_on_no_route_is_an_error_of_ours(source_url: str, target_url: str) -> None:
    async with serving(source_url, target_url) as (_, client):
        for path in ROUTES:
            for method in METHODS:
                reply = await client.ask(method, path)
                assert reply.status < 500 or (path == "/readyz" and reply.status == 503), (method, path, reply)
                if method not in ("GET", "HEAD", "POST"):
                    assert reply.status in (404, 405, 307), (method, path, reply)
                if method == "HEAD":
                    assert not reply.body, path


async def test_head_waits_like_get(source: Connection, source_url: str, target_url: str) -> None:
    """A client that only wants the status may leave out the rest."""
    async with serving(source_url, target_url) as (_, client):
        token = await written(source)
        assert (await client.ask("HEAD", "/wait", query={"token": token})).status == 200
        assert (await client.ask("HEAD", "/wait", query={"token": "garbage"})).status == 400


@pytest.mark.parametrize("listening", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - the second is a container's
async def test_a_page_that_bends_its_own_name_to_this_daemon_reads_nothing(
    source_url: str, target_url: str, listening: str
) -> None:
    """DNS rebinding: the browser believes that this is the page's own server, and says so."""
    hosts = {"MIRROR_HTTP_HOST": listening, "MIRROR_HTTP_HOSTS": "mirror, Mirror.Example.org"}
    async with serving(source_url, target_url, hosts) as (_, client):
        for host in (
            "evil.example", "evil.example:9464", "127.0.0.1.nip.io", "localhost.evil.example", "localhost.",
            "mirror.evil", "xmirror", "mirror.example.org.", "mirror@evil.example", "[::1].evil.example",
            "10.0.0.1:evil", "0x7f.1", "*", "2130706433",
        ):  # fmt: skip
            for path in ("/", "/api/status", "/metrics", "/livez", "/readyz", "/wait", "/resync", "/nothing"):
                reply = await client.ask("GET", path, headers={"host": host})
                assert reply.status == 421, (host, path, reply)
                assert "MIRROR_HTTP_HOSTS" in reply.json["error"]
        two = await client.raw(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n")
        assert (await two.rest()).startswith("HTTP/1.1 400 ")
        for host in (
            "mirror", "MIRROR:9464", "mirror.example.org", "localhost:9464", "10.0.0.1", "10.0.0.1:9464",
            "[fe80::1]:9464", "[::1]", listening,
        ):  # fmt: skip
            assert (await client.ask("GET", "/livez", headers={"host": host})).status == 200, host


async def test_the_status_tells_what_happened(
    source: Connection, target: Connection, source_url: str, target_url: str
) -> None:
    refuse = (
        "create function refuse() returns trigger language plpgsql as "
        "$$ begin raise exception 'no <b>odd</b> ones'; end $$;"
        "create trigger refuse before insert on public.users for each row when (new.username = 'odd') "
        "execute function refuse()"
    )
    async with serving(source_url, target_url) as (daemon, client):
        await target.execute(refuse)
        await source.execute(
            "insert into users (id, username) values (gen_random_uuid(), 'odd'), (gen_random_uuid(), 'ok')"
        )
        await eventually(lambda: daemon.known.parked.get("users"))
        status = (await client.get("/api/status")).json
        assert (status["state"], status["verdict"], status["tables"]["users"]["parked"]) == ("leading", "fresh", 1)
        assert status["tables"]["users"]["upserted"] == 1
        (parked,) = status["parked"]
        assert parked["reason"] == "the target refuses it (P0001): no <b>odd</b> ones"
        assert parked["key"][1] is None
        assert status["source"]["up"] is status["target"]["up"] is status["resync_allowed"] is True
        assert status["epoch"] == 1
        points = await eventually(lambda: _points(client, since=0.0))
        assert points[-1][0] <= (await client.get("/api/status")).json["now"]
        later = await _points(client, since=points[-1][0])
        assert [p for p in later if p[0] <= points[-1][0]] == []


async def _points(client: Clients, *, since: float) -> list[list[float]]:
    points: list[list[float]] = (await client.get("/api/status", since=str(since))).json["history"]["points"]
    return points


async def test_errors_are_kept_in_plain_words_with_their_cure(
    target: Connection, source_url: str, target_url: str
) -> None:
    async with serving(source_url, target_url) as (daemon, client):
        await target.execute("alter table mirror.state rename to state_of_old")
        daemon._step_soon()
        await eventually(lambda: daemon.knowledge.record.errors and daemon.knowledge.record.errors[-1].times > 2, 15)
        status = (await client.get("/api/status")).json
        assert len(status["errors"]) <= 2, "the same again is counted"
        assert all("mirror.state" in error["message"] for error in status["errors"])
        assert status["ready"] is False
        assert (await client.get("/wait", token="x/-/1:1:")).status == 503
        await target.execute("alter table mirror.state_of_old rename to state")
        await leading(daemon)


async def test_everything_is_answered_while_the_loop_stands_still(source_url: str, target_url: str) -> None:
    async with serving(source_url, target_url) as (daemon, client):
        await eventually(lambda: not daemon.known.why_not_ready())
        with ThreadPoolExecutor(1) as elsewhere:
            for path in ("/metrics", "/api/status", "/livez", "/readyz", "/"):
                asking = elsewhere.submit(asyncio.run, client.get(path))
                assert asking.result(10).status == 200, path


async def test_no_secret_is_in_any_answer_log_line_or_metric(
    source_url: str, target_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    install(source_url, target_url)
    secret = {"MIRROR_ADMIN_TOKEN": "hunter2-hunter2-hunter2", "SUPABASE_SECRET_KEY": "sb_secret_hunter2"}
    secret |= {"MIRROR_HEARTBEAT_INTERVAL": "1s"}  # an idle daemon notices then that the target is gone
    caplog.set_level("DEBUG")
    async with (
        Proxy.to(source_url) as source,
        Proxy.to(target_url) as target,
        running(_with_password(source.url(source_url)), _with_password(target.url(target_url)), secret) as daemon,
        clients(daemon.port) as client,
    ):
        await leading(daemon)
        said = [await _everything(client)]
        for side in (source, target):
            side.refuse()
            side.cut()
            await eventually(lambda: not daemon.known.leader)
            said.append(await _everything(client))
            await side.accept()
            await leading(daemon)
        logged = [format_.format(record) for record in caplog.records for format_ in (Json(), Human())]
        assert "hunter2" not in "".join(logged)
        assert any("starting over" in line for line in logged)
        assert "hunter2" not in "".join(said)
        assert "Unreachable" in said[1]
        assert "Unreachable" in said[2]


def _with_password(url: str) -> str:
    """The servers of the tests let everybody in, and hear it all the same."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user or 'postgres'}:hunter2-%25%2F%3A%40@{host}"))


async def _everything(client: Clients) -> str:
    right = {"authorization": "Bearer hunter2-hunter2-hunter2"}
    replies = [
        await client.get(path)
        for path in (
            "/",
            "/metrics",
            "/livez",
            "/readyz",
            "/api/status",
            "/api/resyncs/1",
            "/wait",
            "/nothing",
            "/resync",
        )
    ]
    replies += [
        await client.get("/wait", token="x/-/1:1:", timeout="0"),
        await client.ask("POST", "/resync", b'{"table": "users"}', right),
        await client.ask("POST", "/resync", b"{", right),
        await client.ask("POST", "/resync", b'{"hunter": 2}', {"authorization": "Bearer hunter-2"}),
    ]
    return "".join(reply.head + reply.body for reply in replies)
