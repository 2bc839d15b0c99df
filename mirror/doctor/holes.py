"""Does a stranger see what only members may see? The doctor does not read policies, it asks them: each table, view and
function that the API reaches and that shows mirrored rows, as each stranger. What goes past the policies altogether (a
view that reads as its owner, a function) the catalog tells already: mirror.holes() in schema/target/holes.sql.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psycopg

from mirror.doctor import channels
from mirror.doctor.catalog import Connection, unanswered
from mirror.doctor.finding import Finding, Verdict
from mirror.doctor.policies import Row, culprits, drops, of_table, on_made_up_row, queries, quoted, rows, together
from mirror.doctor.strangers import (
    ROLES,
    Answer,
    Scene,
    Stranger,
    Try,
    limits,
    may_be,
    named,
    nobody,
    outsider,
    strangers,
    within_limits,
)
from mirror.mapping import Mapping

CHECK = "strangers"
OBJECTS_MAX = 150
SECONDS_MAX = 5.0  # one by one; and before that
ALL_SECONDS_MAX = 2.5  # all at once
ARGUMENTS_MAX = 4
_REFUSED = ("42501", "42P17")  # no right to it at all; recursion, which has a check of its own
_MEMBERS = {"public.trips": "id", "public.trip_memberships": "trip_id"}


def examine(
    connection: Connection,
    mapping: Mapping,
    *,
    has_foreign_subjects: bool,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Finding]:
    absent = [role for role in ROLES if not may_be(connection, role)]
    if absent:
        yield _said(
            CHECK,
            "warning",
            f"this role may not become {' or '.join(absent)}: what strangers see was not tried",
            _GRANT % ", ".join(absent),
        )
        return
    until = clock() + SECONDS_MAX
    try:
        scene = _scene(connection, has_foreign_subjects=has_foreign_subjects)
        yield from _reads(connection, scene, lambda: clock() > until)
        yield from channels.examine(connection, scene, mapping.access)
    except psycopg.Error as error:
        yield unanswered("target", CHECK, error)


_LOOK = "Look at its policies, and at what the roles of its readers are members of: something lets strangers in."
_GRANT = "grant %s to current_user; or run the doctor as the project's postgres role."


def _scene(connection: Connection, *, has_foreign_subjects: bool) -> Scene:
    (sample,) = rows(connection, queries()["sample"])
    someone = nobody(sample["user_type"], has_foreign_subjects=has_foreign_subjects)
    return Scene(
        trip=sample["trip"] or nobody(sample["trip_type"], has_foreign_subjects=False),
        trip_type=sample["trip_type"],
        user_type=sample["user_type"],
        callers=strangers(someone),
        outsider=outsider(sample["outsider"]) if sample["trip"] and sample["outsider"] else None,
        has_foreign_subjects=has_foreign_subjects,
    )


def _reads(connection: Connection, scene: Scene, is_late: Callable[[], bool]) -> Iterator[Finding]:
    relations, functions = (rows(connection, queries()[name]) for name in ("relations", "functions"))
    asked = [_of_relation(scene, relation) for relation in relations]
    asked += [_of_function(scene, function) for function in functions if not function["is_volatile"]]
    found: list[Finding] = []
    tried = [one for one in asked if one.queries][:OBJECTS_MAX]
    left_out = [one for one in asked if one not in tried]
    for one, said in zip(tried, _answered(connection, tried, is_late), strict=True):
        if said is None:
            left_out.append(one)
        else:
            found += one.judged(connection, scene, one.thing, list(zip(one.callers, said, strict=True)))
    yield from found
    yield from _unread([function for function in functions if function["is_volatile"]])
    yield from _left_out([one.thing for one in left_out])
    if not found:
        what = f"{len(asked) - len(left_out)} tables, views and functions"
        sentence = f"none of {len(scene.callers)} strangers reads a row of {what}"
        yield _said(CHECK, "ok", sentence)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A table, view or function; each of the callers asks its query."""

    thing: Row
    callers: Sequence[Stranger]
    queries: Sequence[str]
    judged: Callable[[Connection, Scene, Row, Sequence[tuple[Stranger, Answer]]], Iterator[Finding]]

    def tries(self) -> list[Try]:
        return [Try(caller, query) for caller, query in zip(self.callers, self.queries, strict=True)]


def _answered(
    connection: Connection, asked: Sequence[_Asked], is_late: Callable[[], bool]
) -> Iterator[list[Answer] | None]:
    """All of them at once, because the database may be far away; one by one where one of them takes too long."""
    together = within_limits(connection, [one for each in asked for one in each.tries()], ALL_SECONDS_MAX)
    at = 0
    for one in asked:
        if together is not None:
            yield together[at : (at := at + len(one.callers))]
        else:
            yield None if is_late() else within_limits(connection, one.tries())


def _of_relation(scene: Scene, relation: Row) -> _Asked:
    callers = [caller for caller in scene.callers if caller.role in relation["roles"]]
    if scene.outsider and relation["name"] in _MEMBERS and scene.outsider.role in relation["roles"]:
        callers.append(scene.outsider)
    return _Asked(relation, callers, [_look(scene, relation["name"], caller) for caller in callers], _relation)


def _relation(
    connection: Connection, scene: Scene, relation: Row, said: Sequence[tuple[Stranger, Answer]]
) -> Iterator[Finding]:
    name, is_table = relation["name"], relation["kind"] in ("r", "p")
    policies = of_table(connection, relation["oid"], "r") if is_table else []
    readers = [caller for caller, answer in said if answer is True]
    if is_table and not readers:
        readers = _of_made_up_row(connection, scene, relation, policies)
    if readers:
        shows = "" if relation["shows"] == name else f" ({relation['shows']})"
        cure = _cure(connection, scene, relation, policies, readers[0])
        yield _said(CHECK, "error", f"strangers read rows of {name}{shows}: {named(readers)}", cure)
    yield from _raising(scene, name, said)


def _look(scene: Scene, name: str, caller: Stranger, expression: str = "true") -> str:
    """A member of another trip sees that one, and may."""
    of_trip = f" and {_MEMBERS[name]}::text = {quoted(scene.trip)}" if caller is scene.outsider else ""
    return f"select exists (select from {name} where ({expression}){of_trip})"


def _of_made_up_row(connection: Connection, scene: Scene, relation: Row, policies: Sequence[Row]) -> list[Stranger]:
    """Where there are no rows yet, what the policies would say of one."""
    if not relation["has_policies"] or not _is_empty(connection, relation["name"]):
        return []
    tries = []
    for caller in scene.callers:
        expression = together(policies, caller.role) if caller.role in relation["roles"] else None
        if expression:
            tries.append(Try(caller, _made_up(scene, relation, expression)))
    said = within_limits(connection, tries) or []
    return [one.caller for one, answer in zip(tries, said, strict=False) if answer is True]


def _is_empty(connection: Connection, name: str) -> bool:
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(limits().encode())
            return connection.execute(f"select exists (select from {name})".encode()).fetchone() == (False,)
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise
        return False


def _made_up(scene: Scene, relation: Row, expression: str) -> str:
    keys = {"id": scene.trip, "trip_id": scene.trip} if relation["name"] in _MEMBERS else {}
    return on_made_up_row(relation["name"], relation["alias"], expression, keys)


def _cure(connection: Connection, scene: Scene, relation: Row, policies: Sequence[Row], caller: Stranger) -> str:
    name = relation["name"]
    if relation["kind"] not in ("r", "p"):
        return f"revoke select on {name} from public, {', '.join(relation['roles'])};"
    if not relation["has_policies"]:
        return f"alter table {name} enable row level security;"
    ask = (lambda e: _look(scene, name, caller, e), lambda e: _made_up(scene, relation, e))
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(limits().encode())
            return drops(culprits(connection, policies, caller, ask), name) or _LOOK
    except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
        return _LOOK


def _raising(scene: Scene, name: str, said: Sequence[tuple[Stranger, Answer]]) -> Iterator[Finding]:
    raised = [(c, a) for c, a in said if isinstance(a, str) and a not in _REFUSED and scene.harms(c)]
    if raised:
        state = raised[0][1]
        callers = named([caller for caller, _ in raised])
        sentence = f"{name} cannot be read (SQLSTATE {state}) by {callers}: a policy or a view of it raises"
        yield _said(
            CHECK,
            "warning",
            sentence,
            "Let it answer false instead: public.is_trip_member(...), or (auth.jwt() ->> 'sub') as text.",
        )


def _of_function(scene: Scene, function: Row) -> _Asked:
    """With a trip for every argument that can be one: what it says about that."""
    kinds = function["arguments"]
    if len(kinds) > ARGUMENTS_MAX or any(kind.startswith("any") for kind in kinds):
        return _Asked(function, [], [], _function)
    given = ", ".join(_argument(scene, kind) for kind in kinds)
    empty = "('null', '[]', '{}', '\"\"')"
    is_answer = f"coalesce(bool_or(jsonb_strip_nulls(to_jsonb(r)) not in {empty}), false)"
    callers = [caller for caller in scene.callers if caller.role in function["roles"]]
    query = f"select {is_answer} from {function['name']}({given}) as r"
    return _Asked(function, callers, [query] * len(callers), _function)


def _function(
    _connection: Connection, _scene: Scene, function: Row, said: Sequence[tuple[Stranger, Answer]]
) -> Iterator[Finding]:
    readers = [caller for caller, answer in said if answer is True]
    if readers:
        name = function["signature"]
        cure = f"revoke execute on function {name} from public, {', '.join(function['roles'])};"
        sentence = f"strangers are answered by {name}, which reads mirrored rows: {named(readers)}"
        yield _said(CHECK, "error", sentence, cure)


def _argument(scene: Scene, kind: str) -> str:
    is_id = kind in (scene.trip_type, "text", "character varying")
    return f"{quoted(scene.trip) if is_id else 'null'}::{kind}"


def _unread(functions: Sequence[Row]) -> Iterator[Finding]:
    if functions:
        reason = "read mirrored rows past the policies, and were not called because they are VOLATILE"
        sentence = f"these {reason}: {_listed(functions)}"
        yield _said(
            CHECK, "warning", sentence, "Read them; those that change nothing can be made STABLE, and are tried then."
        )


def _left_out(things: Sequence[Row]) -> Iterator[Finding]:
    if things:
        sentence = (
            f"not tried, because it took too long, something was locked, or there are too many: {_listed(things)}"
        )
        yield _said(
            CHECK, "warning", sentence, "Look at who may read them, and at what their policies ask for each row."
        )


def _listed(things: Sequence[Row]) -> str:
    names = [str(thing.get("signature") or thing["name"]) for thing in things[:5]]
    return ", ".join(names) + (f" and {len(things) - 5} more" if len(things) > 5 else "")


def _said(check: str, verdict: Verdict, sentence: str, cure: str = "") -> Finding:
    return Finding("target", check, verdict, sentence, cure)
