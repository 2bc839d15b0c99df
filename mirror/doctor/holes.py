"""Does a stranger see what only members may see? The doctor does not read policies, it asks them: each table, view and
function that the API reaches and that shows mirrored rows, as each stranger. What goes past the policies altogether (a
view that reads as its owner, a function) the catalog tells already: mirror.holes() in schema/target/holes.sql.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice

import psycopg

from mirror.doctor import channels, functions, relations
from mirror.doctor.catalog import Connection, unanswered
from mirror.doctor.finding import Finding
from mirror.doctor.policies import queries, rows
from mirror.doctor.strangers import (
    CHECK,
    ROLES,
    Answer,
    Question,
    Scene,
    found,
    may_be,
    outsider,
    strangers,
    unknown_id,
    within_limits,
)
from mirror.mapping import Mapping

OBJECTS_MAX = 150
SECONDS_MAX = 5.0  # one by one; and before that
ALL_SECONDS_MAX = 2.5  # all at once
NAMES_MAX = 5
_GRANT = "grant %s to current_user; or run the doctor as the project's postgres role."


def examine(connection: Connection, mapping: Mapping, *, has_foreign_subjects: bool) -> Iterator[Finding]:
    absent = [role for role in ROLES if not may_be(connection, role)]
    if absent:
        sentence = f"this role may not become {' or '.join(absent)}: what strangers see was not tried"
        yield found("warning", sentence, _GRANT % ", ".join(absent))
        return
    try:
        scene = _scene(connection, has_foreign_subjects=has_foreign_subjects)
        yield from _reads(connection, scene)
        yield from channels.examine(connection, scene, mapping.access)
    except psycopg.Error as error:
        yield unanswered("target", CHECK, error)


def _scene(connection: Connection, *, has_foreign_subjects: bool) -> Scene:
    (sample,) = rows(connection, queries()["sample"])
    return Scene(
        trip=sample["trip"] or unknown_id(sample["trip_type"], has_foreign_subjects=False),
        trip_type=sample["trip_type"],
        user_type=sample["user_type"],
        callers=strangers(unknown_id(sample["user_type"], has_foreign_subjects=has_foreign_subjects)),
        outsider=outsider(sample["outsider"]) if sample["trip"] and sample["outsider"] else None,
        has_foreign_subjects=has_foreign_subjects,
    )


def _reads(connection: Connection, scene: Scene) -> Iterator[Finding]:
    asked = [relations.question(connection, scene, row) for row in rows(connection, queries()["relations"])]
    called = rows(connection, queries()["functions"])
    asked += [functions.question(scene, row) for row in called if not row["is_volatile"]]
    some = [one for one in asked if one.tries][:OBJECTS_MAX]
    answered = dict(zip((one.about for one in some), _answered(connection, some), strict=True))
    holes: list[Finding] = []
    left_out = []
    for one in asked:
        said = answered.get(one.about)
        if said is None:
            left_out.append(one.about)
        else:
            holes += one.judge(list(zip((each.caller for each in one.tries), said, strict=True)))
    yield from holes
    yield from _unread([row["signature"] for row in called if row["is_volatile"]])
    yield from _left_out(left_out)
    if not holes:
        what = f"{len(asked) - len(left_out)} tables, views and functions"
        yield found("ok", f"none of {len(scene.callers)} strangers reads a row of {what}")


def _answered(connection: Connection, asked: Sequence[Question]) -> Iterator[list[Answer] | None]:
    """All of them at once, because the database may be far away; one by one where one of them takes too long."""
    until = time.monotonic() + SECONDS_MAX
    together = within_limits(connection, [one for each in asked for one in each.tries], ALL_SECONDS_MAX)
    answers = None if together is None else iter(together)
    for one in asked:
        if answers is not None:
            yield list(islice(answers, len(one.tries)))
        else:
            yield None if time.monotonic() > until else within_limits(connection, one.tries)


def _unread(names: Sequence[str]) -> Iterator[Finding]:
    if names:
        reason = "read mirrored rows past the policies, and were not called because they are VOLATILE"
        cure = "Read them; those that change nothing can be made STABLE, and are tried then."
        yield found("warning", f"these {reason}: {_listed(names)}", cure)


def _left_out(names: Sequence[str]) -> Iterator[Finding]:
    if names:
        reason = "because it took too long, something was locked, or there are too many"
        cure = "Look at who may read them, and at what their policies ask for each row."
        yield found("warning", f"not tried, {reason}: {_listed(names)}", cure)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMES_MAX
    return ", ".join(names[:NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
