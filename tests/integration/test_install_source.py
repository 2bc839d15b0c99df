"""`mirror install source` beside a busy application: idempotent, complete after an interruption, patient; and gone
without a trace after `mirror uninstall source`."""

import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mirror.cli import main
from mirror.errors import ConfigError, Refused
from mirror.mapping import Mapping
from mirror.source import install as source_side
from mirror.source import patience
from tests.bed.backends import Pair
from tests.bed.databases import Template
from tests.bed.source_side import SOFT, an_id, drain, install, marks, ordered, role, uninstall, users, whole
from tests.expected import describe

pytestmark = pytest.mark.sql

Connection = psycopg.Connection[Any]
IN_PLACE = ["source: everything is in place already."]
ALL = ["trip_memberships", "trip_memberships", "trips", "users"]  # trips mark the memberships, too


@pytest.fixture
def admin(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def other_url(source_template: Template) -> Iterator[str]:
    with source_template.clone() as url:
        yield url


@pytest.fixture
def no_role(admin: Connection) -> None:
    """Tests before this one have left them: roles belong to the server, not to their databases."""
    admin.execute("set client_min_messages = error; drop role if exists mirror_daemon, mirror_capture")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LOCK_TIMEOUT_MS", 300)
    monkeypatch.setattr(patience, "LOCK_TRIES", 2)
    monkeypatch.setattr(patience, "SETTLE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(patience, "TURN_TIMEOUT_S", 0.2)


def versions(connection: Connection) -> dict[str, list[Any]]:
    """Every row of the catalog, with the transaction that wrote it."""
    catalogs = (
        "pg_proc",
        "pg_trigger",
        "pg_class",
        "pg_attribute",
        "pg_namespace",
        "pg_type",
        "pg_authid",
        "pg_depend",
    )
    return {
        name: connection.execute(f"select xmin::text, ctid::text from {name} order by 1, 2").fetchall()
        for name in (*catalogs, "mirror.install")
    }


def objects(connection: Connection) -> list[Any]:
    """What there is, and who may do what with it."""
    return connection.execute(
        "select 'schema', nspname, coalesce(nspacl, acldefault('n', nspowner))::text from pg_namespace "
        "  where nspname !~ '^pg_(temp|toast)' "
        "union all select 'function', proname, proacl::text from pg_proc where oid >= 16384 "
        "union all select 'type', typname, typacl::text from pg_type where oid >= 16384 "
        "union all select 'relation', relname, relacl::text from pg_class where oid >= 16384 "
        "union all select 'column', attrelid::regclass || '.' || attname, nullif(attacl, '{}')::text from pg_attribute "
        "  where attrelid >= 16384 and attnum > 0 "
        "union all select 'trigger', tgname, tgrelid::text from pg_trigger "
        "union all select 'role', rolname, null from pg_roles "
        "union all select 'depends on role', objid::text, deptype::text from pg_shdepend "
        "  where dbid = (select oid from pg_database where datname = current_database()) order by 1, 2, 3"
    ).fetchall()


def triggers(connection: Connection) -> list[Any]:
    return connection.execute(
        "select tgrelid::regclass::text, tgname, tgenabled::text, pg_get_triggerdef(oid) from pg_trigger "
        "where not tgisinternal order by 1, 2"
    ).fetchall()


def test_a_second_run_changes_nothing(source_url: str, admin: Connection) -> None:
    install(source_url, SOFT)
    assert marks(admin) == ordered([*whole(*ALL), *whole(*ALL)])
    before = versions(admin)
    assert install(source_url, SOFT) == IN_PLACE
    assert versions(admin) == before
    assert marks(admin) == []


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_what_was_interrupted_is_completed(
    source_url: str, other_url: str, admin: Connection, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """The functions are there, and the triggers of so many tables."""
    done: list[str] = []

    def cut(connection: Connection, relation: str, statements: str, say: Any) -> None:
        if len(done) == steps:
            raise ConnectionResetError
        done.append(relation)
        patience.with_lock(connection, relation, statements, say)

    monkeypatch.setattr(source_side, "with_lock", cut)
    with pytest.raises(ConnectionResetError):
        install(source_url)
    monkeypatch.undo()
    marks(admin)
    install(source_url)
    assert {row[0] for row in marks(admin)} >= {"users", "trips", "trip_memberships"} - {
        name.split('"')[3] for name in done
    }
    install(other_url)
    with psycopg.connect(other_url, autocommit=True) as other:
        assert describe(admin) == describe(other)
    assert install(source_url) == IN_PLACE


def test_a_first_step_that_fails_leaves_nothing(
    source_url: str, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_side, "mark_sql", lambda _: "select 1 / 0;")
    with pytest.raises(Refused):
        install(source_url)
    monkeypatch.undo()
    assert admin.execute("select to_regnamespace('mirror')").fetchone() == (None,)
    install(source_url)


@pytest.mark.usefixtures("impatient")
def test_a_blocker_is_named_and_nothing_is_half_done(source_url: str, admin: Connection) -> None:
    """Without the text of its query: it may carry people's data."""
    with role(source_url, f"busy_{secrets.token_hex(4)}", "login superuser") as url:
        with psycopg.connect(url, application_name="rails") as blocker:
            blocker.execute(f"insert into trips (id, name) values ('{an_id(1)}', 'secret')")
            with pytest.raises(Refused) as refused:
                install(source_url)
            message = str(refused.value)
            pid = blocker.info.backend_pid
            assert f"pid {pid} ({blocker.info.user}, rails, idle in transaction, for " in message
            assert '"public"."trips" could not be locked within 0.3 s, 2 times' in message
            assert "secret" not in message
            assert "insert" not in message.lower()
            assert {row[0] for row in triggers(admin)} == {"users"}
            blocker.rollback()
        assert 'source: triggers on "public"."trips" are in place.' in install(source_url)
        assert install(source_url) == IN_PLACE


@pytest.mark.parametrize(
    ("seen", "named"),
    [
        ((7, "app", "rails", "active", 3), "pid 7 (app, rails, active, for 3 s)"),
        ((7, "app", None, None, None), "pid 7 (app)"),
        ((7, None, None, None, None), "pid 7"),
        ((None, None, None, None, None), "a prepared transaction (see pg_prepared_xacts)"),
    ],
)
def test_a_blocker_is_named_as_far_as_we_may_see_it(seen: tuple[Any, ...], named: str) -> None:
    assert patience._named(*seen) == named


@pytest.mark.usefixtures("impatient")
def test_writers_queue_no_longer_than_the_lock_timeout(source_url: str) -> None:
    waits: list[float] = []
    done = threading.Event()

    def write() -> None:
        with psycopg.connect(source_url, autocommit=True) as writer:
            while not done.is_set():
                started = time.monotonic()
                writer.execute("insert into users (id) values (gen_random_uuid())")
                waits.append(time.monotonic() - started)

    with psycopg.connect(source_url) as blocker:
        blocker.execute("insert into users (id) values (gen_random_uuid())")
        writer = threading.Thread(target=write)
        writer.start()
        with pytest.raises(Refused):
            install(source_url)
        done.set()
        writer.join()
    assert 0.1 < max(waits) < 1.0


def test_readers_neither_wait_nor_are_waited_for(source_url: str, admin: Connection) -> None:
    with psycopg.connect(source_url) as reader:
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select from users, trips, trip_memberships")
        said = install(source_url)
        assert not any("in use" in line for line in said)
        admin.execute("alter table users disable trigger mirror_insert")
        reader.execute("select from users")
        assert not any("in use" in line for line in install(source_url))


@pytest.mark.usefixtures("impatient")
def test_one_install_at_a_time(source_url: str, admin: Connection) -> None:
    admin.execute("select pg_advisory_lock(1835627122, 3)")
    with pytest.raises(Refused, match=f"another install or uninstall is running: pid {admin.info.backend_pid} "):
        install(source_url)
    admin.execute("select pg_advisory_unlock(1835627122, 3)")
    install(source_url)


def test_a_new_mapping_replaces_functions_and_marks_its_tables(source_url: str, admin: Connection) -> None:
    admin.execute("alter table users add column handle text")
    install(source_url)
    before = triggers(admin)
    marks(admin)
    mapping = Mapping.model_validate({"users": {"username": "handle"}})
    said = install(source_url, mapping)
    assert said[-1] == "source: installed; the daemon will load users."
    assert marks(admin) == whole("users", "users")
    assert triggers(admin) == before
    admin.execute(f"insert into users (id) values ('{an_id(1)}')")
    marks(admin)
    admin.execute("update users set username = 'x'")
    assert marks(admin) == []
    admin.execute("update users set handle = 'x'")
    assert marks(admin) == users(1)
    assert _readable(admin) == {"public.users": ["email", "handle", "id"], **_DEFAULT}
    assert install(source_url, mapping) == IN_PLACE


_DEFAULT = {
    "public.trips": ["created_by", "id", "name"],
    "public.trip_memberships": ["role", "status", "trip_id", "user_id"],
}


def _readable(connection: Connection) -> dict[str, list[str]]:
    """What the daemon's role may read."""
    return dict(
        connection.execute(
            "select n.nspname || '.' || c.relname, array_agg(a.attname::text order by a.attname) from pg_attribute a "
            "join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace, "
            "aclexplode(a.attacl) g where g.grantee = 'mirror_daemon'::regrole group by 1"
        ).fetchall()
    )


def test_a_trips_mapping_reloads_the_memberships_too(source_url: str, admin: Connection) -> None:
    install(source_url)
    marks(admin)
    said = install(source_url, Mapping.model_validate({"trips": {"where": "deleted_at is null"}}))
    assert said[-1] == "source: installed; the daemon will load trips, trip_memberships."
    assert set(marks(admin)) == set(whole("trips", "trip_memberships"))


def test_a_key_that_changed_its_type_is_loaded_again(source_url: str, admin: Connection) -> None:
    install(source_url)
    marks(admin)
    admin.execute("alter table users alter id type text; alter table trip_memberships alter user_id type text")
    install(source_url)
    assert set(marks(admin)) == set(whole("users", "trip_memberships"))


def test_a_writer_of_before_the_new_mapping_is_waited_for(source_url: str, admin: Connection) -> None:
    """What it captured with the old functions is covered by a mark that is set after it has committed; a transaction
    that only reads, or has to do with other tables, is not waited for."""
    install(source_url)
    admin.execute(f"insert into users (id) values ('{an_id(1)}')")
    marks(admin)
    mapping = Mapping.model_validate({"users": {"email": "last_seen"}})
    said: list[str] = []
    with psycopg.connect(source_url) as writer, psycopg.connect(source_url) as reader:
        reader.execute("create table elsewhere (); lock table elsewhere; select from users")
        writer.execute("update users set last_seen = now()")  # the old mapping has no use for it
        installing = threading.Thread(target=lambda: said.extend(install(source_url, mapping)))
        installing.start()
        while admin.execute("select count(*) from mirror.install where unsettled <> '{}'").fetchone() != (1,):
            assert installing.is_alive()
        assert marks(admin) == whole("users")
        assert installing.is_alive()
        writer.commit()
        installing.join(20)
        assert not installing.is_alive()
    assert marks(admin) == whole("users")
    assert not any("still open" in line for line in said)
    assert install(source_url, mapping) == IN_PLACE


@pytest.mark.usefixtures("impatient")
def test_it_does_not_wait_for_ever(source_url: str, admin: Connection) -> None:
    install(source_url)
    marks(admin)
    with psycopg.connect(source_url) as writer:
        writer.execute("update users set last_seen = now()")
        said = install(source_url, Mapping.model_validate({"users": {"email": "last_seen"}}))
        assert any("is still open; what it changes is found by the next reconcile" in line for line in said)
    assert marks(admin) == whole("users", "users")


def test_an_interrupted_wait_is_taken_up_again(
    source_url: str, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(source_url)
    mapping = Mapping.model_validate({"users": {"email": "last_seen"}})
    monkeypatch.setattr(source_side, "settle", _reset)
    with pytest.raises(ConnectionResetError):
        install(source_url, mapping)
    monkeypatch.undo()
    marks(admin)
    install(source_url, mapping)
    assert marks(admin) == whole("users")
    assert install(source_url, mapping) == IN_PLACE


def _reset(*_: object) -> None:
    raise ConnectionResetError


def test_another_table_is_mapped(source_url: str, admin: Connection) -> None:
    """The former one keeps neither triggers nor grants."""
    install(source_url)
    admin.execute("create schema app; create table app.people (like public.users including all)")
    mapping = Mapping.model_validate({"users": {"from": "app.people"}})
    said = install(source_url, mapping)
    assert any("triggers on public.users, which is not mapped any more, are gone" in line for line in said)
    assert {row[0] for row in triggers(admin)} == {"app.people", "trips", "trip_memberships"}
    assert _readable(admin) == {"app.people": ["email", "id", "username"], **_DEFAULT}
    marks(admin)
    admin.execute(f"insert into users (id) values ('{an_id(1)}'); insert into app.people (id) values ('{an_id(2)}')")
    assert marks(admin) == users(2)
    assert install(source_url, mapping) == IN_PLACE


DAMAGE = {
    "disabled": "alter table users disable trigger mirror_update",
    "all disabled": "alter table users disable trigger all",
    "not always": "alter table users enable trigger mirror_delete",
    "replica only": "alter table users enable replica trigger mirror_insert",
    "dropped": "drop trigger mirror_truncate on users",
    "another function": "create or replace trigger mirror_insert after insert on users "
    "referencing new table as new_rows for each statement execute function mirror.users_delete()",
    "another event": "create or replace trigger mirror_insert after delete on users "
    "referencing old table as new_rows for each statement execute function mirror.users_insert()",
    "a condition": "create or replace trigger mirror_truncate after truncate on users for each statement "
    "when (pg_trigger_depth() = 0) execute function mirror.users_truncate()",
    "other names": "create or replace trigger mirror_insert after insert on users referencing new table as rows "
    "for each statement execute function mirror.users_insert()",
    "the table is new": "create table fresh (like users including all); drop table users; "
    "alter table fresh rename to users",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_triggers_are_put_right(source_url: str, admin: Connection, damage: str) -> None:
    install(source_url)
    before, readable = triggers(admin), _readable(admin)
    marks(admin)
    admin.execute(DAMAGE[damage])
    assert triggers(admin) != before
    said = install(source_url)
    assert triggers(admin) == before
    assert _readable(admin) == readable
    assert said[-1] == "source: installed; the daemon will load users."
    assert marks(admin) == whole("users")
    assert install(source_url) == IN_PLACE


# What captures cannot have been changed by these; after anything else all is compared.
NOT_CAPTURE = {
    "revoke select (email) on users from mirror_daemon",
    "grant select (last_seen) on users to mirror_daemon",
    "create function mirror.mark(text, text[], text[], text[], boolean[]) returns int language sql as 'select 1'",
}


@pytest.mark.parametrize(
    "damage",
    [
        "create or replace function mirror.rings() returns boolean language sql as 'select false'",
        "drop function mirror.tidy",
        "grant execute on function mirror.tidy to public",
        "revoke usage on schema mirror from mirror_daemon",
        "revoke select (email) on users from mirror_daemon",
        "grant select (last_seen) on users to mirror_daemon",
        "alter table mirror.outbox replica identity default",
        "drop table mirror.outbox_1",
        "revoke execute on function mirror.token from public",
        "create function mirror.mark(text, text[], text[], text[], boolean[]) returns int language sql as 'select 1'",
        "grant all on mirror.outbox to public; grant execute on function mirror.mark_keys to public",
    ],
)
def test_what_is_ours_is_put_right(source_url: str, admin: Connection, damage: str) -> None:
    install(source_url)
    before = describe(admin)
    marks(admin)
    admin.execute(damage)
    assert describe(admin) != before or "last_seen" in damage or "identity" in damage
    install(source_url)
    assert describe(admin) == before
    assert set(marks(admin)) == (set() if damage in NOT_CAPTURE else set(whole(*ALL)))
    assert install(source_url) == IN_PLACE


def psql(pair: Pair, url: str, script: str) -> None:
    """Runs a script as its author would; our psql where the server is ours, else the one in PATH."""
    program = str(pair.source.server.program("psql")) if pair.source.server else "psql"
    options = ["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", url]
    done = subprocess.run([program, *options], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def odd_mapping(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With what psql, psycopg and the templates might take for theirs."""
    monkeypatch.chdir(tmp_path)
    Path("mirror.toml").write_text("[trips]\nwhere = \"deleted_at is null and name not like '%:x $1 {%'\"\n")


@pytest.mark.usefixtures("odd_mapping")
def test_printing_and_running_it_by_hand_is_the_same(  # noqa: PLR0917 - fixtures
    servers: Pair,
    source_url: str,
    other_url: str,
    admin: Connection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MIRROR_SOURCE_URL", other_url)
    assert main(["install", "source"]) == 0
    monkeypatch.setenv("MIRROR_SOURCE_URL", source_url)
    before = objects(admin)
    capsys.readouterr()
    assert main(["install", "source", "--print"]) == 0
    assert objects(admin) == before
    script = capsys.readouterr().out
    psql(servers, source_url, script)
    with psycopg.connect(other_url, autocommit=True) as other:
        assert describe(admin) == describe(other)
        assert _metadata(admin) == _metadata(other)
    assert set(marks(admin)) == set(whole(*ALL))
    capsys.readouterr()
    assert main(["install", "source"]) == 0
    assert capsys.readouterr().err.splitlines() == IN_PLACE
    psql(servers, source_url, script)
    assert main(["install", "source"]) == 0
    assert capsys.readouterr().err.splitlines() == IN_PLACE


def _metadata(connection: Connection) -> Any:
    return connection.execute(
        "select version, mapping, rendered, fingerprint, unsettled from mirror.install"
    ).fetchone()


def test_a_newer_schema_is_refused(source_url: str, admin: Connection) -> None:
    install(source_url)
    admin.execute("update mirror.install set version = 99")
    with pytest.raises(ConfigError, match=r"installed by a newer mirror \(schema 99"):
        install(source_url)


def test_a_publication_for_all_tables(source_url: str, admin: Connection) -> None:
    """Forgetting must go on working, and whoever subscribes must know."""
    admin.execute("set client_min_messages = error; create publication everything for all tables")
    said = install(source_url)
    assert any("publication everything is FOR ALL TABLES" in line for line in said)
    assert set(marks(admin)) == set(whole(*ALL))
    admin.execute(f"insert into users (id) values ('{an_id(1)}')")
    assert marks(admin) == users(1)


@pytest.mark.usefixtures("no_role")
def test_uninstall_leaves_nothing_behind(source_url: str, admin: Connection) -> None:
    admin.execute("create schema app; alter table users set schema app")
    mapping = Mapping.model_validate({"users": {"from": "app.users"}})
    before = objects(admin)
    install(source_url, mapping)
    login = f"login_{secrets.token_hex(4)}"
    with role(source_url, login):
        admin.execute(f"grant mirror_daemon to {login}")
        assert uninstall(source_url) == ["source: uninstalled."]
    assert objects(admin) == before
    assert uninstall(source_url) == ["source: uninstalled."]
    install(source_url, mapping)
    assert uninstall(source_url) == ["source: uninstalled."]
    assert objects(admin) == before


@pytest.mark.usefixtures("no_role")
def test_two_databases_share_the_role(source_url: str, other_url: str, admin: Connection) -> None:
    with psycopg.connect(other_url, autocommit=True) as other:
        before, elsewhere = objects(admin), objects(other)
        install(source_url)
        install(other_url)
        untouched = describe(other)
        said = uninstall(source_url)
        assert any("role mirror_daemon stays" in line for line in said)
        assert [row for row in objects(admin) if row[0] != "role"] == [row for row in before if row[0] != "role"]
        assert describe(other) == untouched
        assert install(other_url) == IN_PLACE
        assert uninstall(other_url) == ["source: uninstalled."]
        assert objects(other) == elsewhere
        assert objects(admin) == before


@pytest.mark.usefixtures("impatient", "no_role")
def test_uninstall_waits_no_longer_than_it_may(source_url: str, admin: Connection) -> None:
    """And goes on where it was when it comes back."""
    before = objects(admin)
    install(source_url)
    with psycopg.connect(source_url) as writer:
        writer.execute(f"insert into trips (id, name) values ('{an_id(1)}', 'secret')")
        with pytest.raises(Refused, match=r"could not be locked within 0\.3 s.*pid"):
            uninstall(source_url)
        writer.commit()
    uninstall(source_url)
    admin.execute("truncate trips cascade")
    assert objects(admin) == before


@pytest.mark.usefixtures("no_role")
@pytest.mark.parametrize("options", ["login", "login createrole"])
def test_installing_as_the_owner_of_the_tables(source_url: str, admin: Connection, options: str) -> None:
    """No superuser. Without CREATEROLE there is no role for the daemon, and it is said; everything else is there."""
    name = f"owner_{secrets.token_hex(4)}"
    with role(source_url, name, options) as url:
        admin.execute(
            f"grant create on database {admin.info.dbname} to {name}; grant usage, create on schema public to {name}"
        )
        for table in ("users", "trips", "trip_memberships"):
            admin.execute(f"alter table {table} owner to {name}")
        before = objects(admin)
        said = install(url)
        alone = "createrole" not in options
        assert any("no rights for role mirror_daemon" in line for line in said) is alone
        row = admin.execute("select to_regrole('mirror_daemon') is null").fetchone()
        assert row == (alone,)
        versions_before = versions(admin)
        assert install(url) == IN_PLACE
        assert versions(admin) == versions_before
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute(f"insert into users (id) values ('{an_id(1)}')")
            reply, scopes = drain(owner)
            assert reply["broken"] == {}
            assert an_id(1) in str(scopes)
        if alone:  # an administrator makes it later
            admin.execute("create role mirror_daemon")
            try:
                install(url)
                assert "public.users" in _readable(admin)
                assert any("role mirror_daemon stays" in line for line in uninstall(url))
            finally:
                admin.execute("drop role mirror_daemon")
        else:
            assert uninstall(url) == ["source: uninstalled."]
        assert objects(admin) == before


def test_installing_as_somebody_who_may_not(source_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with role(source_url, f"nobody_{secrets.token_hex(4)}") as url:
        monkeypatch.setenv("MIRROR_SOURCE_URL", url)
        assert main(["install", "source"]) == 1
