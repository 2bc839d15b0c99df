"""Supabase without a Postgres URL: the keys, the API's own refusals and its limits, the commands, the daemon."""

import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from starlette.responses import HTMLResponse

import mirror.target.ways
from mirror.applier import BYTES_MAX
from mirror.config import load_settings
from mirror.errors import Refused, UnknownOutcome
from mirror.target.rest import Rest
from mirror.target.target import Transport
from mirror.target.ways import open_transport
from tests.bed.commands import Command
from tests.bed.daemons import NEVER, becomes_equal, environ, install, leading, process, running, value
from tests.bed.eventually import eventually
from tests.bed.postgrest_jwt import token
from tests.bed.supabase_api import Supabase, api
from tests.bed.target_side import SOURCE, Connection, an_id, put_in_place, scope, user

CLAIM = json.dumps(SOURCE)


@pytest.fixture
async def supabase(target_url: str) -> AsyncIterator[Supabase]:
    """A project that the mirror is installed in, and its API has noticed."""
    put_in_place(target_url)
    async with api(target_url) as opened:
        yield opened


@pytest.fixture
async def transport(supabase: Supabase) -> AsyncIterator[Transport]:
    transport = await open_transport(load_settings(supabase.settings))
    yield transport
    await transport.close()


async def call(settings: dict[str, str], function: str = "mirror_status", argument: str | None = None) -> Any:
    transport = await open_transport(load_settings(settings))
    try:
        return await transport.call(function, argument)
    finally:
        await transport.close()


async def refused(settings: dict[str, str]) -> Refused:
    with pytest.raises(Refused) as error:
        await call(settings)
    return error.value


async def test_a_secret_key_and_a_legacy_key_open_the_door_and_others_do_not(supabase: Supabase) -> None:
    assert (await call(supabase.settings))["epoch"] == 0
    assert (await call(supabase.settings | {"SUPABASE_SECRET_KEY": token("service_role")}))["epoch"] == 0
    wrong = await refused(supabase.settings | {"SUPABASE_SECRET_KEY": "sb_secret_of_another_project"})
    assert "401 Unauthorized. Check SUPABASE_SECRET_KEY" in str(wrong)
    assert "another_project" not in str(wrong)
    assert "authorization" not in supabase.calls[0].headers, "a secret key as a bearer would be PGRST301"


async def test_who_is_not_the_service_role_may_not(supabase: Supabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror.target.ways, "claims", lambda _: None)  # a key whose role cannot be read beforehand
    anon = await refused(supabase.settings | {"SUPABASE_SECRET_KEY": token("anon")})
    assert anon.sqlstate == "42501"
    assert "permission denied for function mirror_status. Check SUPABASE_SECRET_KEY" in str(anon)


async def test_a_schema_that_is_not_exposed_is_named(target_url: str) -> None:
    put_in_place(target_url)
    async with api(target_url, schemas=("auth",)) as supabase:
        hidden = await refused(supabase.settings)
    assert hidden.sqlstate == "PGRST106"
    assert "Add public to the exposed schemas" in str(hidden)


async def test_functions_that_the_api_has_not_noticed(target_url: str) -> None:
    """Installing tells it."""
    async with api(target_url) as supabase:
        assert "mirror install target --print" in str(await refused(supabase.settings))
        put_in_place(target_url)
        assert (await eventually(lambda: call(supabase.settings)))["epoch"] == 0


async def test_a_gateway_that_answers_for_itself(supabase: Supabase, transport: Transport) -> None:
    supabase.answers.append(HTMLResponse("<html>Bad gateway</html>", 502))
    with pytest.raises(UnknownOutcome, match="no reply to mirror_claim: the gateway answers 502"):
        await transport.call("mirror_claim", CLAIM)
    assert len(supabase.calls) == 1, "never sent again"


async def sleepy(target: Connection, seconds: float) -> None:
    await target.execute(
        "create function public.sleepy() returns trigger language plpgsql as $$ begin "
        f"perform pg_sleep({seconds}); return new; end $$; "
        "create trigger sleepy before insert on public.users for each row execute function sleepy()"
    )


def batch(*numbers: int) -> str:
    rows = [user(an_id(n)) for n in numbers]
    return json.dumps({"epoch": 1, "batch": 1, "position": None, "scopes": [scope("users", rows)]})


@pytest.mark.sql
async def test_the_limit_of_a_batch_is_its_functions_whatever_the_roles_have(
    target_url: str, target: Connection
) -> None:
    """8 s: much longer than a batch should take, and much shorter than a successor would wait for its lock."""
    put_in_place(target_url)
    await target.execute(
        "do $$ begin execute format('alter role authenticator in database %I set statement_timeout = 150', "
        "current_database()); end $$"
    )
    await sleepy(target, 0.2)
    async with api(target_url) as supabase:
        await call(supabase.settings, "mirror_claim", CLAIM)
        assert (await call(supabase.settings, "mirror_apply", batch(1)))["counts"] == {"users": {"upsert": 1}}
    await target.execute("alter function public.mirror_apply(jsonb) set statement_timeout = '100ms'")
    async with api(target_url) as supabase:
        with pytest.raises(Refused, match="statement timeout") as ended:
            await call(supabase.settings, "mirror_apply", batch(2).replace('"batch": 1', '"batch": 2'))
    assert ended.value.sqlstate == "57014"


async def test_nothing_that_the_mirror_raises_is_tried_again_by_the_api(
    supabase: Supabase, transport: Transport, target: Connection
) -> None:
    await transport.call("mirror_claim", CLAIM)
    await target.execute(
        "create function public.fails() returns trigger language plpgsql as $$ begin "
        "raise 'again' using errcode = '40001'; end $$; "
        "create trigger fails before insert on public.users for each row execute function fails()"
    )
    with pytest.raises(Refused) as error:
        await transport.call("mirror_apply", batch(1))
    assert error.value.sqlstate == "PT423"
    assert supabase.rest is None or supabase.rest.retried == 0


async def test_bodies_are_bounded_however_large_the_rows(
    source: psycopg.AsyncConnection[Any], target: Connection, source_url: str, target_url: str
) -> None:
    """At most a batch of entries and a slice in one, each of its own bound."""
    await source.execute(
        "insert into users (id, username) select gen_random_uuid(), repeat('x', 15000) from generate_series(1, 600)"
    )
    install(source_url, target_url)
    async with api(target_url) as supabase, running(source_url, supabase.url, NEVER) as daemon:
        await leading(daemon, 15.0)
        await eventually(lambda: value(target, "select count(*) = 600 from public.users"))
    sizes = [sent.size for sent in supabase.calls]
    assert sum(sizes) > 9_000_000
    assert max(sizes) < 2 * BYTES_MAX + 10_000


async def test_a_first_load_of_a_slow_target_finds_its_pace(
    source: psycopg.AsyncConnection[Any],
    target: Connection,
    source_url: str,
    target_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its triggers take 3 ms for a row: 150 at once run into the limit of 0.3 s, again and again, if nothing learns."""
    await source.execute("insert into users (id) select gen_random_uuid() from generate_series(1, 150)")
    install(source_url, target_url)
    await sleepy(target, 0.003)
    await target.execute("alter function public.mirror_apply(jsonb) set statement_timeout = '300ms'")
    monkeypatch.setattr(Rest, "seconds_aimed", 0.1)
    async with api(target_url) as supabase, running(source_url, supabase.url, NEVER) as daemon:
        await leading(daemon, 15.0)
        assert await becomes_equal(source, target, timeout_s=15.0) < 10.0
        largest = await value(target, "select max(n) from (select count(*) as n from public.users group by xmin) as x")
        assert 5 <= largest <= 100


async def test_it_is_installed_by_hand(source_url: str, target_url: str, target: Connection, command: Command) -> None:
    async with api(target_url) as supabase:
        settings = environ(source_url, supabase.url)
        assert (await command(environ(source_url, target_url), "install", "source"))[0] == 0
        code, said = await command(settings, "status")
        assert code == 1
        assert "NOT INSTALLED" in said
        assert "mirror install target --print" in said
        code, script = await command({"MIRROR_SOURCE_URL": source_url}, "install", "target", "--print")
        assert code == 0
        await target.execute(script)
        await eventually(lambda: call(supabase.settings))
        code, said = await command(settings, "status")
        assert code == 1
        assert "NOT PRIMED" in said


async def test_the_commands_go_this_way_too(
    source: psycopg.AsyncConnection[Any], target: Connection, source_url: str, target_url: str, command: Command
) -> None:
    await source.execute("insert into users (id) values (gen_random_uuid())")
    install(source_url, target_url)
    async with api(target_url) as supabase:
        settings = environ(source_url, supabase.url)
        async with running(source_url, supabase.url, NEVER) as daemon:
            await leading(daemon)
            code, said = await command(settings, "status", "--json")
            assert (code, json.loads(said)["verdict"]) == (0, "fresh")
            code, said = await command(settings, "resync", "--json")
            assert (code, json.loads(said)["state"]) == (0, "done")
        await target.execute("update public.users set username = 'drift'")
        code, said = await command(settings, "verify")
        assert code == 1
        assert "1 changed" in said
        assert (await command(settings, "adopt"))[0] == 1
        assert (await command(settings, "adopt", "--yes"))[0] == 0
        assert await value(target, "select primed_at is null and epoch > 1 from mirror.state")


async def test_a_wrong_key_is_tried_again_and_shown_nowhere(source_url: str, target_url: str) -> None:
    install(source_url, target_url)
    async with api(target_url) as supabase:
        key = "sb_secret_hunter2hunter2"
        async with process(environ(source_url, supabase.url) | {"SUPABASE_SECRET_KEY": key}) as daemon:
            said = await daemon.says("starting over")
            await eventually(lambda: len(supabase.calls) >= 2)
            assert "401 Unauthorized. Check SUPABASE_SECRET_KEY" in said["error"]
            assert (await daemon.stopped())[0] == 0
            assert "hunter2" not in daemon.output
            assert "HTTP Request" not in daemon.output, "one line for each call is nobody's log"
