"""The direct transport: what the target answers, and what becomes of an answer that does not come."""

import json
from collections.abc import AsyncIterator

import psycopg
import pytest

from mirror.errors import Incompatible, Refused, Superseded, UnknownOutcome, Unreachable
from mirror.target import direct
from mirror.target.direct import Direct
from tests.bed.proxy import Proxy
from tests.bed.target_side import SOURCE, Connection, an_id, as_role, put_in_place, scope, user

pytestmark = pytest.mark.sql

BATCH = json.dumps({"epoch": 1, "batch": 1, "position": None, "scopes": [scope("users", [user(an_id(1))])]})


@pytest.fixture
async def proxy(target_url: str) -> AsyncIterator[Proxy]:
    put_in_place(target_url)
    async with Proxy.to(target_url) as proxy:
        yield proxy


@pytest.fixture
async def transport(target_url: str, proxy: Proxy) -> AsyncIterator[Direct]:
    transport = await Direct.open(proxy.url(target_url))
    yield transport
    await transport.close()


async def test_a_call_and_its_reply(transport: Direct) -> None:
    assert (await transport.call("mirror_claim", json.dumps(SOURCE)))["epoch"] == 1
    assert (await transport.call("mirror_apply", BATCH))["counts"] == {"users": {"upsert": 1}}
    assert (await transport.call("mirror_status", None))["batch"] == 1


async def test_only_the_mirrors_own_functions_can_be_called(transport: Direct) -> None:
    with pytest.raises(AssertionError):
        await transport.call("pg_sleep", "1")


async def test_what_the_target_says_no_to(transport: Direct, target: Connection) -> None:
    await transport.call("mirror_claim", json.dumps(SOURCE))
    await transport.call("mirror_claim", json.dumps(SOURCE))
    with pytest.raises(Superseded, match="epoch 1 batch 1 is not newer than epoch 2 batch 0"):
        await transport.call("mirror_apply", BATCH)
    with pytest.raises(Incompatible, match=r"another source.* Check MIRROR_SOURCE_URL"):
        await transport.call("mirror_claim", json.dumps(SOURCE | {"system": "8"}))
    await target.execute("create table public.chat (of uuid references public.users on delete cascade)")
    with pytest.raises(Incompatible, match=r"allow_cascade = \['public.chat'\]"):
        await transport.call("mirror_claim", json.dumps(SOURCE))
    with pytest.raises(Refused) as refused:
        await transport.call("mirror_apply", BATCH.replace("users", "tripz").replace('"epoch": 1', '"epoch": 2'))
    assert refused.value.sqlstate == "22023"
    assert (await transport.call("mirror_status", None))["epoch"] == 2, "the connection is as good as before"


async def test_a_role_without_the_right_is_told_so(target_url: str, proxy: Proxy) -> None:
    transport = await Direct.open(as_role(proxy.url(target_url), "supabase_read_only_user"))
    try:
        with pytest.raises(Refused, match="permission denied for function mirror_status"):
            await transport.call("mirror_status", None)
    finally:
        await transport.close()


async def test_a_reply_that_is_lost_leaves_the_outcome_unknown(
    transport: Direct, proxy: Proxy, target: Connection
) -> None:
    await transport.call("mirror_claim", json.dumps(SOURCE))
    swallowed = proxy.swallow_replies()
    with pytest.raises(UnknownOutcome, match="no reply to mirror_apply"):
        await transport.call("mirror_apply", BATCH)
    assert swallowed.is_set()
    row = await (await target.execute("select count(*) from public.users")).fetchone()
    assert row == (1,), "the server did it"


async def test_a_reply_that_takes_too_long_is_not_waited_for(
    transport: Direct, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "CALL_TIMEOUT_S", 0.2)
    proxy.stall("to_client")
    with pytest.raises(UnknownOutcome, match="no reply to mirror_status"):
        await transport.call("mirror_status", None)


async def test_nobody_at_home(target_url: str, proxy: Proxy) -> None:
    url = proxy.url(target_url)
    proxy.refuse()
    with pytest.raises(Unreachable, match=r"^target: "):
        await Direct.open(url)


async def test_without_an_install_the_answer_is_no(transport: Direct, target: Connection) -> None:
    await target.execute("drop function public.mirror_status()")
    with pytest.raises(Refused) as refused:
        await transport.call("mirror_status", None)
    assert refused.value.sqlstate == psycopg.errors.UndefinedFunction.sqlstate
