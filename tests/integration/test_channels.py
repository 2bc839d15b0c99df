"""Private channels in a new project: Realtime makes realtime.messages when the first client connects, perhaps long
after the install. Until then every surface says that they are closed; then the daemon opens them, or says who must."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from mirror.cli import main
from mirror.mapping import AccessOptions, Mapping
from tests.bed.callers import Project
from tests.bed.clients import clients
from tests.bed.daemons import install, leading, running, value
from tests.bed.eventually import eventually
from tests.bed.findings import examined_target, fired, wrong
from tests.bed.target_side import an_id, as_role, put_in_place
from tests.bed.templates import SUPABASE
from tests.bed.ways import Way

pytestmark = pytest.mark.sql

Connection = psycopg.AsyncConnection[Any]
ANN, ROME = an_id(1), an_id(11)
BOTH = {"broadcast", "presence"}
IN_PLACE = ["target: everything is in place already."]
OURS = """select array_agg(polname::text order by polname) from pg_policy
          where polname like 'mirror: %%' and polrelid = to_regclass('realtime.messages')"""
POLL = {"MIRROR_POLL_INTERVAL": "200ms"}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.watch.CLOSED_INTERVAL_S", 0.1)
    monkeypatch.setattr("mirror.watch.CHANNELS_INTERVAL_S", 0.3)


async def first_client_connects(target: Connection) -> None:
    """What Realtime does then, as in every project that has it."""
    await target.execute(SUPABASE.read_text())


async def new_project(source: Connection, source_url: str, target: Connection, target_url: str, **access: Any) -> None:
    """Installed as on a hosted project, where postgres is no superuser; a member is there, Realtime is not yet."""
    await target.execute("drop table realtime.messages")
    install(source_url, as_role(target_url, "hosted_postgres"), Mapping(access=AccessOptions(**access)))
    await source.execute("insert into users (id) values (%s)", [ANN])
    await source.execute("insert into trips (id, name) values (%s, 'Rome')", [ROME])
    await source.execute("insert into trip_memberships (trip_id, user_id) values (%s, %s)", [ROME, ANN])


async def test_the_daemon_says_so_and_opens_them_when_the_table_comes(
    source: Connection, source_url: str, target: Connection, target_url: str, way: Way
) -> None:
    await new_project(source, source_url, target, target_url)
    async with running(source_url, way.url, POLL) as daemon, clients(daemon.port) as client:
        await leading(daemon)
        await eventually(lambda: any(e.kind == "ChannelsClosed" for e in daemon.knowledge.record.errors))
        ready, served = await client.get("/readyz"), (await client.get("/api/status")).json
        assert ready.status == 503
        said = "private channels are closed: there is no realtime.messages yet"
        assert any(reason.startswith(said) for reason in ready.json["reasons"])
        assert (served["verdict"], served["channels"], served["ready"]) == ("fresh", "missing", False)
        assert "mirror_channels_ready 0.0" in (await client.get("/metrics")).body
        assert await value(target, "select public.mirror_status()->>'channels'") == "missing"

        await first_client_connects(target)
        project = Project(target)
        await eventually(lambda: value(target, OURS))
        assert await project.receives(ANN, f"trip:{ROME}") == BOTH == await project.sends(ANN, f"trip:{ROME}")
        assert await project.receives(an_id(9), f"trip:{ROME}") == set()
        await eventually(lambda: daemon.known.channels == "ready")
        assert (await client.get("/readyz")).status == 200
        assert "mirror_channels_ready 1.0" in (await client.get("/metrics")).body


async def test_what_the_daemon_made_is_what_install_makes(
    source: Connection, source_url: str, target: Connection, target_url: str
) -> None:
    await new_project(source, source_url, target, target_url, announce="user:{sub}")
    mapping = Mapping(access=AccessOptions(announce="user:{sub}"))
    hosted = as_role(target_url, "hosted_postgres")
    async with running(source_url, target_url, POLL, mapping) as daemon:
        await leading(daemon)
        await first_client_connects(target)
        await eventually(lambda: daemon.known.channels == "ready")
    policies = (
        "select polname, polcmd, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid) "
        "from pg_policy order by 1"
    )
    made = await (await target.execute(policies)).fetchall()
    assert put_in_place(hosted, mapping=mapping) == IN_PLACE
    assert not {"installed", "channels"} & set(wrong(examined_target(hosted, mapping)))
    await target.execute("alter table public.users add column note text")
    assert put_in_place(hosted, mapping=mapping) != IN_PLACE
    assert await (await target.execute(policies)).fetchall() == made


async def test_a_project_that_may_not_make_policies_names_the_cure_everywhere(
    source: Connection, source_url: str, target: Connection, target_url: str, status: Callable[[], str]
) -> None:
    await new_project(source, source_url, target, target_url)
    async with running(source_url, target_url, POLL) as daemon, clients(daemon.port) as client:
        await leading(daemon)
        await first_client_connects(target)
        await target.execute("alter table realtime.messages owner to supabase_admin")
        await eventually(lambda: daemon.known.channels == "closed")
        await eventually(lambda: any("must be owner" in e.message for e in daemon.knowledge.record.errors))
        trouble = next(e for e in daemon.knowledge.record.errors if "must be owner" in e.message)
        assert trouble.cure.startswith(
            "Run `mirror install target`, or paste what `mirror install target --print` says"
        )
        (doubt,) = (d for d in (await client.get("/readyz")).json["doubts"] if d["kind"] == "channels")
        assert "realtime.messages lacks policies" in doubt["reason"]
        assert "mirror install target" in doubt["cure"]
        assert daemon.known.leader, "and the copy goes on"
    said = status()
    assert "private channels are closed: realtime.messages lacks policies of the mirror. Run `mirror install" in said
    fired(
        wrong(examined_target(target_url)), "channels", "realtime.messages lacks policies of the mirror -> Run `mirror"
    )


async def test_a_busy_table_keeps_neither_the_copy_nor_the_chat_waiting(
    source: Connection, source_url: str, target: Connection, target_url: str
) -> None:
    await new_project(source, source_url, target, target_url)
    async with (
        running(source_url, target_url, POLL) as daemon,
        await psycopg.AsyncConnection.connect(target_url) as chat,
    ):
        await leading(daemon)
        await target.execute("begin")
        await first_client_connects(target)
        await target.execute("lock table realtime.messages in access exclusive mode; commit")
        await chat.execute("select from realtime.messages")
        await eventually(lambda: any("lock timeout" in e.message for e in daemon.knowledge.record.errors), 15.0)
        assert await value(target, OURS) is None
        await source.execute("insert into users (id) values (%s)", [an_id(2)])
        await eventually(lambda: value(target, "select count(*) = 2 from public.users"))
        await target.execute("set statement_timeout = '3s'; select from realtime.messages")
        await chat.rollback()
        await eventually(lambda: daemon.known.channels == "ready")


async def test_policies_that_a_person_took_away_are_reported_and_not_made_again(
    source_url: str, target: Connection, target_url: str
) -> None:
    """Who closes the channels in a hurry must not find them open a minute later."""
    install(source_url, target_url)
    async with running(source_url, target_url, POLL) as daemon:
        await leading(daemon)
        assert daemon.known.channels == "ready"
        await target.execute('drop policy "mirror: members receive" on realtime.messages')
        await target.execute('drop policy "mirror: members send" on realtime.messages')
        await eventually(lambda: daemon.known.channels == "closed")
        await eventually(lambda: daemon.known.channels == "closed" and daemon.knowledge.record.errors)
        assert await value(target, OURS) is None
    assert put_in_place(target_url) != IN_PLACE
    assert await value(target, OURS) == ["mirror: members receive", "mirror: members send"]


async def test_policies_of_ones_own_are_ones_own_business(
    source: Connection, source_url: str, target: Connection, target_url: str
) -> None:
    await new_project(source, source_url, target, target_url, topics=())
    assert await value(target, "select public.mirror_open_channels()->>'channels'") == "ready"
    await first_client_connects(target)
    assert await value(target, "select public.mirror_open_channels()->>'channels'") == "ready"
    assert await value(target, OURS) is None


async def test_only_the_service_role_may_ask_for_it(target_url: str, target: Connection) -> None:
    put_in_place(target_url)
    for role in ("anon", "authenticated"):
        async with target.transaction(force_rollback=True):
            await target.execute(f"set local role {role}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await target.execute("select public.mirror_open_channels()")


async def test_a_target_of_an_earlier_version_is_served_and_asked_nothing(
    source: Connection, source_url: str, target: Connection, target_url: str
) -> None:
    install(source_url, target_url)
    await target.execute(
        "drop function public.mirror_open_channels();"
        "create or replace function mirror.channels() returns text language sql as 'select null::text'"
    )
    async with running(source_url, target_url, POLL) as daemon, clients(daemon.port) as client:
        await leading(daemon)
        await source.execute("insert into users (id) values (%s)", [ANN])
        await eventually(lambda: value(target, "select count(*) = 1 from public.users"))
        assert (await client.get("/api/status")).json["channels"] is None
        assert "\nmirror_channels_ready " not in (await client.get("/metrics")).body
        assert (await client.get("/readyz")).status == 200


@pytest.fixture
def status(
    source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], str]:
    def call() -> str:
        monkeypatch.setenv("MIRROR_SOURCE_URL", source_url)
        monkeypatch.setenv("MIRROR_TARGET_URL", target_url)
        capsys.readouterr()
        main(["status"])
        return capsys.readouterr().out

    return call
