"""What may take something from a person is applied before what gives: the order, batch by batch, in a backlog.

The batches are read as the daemon reads them: forgetting what was taken, handing back what the last look has seen."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from mirror.mapping import Mapping
from tests.bed.source_side import an_id, array, install, marks

pytestmark = pytest.mark.sql

Connection = psycopg.Connection[Any]
Key = tuple[str, str, str | None]
ROWS = 10  # of a batch
MAPPING = Mapping.model_validate(
    {
        "users": {"subject": "login", "where": "deleted_at is null"},
        "trips": {"where": "deleted_at is null"},
        "trip_memberships": {"where": "archived_at is null"},
    }
)
APPLICATION = f"""
alter table users add login text, add deleted_at timestamptz;
alter table trip_memberships add archived_at timestamptz;
create function key(n int) returns uuid language sql immutable as $$ select lpad(to_hex(n), 32, '0')::uuid $$;
insert into trips (id, name) values ('{an_id(901)}', 'Rome'), ('{an_id(902)}', 'Oslo'), ('{an_id(903)}', 'Bern');
insert into users (id, username, login) select key(n), 'user ' || n, 'login ' || n from generate_series(1, 400) as n;
insert into trip_memberships (trip_id, user_id, role, status)
  select '{an_id(901)}', key(n), 'owner', 'ACTIVE' from generate_series(1, 30) as n;
insert into trip_memberships (trip_id, user_id, status) values
  ('{an_id(902)}', '{an_id(1)}', 'ACTIVE'), ('{an_id(903)}', '{an_id(1)}', 'ACTIVE');
"""
IN_FRONT = f"""
insert into trip_memberships (trip_id, user_id, status)
  select '{an_id(901)}', key(n), 'ACTIVE' from generate_series(101, 200) as n;
update users set username = username || '!';
insert into trips (id, name) select key(n), 'trip' from generate_series(1001, 1100) as n;
"""
MEMBERSHIP = "trip_memberships"
ROME, OSLO, BERN = an_id(901), an_id(902), an_id(903)
# What is done, and the keys that it takes something from.
KINDS: dict[str, tuple[str, list[Key]]] = {
    "delete": ("delete from trip_memberships where user_id = key(11)", [(MEMBERSHIP, ROME, an_id(11))]),
    "status": (
        "update trip_memberships set status = 'LEFT' where user_id = key(12)",
        [(MEMBERSHIP, ROME, an_id(12))],
    ),
    "role": ("update trip_memberships set role = 'guest' where user_id = key(13)", [(MEMBERSHIP, ROME, an_id(13))]),
    "subject": ("update users set login = 'other' where id = key(14)", [("users", an_id(14), None)]),
    "filter": (
        "update trip_memberships set archived_at = now() where user_id = key(15)",
        [(MEMBERSHIP, ROME, an_id(15))],
    ),
    "soft delete of a trip": (
        f"update trips set deleted_at = now() where id = '{OSLO}'",
        [("trips", OSLO, None), (MEMBERSHIP, OSLO, None)],
    ),
    "hard delete of a trip": (
        f"delete from trips where id = '{BERN}'",
        [("trips", BERN, None), (MEMBERSHIP, BERN, None), (MEMBERSHIP, BERN, an_id(1))],
    ),
    "soft delete of a user": ("update users set deleted_at = now() where id = key(16)", [("users", an_id(16), None)]),
    "hard delete of a user": ("delete from users where id = key(17)", [("users", an_id(17), None)]),
    "re-key": (
        "update trip_memberships set user_id = key(300) where user_id = key(18)",
        [(MEMBERSHIP, ROME, an_id(18))],
    ),
}
LOST = {key for _, keys in KINDS.values() for key in keys}
GRANT = f"insert into trip_memberships (trip_id, user_id, status) values ('{ROME}', key(%s), 'ACTIVE')"


@pytest.fixture
def app(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as connection:
        connection.execute(APPLICATION)
        install(source_url, MAPPING)
        marks(connection)
        yield connection


class Daemon:
    """One look after the other, in batches of a few rows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._forget: tuple[list[str], list[str]] = ([], [])
        self.reply: dict[str, Any] = {"backlog": False}

    def batch(self, *, seek: bool = False, skip: tuple[str, ...] = ()) -> set[Key]:
        """The keys of the next batch."""
        request = {
            "rows": ROWS,
            "bytes": 10_000_000,
            "sleep": False,
            "asleep": False,
            "forget_wide": [],
            "skip": skip,
            "backlog": self.reply["backlog"],
            "seen": self.reply.get("seen"),
            "seek": seek,
        }
        row = self._connection.execute(
            "call mirror.drain(%s::jsonb, %s::text[], %s::text[], null, null, null, null)",
            [json.dumps(request), *self._forget],
        ).fetchone()
        assert row is not None
        self.reply, scopes, at, ids = row
        self._forget = ([at], [ids]) if ids else ([], [])
        assert self.reply["broken"] == {}
        return {key for scope in json.loads(f"[{scopes or ''}]") for key in _keys(scope)}

    def rest(self) -> list[set[Key]]:
        batches = []
        while self.reply["backlog"]:
            batches.append(self.batch())
        return batches


def _keys(scope: dict[str, Any]) -> Iterator[Key]:
    table = scope["table"]
    columns = ("trip_id", "user_id") if table == MEMBERSHIP else ("id",)
    rows = [array(scope["rows"][column]) for column in columns]
    for k1, *k2 in [*zip(*rows, strict=True), *([gone[c] for c in columns] for gone in scope.get("gone", []))]:
        yield table, str(k1), k2[0] if k2 else None
    for trip in scope.get("trips", []):
        yield table, trip, None


def test_revocations_of_all_kinds_come_before_the_rest(app: Connection) -> None:
    app.execute(IN_FRONT)
    for statement, _ in KINDS.values():
        app.execute(statement)
    app.execute(GRANT, [301])
    daemon = Daemon(app)
    batches = [daemon.batch(), *daemon.rest()]
    assert set.union(*batches[:3]) == LOST  # eleven keys for certain, and then two perhaps
    assert (MEMBERSHIP, ROME, an_id(301)) in set.union(*batches[3:])
    assert len(batches) > 30


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_given_later_does_not_overtake(app: Connection, kind: str) -> None:
    """Between two looks for what comes first; the later entry lies in front, where there was room."""
    app.execute("create or replace function mirror.turn() returns int language sql stable as 'select 2'")
    app.execute(IN_FRONT)
    daemon = Daemon(app)
    daemon.batch()
    statement, lost = KINDS[kind]
    app.execute("create or replace function mirror.turn() returns int language sql stable as 'select 3'")
    app.execute(statement)
    app.execute("create or replace function mirror.turn() returns int language sql stable as 'select 0'")
    app.execute(GRANT, [302])
    batches = [daemon.batch(), daemon.batch(), *daemon.rest()]
    taken = next(n for n, batch in enumerate(batches) if set(lost) <= batch)
    given = next(n for n, batch in enumerate(batches) if (MEMBERSHIP, ROME, an_id(302)) in batch)
    assert taken < given


def test_those_found_by_the_next_look_are_next(app: Connection) -> None:
    app.execute(IN_FRONT)
    daemon = Daemon(app)
    for _ in range(5):
        assert not daemon.batch() & LOST
    for statement, _ in KINDS.values():
        app.execute(statement)
    batches = [daemon.batch(seek=True), daemon.batch(), daemon.batch()]
    assert set.union(*batches) >= LOST


def test_many_changes_of_roles_hold_up_no_delete_and_are_all_read(app: Connection) -> None:
    """What may be lost waits for what is."""
    app.execute("update trip_memberships set role = 'guest'")
    app.execute(IN_FRONT)
    for name in ("delete", "soft delete of a user", "subject"):
        app.execute(KINDS[name][0])
    daemon = Daemon(app)
    batches = [daemon.batch(), *daemon.rest()]
    assert batches[0] == {key for name in ("delete", "soft delete of a user", "subject") for key in KINDS[name][1]}
    roles = {(MEMBERSHIP, ROME, an_id(n)) for n in range(1, 31)}
    assert roles - {(MEMBERSHIP, ROME, an_id(11))} <= set.union(*batches[1:5])
    assert len(set.union(*batches)) >= 32 + 100 + 399 + 100
    assert daemon.batch() == set()
    assert marks(app) == []


def test_a_table_that_can_be_read_again_is_looked_at_for_them(app: Connection) -> None:
    app.execute(IN_FRONT)
    app.execute(KINDS["delete"][0])
    daemon = Daemon(app)
    for _ in range(3):
        assert not daemon.batch(skip=(MEMBERSHIP,)) & set(KINDS["delete"][1])
    assert daemon.batch() == set(KINDS["delete"][1])
