"""The target, as the applier means it: claim an epoch, apply a batch, read the status. How a call gets there is a
transport's business: one method, function name and JSON text in, reply out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mirror.batch import Aside, Fence, Outcome, Reading
from mirror.errors import Incompatible
from mirror.target import replies
from mirror.target.clocks import Clocks
from mirror.target.replies import Applied, Claimed, Compared, Opened, Reply, not_ours, parse

VERSION = 1
ARGUMENT = {  # of each function that a transport may call, by name; None: it takes none
    "mirror_claim": "source",
    "mirror_apply": "batch",
    "mirror_compare": "batch",
    "mirror_adopt": "source",
    "mirror_status": None,
    "mirror_open_channels": None,
}


class Transport(Protocol):
    @property
    def seconds_aimed(self) -> float:
        """How long a batch should take, well below what would end it."""
        ...

    @property
    def install_hint(self) -> str:
        """How the target's side gets there."""
        ...

    async def call(self, function: str, argument: str | None) -> Any:
        """Whatever came back: mirror/target/replies.py says whether it is a reply."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Channels:
    """The policies of private channels: `ready`, `missing` (Realtime has not made its table yet) or `closed` (the table
    is there, they are not), and what kept the target from making them."""

    state: str
    reason: str | None = None


class Target:
    def __init__(self, transport: Transport, clock: Callable[[], float] = time.monotonic) -> None:
        self._transport = transport
        self._clock = clock
        self._epoch = 0
        self._life: str | None = None
        self._batch = 0
        self._parked: Mapping[str, int] = {}  # as the target last said
        self._clocks = Clocks()

    @property
    def seconds_aimed(self) -> float:
        return self._transport.seconds_aimed

    @property
    def install_hint(self) -> str:
        return self._transport.install_hint

    async def claim(self, source_json: str) -> Claimed:
        """From the reply on, every older daemon is refused by the target itself."""
        sent = self._clock()
        reply = await self._transport.call("mirror_claim", source_json)
        version = reply.get("version") if isinstance(reply, dict) else None
        if isinstance(version, int) and version != VERSION:  # another release may say all else differently
            raise Incompatible(
                f"the target's schema is version {version}, this daemon needs {VERSION}", hint=self.install_hint
            )
        claimed = parse(Claimed, "mirror_claim", reply)
        self._clocks.claimed(claimed.clock, sent, self._clock())
        self._epoch, self._batch, self._life = claimed.epoch, 0, claimed.life
        return claimed

    def next_fence(self) -> Fence:
        self._batch += 1
        return Fence(self._epoch, self._batch)

    async def apply(
        self, reading: Reading, fence: Fence, *, position: bool, began: float, notes: Mapping[str, Any] | None = None
    ) -> Outcome:
        """`began`: our monotonic clock before the snapshot was taken. `notes`: what is kept with the batch, `walks`,
        `proof` and `doubts`. The scopes are passed on as the source wrote them, never parsed here."""
        head: dict[str, Any] = {"epoch": fence.epoch, "batch": fence.batch, **(notes or {})}
        if "doubts" in head:
            head["doubts"] = [d | {"since": self._clocks.moment(d["since"])} for d in head["doubts"]]
        if position:
            head["position"] = {
                "life": self._life,
                "snapshot": reading.snapshot,
                "as_of": reading.as_of,
                "fresh_at": self._clocks.fresh_at(began, reading.as_of).isoformat(),
            }
        if reading.slice is not None and "check" in reading.slice:
            head["check"] = reading.slice["check"]
        body = f'{json.dumps(head)[:-1]},"scopes":[{reading.scopes}]}}'
        sent = self._clock()
        reply = parse(Applied, "mirror_apply", await self._transport.call("mirror_apply", body))
        self._clocks.applied(reply.clock, sent, self._clock(), began, reading.as_of)
        if "explain" in head and not reply.explained:
            raise not_ours("mirror_apply", "explained")
        self._parked = self._parked if reply.parked is None else reply.parked
        refused = {table: Aside(found["n"], tuple(found["rows"])) for table, found in reply.refused.items()}
        due = tuple((d["table"], d["k1"], d["k2"]) for d in reply.due)
        return Outcome(reply.counts, self._parked, due, reply.check, reply.explained or (), self._clocks.apart, refused)

    async def compare(self, reading: Reading) -> Outcome:
        """The target's answer to the same questions, with nothing applied: what waits does not count as different."""
        head = {"check": reading.slice["check"]} if reading.slice is not None and "check" in reading.slice else {}
        comma = "," if head else ""
        body = f'{json.dumps(head)[:-1]}{comma}"scopes":[{reading.scopes}]}}'
        reply = parse(Compared, "mirror_compare", await self._transport.call("mirror_compare", body))
        if '"dry"' in reading.scopes and not reply.explained:
            raise not_ours("mirror_compare", "explained")
        return Outcome(check=reply.check, explained=reply.explained or ())

    async def adopt(self, source_json: str) -> None:
        """From here on this is the mirror of that source."""
        parse(Reply, "mirror_adopt", await self._transport.call("mirror_adopt", source_json))

    async def status(self) -> dict[str, Any]:
        return replies.status(await self._transport.call("mirror_status", None))

    async def open_channels(self) -> Channels:
        """Makes the policies when the table has come that they belong on; else only looks."""
        reply = await self._transport.call("mirror_open_channels", None)
        opened = parse(Opened, "mirror_open_channels", reply)
        return Channels(opened.channels, opened.reason)

    async def close(self) -> None:
        await self._transport.close()
