"""Both transports: what the target answers, and what becomes of an answer that does not come."""

import asyncio
import json
from collections.abc import AsyncIterator

import psycopg
import pytest

from mirror.errors import Incompatible, Refused, Superseded, UnknownOutcome, Unreachable
from mirror.target.direct import Direct
from mirror.target.target import Transport
from tests.bed.eventually import eventually
from tests.bed.target_side import SOURCE, Connection, an_id, as_role, put_in_place, scope, user
from tests.bed.ways import Way

pytestmark = pytest.mark.sql

BATCH = json.dumps({"epoch": 1, "batch": 1, "position": None, "scopes": [scope("users", [user(an_id(1), "Zoë 😀")])]})


@pytest.fixture
async def transport(target_url: str, way: Way) -> AsyncIterator[Transport]:
    put_in_place(target_url)
    transport = await way.open()
    await eventually(lambda: transport.call("mirror_status", None))  # PostgREST has to notice the functions
    yield transport
    await transport.close()


async def users(target: Connection) -> int:
    row = await (await target.execute("select count(*) from public.users")).fetchone()
    assert row is not None
    return int(row[0])


async def test_a_call_and_its_reply(transport: Transport, target: Connection) -> None:
    assert (await transport.call("mirror_claim", json.dumps(SOURCE)))["epoch"] == 1
    assert (await transport.call("mirror_apply", BATCH))["counts"] == {"users": {"upsert": 1}}
    assert (await transport.call("mirror_compare", '{"scopes": []}'))["check"] is None
    assert (await transport.call("mirror_status", None))["batch"] == 1
    row = await (await target.execute("select username from public.users")).fetchone()
    assert row == ("Zoë 😀",)


async def test_only_the_mirrors_own_functions_can_be_called(transport: Transport) -> None:
    with pytest.raises(KeyError):
        await transport.call("pg_sleep", "1")


async def test_what_the_target_says_no_to(transport: Transport, target: Connection) -> None:
    await transport.call("mirror_claim", json.dumps(SOURCE))
    await transport.call("mirror_claim", json.dumps(SOURCE))
    with pytest.raises(Superseded, match="epoch 1 batch 1 is not newer than epoch 2 batch 0"):
        await transport.call("mirror_apply", BATCH)
    with pytest.raises(Incompatible, match=r"another source.* Check MIRROR_SOURCE_URL"):
        await transport.call("mirror_claim", json.dumps(SOURCE | {"system": "8"}))
    await target.execute("create table public.chat (of uuid references public.users on delete cascade)")
    with pytest.raises(Incompatible, match=r'allow_cascade = \["public.chat"\]'):
        await transport.call("mirror_claim", json.dumps(SOURCE))
    with pytest.raises(Refused) as refused:
        await transport.call("mirror_apply", BATCH.replace("users", "tripz").replace('"epoch": 1', '"epoch": 2'))
    assert refused.value.sqlstate == "22023"
    assert (await transport.call("mirror_status", None))["epoch"] == 2, "the connection is as good as before"


async def test_a_batch_that_is_parked_is_an_answer(transport: Transport, target: Connection) -> None:
    await target.execute("alter table public.users add check (username <> 'Zoë 😀')")
    await transport.call("mirror_claim", json.dumps(SOURCE))
    assert (await transport.call("mirror_apply", BATCH))["parked"] == {"users": 1}
    (parked,) = (await transport.call("mirror_status", None))["parked"]
    assert "(23514)" in parked["reason"]


@pytest.mark.parametrize("way", ["direct"], indirect=True)
async def test_a_role_without_the_right_is_told_so(target_url: str, way: Way) -> None:
    put_in_place(target_url)
    transport = await Direct.open(as_role(way.url, "supabase_read_only_user"))
    try:
        with pytest.raises(Refused, match="permission denied for function mirror_status"):
            await transport.call("mirror_status", None)
    finally:
        await transport.close()


@pytest.mark.parametrize("after_bytes", [0, 20])
async def test_a_reply_that_is_lost_leaves_the_outcome_unknown(
    transport: Transport, way: Way, target: Connection, after_bytes: int
) -> None:
    await transport.call("mirror_claim", json.dumps(SOURCE))
    swallowed = way.proxy.swallow_replies(after_bytes)
    with pytest.raises(UnknownOutcome, match="no reply to mirror_apply"):
        await transport.call("mirror_apply", BATCH)
    assert swallowed.is_set()
    assert await users(target) == 1, "the server did it"


async def test_a_reply_that_takes_too_long_is_not_waited_for(
    transport: Transport, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(way.module, "CALL_TIMEOUT_S", 0.2)
    way.proxy.stall("to_client")
    with pytest.raises(UnknownOutcome, match="no reply to mirror_status"):
        await transport.call("mirror_status", None)


async def test_a_batch_that_arrives_late_or_twice_is_refused(
    transport: Transport, way: Way, target: Connection, target_url: str
) -> None:
    await transport.call("mirror_claim", json.dumps(SOURCE))
    way.proxy.stall("to_server")
    late = asyncio.create_task(transport.call("mirror_apply", BATCH))
    newer = await Direct.open(target_url)
    await newer.call("mirror_claim", json.dumps(SOURCE))
    second = BATCH.replace('"epoch": 1', '"epoch": 2')
    assert (await newer.call("mirror_apply", second))["counts"] == {"users": {"upsert": 1}}
    await newer.close()
    await target.execute("update public.users set username = 'as it was'")
    way.proxy.resume()
    with pytest.raises(Superseded, match="epoch 1 batch 1 is not newer than epoch 2 batch 1"):
        await late
    with pytest.raises(Superseded, match="epoch 2 batch 1 is not newer than epoch 2 batch 1"):
        await transport.call("mirror_apply", second)
    row = await (await target.execute("select username from public.users")).fetchone()
    assert row == ("as it was",)


@pytest.mark.parametrize("way", ["https"], indirect=True)
async def test_a_connection_that_ends_between_two_calls_is_not_missed(transport: Transport, way: Way) -> None:
    """As gateways do it to idle ones; a session of Postgres that ends is another matter."""
    await transport.call("mirror_claim", json.dumps(SOURCE))
    accepted = way.proxy.accepted
    way.proxy.cut()
    await eventually(lambda: not way.proxy._connections)
    assert (await transport.call("mirror_status", None))["epoch"] == 1
    assert way.proxy.accepted == accepted + 1


async def test_nobody_at_home(target_url: str, way: Way) -> None:
    put_in_place(target_url)
    way.proxy.refuse()
    with pytest.raises(Unreachable, match=r"^target: ") as unreachable:
        await (await way.open()).call("mirror_status", None)
    assert not isinstance(unreachable.value, UnknownOutcome), "nothing was sent"


async def test_without_an_install_the_answer_is_no(transport: Transport, target: Connection) -> None:
    await target.execute("drop function public.mirror_status(); notify pgrst, 'reload schema'")

    async def not_there() -> Refused | None:
        try:
            await transport.call("mirror_status", None)
        except Refused as error:
            return error
        return None

    refused = await eventually(not_there)
    assert refused is not None
    assert refused.sqlstate == psycopg.errors.UndefinedFunction.sqlstate
