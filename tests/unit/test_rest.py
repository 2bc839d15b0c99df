"""What an answer of Supabase's API means: the same errors as in a session of our own, and a gateway's."""

import logging
import subprocess
import sys
import traceback
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from mirror.config import load_settings
from mirror.errors import ConfigError, Incompatible, MirrorError, Refused, Superseded, UnknownOutcome, Unreachable
from mirror.https import Https
from mirror.target.rest import PIECE_BYTES, RETRY_AFTER_MAX_S, Rest, translate
from mirror.target.ways import check
from tests.bed.postgrest_jwt import token

KEY = "sb_secret_hunter2hunter2"


def posted(code: str, message: str = "text", hint: str | None = None, status: int = 400) -> MirrorError:
    details = None if code.startswith("PT") else "never shown"
    body = {"code": code, "message": message, "details": details, "hint": hint}
    return translate(httpx.Response(status, json=body))


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("PT409", Superseded, "target: text"),
        ("PT412", Incompatible, "target: text. The hint"),
        ("PT428", Incompatible, "target: text. The hint"),
        ("PT422", Refused, "target: text. The hint"),
        ("22023", Refused, "target: text. The hint"),
        ("42501", Refused, "Check SUPABASE_SECRET_KEY"),
        ("57014", Refused, "the next batch is smaller"),
        ("57P01", Unreachable, "target: text"),
        ("08006", Unreachable, "target: text"),
        ("PGRST000", Unreachable, "target: text"),
        ("PGRST003", Unreachable, "target: text"),
        ("PGRST106", Refused, "exposed schemas"),
        ("PGRST202", Refused, "mirror install target --print"),
        ("PGRST301", Refused, "Check SUPABASE_SECRET_KEY"),
        ("PGRST303", Refused, "Check SUPABASE_SECRET_KEY"),
        ("PGRST999", Refused, "target: text"),
    ],
)
def test_what_postgrest_says(code: str, kind: type[MirrorError], words: str) -> None:
    error = posted(code, hint="The hint")
    assert type(error) is kind
    assert words in str(error)
    assert "never shown" not in str(error)
    if isinstance(error, Refused):
        assert error.sqlstate == {"PGRST202": "42883"}.get(code, code)


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, '{"message": "Invalid API key"}', Refused, "401 Unauthorized. Check SUPABASE_SECRET_KEY"),
        (403, "<html>", Refused, "403 Forbidden. Check SUPABASE_SECRET_KEY"),
        (404, "<html>no such page", Refused, "404 Not Found. Check SUPABASE_URL"),
        (307, "", Refused, "307 Temporary Redirect. Check SUPABASE_URL"),
        (402, "", Refused, "402 Payment Required. The project is over its quota"),
        (405, "", Refused, "405 Method Not Allowed. Something on the way allows no POST"),
        (406, "", Refused, "406 Not Acceptable. Something on the way"),
        (408, "", Unreachable, "408 Request Timeout. The way to Supabase is slow"),
        (409, "", Refused, "409 Conflict. Something on the way"),
        (413, "", Refused, "413"),
        (415, "", Refused, "415 Unsupported Media Type. Something on the way"),
        (429, "{}", Unreachable, "429 Too Many Requests. Others use up"),
        (502, "<html>Bad gateway: sb_secret_x</html>", Unreachable, "502 Bad Gateway"),
        (503, '{"code": 7}', Unreachable, "503"),
        (540, "", Unreachable, "540. The project is paused"),
        (500, "[]", Unreachable, "500"),
        (500, b"\xff\xfe", Unreachable, "500"),
    ],
)
def test_what_a_gateway_says(status: int, body: str | bytes, kind: type[MirrorError], words: str) -> None:
    error = translate(httpx.Response(status, content=body))
    assert type(error) is kind
    assert words in str(error)
    assert "<html>" not in str(error)
    assert "sb_secret_x" not in str(error)


@pytest.mark.parametrize(
    ("said", "waits_s"),
    [
        ("7", 7.0), ("0", 0.0), ("86400", RETRY_AFTER_MAX_S), ("-5", 0.0), ("soon", 0.0), ("9" * 40, RETRY_AFTER_MAX_S),
        ("Thu, 01 Jan 2026 00:00:00 GMT", 0.0), ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_MAX_S), ("\xb2", 0.0),
    ],
)  # fmt: skip
def test_how_long_a_gateway_asks_to_be_left_alone(said: str, waits_s: float) -> None:
    for status in (429, 503):
        error = translate(httpx.Response(status, headers=[(b"retry-after", said.encode("latin-1"))]))
        assert isinstance(error, Unreachable)
        assert error.retry_after_s == waits_s


async def test_who_is_told_to_wait_hears_it_whatever_became_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    transport, _ = rest(monkeypatch, KEY, httpx.Response(429, headers={"retry-after": "12"}))
    with pytest.raises(Unreachable) as raised:
        await transport.call("mirror_claim", "{}")
    assert raised.value.retry_after_s == 12.0


@pytest.mark.parametrize("code", ["PT409", "PT412", "PT428", "PT422"])
def test_our_own_details_are_told_on_both_ways(code: str) -> None:
    body = {"code": code, "message": "the target mirrors another source", "details": "it knows A", "hint": None}
    assert str(translate(httpx.Response(400, json=body))) == "target: the target mirrors another source: it knows A"


def rest(monkeypatch: pytest.MonkeyPatch, key: str, answer: Any) -> tuple[Rest, list[httpx.Request]]:
    """One that never reaches a network."""
    sent: list[httpx.Request] = []

    async def handle(_: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        sent.append(request)
        await request.aread()
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, httpx.Response)
        return answer

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle)
    return Rest(Https("https://abcdefgh.supabase.co", SecretStr(key))), sent


@pytest.mark.parametrize("key", [KEY, token("service_role")], ids=["secret", "legacy"])
async def test_what_is_sent(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    transport, sent = rest(monkeypatch, key, httpx.Response(200, json={"clock": "now"}))
    batch = '{"scopes":[{"x":"%s"}]}' % ("é" * PIECE_BYTES)
    assert await transport.call("mirror_apply", batch) == {"clock": "now"}
    (request,) = sent
    assert str(request.url) == "https://abcdefgh.supabase.co/rest/v1/rpc/mirror_apply"
    assert request.content == f'{{"batch":{batch}}}'.encode(), "the text as it was written, in pieces"
    assert request.headers["content-length"] == str(len(request.content)), "a gateway may refuse chunks"
    assert "transfer-encoding" not in request.headers
    assert request.headers["apikey"] == key
    bearer = request.headers.get("authorization")
    assert bearer == (None if key == KEY else f"Bearer {key}"), "a secret key is no JWT"
    await transport.close()


@pytest.mark.parametrize(
    ("happened", "kind", "words"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), Unreachable, "target: [Errno 111] Connection refused"),
        (httpx.ConnectTimeout(""), Unreachable, "target: ConnectTimeout"),
        (httpx.PoolTimeout(""), Unreachable, "target: PoolTimeout"),
        (httpx.ReadTimeout(""), UnknownOutcome, "target: no reply to mirror_claim: ReadTimeout"),
        (httpx.WriteError(""), UnknownOutcome, "target: no reply to mirror_claim: WriteError"),
        (
            httpx.RemoteProtocolError(
                "<ConnectionTerminated error_code:0, last_stream_id:19999, additional_data:None>"
            ),
            UnknownOutcome,
            "target: no reply to mirror_claim: <ConnectionTerminated",
        ),
        (httpx.Response(502), UnknownOutcome, "target: no reply to mirror_claim: the gateway answers 502 Bad Gateway"),
        (httpx.Response(307, headers={"location": "https://evil.example"}), Refused, "307"),
    ],
)
async def test_what_may_have_been_done_is_said_to_be_unknown_and_never_sent_again(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    happened: Any,
    kind: type[MirrorError],
    words: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    transport, sent = rest(monkeypatch, KEY, happened)
    with pytest.raises(MirrorError) as raised:
        await transport.call("mirror_claim", '{"system": "1"}')
    assert type(raised.value) is kind
    assert str(raised.value).startswith("target: ")
    assert words in str(raised.value)
    assert len(sent) == 1
    assert "hunter2" not in caplog.text + "".join(traceback.format_exception(raised.value)) + repr(
        raised.value.__cause__
    )
    await transport.close()


def test_an_anon_key_is_refused_before_anything_is_asked() -> None:
    environ = {"SUPABASE_URL": "https://abcdefgh.supabase.co", "SUPABASE_SERVICE_ROLE_KEY": token("anon")}
    with pytest.raises(ConfigError, match="is the project's anon key"):
        check(load_settings(environ))
    assert check(load_settings(environ | {"SUPABASE_SERVICE_ROLE_KEY": token("service_role")})) == "https"
    assert check(load_settings(environ | {"MIRROR_TARGET_URL": "postgresql://host/db"})) == "direct"


def test_commands_that_do_not_go_this_way_do_not_import_its_client() -> None:
    """It takes a third of a second."""
    loaded = "import sys, mirror.cli; print(sorted({'httpx', 'postgrest'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
