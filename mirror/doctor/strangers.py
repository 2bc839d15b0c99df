"""Who strangers are, and how the doctor plays them: as the API's roles, with the claims of people who are in no trip,
and with claims that no policy may trip over. Everything that they do is rolled back.

An answer is the database's own: yes, no, or the SQLSTATE that the policy raised. What the rows say is never read.
"""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from mirror.doctor.catalog import Connection, rolled_back
from mirror.doctor.finding import Finding, Verdict
from mirror.render import render

CHECK = "strangers"
ROLES = ("authenticated", "anon")
Answer = bool | str  # a SQLSTATE
DONE = "M1002"  # a write was not refused
_ANSWERS: Mapping[str, Answer] = {"M1001": True, "M1000": False}


@dataclass(frozen=True, slots=True)
class Stranger:
    """`is_odd`: no token looks like that, where all subjects are uuids (or numbers) of one's own identity provider."""

    role: str
    words: str
    claims: str
    sub: str = ""
    is_odd: bool = False

    def __str__(self) -> str:
        return f"{self.role} with {self.words}"


@dataclass(frozen=True, slots=True)
class Scene:
    """What the strangers are strangers to. `trip` is there unless none is mirrored yet; then it is made up."""

    trip: str
    trip_type: str
    user_type: str
    callers: Sequence[Stranger]
    outsider: Stranger | None
    has_foreign_subjects: bool

    def harms(self, caller: Stranger) -> bool:
        """Does an error hit those who may come, or only those whom no identity provider here sends?"""
        return self.has_foreign_subjects or not caller.is_odd


@dataclass(frozen=True, slots=True)
class Try:
    caller: Stranger
    query: str
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a table, view or function, as each stranger that may ask, and what follows from the answers."""

    about: str
    tries: Sequence[Try]
    judge: Callable[[Sequence[tuple[Stranger, Answer]]], Iterator[Finding]]


def strangers(unknown: str) -> list[Stranger]:
    """`unknown`: a sub such as users have here, and no user has."""
    subs: dict[str, tuple[object, bool]] = {
        "the sub of no user": (unknown, False),
        "sub null": (None, False),
        "an empty sub": ("", True),
        "a Clerk id for sub": (f"user_2{secrets.token_hex(12)}", True),
        "a number for sub": (1_900_000_000 + secrets.randbelow(200_000_000), True),
        "an object for sub": ({"id": unknown}, True),
    }
    found = []
    for role in ROLES:
        found += [_with(role, words, sub, is_odd=is_odd) for words, (sub, is_odd) in subs.items()]
        found += [Stranger(role, "no sub", json.dumps({"role": role})), Stranger(role, "no claims", "")]
    return found


def outsider(subject: str) -> Stranger:
    """A mirrored user, and yet a stranger to the trip."""
    return _with("authenticated", "the sub of a user who is not in that trip", subject)


def unknown_id(kind: str, *, has_foreign_subjects: bool) -> str:
    if kind in ("integer", "bigint"):
        return str(1_900_000_000 + secrets.randbelow(200_000_000))
    return f"user_2{secrets.token_hex(12)}" if has_foreign_subjects else str(uuid.uuid4())


def _with(role: str, words: str, sub: object, *, is_odd: bool = False) -> Stranger:
    text = sub if isinstance(sub, str) else ""
    return Stranger(role, words, json.dumps({"sub": sub, "role": role}), text, is_odd)


def answers(connection: Connection, tries: Sequence[Try]) -> list[Answer]:
    """In a transaction that the caller opened and rolls back."""
    if not tries:
        return []
    listed = sql.Literal(json.dumps([_document(one) for one in tries])).as_string(connection)
    cursor = connection.execute(render("target/doctor_tries.sql", {"tries": listed}).encode())
    while cursor.nextset():
        pass
    said: list[str] = json.loads(next(iter(cursor))[0])
    return [_ANSWERS.get(state, state) for state in said]


def _document(one: Try) -> dict[str, Any]:
    caller = one.caller
    return {
        "role": caller.role,
        "claims": caller.claims,
        "sub": caller.sub,
        "role_claim": caller.role if caller.claims else "",
        "topic": one.topic,
        "query": one.query,
        "is_write": one.query.startswith("insert "),
    }


def named(callers: Sequence[Stranger]) -> str:
    first, *more = callers
    return f"{first} (and {len(more)} more)" if more else str(first)


def within_limits(connection: Connection, tries: Sequence[Try], seconds: float = 1.0) -> list[Answer] | None:
    try:
        with rolled_back(connection, seconds):
            return answers(connection, tries)
    except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
        return None


def may_be(connection: Connection, role: str) -> bool:
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(f"set local role {role}".encode())
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue):
        return False
    return True


def found(verdict: Verdict, sentence: str, cure: str = "") -> Finding:
    return Finding("target", CHECK, verdict, sentence, cure)
