"""[access] of the mapping as SQL. Everything is rendered into the functions as constants: a question that is asked for
every channel and every row reads no settings, and what is off costs nothing."""

from __future__ import annotations

import re
from typing import Any

from mirror.mapping import AccessOptions, Mapping
from mirror.render import array, literal, render
from mirror.target.topics import stops

Types = dict[str, str]

_PLACE = re.compile(r"(\{id\}|\{epoch\}|\*)")
# No more than what can be part of an id: the cast decides, and a counted repetition is four times as slow.
_IDS = {"uuid": "[0-9a-fA-F-]+", "integer": "-?[0-9]+", "bigint": "-?[0-9]+"}

# Who asks (_me), and what is theirs. (_me is set in caller.sql.) Who is not a mirrored user is a member of nothing: the
# user's row must be there and not parked. A subject is found in that row; an id needs a look at it (caller_is_user).
_BY_ID = {
    "is_caller": "m.user_id = _me",
    "is_caller_user": "u.id = _me",
    "caller_is_user": " and exists (select from public.users as u where u.id = m.user_id)",
    "caller_id": "(select u.id from public.users as u where u.id = _me and {user_counts})",
    "lost_sub": "m.user_id::text",
    "sub_of_user": "u.id::text",
    "is_sub": "true",
    "is_same_sub": "true",
}
_BY_SUBJECT = {
    "me": "text",
    "is_caller": "m.user_id in (select u.id from public.users as u where u.subject = _me)",
    "is_caller_user": "u.subject = _me",
    "caller_is_user": "",
    "caller_id": "(select min(u.id::text) from public.users as u where u.subject = _me and {user_counts})",
    "lost_sub": "(select u.subject from public.users as u where u.id = m.user_id)",
    "sub_of_user": "u.subject",
    "is_sub": "u.subject::text not like 'aside %'",  # (write.sql)
    "is_same_sub": "n.subject = u.subject",
}
_WITHOUT_USER = {"caller_is_user": "", "caller_id": "_me"}
# One look for both rows of a membership, by the index parked_users (base.sql).
_IS_NOT_PARKED = (
    "not exists (select from mirror.parked as p "
    "where case p.tbl when 'users' then p.k1 when 'trip_memberships' then p.k2 end = m.user_id::text "
    "and (p.tbl = 'users' or p.k1 = m.trip_id::text))"
)
_MEMBERSHIP_IS_NOT_PARKED = (
    "not exists (select from mirror.parked as p where p.tbl = 'trip_memberships' "
    "and p.k1 = m.trip_id::text and p.k2 = m.user_id::text)"
)
_USER_IS_NOT_PARKED = (
    "not exists (select from mirror.parked as p where p.tbl = 'users' and p.k1 = u.id::text and p.k2 = '')"
)
_IS_USER = f"exists (select from public.users as u where u.id = m.user_id and {_USER_IS_NOT_PARKED})"
_SEEN = ("username", "email", "subject")
# Whose rows of public.users the API shows. A row is shown as a whole: select=* must work, so no column can be withheld.
_SEES_ALL = "id = any (array(select public.my_companions()))"
_SEES_ONE = "id = (select public.my_user_id())"
_SUBJECT = "_me := _sub;"
# Over all that is claimed in mirror.state, as s. Inlined, because a policy with max_staleness asks it for each row.
SEAL = (
    "hash_record_extended(row(s.source, s.life, s.position_life, s.epoch, s.batch, s.snapshot, s.position_epoch, "
    "s.as_of, s.fresh_at, s.known_at, s.applied_at, s.primed_at, s.proof, s.braked, s.walks, s.doubts), 0)"
)


def told(mapping: Mapping) -> dict[str, Any]:
    """What of mirror.toml the target is rendered from, besides the types; and how it finds who calls."""
    callers = "id" if mapping.users.subject is None else "subject"
    return {"callers": callers, **mapping.access.model_dump(mode="json"), **mapping.target.model_dump(mode="json")}


def access_places(access: AccessOptions, types: Types, *, subject_is_id: bool) -> dict[str, str]:
    needs_user = not access.members_without_user
    caller = _BY_ID | {"me": types["user_id"]} if subject_is_id else _BY_SUBJECT
    caller |= {} if needs_user else _WITHOUT_USER
    user_counts = _USER_IS_NOT_PARKED if needs_user else "true"
    find_me = f"_me := {_id_of('_sub', types['user_id'])};" if subject_is_id else _SUBJECT
    is_active = is_active_status("m.status", access)
    is_not_parked = _IS_NOT_PARKED if needs_user else _MEMBERSHIP_IS_NOT_PARKED
    fresh = _is_fresh(access)
    mine = f"{caller['is_caller']} and {is_active} and {is_not_parked}{fresh}{caller['caller_is_user']}"
    # Of many rows at once: nearly always nothing is parked, which one look says for all of them.
    counts = f"{is_active} and (not exists (select from mirror.parked) or {is_not_parked}){fresh}"
    there = " and exists (select from public.users as u where u.id = m.user_id)" if needs_user else ""
    return caller | {
        "caller_id": caller["caller_id"].format(user_counts=user_counts),
        "find_caller": _find(find_me),
        "find_subject": _find(_SUBJECT),
        "find_me": find_me,
        "trip_of_text": _id_of("trip", types["trip_id"]),
        "trip_of_topic": _id_of("_found[1]", types["trip_id"]),
        "user_of_text": _id_of("sub", types["user_id"]),
        "is_active": is_active,
        "is_active_row": is_active_status("status", access),
        "is_mine": mine,
        "are_mine": f"{caller['is_caller']} and {counts}{caller['caller_is_user']}",
        "counts": f"{counts}{there}",
        "user_counts": user_counts,
        "needs_user": "true" if needs_user else "false",
        "is_user": _IS_USER if needs_user else "true",
        "is_member": f"exists (select from public.trip_memberships as m where m.trip_id = _trip and {mine})",
        "patterns": array(literal(pattern(topic, types["trip_id"])) for topic in epochs_first(access.topics)),
        "send": array(literal(extension) for extension in access.send),
        "own_topic": _own_topic(access.announce, "_me"),
        "seen_users": _SEES_ALL if set(access.companions_see) == set(_SEEN) else _SEES_ONE,
        **{f"see_{column}": "true" if column in access.companions_see else "false" for column in _SEEN},
        "announces": "true" if access.announce else "false",
        "announced_topic": _own_topic(access.announce, "r.sub"),
        **_epoch_places(access.topics),
    }


def is_active_status(column: str, access: AccessOptions) -> str:
    """In any case. Statuses of plain letters are compared by their bytes: asking the database's locale takes as long as
    looking a user up."""
    if all(status.isascii() for status in access.active):
        return f'lower({column}::text collate "C") = any ({array(literal(s.lower()) for s in access.active)})'
    return f"lower({column}::text) = any ({array(f'lower({literal(s)})' for s in access.active)})"


def _find(*statements: str) -> str:
    """The caller, and what else is found in the same block, where nothing raises."""
    return render("target/caller.sql", {"to_me": "\n    ".join(statements)}).rstrip()


def _id_of(text: str, kind: str) -> str:
    """A key out of any text. What merely reads as one (" 17", "0x11") is none: ids are names."""
    found = f"{text}::{kind}"
    return f"case when {found}::text = {text} or {found}::text = lower({text}) then {found} end"


def _epoch_places(topics: tuple[str, ...]) -> dict[str, str]:
    """A topic with a * has no one name that could be told."""
    fixed = [topic for topic in epochs_first(topics) if "*" not in topic]
    left = [_topic(topic, "e.trip_id::text", "(e.epoch - 1)::text") for topic in fixed if "{epoch}" in topic]
    return {
        "has_epochs": "true" if any("{epoch}" in topic for topic in topics) else "false",
        "left_topics": array(left),
        "current_topic": _topic(fixed[0], "_trip", "mirror.epoch_of(_trip)") if fixed else "null::text",
    }


def argument_kinds(trip_id: str, find_me: str) -> list[dict[str, str]]:
    """The types in which a trip may be given. The names differ: PostgREST tells overloads apart by them alone."""

    def kind(name: str, given: str, key: str, value: str, found: str) -> dict[str, str]:
        find = _find(find_me, f"_trip := {found};")
        return {"name": name, "type": given, "key": key, "value": value, "find_caller_and_trip": find}

    as_text = kind("trip", "text", trip_id, "mirror.as_trip_id(trip)", _id_of("trip", trip_id))
    if trip_id in ("integer", "bigint"):  # one for all whole numbers: two would make a smallint ambiguous
        return [as_text, kind("trip_id", "bigint", "bigint", "trip_id", "trip_id")]
    return [as_text, kind("trip_id", "uuid", trip_id, f"trip_id::{trip_id}", f"trip_id::{trip_id}")]


def pattern(topic: str, trip_id: str) -> str:
    """A topic pattern as a regular expression whose first group is the trip, and the second one the epoch. An id that
    is text has no colon, nor what the pattern goes on with: of two trips "a" and "a:b" nobody enters the other one's
    channel through trip:{id}:*."""
    parts = _PLACE.split(topic)
    places = {
        "{id}": f"({_IDS.get(trip_id, f'[^{_escaped(stops(topic))}]+')})",
        "{epoch}": "([0-9]+)",
        "*": ".*",
    }
    return "^" + "".join(places.get(part) or _escaped(part) for part in parts) + "$"


def epochs_first(topics: tuple[str, ...]) -> list[str]:
    return sorted(topics, key=lambda topic: "{epoch}" not in topic)


def _topic(topic: str, trip: str, epoch: str) -> str:
    return _joined(topic, {"{id}": trip, "{epoch}": epoch})


def _joined(text: str, places: dict[str, str]) -> str:
    parts = re.split("(" + "|".join(map(re.escape, places)) + ")", text)
    return " || ".join(places.get(part) or literal(part) for part in parts if part)


def _escaped(text: str) -> str:
    return "".join(c if c.isalnum() or c in "_:@/" else f"\\{c}" for c in text)


def _own_topic(announce: str | None, sub: str) -> str:
    return _joined(announce, {"{sub}": sub}) if announce else "null::text"


def _is_fresh(access: AccessOptions) -> str:
    if access.max_staleness is None:
        return ""
    return (
        " and exists (select from mirror.state as s "
        f"where clock_timestamp() - s.known_at <= interval '{access.max_staleness} seconds' and s.seal = {SEAL})"
    )
