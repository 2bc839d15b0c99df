"""What is known, as one frozen value, and what may be claimed of it. Everything that says "fresh", "equal", "ready" or
why not (HTTP, page, `mirror status`, metrics, log, what the target is told) asks here and decides nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mirror.doubt import CHANNELS, SORTS, Doubt, by_weight, doubt

INFINITE = float("inf")
HANGS_AFTER_S = 10.0
Role = Literal["starting", "standby", "leader", "outsider"]  # outsider: no daemon, but who asked the two sides
Verdict = Literal["fresh", "stale", "not primed", "standby", "unknown"]
CAUSES = ("unreadable", "locked", "capture", "source", "target", "leader")
MEANINGS: Mapping[str, str] = {
    "fresh": "Who was added may enter; who was removed may not.",
    "stale": "Who was removed since then may still read; who was added since then may meet a 403.",
    "not primed": "Until it is, people who are members may meet a 403.",
    "standby": "This one takes over when that one ends.",
    "unknown": "It is as fresh as it was when both sides answered last.",
}


@dataclass(frozen=True, slots=True)
class Known:
    """At the moment `now`. Moments are those of one clock, whichever; None is "not known"."""

    now: float = 0.0
    born_at: float = 0.0
    stale_after_s: float = 60.0
    role: Role = "starting"
    waits_for: str | None = None  # a standby: whose lease, and until when
    source_up: bool | None = None  # what it said last; None: it is not asked
    target_up: bool | None = None
    # The copy.
    primed: bool = False
    life: str | None = None
    fresh_at: float | None = None  # the target equals the source as of then, at least, but for the doubts
    doubts: tuple[Doubt, ...] = ()  # that came from the two sides; see all_doubts
    parked: Mapping[str, int] = field(default_factory=dict)
    proven_at: float | None = None  # seconds since 1970: when all tables were last proven equal, by whichever daemon
    # The work.
    led_since: float | None = None  # seconds since 1970
    epoch: int = 0
    doorbell_proven: bool = False
    channels: str | None = None  # ready, missing or closed; None: the target cannot tell
    turned_at: float | None = None
    oldest_at: float | None = None  # of the entries that are not applied
    looked_at: float | None = None
    next_look_at: float = -INFINITE
    outbox_entries: int = 0
    outbox_bytes: int = 0
    walks: int = 0
    applied_rows: int = 0

    @property
    def leader(self) -> bool:
        return self.role == "leader"

    @property
    def standby(self) -> bool:
        return self.role == "standby"

    @property
    def turned_ago_s(self) -> float:
        return self.now - (self.born_at if self.turned_at is None else self.turned_at)

    @property
    def lag_s(self) -> float:
        """Age of the oldest entry not yet applied. When nothing has looked for longer than was meant, it is the time
        since the last look, the most it can be."""
        if self.oldest_at is not None:
            return self.now - self.oldest_at
        if self.leader and self.now <= self.next_look_at:
            return 0.0
        return self.now - (self.born_at if self.looked_at is None else self.looked_at)

    @property
    def staleness_s(self) -> float:
        return staleness_s(self)

    @property
    def verdict(self) -> Verdict:
        return verdict(self)

    @property
    def parked_rows(self) -> int:
        return sum(self.parked.values())

    def about(self, kind: str) -> dict[str, str]:
        """Of the doubts of a kind: the reasons, by table."""
        return {d.about: d.reason for d in self.doubts if d.kind == kind and d.about is not None}

    def why_not_ready(self) -> list[str]:
        return [d.reason for d in not_ready(self)]


def staleness_s(known: Known) -> float:
    """Since when the target is certainly what the source was; infinite when that is not known."""
    if known.fresh_at is None or not known.primed:
        return INFINITE
    moments: list[float] = [known.fresh_at]
    for one in known.doubts:
        effect = SORTS[one.kind].freshness
        if effect == "ends" or (effect == "as of" and one.since is None):
            return INFINITE
        if effect == "as of" and one.since is not None:
            moments.append(one.since)
    return max(0.0, known.now - min(moments))


def verdict(known: Known) -> Verdict:
    if known.standby:
        return "standby"
    if not known.primed and known.role in ("leader", "outsider"):
        return "not primed"
    age_s = staleness_s(known)
    if age_s == INFINITE and not any(SORTS[d.kind].freshness != "stays" for d in known.doubts):
        return "unknown"
    return "fresh" if age_s <= known.stale_after_s else "stale"


def may_say_equal(known: Known) -> bool:
    """All rows were compared, and nothing is known that differs."""
    settled = not any(not SORTS[d.kind].equal for d in known.doubts) and not known.parked_rows
    return verdict(known) in ("fresh", "stale") and settled and known.proven_at is not None


def all_doubts(known: Known) -> tuple[Doubt, ...]:
    """The most telling one first. A daemon that stands by has none: it can see that another one leads."""
    if known.standby:
        return ()
    found = [*known.doubts, *_parked(known), *_of_the_daemon(known)]
    if INFINITE > staleness_s(known) > known.stale_after_s:
        found.append(doubt("stale", age=span(staleness_s(known)), why=_cause(known, by_weight(tuple(found)))))
    return by_weight(tuple(found))


def _parked(known: Known) -> list[Doubt]:
    told = known.about("parked")
    counts = ((table, n) for table, n in known.parked.items() if n and table not in told)
    return [doubt("parked", table, n=n) for table, n in counts]


def _of_the_daemon(known: Known) -> list[Doubt]:
    found = []
    outside = known.role == "outsider"
    if known.source_up is False or (known.source_up is None and not outside):
        found.append(doubt("source"))
    elif known.target_up is False or (known.target_up is None and not outside):
        found.append(doubt("target"))
    if not known.primed and not any(d.kind == "unprimed" for d in known.doubts):
        found.append(doubt("unprimed"))
    closed = closed_channels(known.channels)
    if closed is not None:
        found.append(closed)
    if not known.doorbell_proven and not outside:
        found.append(doubt("doorbell"))
    return found


def closed_channels(state: str | None) -> Doubt | None:
    """Of private channels, as the target says it: nothing, when they are open or it cannot tell."""
    if state in CHANNELS:
        why, cure = CHANNELS[state]
        return doubt("channels", why=why, cure=cure)
    return None


def _cause(known: Known, others: tuple[Doubt, ...]) -> str:
    """Why nothing newer is known."""
    cause = next((d.reason for d in others if d.kind in CAUSES), None)
    if cause is not None:
        return cause
    if known.turned_ago_s > HANGS_AFTER_S:
        return f"the daemon has done nothing for {span(known.turned_ago_s)}"
    if known.outbox_entries:
        return f"{known.outbox_entries} entries wait, the oldest for {span(known.lag_s)}"
    return "nothing newer was applied"


def not_ready(known: Known) -> tuple[Doubt, ...]:
    return tuple(d for d in all_doubts(known) if not SORTS[d.kind].ready)


def told(known: Known) -> tuple[Doubt, ...]:
    """What the target has to be told, for it cannot know."""
    return tuple(d for d in known.doubts if SORTS[d.kind].told)


def sentence(known: Known, target: str = "the target", source: str = "the source") -> str:
    """The verdict in words. Of whatever is left out it never says that it is equal."""
    found = all_doubts(known)
    age_s = staleness_s(known)
    match verdict(known):
        case "standby":
            return "another daemon leads; ask that one how fresh the copy is."
        case "not primed":
            return "the first load is not complete."
        case "fresh" if any(not SORTS[d.kind].equal for d in found):
            but = ", ".join(d.reason for d in found if not SORTS[d.kind].equal)
            return f"{target} has what {source} had {span(age_s)} ago, but {but}."
        case "fresh":
            return f"{target} equals {source} as of {span(age_s)} ago."
        case "stale" | "unknown" if found:
            return f"{found[0].reason}." if age_s == INFINITE else f"{_named(found, 'stale').reason}."
        case _:
            return "nothing is known of the copy yet."


def _named(found: tuple[Doubt, ...], kind: str) -> Doubt:
    return next(d for d in found if d.kind == kind)


def span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} d"
