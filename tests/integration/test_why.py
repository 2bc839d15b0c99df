"""`mirror why`: stories of people who may or may not enter, told by both sides as they are at that moment."""

import asyncio
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mirror.cli import main
from mirror.mapping import load_mapping
from tests.bed import daemons
from tests.bed.findings import NOWHERE
from tests.bed.source_side import role
from tests.bed.supabase_api import api
from tests.bed.target_side import RESEAL, an_id

Connection = psycopg.AsyncConnection[Any]
ROME, OSLO, BONN = an_id(1), an_id(2), an_id(3)
ANA, BOB, EVA, DORA, GHOST = (an_id(n) for n in (11, 12, 13, 14, 19))
SOFT = "[trips]\nwhere = 'deleted_at is null'\n[trip_memberships]\nwhere = \"status = 'ACTIVE'\"\n"
CLERK = "[users]\nsubject = 'email'\n[access]\nmax_staleness = '1m'\ntopics = ['trip:{id}:e{epoch}']\n"
APP = f"""
    insert into public.users (id, email, username) values ('{ANA}', 'ana@example.org', 'ana'), ('{BOB}', 'bob@example.org', 'bob'),
      ('{EVA}', 'eva@example.org', 'eva'), ('{DORA}', 'dora@example.org', 'eva');
    insert into public.trips (id, name, deleted_at) values ('{ROME}', 'Rome' || chr(27) || ']0;', null), ('{OSLO}', 'Oslo', now()),
      ('{BONN}', 'Bonn', null);
    insert into public.trip_memberships (trip_id, user_id, role, status) values ('{ROME}', '{ANA}', 'OWNER', 'ACTIVE'),
      ('{ROME}', '{BOB}', 'MEMBER', 'INACTIVE'), ('{OSLO}', '{ANA}', 'OWNER', 'ACTIVE'), ('{BONN}', '{EVA}', 'EVIL', 'ACTIVE'),
      ('{BONN}', '{GHOST}', 'MEMBER', 'ACTIVE');
"""  # noqa: E501


@pytest.fixture
async def world(
    source: Connection,
    target: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> pytest.MonkeyPatch:
    """Both sides as a daemon left them that leads no more."""
    source_url, target_url = request.getfixturevalue("source_url"), request.getfixturevalue("target_url")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mirror.toml").write_text(getattr(request, "param", SOFT))
    mapping = load_mapping(None)
    for name, value in daemons.environ(source_url, target_url).items():
        monkeypatch.setenv(name, value)
    daemons.install(source_url, target_url, mapping)
    await source.execute(APP)
    await target.execute("alter table public.trip_memberships add constraint no_evil check (role <> 'EVIL')")
    async with daemons.running(source_url, target_url, mapping=mapping) as daemon:
        await daemons.leading(daemon)
    return monkeypatch


class Asked:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.document: dict[str, Any] = {}

    async def __call__(self, code: int, *arguments: str) -> str:
        """The answer, whose exit code is this one."""
        self._capsys.readouterr()
        got = await asyncio.to_thread(main, ["why", *arguments, "--json"])
        out, err = self._capsys.readouterr()
        assert got == code, (out, err)
        if code == 2:
            return err
        self.document = json.loads(out)
        answer = self.document["answer"]
        assert answer["verdict"] == {0: "yes", 1: "no", 3: "unknown"}[code]
        return f"{answer['because']} -> {answer['cure']}"

    async def text(self, *arguments: str) -> str:
        self._capsys.readouterr()
        await asyncio.to_thread(main, ["why", *arguments])
        return self._capsys.readouterr().out


@pytest.fixture
def why(capsys: pytest.CaptureFixture[str]) -> Asked:
    return Asked(capsys)


@pytest.mark.sql
@pytest.mark.usefixtures("world")
async def test_who_may_enter_and_who_may_not(why: Asked) -> None:
    assert await why(0, "ana", ROME) == "this is an active member, and the policies agree -> "
    channel = why.document["mirror"]["channel"]
    assert channel["receives"] == channel["sends"] == {"broadcast": True, "presence": True}
    assert channel["topic"] == f"trip:{ROME}"
    assert why.document["mirror"]["position"]["snapshot"]
    assert (
        why.document["connected"]
        == "a client that was refused before has to join again: Realtime does not ask by itself"
    )
    for name in (ANA, "ANA@example.org"):
        await why(0, name, ROME)
        assert why.document["person"] == {"id": ANA, "subject": ANA, "username": "ana", "known": True}

    left = await why(1, "bob", ROME)
    assert left.startswith(
        "the membership (status INACTIVE) is not mirrored: [trip_memberships] where (status = 'ACTIVE')"
    )
    assert "keeps receiving until it sends a new token" in why.document["connected"]
    assert why.document["primary"]["membership"] == {"role": "MEMBER", "status": "INACTIVE", "mirrored": False}
    assert (await why(1, "ana", OSLO)).startswith(
        "the trip is not mirrored: [trips] where (deleted_at is null) is not true"
    )
    assert (await why(1, "bob", BONN)).startswith("the primary has no such membership: never invited, or removed")
    assert (await why(1, "nobody", BONN)).startswith("the primary has no user nobody")
    assert (await why(1, "ana", an_id(7))).startswith("the primary has no such trip")
    assert (await why(1, "ana", "x' or true --")).startswith("the primary has no such trip")
    parked = await why(1, EVA, BONN)
    assert parked.startswith("the row of trip_memberships is parked: the target refuses it (23514)")
    assert (await why(1, GHOST, BONN)).startswith("the user is not in the mirror: the primary has no such user")
    assert why.document["person"]["known"] is False
    several = await why(2, "eva", BONN)
    assert several == f"mirror: eva may be {EVA} (eva); {DORA} (eva). Name one by id.\n"


async def test_the_words_for_a_person(world: pytest.MonkeyPatch, why: Asked) -> None:
    said = await why.text("ana", ROME)
    first, *lines = said.splitlines()
    assert first == f"YES: ana ({ANA}) may enter trip {ROME}: this is"
    assert "primary   user        " + ANA + ", ana" in lines
    assert "          outbox      nothing waits; NO daemon leads" in lines
    assert f"          channel     trip:{ROME}" in lines
    assert "          receive     broadcast yes, presence yes" in lines
    assert "\x1b" not in said
    world.setenv("MIRROR_SOURCE_URL", NOWHERE)
    assert "not asked source: connection to server" in await why.text("ana", ROME)


@pytest.mark.sql
@pytest.mark.usefixtures("world")
async def test_what_is_on_its_way_or_lost(source: Connection, target: Connection, why: Asked) -> None:
    await source.execute("insert into public.trip_memberships (trip_id, user_id) values (%s, %s)", [BONN, BOB])
    waits = await why(1, "bob", BONN)
    assert waits.startswith(
        "the membership is in the primary, but not applied yet: the key of trip_memberships waits for "
    )
    assert waits.endswith("NO daemon leads -> Start the daemon: mirror run")
    assert [entry["scope"] for entry in why.document["primary"]["waiting"]] == ["the key"]

    await target.execute("create table public.kept as select * from public.trip_memberships")
    await target.execute("delete from public.trip_memberships where user_id = %s", [ANA])
    lost = await why(1, ANA, ROME)
    assert lost.startswith("the membership is in the primary, not in Supabase, and nothing waits: that is drift")
    assert f"Run `mirror resync --trip {ROME}`" in lost
    await target.execute("insert into public.trip_memberships select * from public.kept where user_id = %s", [ANA])

    await source.execute("delete from public.trip_memberships where user_id = %s", [ANA])
    still = await why(0, "ana", ROME)
    assert still.startswith(
        "the primary has no such membership: never invited, or removed, but that is not applied yet"
    )

    await target.execute(
        "insert into public.trip_memberships (trip_id, user_id, status) values (%s, %s, 'ACTIVE')", [BONN, DORA]
    )
    assert (await why(0, DORA, BONN)).startswith("although the primary has no such membership")

    await target.execute(
        "create policy bad on realtime.messages for select to authenticated using (1 / length(topic) > 1 / 0)"
    )
    raised = await why(3, "ana", ROME)
    assert raised.startswith("the policies could not be run as this user: division by zero (22012)")


@pytest.mark.usefixtures("world")
async def test_policies_that_forget_the_mirror(target: Connection, why: Asked) -> None:
    assert "lets them read elsewhere" in await why(1, "ana", ROME, "--topic", "elsewhere")
    await target.execute('drop policy "mirror: members receive" on realtime.messages')
    said = await why(1, "ana", ROME)
    assert said.startswith(f"is_trip_member says yes, but no policy of realtime.messages lets them read trip:{ROME}")
    await target.execute("drop schema realtime cascade")
    await why(0, "ana", ROME)
    assert why.document["mirror"]["channel"] is None


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("world", [CLERK], indirect=True, ids=["clerk"])
async def test_stale_without_a_profile_and_with_a_status_that_does_not_count(
    source: Connection, target: Connection, why: Asked
) -> None:
    await why(0, "ana", ROME)
    assert why.document["mirror"]["channel"]["topic"] == f"trip:{ROME}:e0"
    assert why.document["person"]["subject"] == "ana@example.org"
    assert (await why(1, "bob", ROME)).startswith("status INACTIVE does not count as a member's")
    assert (await why(1, GHOST, BONN)).startswith("the user is not in the mirror: the primary has no such user")
    await source.execute("update public.trip_memberships set status = 'ACTIVE' where user_id = %s", [BOB])
    invited = await why(1, "bob", ROME)
    assert invited.startswith("role MEMBER, status ACTIVE is in the primary, but not applied yet: the key of ")
    await source.execute("update public.trip_memberships set status = 'LEFT' where user_id = %s", [ANA])
    changed = await why(0, "ana", ROME)
    assert changed.startswith("the primary says role OWNER, status LEFT, but that is not applied yet: the key of ")
    await target.execute("update mirror.state set fresh_at = fresh_at - interval '10 minutes'")
    await target.execute(RESEAL)
    assert (await why(1, "ana", ROME)).startswith(
        "the mirror is 10 min old, and max_staleness (60.0 s) lets nobody in then"
    )
    assert "keeps the old channel" in why.document["connected"]


async def test_with_one_side_away(world: pytest.MonkeyPatch, why: Asked) -> None:
    world.setenv("MIRROR_SOURCE_URL", NOWHERE)
    assert "the primary could not be asked" in await why(0, "ana@example.org", ROME)
    assert (await why(1, "bob", BONN)).startswith("Supabase has no such membership")
    assert why.document["primary"] is None
    assert "Connection refused" in why.document["errors"][0]
    world.setenv("MIRROR_TARGET_URL", NOWHERE)
    assert "Ask again" in await why(3, "ana", ROME)


async def test_without_supabase(world: pytest.MonkeyPatch, target_url: str, why: Asked) -> None:
    async with api(target_url) as supabase:
        world.delenv("MIRROR_TARGET_URL")
        for name, value in supabase.settings.items():
            world.setenv(name, value)
        said = await why(3, "ana", ROME)
        assert "This is known: the primary wants them in, nothing waits, the mirror is" in said
        assert "through HTTPS nobody can ask as this user; set MIRROR_TARGET_URL" in why.document["errors"][0]
        assert "trip_memberships is parked" in await why(3, EVA, BONN)


async def test_with_the_rights_of_the_daemon(
    world: pytest.MonkeyPatch, source_url: str, source: Connection, why: Asked
) -> None:
    await source.execute("insert into public.trip_memberships (trip_id, user_id) values (%s, %s)", [BONN, BOB])
    with role(source_url, "why_daemon", "login in role mirror_daemon") as url:
        world.setenv("MIRROR_SOURCE_URL", url)
        assert "not applied yet" in await why(1, "bob", BONN)
        assert why.document["errors"] == []
        await why(0, "ana", ROME)
