"""What comes back from the target is the mirror's reply, or an error of the mirror's: never a traceback."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from mirror.batch import Reading
from mirror.errors import Incompatible, UnknownOutcome
from mirror.https import Https
from mirror.target import once
from mirror.target.rest import Rest
from mirror.target.target import Target

HTTPS = Https("https://abcdefgh.supabase.co", SecretStr("sb_secret_hunter2hunter2"))
CLAIMED = {
    "clock": "2026-01-01T00:00:00+00:00", "version": 1, "epoch": 7, "types": {"user_id": "uuid"}, "primed": True,
    "snapshot": None, "empty": [], "walks": [], "proof": None,
}  # fmt: skip
APPLIED = {"clock": CLAIMED["clock"], "counts": {}, "parked": {}, "due": [], "check": None, "explained": None}
READING = Reading(
    snapshot="5:7:5", as_of="2020-01-01T00:00:00+00:00", scopes="", entries=0, backlog=False, wide=(), broken={},
    slice=None, lag_s=0.0, ages_s={}, waiting=None, outbox_bytes=0, asleep=False, taken=None,
)  # fmt: skip
ASKED: dict[str, Callable[[Target], Awaitable[Any]]] = {
    "mirror_claim": lambda target: target.claim("{}"),
    "mirror_apply": lambda target: target.apply(READING, target.next_fence(), position=False, began=0.0),
    "mirror_compare": lambda target: target.compare(READING),
    "mirror_adopt": lambda target: target.adopt("{}"),
    "mirror_status": lambda target: target.status(),
    "mirror_open_channels": lambda target: target.open_channels(),
}
ASKED_ONCE: dict[str, Callable[[once.Api], Any]] = {
    "mirror_status": once.Api.status,
    "mirror_insecurities": once.Api.insecurities,
    "mirror_try": once.Api.attempt,
}
ODD: dict[str, str | bytes] = {
    "nothing in it": "{}",
    "a list": "[]",
    "null": "null",
    "a text": '"x"',
    "a number": "7",
    "a page": "<html>log in to this network: sb_secret_x</html>",
    "cut short": json.dumps(CLAIMED | APPLIED)[:-20],
    "not UTF-8": b"\xff\xfe{}",
    "empty": "",
    "a clock without a zone": json.dumps(CLAIMED | APPLIED | {"clock": "2026-01-01T00:00:00"}),
    "other types": json.dumps(dict.fromkeys(CLAIMED | APPLIED, "x")),
}


def answering(monkeypatch: pytest.MonkeyPatch, body: str | bytes, status: int = 200) -> None:
    """Nothing reaches a network."""
    reply = httpx.Response(status, content=body, headers={"content-type": "application/json"})

    async def handle(_: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return reply

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle)
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda *_: reply)


@pytest.mark.parametrize("function", ASKED)
@pytest.mark.parametrize("odd", ODD)
async def test_what_is_no_reply_of_ours_is_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, function: str, odd: str
) -> None:
    answering(monkeypatch, ODD[odd])
    target = Target(Rest(HTTPS))
    with pytest.raises(UnknownOutcome, match=f"no reply to {function}, but something else") as raised:
        await ASKED[function](target)
    assert "SUPABASE_URL" in str(raised.value)
    assert "sb_secret_x" not in str(raised.value)
    await target.close()


@pytest.mark.parametrize("function", ASKED_ONCE)
@pytest.mark.parametrize("odd", ODD)
def test_the_same_for_commands_that_ask_once(monkeypatch: pytest.MonkeyPatch, function: str, odd: str) -> None:
    answering(monkeypatch, ODD[odd])
    with (
        once.opened(HTTPS) as api,
        pytest.raises(UnknownOutcome, match=f"no reply to {function}, but something else"),
    ):
        ASKED_ONCE[function](api)


async def test_another_release_is_named_whatever_else_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, json.dumps({"version": 2, "new": "shape"}))
    with pytest.raises(Incompatible, match="schema is version 2, this daemon needs 1"):
        await Target(Rest(HTTPS)).claim("{}")


async def test_what_a_newer_one_says_besides_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, json.dumps(CLAIMED | {"more": 1}))
    claim = await Target(Rest(HTTPS)).claim("{}")
    assert (claim.epoch, claim.clock) == (7, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("function", "lacks"),
    [
        ("mirror_claim", {"proof": {"tables": {}}}), ("mirror_claim", {"walks": [{"table": "users"}]}),
        ("mirror_claim", {"epoch": None}), ("mirror_claim", {"empty": "users"}), ("mirror_claim", {"version": "one"}),
        ("mirror_apply", {"due": [{}]}), ("mirror_apply", {"counts": {"users": 1}}),
        ("mirror_apply", {"parked": {"users": None}}), ("mirror_apply", {"check": {"n": 1}}),
        ("mirror_apply", {"refused": {"users": {}}}), ("mirror_apply", {"explained": [{"missing": 1}]}),
        ("mirror_compare", {"check": []}), ("mirror_status", {"parked": [{"tbl": "users"}]}),
    ],
)  # fmt: skip
async def test_nor_is_one_that_lacks_what_lies_deeper(
    monkeypatch: pytest.MonkeyPatch, function: str, lacks: dict[str, Any]
) -> None:
    answering(monkeypatch, json.dumps(CLAIMED | APPLIED | lacks))
    with pytest.raises(UnknownOutcome, match="but something else: "):
        await ASKED[function](Target(Rest(HTTPS)))


async def test_a_comparison_without_its_explanation_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, json.dumps(APPLIED))
    target = Target(Rest(HTTPS))
    with pytest.raises(UnknownOutcome, match="explained"):
        await target.apply(READING, target.next_fence(), position=False, began=0.0, notes={"explain": True})
