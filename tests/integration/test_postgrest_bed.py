"""The stand-in for PostgREST does what the real one does. With MIRROR_TEST_POSTGREST_BIN the real one is asked the same
(12 passes, but for what it answers otherwise)."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psycopg
import pytest

from tests.bed.eventually import eventually
from tests.bed.postgrest import Postgrest
from tests.bed.postgrest_jwt import token
from tests.bed.supabase_api import BINARY, SECRET_KEY, Supabase, api
from tests.bed.target_side import Connection, as_role, put_in_place

FUNCTIONS = """
create function public.echo(a jsonb, b integer default 7) returns jsonb language sql as
  $$ select jsonb_build_object('a', a, 'b', b) $$;
create function public.twice(a integer) returns integer language sql stable as $$ select 2 * a $$;
create function public.same(a integer) returns integer language sql as $$ select a $$;
create function public.same(a text) returns integer language sql as $$ select 1 $$;
create function public.nothing() returns void language sql as $$ $$;
create function public.many() returns setof integer language sql stable as $$ select generate_series(1, 1500) $$;
create function public.rows() returns table (n integer, t text) language sql stable as $$ values (1, 'x') $$;
create function public.sneaky() returns integer language plpgsql stable as
  $$ begin return public.writes(); end $$;
create function public.writes() returns integer language plpgsql as
  $$ begin insert into public.seen values (1); return 1; end $$;
create function public.fails(state text, message text, detail text default '') returns integer language plpgsql as
  $$ begin raise exception using errcode = state, message = message, detail = detail; end $$;
create function public.again() returns integer language plpgsql as
  $$ begin perform nextval('public.tries'); raise exception 'again' using errcode = '40001'; end $$;
create function public.sleeps(s float8) returns integer language plpgsql as
  $$ begin perform pg_sleep(s); return 1; end $$;
create function public.hoisted(s float8) returns integer language plpgsql set statement_timeout = '100ms' as
  $$ begin perform pg_sleep(s); return 1; end $$;
create function public.shows(name text) returns text language sql stable as $$ select current_setting(name, true) $$;
create function public.bare() returns integer language plpgsql as
  $$ begin update public.seen set n = 2; return 1; end $$;
create function public.bare_below() returns integer language plpgsql as $$ begin return public.bare(); end $$;
create function public.covered() returns integer language plpgsql as
  $$ begin update public.seen set n = 2 where true; return 1; end $$;
create function public.ends() returns boolean language sql security definer as
  $$ select pg_terminate_backend(pg_backend_pid()) $$;
create table public.seen (n integer);
create sequence public.tries;
grant all on public.seen, public.tries to service_role;
"""
REAL = os.environ.get(BINARY)


def major() -> int:
    if not REAL:
        return 14
    said = subprocess.run([REAL, "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.split()[1].split(".")[0])


stand_in = pytest.mark.skipif(bool(REAL), reason="only the stand-in lets a test set its delays or see its counters")
of_14 = pytest.mark.skipif(major() < 14, reason="PostgREST before 14 answers otherwise")


@pytest.fixture
async def made(target_url: str, target: Connection) -> str:
    await target.execute(FUNCTIONS)
    return target_url


@pytest.fixture
async def supabase(made: str) -> AsyncIterator[Supabase]:
    async with api(as_role(made, "postgres")) as opened:
        yield opened


@pytest.fixture
async def client(supabase: Supabase) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"apikey": SECRET_KEY}
    async with httpx.AsyncClient(base_url=f"{supabase.url}/rest/v1/rpc", headers=headers, trust_env=False) as opened:
        yield opened


@pytest.fixture
def rest(supabase: Supabase) -> Postgrest:
    assert supabase.rest is not None
    return supabase.rest


async def said(client: httpx.AsyncClient, function: str, **arguments: Any) -> tuple[int, Any]:
    reply = await client.post(f"/{function}", json=arguments)
    body = reply.json() if reply.content else None
    return reply.status_code, body["code"] if isinstance(body, dict) and "code" in body else body


async def test_arguments_are_matched_by_name(client: httpx.AsyncClient) -> None:
    assert await said(client, "echo", a={"x": [1]}) == (200, {"a": {"x": [1]}, "b": 7})
    assert await said(client, "echo", a=None, b=2) == (200, {"a": None, "b": 2})
    assert await said(client, "echo", b=2) == (404, "PGRST202")
    assert await said(client, "echo", a=1, c=2) == (404, "PGRST202")
    assert await said(client, "nowhere") == (404, "PGRST202")
    assert await said(client, "same", a=2) == (300, "PGRST203")
    assert await said(client, "twice", a="x") == (400, "22P02")


async def test_what_comes_back(client: httpx.AsyncClient) -> None:
    assert await said(client, "nothing") == (204, None)
    assert await said(client, "twice", a=2) == (200, 4)
    assert await said(client, "rows") == (200, [{"n": 1, "t": "x"}])
    assert len((await said(client, "many"))[1]) == 1000, "cut without a word"


async def test_what_is_sent_and_what_is_wanted(client: httpx.AsyncClient) -> None:
    assert (await client.get("/twice", params={"a": "2"})).json() == 4
    assert (await client.get("/writes")).status_code == 405, "a GET is read only"
    assert (await client.get("/writes")).json()["code"] == "25006"
    assert (await client.post("/twice", content="{", headers={"content-type": "application/json"})).status_code == 400
    odd = await client.post("/twice", content="a=2", headers={"content-type": "application/xml"})
    assert (odd.status_code, odd.json()["code"]) == (400, "PGRST102")
    elsewhere = await client.post("/twice", json={"a": 2}, headers={"content-profile": "mirror"})
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (406, "PGRST106")


@of_14
async def test_what_cannot_be_had(client: httpx.AsyncClient) -> None:
    html = await client.post("/twice", json={"a": 2}, headers={"accept": "text/html"})
    assert (html.status_code, html.json()["code"]) == (406, "PGRST107")


async def test_a_stable_function_runs_read_only(client: httpx.AsyncClient) -> None:
    assert await said(client, "sneaky") == (405, "25006")
    assert await said(client, "writes") == (200, 1)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("PT409", 409), ("PT428", 428), ("PTABC", 500), ("P0001", 400), ("P0002", 500), ("42501", 403), ("57014", 500),
        ("53100", 503), ("08006", 503), ("23505", 409), ("22012", 400), ("57P01", 503),
        pytest.param("42P17", 500, marks=of_14), pytest.param("54000", 500, marks=of_14),
    ],
)  # fmt: skip
async def test_errors_have_the_status_of_their_sqlstate(client: httpx.AsyncClient, state: str, status: int) -> None:
    assert await said(client, "fails", state=state, message="no", detail="D") == (status, state)


async def test_a_message_of_two_lines_breaks_the_status_line(client: httpx.AsyncClient) -> None:
    """What a gateway makes of that is not PostgREST's answer. As the detail it does no harm."""
    message = "two\nlines"
    assert (await said(client, "fails", state="PT409", message=message))[0] == 502
    assert await said(client, "fails", state="PT409", message="one", detail=message) == (409, "PT409")
    assert await said(client, "fails", state="P0001", message=message) == (400, "P0001"), "of PTxyz only"


@stand_in
@pytest.mark.parametrize("message", ["Zoë", "two\r\nlines: 1"])
async def test_more_than_a_line_of_ascii_breaks_it_here_always(client: httpx.AsyncClient, message: str) -> None:
    """Of the real one, a gateway may take UTF-8 or not, and takes the second line for a header of PostgREST's."""
    assert (await said(client, "fails", state="PT409", message=message))[0] == 502


def a_token(**claims: Any) -> dict[str, str]:
    role = claims.pop("role", "service_role")
    return {"authorization": f"Bearer {token(role, **claims)}"}


def tokens(now: int) -> dict[str, tuple[dict[str, str], int, str | None]]:
    """Who asks, and what is answered."""
    return {
        "of the service role": (a_token(), 200, None),
        "that expires later": (a_token(exp=now + 600), 200, None),
        "that expired within the leeway": (a_token(exp=now - 1), 200, None),
        "that expired": (a_token(exp=now - 60), 401, "PGRST303"),
        "that is not valid yet": (a_token(nbf=now + 600), 401, "PGRST303"),
        "of the future": (a_token(iat=now + 600), 401, "PGRST303"),
        "with a date that is none": (a_token(exp="tomorrow"), 401, "PGRST303"),
        "without a role": (a_token(role=None), 401, "42501"),
        "of a role that is none": (a_token(role="no_role"), 401, "22023"),
        "that is a secret key": ({"authorization": f"Bearer {SECRET_KEY}"}, 401, "PGRST301"),
        "that is garbage": ({"authorization": "Bearer a.b.c"}, 401, "PGRST301"),
        "that another key has signed": ({"authorization": f"Bearer {token('anon')[:-4]}AAAA"}, 401, "PGRST301"),
    }


OF_14 = {case for case, (_, status, code) in tokens(0).items() if code in ("PGRST303", "22023") or "leeway" in case}


@pytest.mark.parametrize("case", [pytest.param(c, marks=of_14) if c in OF_14 else c for c in tokens(0)])
async def test_a_token(client: httpx.AsyncClient, target: Connection, case: str) -> None:
    await target.execute("revoke execute on function public.writes() from public; "
                         "grant execute on function public.writes() to service_role")  # fmt: skip
    headers, status, code = tokens(int(time.time()))[case]
    reply = await client.post("/writes", json={}, headers=headers)
    assert reply.status_code == status
    assert code is None or reply.json()["code"] == code


async def test_without_a_key_there_is_the_gateway(supabase: Supabase) -> None:
    async with httpx.AsyncClient(base_url=f"{supabase.url}/rest/v1/rpc", trust_env=False) as keyless:
        assert (await keyless.post("/writes", json={})).status_code == 401
        wrong = await keyless.post("/writes", json={}, headers={"apikey": "sb_secret_of_another_project"})
    assert wrong.status_code == 401
    assert "code" not in wrong.json()


async def test_the_limits_of_the_role_and_of_the_function(client: httpx.AsyncClient) -> None:
    async def limit(role: str) -> Any:
        reply = await client.post("/shows", json={"name": "statement_timeout"}, headers=a_token(role=role))
        return reply.json()

    assert [await limit(role) for role in ("anon", "authenticated", "service_role")] == ["3s", "8s", "8s"]
    assert await said(client, "hoisted", s=5) == (500, "57014")
    assert await said(client, "hoisted", s=0) == (200, 1)
    reply = await client.post("/shows", json={"name": "request.jwt.claims"}, headers=a_token(sub="ana"))
    assert json.loads(reply.json()) == {"role": "service_role", "sub": "ana"}


async def test_an_update_without_where_is_refused(client: httpx.AsyncClient) -> None:
    for function in ("bare", "bare_below"):
        reply = await client.post(f"/{function}", json={})
        assert (reply.status_code, reply.json()["code"]) == (400, "21000")
        assert reply.json()["message"] == "UPDATE requires a WHERE clause"
    assert await said(client, "covered") == (200, 1)


async def test_functions_are_noticed_a_while_after_a_reload(client: httpx.AsyncClient, target: Connection) -> None:
    await target.execute("create function public.fresh() returns integer language sql as $$ select 1 $$")
    assert await said(client, "fresh") == (404, "PGRST202")
    await target.execute("notify pgrst, 'reload schema'")
    assert await said(client, "fresh") == (404, "PGRST202"), "not yet"

    async def noticed() -> bool:
        return await said(client, "fresh") == (200, 1)

    await eventually(noticed)


@stand_in
async def test_before_it_has_looked_it_knows_nothing(made: str) -> None:
    rest = Postgrest(as_role(made, "authenticator"), start_s=0.3)
    async with rest.open(), httpx.AsyncClient(
        base_url="http://postgrest/rpc", transport=httpx.ASGITransport(rest.application()), headers=a_token()
    ) as client:  # fmt: skip
        assert await said(client, "twice", a=1) == (503, "PGRST002")

        async def ready() -> bool:
            return await said(client, "twice", a=1) == (200, 2)

        await eventually(ready)


@stand_in
@pytest.mark.parametrize("state", ["53100", "PT503", "08006"])
async def test_any_reply_of_503_makes_it_look_again(client: httpx.AsyncClient, rest: Postgrest, state: str) -> None:
    rest.reload_s = 0.0
    assert (await said(client, "fails", state="PT500", message="no"))[0] == 500
    assert rest.reloads == 0
    assert (await said(client, "fails", state=state, message="no"))[0] == 503
    await eventually(lambda: rest.reloads == 1)
    assert rest._idle == [], "its pool is flushed, too"


async def test_40001_is_tried_without_end_and_outlives_the_client(
    client: httpx.AsyncClient, target: Connection
) -> None:
    async def tries() -> int:
        row = await (await target.execute("select last_value from public.tries")).fetchone()
        assert row is not None
        return int(row[0])

    with pytest.raises(httpx.ReadTimeout):
        await client.post("/again", json={}, timeout=0.3)
    seen = await tries()
    assert seen > 1

    async def goes_on() -> bool:
        return await tries() > seen + 5

    await eventually(goes_on)


async def test_a_connection_that_is_lost_is_replaced(client: httpx.AsyncClient) -> None:
    assert (await said(client, "ends"))[0] == 503

    async def well() -> bool:
        return await said(client, "twice", a=1) == (200, 2)

    await eventually(well)


@stand_in
async def test_who_gets_no_connection_is_told_so(client: httpx.AsyncClient, rest: Postgrest) -> None:
    rest.pool_wait_s = 0.1
    busy = [asyncio.create_task(said(client, "sleeps", s=1.0)) for _ in range(rest.pool_size)]
    await eventually(rest._slots.locked)
    assert await said(client, "twice", a=1) == (504, "PGRST003")
    assert await asyncio.gather(*busy) == [(200, 1)] * rest.pool_size


@pytest.fixture
def installed(target_url: str) -> Iterator[psycopg.Connection[Any]]:
    put_in_place(target_url)
    with psycopg.connect(target_url, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("function", ["mirror_claim", "mirror_apply", "mirror_adopt"])
async def test_what_the_mirror_was_like_before_is_refused(
    installed: psycopg.Connection[Any], target_url: str, function: str
) -> None:
    """The statement of the release that could not work on a hosted project at all."""
    name = "batch" if function == "mirror_apply" else "source"
    installed.execute(
        f"""create or replace function public.{function}({name} jsonb) returns jsonb
            language plpgsql security definer as $$
            declare _state mirror.state;
            begin
            update mirror.state set epoch = epoch + 1 returning * into _state; return '{{}}'; end $$"""
    )
    async with api(target_url) as supabase:
        url = f"{supabase.url}/rest/v1/rpc/{function}"
        async with httpx.AsyncClient(trust_env=False) as client:
            reply = await client.post(url, json={name: {}}, headers={"apikey": SECRET_KEY})
    assert (reply.status_code, reply.json()["code"]) == (400, "21000")
