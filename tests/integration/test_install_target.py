"""`mirror install target` and `mirror uninstall target`: idempotent, complete, and gone without a trace of ours."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from mirror.cli import main
from mirror.errors import Incompatible
from mirror.mapping import Mapping, TargetOptions, UsersMapping
from mirror.postgres import connect_blocking
from mirror.target import install as target_side
from tests.bed.backends import Pair
from tests.bed.databases import Template
from tests.bed.target_side import BIGINTS, TEXTS, UUIDS, an_id, put_in_place
from tests.expected import describe

pytestmark = pytest.mark.sql

IN_PLACE = ["target: everything is in place already."]
INSTALLED = ["target: tables, state and functions are in place."]


@pytest.fixture
def connection(target_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(target_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def other_url(target_template: Template) -> Iterator[str]:
    with target_template.clone() as url:
        yield url


@pytest.fixture
def environment(source_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What somebody who calls `mirror` has set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIRROR_SOURCE_URL", source_url)
    monkeypatch.setenv("MIRROR_TARGET_URL", target_url)


def psql(pair: Pair, url: str, script: str) -> str:
    """Runs a script as its author would; our psql where the server is ours, else the one in PATH."""
    program = str(pair.target.server.program("psql")) if pair.target.server else "psql"
    options = ["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", url]
    done = subprocess.run([program, *options], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("types", [UUIDS, TEXTS, BIGINTS], ids=["uuid", "text", "bigint"])
def test_printing_and_running_it_by_hand_is_the_same(
    servers: Pair, target_url: str, other_url: str, types: dict[str, str]
) -> None:
    mapping = Mapping(target=TargetOptions(allow_cascade=("public.messages", 'public."O\'Hara"')))
    assert put_in_place(target_url, types, mapping) == INSTALLED
    assert psql(servers, other_url, target_side.script(types, mapping)) == ""
    with psycopg.connect(target_url) as installed, psycopg.connect(other_url) as by_hand:
        assert describe(by_hand) == describe(installed)
        state = "select version, rendered, types, allow_cascade, sealed from mirror.state"
        assert by_hand.execute(state).fetchone() == installed.execute(state).fetchone()
    assert put_in_place(other_url, types, mapping) == IN_PLACE


@pytest.mark.usefixtures("environment")
def test_print_shows_the_script_and_touches_nothing(
    capsys: pytest.CaptureFixture[str], connection: psycopg.Connection
) -> None:
    before = describe(connection)
    assert main(["install", "target", "--print"]) == 0
    assert target_side.script(UUIDS, Mapping()) in capsys.readouterr().out
    assert describe(connection) == before
    assert main(["install", "target"]) == 0
    assert describe(connection) != before


def test_the_second_time_nothing_is_touched(target_url: str, connection: psycopg.Connection) -> None:
    assert put_in_place(target_url) == INSTALLED
    connection.execute("create table public.log (command text)")
    connection.execute(
        "create function public.log() returns event_trigger language plpgsql as "
        "$$ begin insert into public.log values (tg_tag); end $$"
    )
    connection.execute("create event trigger log on ddl_command_start execute function public.log()")
    state = "select ctid, xmin from mirror.state"
    before = connection.execute(state).fetchone()
    assert put_in_place(target_url) == IN_PLACE
    assert connection.execute("select * from public.log").fetchall() == []
    assert connection.execute(state).fetchone() == before


@pytest.mark.parametrize(
    "damage",
    [
        "drop function public.mirror_status()",
        "drop function mirror.surplus(jsonb)",
        "drop function mirror.fingerprint()",
        "create or replace function mirror.is_objection(state text) returns boolean language sql as 'select true'",
        "drop index public.trip_memberships_user_mirror",
        "drop table public.trip_memberships",
        "alter table public.users drop column username",
        "alter table public.trips disable row level security",
        "grant insert on public.trip_memberships to authenticated",
        "revoke select on public.trip_memberships from authenticated",
        "grant execute on function public.mirror_apply(jsonb) to anon",
        "grant execute on function mirror.attempt(text, text, jsonb) to public",
        "delete from mirror.state",
        "drop table mirror.parked cascade",
        "drop schema mirror cascade",
    ],
)
def test_what_is_missing_or_was_changed_is_put_right(
    target_url: str, connection: psycopg.Connection, damage: str
) -> None:
    put_in_place(target_url)
    whole = describe(connection)
    connection.execute(damage)
    assert put_in_place(target_url)[-1:] == INSTALLED
    assert describe(connection) == whole
    assert put_in_place(target_url) == IN_PLACE


def test_a_half_finished_install_is_completed(target_url: str, other_url: str) -> None:
    put_in_place(other_url)
    script = target_side.script(UUIDS, Mapping())
    with psycopg.connect(target_url, autocommit=True) as connection:
        connection.execute(script[: script.index("create or replace function mirror.attempt")] + "commit;")
    assert put_in_place(target_url) == INSTALLED
    with psycopg.connect(target_url) as finished, psycopg.connect(other_url) as whole:
        assert describe(finished) == describe(whole)


def test_a_failure_on_the_way_leaves_nothing(target_url: str, connection: psycopg.Connection) -> None:
    theirs = (
        "create function public.mirror_status() returns text set search_path = '' language sql as 'select $$mirror.$$'"
    )
    connection.execute(theirs)
    before = describe(connection)
    with pytest.raises(Exception, match="cannot change return type"):
        put_in_place(target_url)
    assert describe(connection) == before


@pytest.mark.parametrize("setting", ["", "set search_path = ''"])
def test_somebody_elses_function_is_not_replaced(target_url: str, connection: psycopg.Connection, setting: str) -> None:
    """Many a project has an is_trip_member of its own: its policies would ask another question overnight."""
    body = "select exists (select from public.members as m where m.id = $1)"
    connection.execute("create table public.members (id uuid)")
    theirs = f"create function public.is_trip_member(trip_id uuid) returns boolean {setting} language sql as '{body}'"
    connection.execute(theirs.encode())
    before = describe(connection)
    with pytest.raises(Incompatible) as refused:
        put_in_place(target_url)
    assert str(refused.value) == (
        "target: there is a function of the mirror's name, but not the mirror's: public.is_trip_member(uuid). "
        "Rename it, or drop it and let policies ask the mirror's instead."
    )
    assert describe(connection) == before


def test_a_changed_mapping_is_brought_in_and_the_state_stays(target_url: str, connection: psycopg.Connection) -> None:
    put_in_place(target_url)
    connection.execute("update mirror.state set epoch = 7, snapshot = '1:1:'")
    by_subject = Mapping(users=UsersMapping(subject="auth_id"))
    assert put_in_place(target_url, mapping=by_subject) == INSTALLED
    assert put_in_place(target_url, mapping=by_subject) == IN_PLACE
    assert connection.execute("select epoch, snapshot from mirror.state").fetchone() == (7, "1:1:")
    assert put_in_place(target_url) == INSTALLED


@pytest.mark.usefixtures("environment")
def test_a_newer_version_is_left_alone(connection: psycopg.Connection, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install", "target"]) == 0
    connection.execute("update mirror.state set version = version + 1")
    before = describe(connection)
    capsys.readouterr()
    assert main(["install", "target"]) == 2
    assert capsys.readouterr().err == (
        "mirror: target: it was installed by a newer mirror (schema version 2, this one knows 1). "
        "Use that version of the mirror.\n"
    )
    with pytest.raises(psycopg.Error, match="newer mirror"):
        connection.execute(target_side.script(UUIDS, Mapping()))
    connection.execute("rollback")
    assert describe(connection) == before


def test_it_does_not_wait_long_for_a_lock(target_url: str, connection: psycopg.Connection) -> None:
    put_in_place(target_url)
    connection.execute("drop function mirror.fingerprint()")
    script = target_side.script(UUIDS, Mapping()).replace("lock_timeout = '5s'", "lock_timeout = '10ms'")
    with psycopg.connect(target_url) as busy, connect_blocking(target_url, "target") as installer:
        busy.execute("lock table public.users in row exclusive mode")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            installer.execute(script)  # type: ignore[arg-type, unused-ignore]


@pytest.mark.usefixtures("environment")
def test_uninstall_leaves_the_tables_and_nothing_else(
    target_url: str, connection: psycopg.Connection, other_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    there = connection
    with psycopg.connect(other_url, autocommit=True) as untouched:
        put_in_place(target_url, TEXTS)
        there.execute("insert into public.users (id) values ('ann')")
        there.execute("create policy mine on public.users for select using (true)")
        assert main(["uninstall", "target"]) == 0
        assert "with their rows" in capsys.readouterr().err
        left = describe(there)
        assert "mirror" not in left
        assert "create policy mine on public.users" in left
        assert there.execute("select id from public.users").fetchall() == [("ann",)]
        # The tables stay closed: whoever reads them has policies of his own.
        assert there.execute("select bool_and(relrowsecurity) from pg_class where relname like 'trip%'").fetchone()
        for table in ("trip_memberships", "trips", "users"):
            there.execute(f"drop table public.{table}")
        assert describe(there) == describe(untouched)
        assert main(["uninstall", "target"]) == 0, "twice is as good as once"
    put_in_place(target_url, TEXTS)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("user", "named"),
    [
        ("create policy p on public.trips using ((select public.is_trip_member(id::text)))", "policy p on table"),
        ("create policy p on public.trips using (mirror.as_user_id(name) is not null)", "policy p on table"),
        ("create view public.lag as select as_of from mirror.state", "view"),
        ("create table mirror.mine (id int)", "mirror.mine"),
    ],
)
def test_uninstall_takes_nothing_along_that_others_built_on_it(
    target_url: str,
    connection: psycopg.Connection,
    capsys: pytest.CaptureFixture[str],
    user: str,
    named: str,
) -> None:
    put_in_place(target_url)
    connection.execute(user)
    before = describe(connection)
    assert main(["uninstall", "target"]) == 2
    said = capsys.readouterr().err
    assert "the mirror is still in use" in said
    assert named in said
    assert said.count("\n") == 1
    assert describe(connection) == before


def test_installing_again_finds_the_rows_and_no_position(target_url: str, connection: psycopg.Connection) -> None:
    put_in_place(target_url)
    connection.execute("insert into public.users (id) values (%s)", [an_id(1)])
    connection.execute("update mirror.state set epoch = 7, snapshot = '1:1:'")
    with connect_blocking(target_url, "target") as there:
        target_side.uninstall(there, lambda _: None)
    assert put_in_place(target_url)[-1:] == INSTALLED
    assert connection.execute("select count(*) from public.users").fetchone() == (1,)
    assert connection.execute("select epoch, snapshot from mirror.state").fetchone() == (0, None)
