"""What people see of the mirrored tables, and which private channels they may enter: the policies, really executed."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from mirror.cli import main
from mirror.errors import ConfigError, Incompatible
from mirror.mapping import AccessOptions, Mapping
from mirror.postgres import connect_blocking
from mirror.target import install as target_side
from tests.bed.backends import Pair
from tests.bed.callers import Project, installed
from tests.bed.databases import Template, template
from tests.bed.findings import examined_target, fired, wrong
from tests.bed.target_side import (
    TEXTS,
    UUIDS,
    Connection,
    an_id,
    as_role,
    membership,
    peopled,
    put_in_place,
    scope,
    trip,
    user,
)

pytestmark = pytest.mark.sql

ANN, BOB, CID, DAN, EVE = (an_id(n) for n in range(1, 6))
ROME, OSLO, KYIV = (an_id(n) for n in range(11, 14))
BOTH = {"broadcast", "presence"}
TOPICS = ("trip:{id}", "trip:{id}:*", "trip-messages-{id}", "v1/{id}/chat")
OURS = "select count(*) from pg_policy where polname like 'mirror: %%' and polrelid = to_regclass(%s)"


@pytest.fixture(scope="module")
def made(servers: Pair) -> Iterator[Template]:
    with installed(servers, mapping=Mapping(access=AccessOptions(topics=TOPICS))) as made:
        yield made


@pytest.fixture
async def project(made: Template) -> AsyncIterator[Project]:
    async with Project.of(made) as project:
        await populate(project)
        yield project


async def populate(project: Project) -> None:
    """Ann and Bob are in Rome, Ann and Cid in Oslo, Eve in Kyiv; Dan has left Rome and is nowhere."""
    await project.mirror(
        scope("users", [user(u, email=f"{u}@example.org") for u in (ANN, BOB, CID, DAN, EVE)]),
        scope("trips", [trip(ROME, created_by=DAN), trip(OSLO), trip(KYIV)]),
        scope(
            "trip_memberships",
            [membership(ROME, ANN), membership(ROME, BOB), membership(ROME, DAN, "OWNER", "INACTIVE"),
             membership(OSLO, ANN), membership(OSLO, CID), membership(KYIV, EVE)],
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("who", "users", "trips", "members"),
    [
        (ANN, {ANN, BOB, CID}, {ROME, OSLO}, {(ROME, ANN), (ROME, BOB), (OSLO, ANN), (OSLO, CID)}),
        (BOB, {ANN, BOB}, {ROME}, {(ROME, ANN), (ROME, BOB)}),
        (DAN, {DAN}, set(), set()),
        (EVE, {EVE}, {KYIV}, {(KYIV, EVE)}),
        (an_id(99), set(), set(), set()),
    ],
    ids=["ann", "bob", "dan", "eve", "nobody"],
)
async def test_you_see_yourself_your_trips_and_who_is_in_them(
    project: Project, who: str, users: set[str], trips: set[str], members: set[tuple[str, str]]
) -> None:
    assert await project.column(who, "select id::text from public.my_companion_profiles()") == users
    assert await project.column(who, "select email from public.users") == {f"{u}@example.org" for u in users & {who}}
    assert await project.column(who, "select id::text from public.trips") == trips
    seen = "select array[trip_id::text, user_id::text] from public.trip_memberships"
    async with project.signed_in(who):
        assert {tuple(row[0]) for row in await project.rows(seen)} == members


async def test_no_way_to_ask_shows_more(project: Project) -> None:
    """Joins, sub-queries and counts of what others have: each table answers for itself, and none recurses."""
    async with project.signed_in(BOB):
        joined = """select distinct u.email from public.trip_memberships as m join public.users as u on u.id = m.user_id
                    join public.trips as t on t.id = m.trip_id"""
        assert {email for (email,) in await project.rows(joined)} == {f"{BOB}@example.org"}
        assert await project.rows("select email from public.users where id = %s", CID) == []
        assert (
            await project.rows("select email from public.users where email like '%%example%%' and id = %s", EVE) == []
        )
        assert await project.one("select count(*) from public.trip_memberships where user_id = %s", CID) == 0


async def test_who_leaves_sees_nothing_any_more(project: Project) -> None:
    await project.mirror(scope("trip_memberships", gone=[{"trip_id": ROME, "user_id": BOB}]))
    assert await project.column(BOB, "select id::text from public.my_companion_profiles()") == {BOB}
    assert await project.column(ANN, "select id::text from public.my_companion_profiles()") == {ANN, CID}
    assert await project.receives(BOB, f"trip:{ROME}") == set()
    assert await project.receives(ANN, f"trip:{ROME}") == BOTH


@pytest.mark.parametrize(
    "spelling", ["trip:{}", "trip:{}:", "trip:{}:typing", "trip:{}:a:b", "trip-messages-{}", "v1/{}/chat"]
)
async def test_members_receive_and_send_on_the_topics_of_their_trips(project: Project, spelling: str) -> None:
    for trip_id, members in ((ROME, {ANN, BOB}), (OSLO, {ANN, CID}), (an_id(99), set())):
        topic = spelling.format(trip_id)
        for who in (ANN, BOB, CID, DAN, EVE):
            allowed = BOTH if who in members else set()
            assert await project.receives(who, topic) == allowed, (who, topic)
            assert await project.sends(who, topic) == allowed, (who, topic)


async def test_no_other_topic_opens(project: Project) -> None:
    for topic in (
        "", "trip", "trip:", "trip::", f"trips:{ROME}", f"trip:{ROME}x", f"x-trip:{ROME}", f"Trip:{ROME}",
        f"trip-messages-{ROME}-x", f"trip-messages-{ROME}:x",
        f"v1/{ROME}/chat/x", f"v1/{ROME}", f"trip: {ROME}", f"trip:{ROME}\n", f"\ntrip:{ROME}",
        f"trip:{{{ROME}}}", "trip:" + ROME.replace("-", ""), f"trip:{ROME[:-1]}", f"trip:{KYIV}:{ROME}",
        ROME, "{id}", "trip:{id}",
    ):  # fmt: skip
        assert await project.receives(ANN, topic) == set(), topic
        assert await project.sends(ANN, topic) == set(), topic


async def test_without_a_topic_nothing_is_read(project: Project) -> None:
    """Messages are read per channel; whoever gets at the table otherwise finds it empty."""
    await project.connection.execute(
        "insert into realtime.messages (topic, extension, payload) values (%s, 'broadcast', '{}')", [f"trip:{ROME}"]
    )
    assert await project.ask(ANN, "select count(*) from realtime.messages") == 0


async def test_nothing_is_made_in_schema_realtime(target_url: str, target: Connection) -> None:
    made = """select (select count(*) from pg_class where relnamespace = 'realtime'::regnamespace)
                   + (select count(*) from pg_proc where pronamespace = 'realtime'::regnamespace)"""
    before = await Project(target).one(made)
    put_in_place(as_role(target_url, "hosted_postgres"))
    assert await Project(target).one(made) == before
    assert await Project(target).one(OURS, "realtime.messages") == 2


async def test_clients_that_may_only_listen(target_url: str, target: Connection) -> None:
    project = Project(target)
    for send in (("presence",), ()):
        put_in_place(target_url, mapping=Mapping(access=AccessOptions(send=send)))
        await project.writer.claim()
        await populate(project)
        assert await project.receives(ANN, f"trip:{ROME}") == BOTH
        assert await project.sends(ANN, f"trip:{ROME}") == set(send)


async def test_policies_of_ones_own_instead(target_url: str, target: Connection) -> None:
    """topics = []: the channels are somebody else's business; the question may be asked all the same."""
    project = Project(target)
    put_in_place(target_url)
    await target.execute(
        "create policy mine on realtime.messages for select to authenticated "
        "using ((select public.is_trip_member(split_part(realtime.topic(), '/', 2), array['owner'])))"
    )
    put_in_place(target_url, mapping=Mapping(access=AccessOptions(topics=())))
    await project.writer.claim()
    await project.mirror(*peopled(membership(ROME, ANN, "Owner"), membership(ROME, BOB)))
    assert await project.one(OURS, "realtime.messages") == 0
    assert await project.receives(ANN, f"trip/{ROME}") == BOTH
    assert await project.receives(BOB, f"trip/{ROME}") == set()
    assert await project.ask(ANN, "select public.current_topic(%s)", ROME) is None


async def test_text_ids_end_where_the_topic_goes_on(target_url: str, target: Connection) -> None:
    """Of the trips "a", "a:b" and "a-b", a member of the first one gets into the first one's channels."""
    topics = ("trip:{id}", "trip:{id}:*", "chat-{id}-*", "room/{id}")
    put_in_place(target_url, TEXTS, Mapping(access=AccessOptions(topics=topics)))
    project = Project(target)
    await project.writer.claim()
    trips = ("a", "a:b", "a-b", "a/b", "o'k")
    await project.mirror(*peopled(*[membership(t, f"in {t}") for t in trips]))
    opened = {
        "trip:a": {"in a"}, "trip:a:b": {"in a"}, "trip:a-b": {"in a-b"}, "trip:a:b:x": {"in a"}, "chat-a-b": {"in a"},
        "chat-a-b-x": {"in a"}, "room/a-b": {"in a-b"}, "room/a/b": {"in a/b"}, "room/a:b": set(),
        "trip:o'k": {"in o'k"},
    }  # fmt: skip
    for topic, members in opened.items():
        found = {f"in {t}" for t in trips if await project.receives(f"in {t}", topic)}
        assert found == members, topic


async def test_installing_twice_and_taking_it_away(target_url: str, target: Connection) -> None:
    await target.execute("create policy mine on realtime.messages for select to authenticated using (false)")
    put_in_place(target_url)
    assert put_in_place(target_url) == ["target: everything is in place already."]
    await target.execute('drop policy "mirror: members send" on realtime.messages')
    assert put_in_place(target_url) == ["target: tables, state and functions are in place."], "it is missed"
    assert await Project(target).one(OURS, "realtime.messages") == 2
    with connect_blocking(target_url, "target") as there:
        target_side.uninstall(there, lambda _: None)
    assert await Project(target).rows("select polname from pg_policy") == [("mine",)]


@pytest.fixture
def without_realtime(servers: Pair) -> Iterator[str]:
    async def roles_only(connection: psycopg.AsyncConnection) -> None:
        for role in ("anon", "authenticated", "service_role"):
            await connection.execute(
                f"do $$ begin create role {role}; exception when duplicate_object then null; end $$"
            )

    with template(servers.target, "roles", roles_only) as made, made.clone() as url:
        yield url


def test_where_there_is_no_realtime_it_says_so(without_realtime: str) -> None:
    said: list[str | None] = []
    with psycopg.connect(without_realtime, autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
        connection.execute(target_side.script(UUIDS, Mapping()).encode())
        assert said == ["mirror: there is no realtime.messages here, so there are no policies for private channels"]
        assert connection.execute("select count(*) from pg_policy").fetchone() == (3,)
    assert put_in_place(without_realtime) == ["target: everything is in place already."]


async def test_a_policy_asks_once_and_uses_the_index(project: Project) -> None:
    """Of 20,000 trips two are read; and the question which ones they are is put once, not once per row."""
    await project.connection.execute(
        "insert into public.trips (id) select lpad(to_hex(i), 32, '0')::uuid from generate_series(100, 20000) as i"
    )
    await project.connection.execute("analyze public.trips")
    async with project.signed_in(ANN):
        (plan,) = await project.one("explain (analyze, format json) select * from public.trips")
    assert "Index" in json.dumps(plan)
    assert "Seq Scan" not in json.dumps(plan)
    assert plan["Plan"]["Actual Rows"] == 2


def test_whoever_may_not_make_policies_there_is_told_what_to_do(target_url: str) -> None:
    with psycopg.connect(target_url, autocommit=True) as connection:
        connection.execute("do $$ begin create role plain login; exception when duplicate_object then null; end $$")
        connection.execute(
            "do $$ begin execute format('grant create on database %I to plain', current_database()); end $$"
        )
        connection.execute("grant create on schema public to plain")
    with pytest.raises(Incompatible) as refused:
        put_in_place(as_role(target_url, "plain"))
    assert "policies on realtime.messages may not be made by this role: plain: " in str(refused.value)
    assert "topics = []" in str(refused.value)


AMBIGUOUS = {
    "two trips": AccessOptions(topics=("trip-{id}", "trip-messages-{id}")),
    "a trip and a user": AccessOptions(topics=("trip-{id}",), announce="trip-user-{sub}"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_a_topic_that_could_mean_two_is_refused(target_url: str, case: str) -> None:
    """The attack: who makes a trip called messages-rome would enter the messages of Rome."""
    mapping = Mapping(access=AMBIGUOUS[case])
    for attempt in (lambda: put_in_place(target_url, TEXTS, mapping), lambda: target_side.script(TEXTS, mapping)):
        with pytest.raises(ConfigError) as refused:
            attempt()
        assert refused.value.exit_code == 2
        assert "ambiguous" in refused.value.message
    assert put_in_place(target_url, UUIDS, mapping), "a uuid cannot be spelt so"


async def test_doctor_finds_it_where_it_is_installed_already(
    target_url: str, target: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapping = Mapping(access=AMBIGUOUS["two trips"])
    monkeypatch.setattr(target_side, "refuse_ambiguous", lambda *_: None)  # as mirrors did before
    put_in_place(target_url, TEXTS, mapping)
    project = Project(target)
    await project.writer.claim()
    await project.mirror(*peopled(membership("messages-rome", "eve"), membership("rome", "ann")))
    assert await project.receives("eve", "trip-messages-rome") == BOTH, "and that is why"
    fired(wrong(examined_target(target_url, mapping)), "topics", 'trip "messages-a" and of trip "a" -> Let each')
    assert "topics" not in wrong(examined_target(target_url))


async def test_neither_side_is_touched_then(
    source_url: str,
    target_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mirror.toml").write_text('[access]\nannounce = "trip:{sub}"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIRROR_SOURCE_URL", source_url)
    monkeypatch.setenv("MIRROR_TARGET_URL", target_url)
    assert main(["install"]) == 2
    said = capsys.readouterr().err
    assert said.startswith('mirror: [access] "trip:{sub}" and "trip:{id}" are ambiguous: "trip:')
    assert said.count("\n") == 1
    for url in (source_url, target_url):
        with psycopg.connect(url) as connection:
            assert connection.execute("select to_regnamespace('mirror')").fetchone() == (None,)
