"""A function that runs with its owner's rights must never run code of its caller's. Every such function that the
catalog knows is called, on both sides, by every role that may: with types, relations, functions and operators of the
caller's in the way. A function that comes later is called, too; one that cannot be reached fails."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from mirror.mapping import AccessOptions, Mapping
from mirror.render import template as sql_file
from tests.bed.backends import Pair
from tests.bed.databases import template
from tests.bed.shadows import NAMED_TYPES, Attack, Definer, attack, definers, plant
from tests.bed.source_side import install, role
from tests.bed.target_side import SOURCE, an_id, as_role, membership, position, put_in_place, scope, span, trip, user
from tests.bed.templates import prepare_target

pytestmark = pytest.mark.sql

ANN, BOB, ROME, OSLO = an_id(1), an_id(2), an_id(11), an_id(12)
CLAIMS = json.dumps({"sub": ANN, "role": "authenticated"})
TOKEN = "8c7d/-/5:5:"
EVENTS = AccessOptions(topics=("trip:{id}:{epoch}", "trip:{id}"), announce="user:{sub}", max_staleness=3600)
TARGETS = {
    "trip_chat": Mapping(),
    "service_role_only": Mapping(),
    "chat_rooms": Mapping.model_validate({"users": {"subject": "id"}}).model_copy(update={"access": EVENTS}),
}
# What stands in the caller's way, one session each.
WAYS = {
    "every type": {"types": None},
    **{f"type {name}": {"types": [name]} for name in NAMED_TYPES},
    "relations": {"relations": True},
    "everything, first in search_path": {"first_in_path": True},
}
# Arguments by type; a function is called with the first of each, then with the second, ...
VALUES = {
    "text": [ROME, f"trip:{ROME}", f"trip:{ROME}:0", f"user:{ANN}", TOKEN, "8c7d/7/5:9:5,7", "garbage"],
    "uuid": [ROME, OSLO],
    "text[]": ["{OWNER}"],
    "bigint": ["1"],
    "integer": ["1"],
    "boolean": ["true", "false"],
    "interval": ["1 hour"],
    "jsonb": [json.dumps(SOURCE | {"snapshot": "5:5:"}), "{}"],
}
ROWS = (
    scope("users", [user(ANN, "ann"), user(BOB, "bob")]),
    scope("trips", [trip(ROME, "Rome"), trip(OSLO, "Oslo")]),
    scope("trip_memberships", [membership(ROME, ANN, "OWNER"), membership(ROME, BOB)]),
)
BATCH = {
    "epoch": 1, "batch": 2, "position": position("6:6:"), "explain": True, "braked": {},
    "check": span("users", upto=[BOB]) | {"n": 2, "digest": "1"},
    "scopes": [
        scope("users", [user(ANN, "anna")], gone=[{"id": BOB}]),
        span("trips", [trip(ROME, "Roma")], refused=[{"k1": OSLO, "reason": "x"}]),
        scope("trip_memberships", [membership(ROME, ANN)], gone=[{"trip_id": ROME, "user_id": BOB}]),
        span("users") | {"dry": True},
    ],
}  # fmt: skip
EXAMPLES = {
    "public.mirror_apply": [json.dumps(BATCH)],
    "public.mirror_compare": [json.dumps({"check": BATCH["check"], "scopes": [span("users") | {"dry": True}]})],
}
# What makes triggers fire. Each role tries all of it.
WRITES = {
    "target": [
        "insert into public.messages (trip_id, body) values ('{ROME}', 'x')",
        "insert into public.messages (room_id, body) values ('{ROME}', 'x')",
        "insert into public.messages (trip_id, sender, body) values ('{ROME}', '{ANN}', 'x')",
    ],
    "source": [
        "insert into public.users (id, email) values ('{BOB}', 'x')",
        "update public.users set email = 'y'",
        "insert into public.trips (id, name) values ('{OSLO}', 'x')",
        "update public.trips set name = 'y', deleted_at = now()",
        "insert into public.trip_memberships (trip_id, user_id) values ('{ROME}', '{BOB}')",
        "update public.trip_memberships set status = 'GONE'",
        *(f"delete from public.{table}" for table in ("trip_memberships", "trips", "users")),
        *(f"truncate public.{table} cascade" for table in ("trip_memberships", "trips", "users")),
    ],
}


@contextmanager
def target_project(pair: Pair, recipe: str) -> Iterator[str]:
    """Installed as a customer can, filled, and with a recipe."""
    with template(pair.target, "shadows", prepare_target) as made, made.clone() as url:
        owner = as_role(url, "hosted_postgres")
        put_in_place(owner, mapping=TARGETS[recipe])
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute("select public.mirror_claim(%s)", [json.dumps(SOURCE | {"snapshot": "5:5:"})])
            batch = {"epoch": 1, "batch": 1, "position": position("5:5:", fresh_at="2099-01-01"), "scopes": ROWS}
            connection.execute("select public.mirror_apply(%s)", [json.dumps(batch)])
            connection.execute(sql_file(f"target/recipes/{recipe}.sql").encode())
        yield url


@contextmanager
def source_database(url: str) -> Iterator[str]:
    """The application's role may do what it likes with its own tables."""
    with psycopg.connect(url, autocommit=True) as connection, role(url, "application"):
        connection.execute("grant all on all tables in schema public to application")
        install(url)
        connection.execute("insert into users (id) values (%s)", [ANN])
        connection.execute("insert into trips (id, name) values (%s, 'Rome')", [ROME])
        connection.execute("insert into trip_memberships (trip_id, user_id) values (%s, %s)", [ROME, ANN])
        yield url


def arguments(definer: Definer) -> Iterator[tuple[str | None, ...]]:
    given = [VALUES.get(kind, [None]) for kind in definer.types]
    for n in range(max(map(len, given), default=1)):
        yield tuple(values[n % len(values)] for values in given)
    for example in EXAMPLES.get(definer.name, []):
        yield (example,)


def call_all(session: Attack, role: str, functions: list[Definer], writes: list[str]) -> Iterator[str]:
    for definer in functions:
        if role in definer.callers and not definer.is_trigger:
            places = ", ".join(f"%s::pg_catalog.{_internal(kind)}" for kind in definer.types)
            for values in arguments(definer):
                for caught in session.call(f"select {definer.name}({places})", *values):
                    yield f"{definer.signature} called by {role}: {caught}"
    for statement in writes:
        for caught in session.call(statement.format(ANN=ANN, BOB=BOB, ROME=ROME, OSLO=OSLO)):
            yield f"{statement} by {role}: {caught}"


def _internal(kind: str) -> str:
    names = {"bigint": "int8", "integer": "int4", "boolean": "bool", "double precision": "float8"}
    return names.get(kind.removesuffix("[]"), kind.removesuffix("[]")) + ("[]" if kind.endswith("[]") else "")


def attacked(url: str, side: str) -> tuple[set[str], set[str]]:
    """Who was caught, and which functions could be called and never were."""
    with psycopg.connect(url, autocommit=True) as connection:
        functions = definers(connection)
        assert plant(connection) > 2500
    roles = sorted({role for definer in functions for role in definer.callers})
    open_to = {definer.oid: definer.signature for definer in functions if definer.callers}
    found: set[str] = set()
    reached: set[int] = set()
    for role_name in roles:
        for name, way in WAYS.items():
            with attack(url, role_name, CLAIMS, **way) as session:  # type: ignore[arg-type]
                found |= {f"{name}: {line}" for line in call_all(session, role_name, functions, WRITES[side])}
                reached |= session.reached(list(open_to))
    return found, {signature for oid, signature in open_to.items() if oid not in reached}


@pytest.mark.parametrize("recipe", list(TARGETS))
def test_no_caller_rules_the_mirror_in_the_target(servers: Pair, recipe: str) -> None:
    with target_project(servers, recipe) as url:
        found, never_called = attacked(url, "target")
    assert sorted(found) == []
    assert never_called == set(), "these can be called and were not: they need an example here"


def test_no_caller_rules_the_mirror_in_the_source(source_url: str) -> None:
    with source_database(source_url) as url:
        found, never_called = attacked(url, "source")
    assert sorted(found) == []
    assert never_called == set(), "these can be called and were not: they need an example here"


def test_the_attack_finds_what_it_looks_for(target_url: str) -> None:
    """A function of each kind of carelessness, each found."""
    careless = {
        "by_type": "set search_path = '' as $$ begin return 'x'::text; end $$",
        "by_relation": "set search_path = '' as $$ begin return (select count(*) from pg_class); end $$",
        "by_operator": "as $$ begin return 'a'::pg_catalog.text = 'b'; end $$",
        "by_function": "as $$ begin return lower('A'); end $$",
    }
    with psycopg.connect(target_url, autocommit=True) as connection:
        for name, body in careless.items():
            head = f"create function public.{name}() returns pg_catalog.text language plpgsql security definer"
            connection.execute(f"{head} {body}".encode())
    found, _ = attacked(target_url, "target")
    for name in careless:
        assert any(f"{name}() called by anon" in line for line in found), name


@pytest.mark.parametrize("side", ["source", "target"])
def test_every_search_path_ends_in_pg_temp(servers: Pair, source_url: str, side: str) -> None:
    """Or is not needed, because each name in the body is written with its schema: those are attacked above."""
    with ExitStack() as stack:
        url = stack.enter_context(
            source_database(source_url) if side == "source" else target_project(servers, "chat_rooms")
        )
        with psycopg.connect(url, autocommit=True) as connection:
            paths = {definer.name: definer.search_path for definer in definers(connection)}
    assert len(paths) > 3
    loose = {name: path for name, path in paths.items() if path is not None and not path.endswith("pg_temp")}
    assert loose == {}
    assert {name for name, path in paths.items() if path is None} <= WRITTEN_IN_FULL


# In the source, where setting a search_path costs the application's writes.
WRITTEN_IN_FULL = {
    f"mirror.{table}_{event}"
    for table in ("users", "trips", "trip_memberships")
    for event in ("insert", "update", "delete")
}
