"""What takes something away from what may be claimed, and in which words that is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal[
    "tampered", "life", "unprimed", "brake", "unreadable", "locked", "capture", "source", "target", "leader", "stale",
    "parked", "channels", "doorbell", "clock",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)  # what is named first explains what is named later


@dataclass(frozen=True, slots=True)
class Doubt:
    """`about`: the table, where it is one. `since`: when this was last known to be right, on the clock of who says so;
    None: that is not known."""

    kind: Kind
    about: str | None
    reason: str
    cure: str
    since: float | None = None

    def document(self) -> dict[str, Any]:
        return {"kind": self.kind, "about": self.about, "reason": self.reason, "cure": self.cure}


@dataclass(frozen=True, slots=True)
class Sort:
    """One kind of doubt: `says` and `cure` are sentences with places, `means` is for people who read the README."""

    says: str
    means: str
    cure: str
    then: str = ""  # said when it is over, until a comparison has found or made the table equal
    freshness: Literal["ends", "as of", "stays"] = "stays"  # `as of`: nothing is newer than `since`
    equal: bool = True  # may the copy still be called equal?
    ready: bool = False
    told: bool = False  # is the target told of it? It knows the others itself, or they are of no matter there


SORTS: Mapping[Kind, Sort] = {
    "tampered": Sort(
        "mirror.state was changed by others than the mirror",
        "Nothing that the target remembers of its position can be believed.",
        "The daemon compares all tables by itself. Take the right to write there from others.",
        freshness="ends",
        equal=False,
    ),
    "life": Sort(
        "the primary crashed or was replaced, and not everything has been compared since",
        "A crash may have taken back what the copy has.",
        "Wait: the daemon compares all tables by itself.",
        freshness="ends",
        equal=False,
    ),
    "unprimed": Sort(
        "the first load is not complete",
        "People who are members may meet a 403 until it is.",
        "Wait. If no row is applied, the log says what stops it.",
        freshness="ends",
        equal=False,
    ),
    "brake": Sort(
        "{about} differs and is not repaired: {why}",
        "A comparison found it; mostly a repair would delete too much of the table, and the brake is on.",
        "Look at the primary; if it is right, run `mirror resync --force`.",
        "{about} differed and was not repaired, and has not been compared since",
        freshness="ends",
        equal=False,
        told=True,
    ),
    "unreadable": Sort(
        "{about} cannot be read: {why}",
        "Its changes wait, revocations too; the other tables go on.",
        "`mirror doctor` finds the cause: usually a migration renamed or dropped something.",
        "{about} could not be read for a while, and has not been compared since",
        freshness="as of",
        equal=False,
        told=True,
    ),
    "locked": Sort(
        "{about} cannot be written in the target: {why}",
        "Its changes wait, revocations too; the other tables go on. It ends by itself.",
        "End the session that it names: `select pg_terminate_backend(pid)`.",
        equal=False,
    ),
    "capture": Sort(
        "changes of {about} are not captured: {why}",
        "What was changed since the last check that found all well may be missing, revocations too.",
        "Run `mirror install source`.",
        "changes of {about} were not captured for a while, and it has not been compared since",
        freshness="as of",
        equal=False,
        told=True,
    ),
    "source": Sort(
        "the source does not answer",
        "Nothing gets fresher. Changes wait in the primary; none is lost.",
        "Is the primary up, and is MIRROR_SOURCE_URL right? `mirror doctor` tries each step.",
    ),
    "target": Sort(
        "the target does not answer",
        "Nothing gets fresher. Changes wait in the primary; none is lost.",
        "Is the project paused, or the key revoked? `mirror doctor` tries each step.",
    ),
    "leader": Sort(
        "no daemon leads",
        "Nothing gets fresher. Changes wait in the primary; none is lost.",
        "Start `mirror run`; if it ends at once, its last line says why.",
    ),
    "stale": Sort(
        "nothing newer than {age} ago is known to be in the target, because {why}",
        "Who was removed since then may still read; who was added may meet a 403.",
        "See to the reason it names.",
    ),
    "parked": Sort(
        "rows of {about} that one of the two sides refuses are left out: {n}",
        "Rows that Supabase refuses, or that are too large, are left out. Who is in a parked membership is out.",
        "`mirror status` names each row with its reason: put the row or the constraint right; it is tried again.",
        equal=False,
        ready=True,
    ),
    "channels": Sort(
        "private channels are closed: {why}",
        "Every private channel is closed to all, however fresh the copy is.",
        "Run `mirror install target`, or connect a client once if there is no realtime.messages yet.",
    ),
    "doorbell": Sort(
        "the doorbell is not proven: changes arrive with the polling floor",
        "Changes are late, not lost.",
        "MIRROR_SOURCE_URL has to be the direct host, not a pooler.",
    ),
    "clock": Sort(
        "{why}; freshness is reckoned with the clocks of both databases",
        "The clock of the daemon's machine runs fast or slow. Nothing looks fresher for it.",
        "Put the time of the daemon's machine right (NTP, or its hypervisor's clock).",
        ready=True,
        told=True,
    ),
}


# Of private channels: what is wrong, and the cure, by what the target calls it.
CHANNELS = {
    "missing": (
        "there is no realtime.messages yet",
        "Connect a client once: Realtime then makes the table, and the mirror opens the channels.",
    ),
    "closed": (
        "realtime.messages lacks policies of the mirror",
        "Run `mirror install target`, or paste what `mirror install target --print` says.",
    ),
}


def doubt(kind: Kind, about: str | None = None, *, since: float | None = None, cure: str = "", **places: Any) -> Doubt:
    sort = SORTS[kind]
    return Doubt(kind, about, sort.says.format(about=about, **places), cure or sort.cure, since)


def braked(extra: int, of_rows: int) -> str:
    return f"the brake is on, {extra} of {of_rows} rows would go"


def over(kind: Kind, about: str, since: float | None) -> Doubt:
    """It is over, but not compared."""
    return Doubt(kind, about, SORTS[kind].then.format(about=about), "Wait: the daemon compares by itself.", since)


def read(document: Mapping[str, Any], since: float | None) -> Doubt | None:
    """As another part of the mirror has written it; None when it is of a kind that this release does not know."""
    kind = next((known for known in KINDS if known == document.get("kind")), None)
    if kind is None:
        return None
    about = document.get("about")
    return Doubt(kind, about, str(document.get("reason")), str(document.get("cure") or SORTS[kind].cure), since)


def by_weight(doubts: tuple[Doubt, ...]) -> tuple[Doubt, ...]:
    return tuple(sorted(doubts, key=lambda d: (KINDS.index(d.kind), d.about or "")))
