"""What stands between the mirror and Supabase, and an API that is not ready yet: waited for, named, never the end."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from starlette.responses import HTMLResponse, Response

import mirror.target.ways
from mirror.config import load_settings
from mirror.daemon import Daemon
from mirror.errors import ConfigError
from mirror.mapping import Mapping
from tests.bed.commands import Command
from tests.bed.daemons import NEVER, becomes_equal, environ, install, leading, running, value
from tests.bed.eventually import eventually
from tests.bed.supabase_api import Supabase, api
from tests.bed.target_side import Connection

Source = psycopg.AsyncConnection[Any]


@pytest.fixture
async def supabase(source_url: str, target_url: str) -> AsyncIterator[Supabase]:
    """Installed on both sides, and nothing loaded yet."""
    install(source_url, target_url)
    async with api(target_url) as opened:
        yield opened


def asked(supabase: Supabase, function: str) -> int:
    return sum(call.function == function for call in supabase.calls)


async def test_a_body_that_a_gateway_refuses_is_halved_until_it_passes(
    source: Source, target: Connection, source_url: str, supabase: Supabase
) -> None:
    await source.execute(
        "insert into users (id, username) select gen_random_uuid(), repeat('x', 15000) from generate_series(1, 200)"
    )
    supabase.body_max = 700_000
    async with running(source_url, supabase.url, NEVER) as daemon:
        await becomes_equal(source, target, timeout_s=30.0)
        troubles = {trouble.message: trouble for trouble in daemon.knowledge.record.errors}
    (trouble,) = troubles.values()
    assert "the gateway answers 413" in trouble.message
    assert "the next batch is half of it" in trouble.cure
    sizes = [call.size for call in supabase.calls]
    assert max(sizes) > 2_000_000, "so it did not fit at first"
    assert trouble.times <= 3


@pytest.mark.parametrize("body", ["{}", "[]", "null", '"x"', "<html>", '{"epoch": 1, "clo', ""])
async def test_a_reply_that_is_none_of_ours_does_not_end_the_daemon(
    source: Source, target: Connection, source_url: str, supabase: Supabase, body: str
) -> None:
    await source.execute("insert into users (id) values (gen_random_uuid())")
    supabase.answers.extend([Response(body, media_type="application/json")] * 2)
    async with running(source_url, supabase.url, NEVER) as daemon:
        await leading(daemon, 15.0)
        supabase.answers.append(Response(body, media_type="application/json"))
        await source.execute("insert into users (id) values (gen_random_uuid())")
        await becomes_equal(source, target)
        assert any("but something else" in trouble.message for trouble in daemon.knowledge.record.errors)
    assert asked(supabase, "mirror_status") >= 4, "two odd replies, one that was taken, and one after the odd batch"


async def test_who_is_told_to_wait_waits_so_long(source_url: str, supabase: Supabase) -> None:
    supabase.answers.append(HTMLResponse("slow down", 429, headers={"retry-after": "1"}))
    loop = asyncio.get_running_loop()
    async with running(source_url, supabase.url, NEVER) as daemon:
        await eventually(lambda: asked(supabase, "mirror_status") == 1)
        began = loop.time()
        await eventually(lambda: asked(supabase, "mirror_status") == 2)
        assert loop.time() - began > 0.9
        await leading(daemon, 15.0)


async def test_an_install_that_the_api_has_not_noticed_is_waited_for(source_url: str, target_url: str) -> None:
    async with api(target_url) as supabase:
        if supabase.rest is not None:
            supabase.rest.reload_s = 1.5
        install(source_url, target_url)
        async with running(source_url, supabase.url, NEVER) as daemon:
            await leading(daemon, 15.0)
            assert daemon.knowledge.record.errors == ()


async def test_one_that_was_never_made_ends_the_daemon_with_both_cures(
    source_url: str, target_url: str, target: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(source_url, target_url)
    await target.execute("drop function public.mirror_claim(jsonb)")
    asks = mirror.target.ways.open_transport
    monkeypatch.setattr(mirror.target.ways, "open_transport", lambda settings: asks(settings, 0.5))
    async with api(target_url) as supabase:
        settings = load_settings(environ(source_url, supabase.url, **NEVER))
        with pytest.raises(ConfigError, match="not installed in the target: the API does not know") as raised:
            await Daemon(settings, Mapping()).run()
        assert asked(supabase, "mirror_claim") >= 3
    assert raised.value.exit_code == 2
    assert "mirror install target --print" in raised.value.hint
    assert "notify pgrst, 'reload schema'" in raised.value.hint


async def test_doctor_says_well_and_leaves_the_leader_alone(
    source: Source, target: Connection, source_url: str, supabase: Supabase, command: Command
) -> None:
    async with running(source_url, supabase.url, NEVER) as daemon:
        await leading(daemon, 15.0)
        await eventually(lambda: value(target, "select proof is not null from mirror.state"))
        before = await value(target, "select to_jsonb(s) from mirror.state as s")
        code, said = await command(environ(source_url, supabase.url), "doctor", "target", "--json")
        assert code == 0, said
        found = {f["check"]: f for f in json.loads(said)["findings"]}
        assert found["writes"]["verdict"] == "ok"
        assert await value(target, "select to_jsonb(s) from mirror.state as s") == before
        await source.execute("insert into users (id) values (gen_random_uuid())")
        await becomes_equal(source, target)
        assert daemon.knowledge.record.errors == ()


async def test_commands_wait_for_an_api_that_has_not_noticed(
    source_url: str, target_url: str, command: Command
) -> None:
    async with api(target_url) as supabase:
        if supabase.rest is not None:
            supabase.rest.reload_s = 1.0
        install(source_url, target_url)
        settings = environ(source_url, supabase.url)
        code, said = await command(settings, "status")
        assert (code, "NOT PRIMED" in said) == (1, True)
        assert (await command(settings, "doctor", "target"))[0] == 0
