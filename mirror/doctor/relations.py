"""Tables and views that show mirrored rows, read as each stranger: a row that one of them sees is a hole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import psycopg

from mirror.doctor.catalog import Connection, rolled_back
from mirror.doctor.finding import Finding
from mirror.doctor.policies import Row, drops, letting_in, of_table, on_made_up_row, one_by_one, quoted, together
from mirror.doctor.strangers import Answer, Question, Scene, Stranger, Try, found, named, within_limits

_REFUSED = ("42501", "42P17")  # no right to it at all; recursion, which has a check of its own
_MEMBERS = {"public.trips": "id", "public.trip_memberships": "trip_id"}
_LOOK = "Look at its policies, and at what the roles of its readers are members of: something lets strangers in."
_CALM = "Let it answer false instead: public.is_trip_member(...), or (auth.jwt() ->> 'sub') as text."


def question(connection: Connection, scene: Scene, relation: Row) -> Question:
    name = relation["name"]
    callers = [*scene.callers, *([scene.outsider] if scene.outsider and name in _MEMBERS else [])]
    tries = [Try(caller, _look(scene, name, caller)) for caller in callers if caller.role in relation["roles"]]
    return Question(name, tries, partial(_judge, connection, scene, relation))


def _judge(
    connection: Connection, scene: Scene, relation: Row, said: Sequence[tuple[Stranger, Answer]]
) -> Iterator[Finding]:
    name = relation["name"]
    readers = [caller for caller, answer in said if answer is True]
    readers = readers or _of_made_up_row(connection, scene, relation)
    if readers:
        shows = "" if relation["shows"] == name else f" ({relation['shows']})"
        cure = _cure(connection, scene, relation, readers[0])
        yield found("error", f"strangers read rows of {name}{shows}: {named(readers)}", cure)
    yield from _raising(scene, name, said)


def _look(scene: Scene, name: str, caller: Stranger, expression: str = "true") -> str:
    """A member of another trip sees that one, and may."""
    of_trip = f" and {_MEMBERS[name]}::text = {quoted(scene.trip)}" if caller is scene.outsider else ""
    return f"select exists (select from {name} where ({expression}){of_trip})"


def _of_made_up_row(connection: Connection, scene: Scene, relation: Row) -> list[Stranger]:
    """Where there are no rows yet, what the policies would say of one. (Of a view, nothing: it has none.)"""
    if not relation["has_policies"] or not _is_empty(connection, relation["name"]):
        return []
    policies, tries = of_table(connection, relation["oid"], "r"), []
    for caller in scene.callers:
        expression = together(policies, caller.role) if caller.role in relation["roles"] else None
        if expression:
            tries.append(Try(caller, _made_up(scene, relation, expression)))
    said = within_limits(connection, tries) or []
    return [one.caller for one, answer in zip(tries, said, strict=False) if answer is True]


def _is_empty(connection: Connection, name: str) -> bool:
    try:
        with rolled_back(connection):
            return connection.execute(f"select exists (select from {name})".encode()).fetchone() == (False,)
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise
        return False


def _made_up(scene: Scene, relation: Row, expression: str) -> str:
    keys = {"id": scene.trip, "trip_id": scene.trip} if relation["name"] in _MEMBERS else {}
    return on_made_up_row(relation["name"], relation["alias"], expression, keys)


def _cure(connection: Connection, scene: Scene, relation: Row, caller: Stranger) -> str:
    name = relation["name"]
    if relation["kind"] not in ("r", "p"):
        return f"revoke select on {name} from public, {', '.join(relation['roles'])};"
    if not relation["has_policies"]:
        return f"alter table {name} enable row level security;"
    policies = of_table(connection, relation["oid"], "r")
    queries = (partial(_look, scene, name, caller), partial(_made_up, scene, relation))
    try:
        with rolled_back(connection):
            return drops(letting_in(one_by_one(connection, policies, caller, queries)), name) or _LOOK
    except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
        return _LOOK


def _raising(scene: Scene, name: str, said: Sequence[tuple[Stranger, Answer]]) -> Iterator[Finding]:
    raised = [(c, a) for c, a in said if isinstance(a, str) and a not in _REFUSED and scene.harms(c)]
    if raised:
        callers = named([caller for caller, _ in raised])
        sentence = f"{name} cannot be read (SQLSTATE {raised[0][1]}) by {callers}: a policy or a view of it raises"
        yield found("warning", sentence, _CALM)
