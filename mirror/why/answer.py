"""The answer first: yes or no, because of one thing, and what to do about it. Nothing here asks anybody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mirror.mapping import AccessOptions
from mirror.why.evidence import Evidence, Glimpse, Mirror, Primary, Row

NO_USER = "the user is not in the mirror"
Verdict = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Answer:
    verdict: Verdict
    because: str
    cure: str = ""


def judge(evidence: Evidence, max_staleness_s: float | None = None) -> Answer:
    """What Supabase's own policies say is the verdict; everything else explains it."""
    mirror, primary = evidence.mirror, evidence.primary
    if mirror is None:
        return Answer("unknown", "the policies of Supabase could not be asked", _expected(primary, evidence.glimpse))
    may = enters(mirror)
    if may is None:
        trouble = mirror.channel.trouble if mirror.channel else "is_trip_member gave no answer"
        return Answer("unknown", f"the policies could not be run as this user: {trouble}")
    if may:
        return _welcome(primary, mirror)
    reasons = (
        *_never(evidence, primary),
        *_not_yet(primary, mirror, max_staleness_s),
        *_lost(evidence),
    )
    return next(iter(reasons), Answer("no", "is_trip_member says no"))


def enters(mirror: Mirror) -> bool | None:
    """Receiving is what a channel is joined for; where there is no Realtime, is_trip_member decides."""
    if mirror.channel is None:
        return mirror.is_member
    return None if mirror.channel.trouble else any(mirror.channel.receives.values())


def connected(may: bool | None, access: AccessOptions) -> str:
    """Realtime asks when a client joins, and when it sends another token; in between it remembers."""
    if may is None:
        return ""
    if may:
        return "a client that was refused before has to join again: Realtime does not ask by itself"
    if any("{epoch}" in topic for topic in access.topics):
        return "whoever was removed keeps the old channel, which the conversation left at the revocation"
    told = "; it was told on its own channel to leave" if access.announce else ""
    until = "until it sends a new token, at the latest when its present one expires"
    return f"a client that is in already keeps receiving {until}{told}"


def _expected(primary: Primary | None, glimpse: Glimpse | None) -> str:
    """What follows from the rest, for whoever has only that."""
    if primary is None:
        return "Ask again when it answers."
    wants = "wants them in" if primary.wants else "does not want them in"
    known = [f"the primary {wants}", _waits(primary) if primary.waiting else "nothing waits"]
    if glimpse is not None:
        known += [f"{parked['tbl']} is parked: {parked['reason']}" for parked in glimpse.parked]
        known.append(
            "never loaded" if glimpse.staleness_s is None else f"the mirror is {_seconds(glimpse.staleness_s)} old"
        )
    return f"This is known: {', '.join(known)}."


def _welcome(primary: Primary | None, mirror: Mirror) -> Answer:
    """Yes; but the primary may say otherwise by now, and that is what somebody who asks wants to hear."""
    if primary is None:
        return Answer("yes", "the policies of Supabase say so (the primary could not be asked)")
    if primary.wants and not _differs(primary, mirror):
        return Answer("yes", "this is an active member, and the policies agree")
    now = next((reason.because for reason in _missing(primary)), f"the primary says {_row(primary.membership)}")
    if primary.waiting:
        return Answer("yes", f"{now}, but that is not applied yet: {_waits(primary)}", _daemon(primary))
    cure = "That is drift, or a policy that does not ask the mirror: run `mirror verify`."
    return Answer("yes", f"although {now}, and nothing waits", cure)


def _differs(primary: Primary, mirror: Mirror) -> bool:
    here, there = primary.membership, mirror.membership
    return here is not None and (there is None or any(here[c] != there[c] for c in ("role", "status")))


def _row(membership: Row | None) -> str:
    return "nothing" if membership is None else f"role {membership['role']}, status {membership['status']}"


def _never(evidence: Evidence, primary: Primary | None) -> Iterator[Answer]:
    if primary is None:
        return
    if not evidence.person.known and primary.membership is None:
        yield Answer(
            "no", f"the primary has no user {evidence.person.id}", "Is it the right id, e-mail address or username?"
        )
    yield from _missing(primary)


def _missing(primary: Primary) -> Iterator[Answer]:
    """Why the primary has no membership that is to be mirrored."""
    if primary.trip is None:
        yield Answer("no", "the primary has no such trip", "Is it the right id?")
    elif not primary.trip["mirrored"]:
        yield Answer("no", f"the trip is not mirrored: [trips] where ({primary.filters['trips']}) is not true of it")
    if primary.membership is None:
        yield Answer(
            "no", "the primary has no such membership: never invited, or removed", "Invite them in the application."
        )
    elif not primary.membership["mirrored"]:
        where = primary.filters["trip_memberships"]
        status = primary.membership["status"]
        yield Answer(
            "no",
            f"the membership (status {status}) is not mirrored: [trip_memberships] where ({where}) is not true of it",
        )
    if primary.needs_user:
        yield from _no_user(primary)


def _no_user(primary: Primary) -> Iterator[Answer]:
    """Who is not a mirrored user is a member of nothing."""
    if primary.user is None:
        because = f"{NO_USER}: the primary has no such user (deleted, or never there)"
        cure = "Create the user in the application; if members need none there: [access] members_without_user = true."
        yield Answer("no", because, cure)
    elif not primary.user["mirrored"]:
        yield Answer("no", f"{NO_USER}: [users] where ({primary.filters['users']}) is not true of it")


def _not_yet(primary: Primary | None, mirror: Mirror, max_staleness_s: float | None) -> Iterator[Answer]:
    for parked in mirror.parked:
        tried = f"tried {parked['tries']} times in {_seconds(parked['seconds'])}"
        so = f"{NO_USER}: " if parked["table"] == "users" else ""
        sentence = f"{so}the row of {parked['table']} is parked: {parked['reason']} ({tried})"
        yield Answer("no", sentence, "Put that right; the mirror tries again.")
    if not mirror.position["primed"]:
        yield Answer("no", "the first load is not complete", "Is a daemon running? See `mirror status`.")
    yield from _stale(mirror, max_staleness_s)
    if primary is not None and primary.waiting and _differs(primary, mirror):
        what = "the membership is" if mirror.membership is None else f"{_row(primary.membership)} is"
        yield Answer("no", f"{what} in the primary, but not applied yet: {_waits(primary)}", _daemon(primary))
    elif primary is not None and primary.waiting and mirror.user is None and not mirror.is_member:
        yield Answer("no", f"the user is in the primary, but not applied yet: {_waits(primary)}", _daemon(primary))


def _stale(mirror: Mirror, max_staleness_s: float | None) -> Iterator[Answer]:
    age_s = mirror.position["staleness_seconds"]
    if max_staleness_s is not None and mirror.membership is not None and (age_s is None or age_s > max_staleness_s):
        limit = f"max_staleness ({_seconds(max_staleness_s)}) lets nobody in then"
        cure = "Start the daemon, or see `mirror status` for what keeps it."
        yield Answer("no", f"the mirror is {_seconds(age_s)} old, and {limit}", cure)


def _lost(evidence: Evidence) -> Iterator[Answer]:
    mirror, primary = evidence.mirror, evidence.primary
    if mirror is None:
        return
    if mirror.membership is None:
        if primary is None:
            yield Answer("no", "Supabase has no such membership", "Ask again when the primary answers.")
        else:
            cure = f"Run `mirror resync --trip {evidence.trip}`, and look with `mirror doctor` for why."
            yield Answer(
                "no", "the membership is in the primary, not in Supabase, and nothing waits: that is drift", cure
            )
        return
    if mirror.is_member and mirror.channel is not None:
        yield Answer(
            "no",
            f"is_trip_member says yes, but no policy of realtime.messages lets them read {mirror.channel.topic}",
            "Is that the topic the client joins (--topic)? See `mirror doctor target` for the policies.",
        )
    yield from _profile(mirror, primary)
    status = mirror.membership["status"]
    yield Answer("no", f"status {status} does not count as a member's", "Change it in the application, or map it.")


def _profile(mirror: Mirror, primary: Primary | None) -> Iterator[Answer]:
    if mirror.user is not None or mirror.is_member:
        return
    if primary is None:
        yield Answer("no", NO_USER, "Ask again when the primary answers.")
    elif primary.needs_user:
        cure = "Run `mirror resync --table users`, and look with `mirror doctor` for why."
        yield Answer("no", f"{NO_USER}, but in the primary, and nothing waits: that is drift", cure)


def _waits(primary: Primary) -> str:
    oldest: Row = primary.waiting[0]
    leads = "a daemon leads" if primary.leads else "NO daemon leads"
    return f"{oldest['scope']} of {oldest['table']} waits for {_seconds(oldest['seconds'])}, {leads}"


def _daemon(primary: Primary) -> str:
    return "Ask again in a moment." if primary.leads else "Start the daemon: mirror run"


def _seconds(age_s: float | None) -> str:
    if age_s is None:
        return "for ever"
    return f"{age_s:.1f} s" if age_s < 120 else f"{age_s / 60:.0f} min"
