"""The working session with the primary: leadership, identity, and the drain, one round trip per batch.

The lease of the lead names this session, and the lock of the doorbell belongs to it: when it dies, another daemon may
lead and no writer rings in vain.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from mirror.batch import Fault, Reading, Request, Taken
from mirror.errors import ConfigError, NotInstalled, Superseded
from mirror.limits import ANSWER_S, KEEPALIVE
from mirror.postgres import Session, connect, fetched
from mirror.scope import Wide
from mirror.source.lead import Holder, Leader, Lease, lease_s

ANSWER_TIMEOUT_S = 90.0  # of the longest statement: while we lead, the lease looks whether the source is at it
TIDY_BYTES = 400_000  # of the four tables together
SILENCE_MIN_S = 120.0  # longer than the slowest batch is given in the target
_SILENCE = f"""
    select set_config('idle_session_timeout', %s, false),
           set_config('tcp_keepalives_idle', '{KEEPALIVE["keepalives_idle"]}', false),
           set_config('tcp_keepalives_interval', '{KEEPALIVE["keepalives_interval"]}', false),
           set_config('tcp_keepalives_count', '{KEEPALIVE["keepalives_count"]}', false)
"""
_DRAIN = "call mirror.drain(%s::jsonb, %s::text[], %s::text[], null, null, null, null)"

_MARK_UNMARKED = """
    select mirror.mark_tables(array(
      select t from unnest(array['users', 'trips', 'trip_memberships']) as t
      where not exists (select from mirror.outbox as o where o.tbl = t and o.k1 is null and o.k2 is null)))
"""


def silence_s(sleep_s: float) -> float:
    """For how long nothing may be heard of a daemon that sleeps so long at most."""
    return max(SILENCE_MIN_S, 3 * sleep_s)


class Primary:
    def __init__(self, connection: Session, lease: Lease) -> None:
        self._connection = connection
        self.lease = lease
        self._asleep = False

    @classmethod
    async def open(cls, url: str, holder: Holder, sleep_s: float = 0.0) -> Primary:
        """`sleep_s`: the source hears of this session at least as often, while it leads. The server ends one that it
        hears nothing of for much longer: a daemon whose machine is gone."""
        connection = await connect(url, "source")
        primary = cls(connection, Lease(connection, holder, lease_s(sleep_s)))
        try:
            await primary._row(_SILENCE, [f"{silence_s(sleep_s) * 1000:.0f}"], ANSWER_S)
        except BaseException:
            await primary.close()
            raise
        return primary

    async def close(self) -> None:
        await self.lease.give_back()
        await self._connection.close()

    async def _row(self, query: str, arguments: list[Any] | None = None, within_s: float | None = None) -> Any:
        return await fetched(self._connection, "source", query, arguments, within_s=within_s or ANSWER_TIMEOUT_S)

    async def installed(self) -> tuple[int, dict[str, Any]]:
        """The schema version and the mapping that this source was rendered from."""
        row = await self._row(
            "select to_regclass('mirror.install') is not null, "
            "to_regclass('mirror.lead') is not null and to_regprocedure('mirror.begin_life()') is not null",
            [],
            ANSWER_S,
        )
        lives = row[1]
        row = await self._row("select version, mapping from mirror.install", [], ANSWER_S) if row[0] else None
        if row is None:
            raise NotInstalled("the mirror is not installed in the source", hint="Run `mirror install source`.")
        if not lives:
            raise ConfigError("the source was installed by an older release", hint="Run `mirror install source`.")
        return row[0], row[1]

    async def begin_life(self) -> dict[str, Any]:
        """The life of the primary, which is that of this session: a crash ends both."""
        life: dict[str, Any] = (await self._row("select mirror.begin_life()"))[0]
        return life

    async def identity(self) -> dict[str, Any]:
        identity: dict[str, Any] = (await self._row("select mirror.identity()"))[0]
        return identity

    async def rings(self) -> bool:
        return bool((await self._row("select mirror.rings()"))[0])

    async def lead(self) -> bool:
        """Try to become the leader. Never waits inside a statement: that would hold a snapshot and stop vacuum."""
        return await self.lease.take()

    async def leader(self) -> Leader | None:
        row = await self._row("select l.name, l.until from mirror.leader() as l", [], ANSWER_S)
        return Leader(*row) if row else None

    async def assure_lead(self) -> None:
        """Before anything is written: is the lead certainly ours? Mostly that is one look at the clock."""
        if self.lease.left_s <= 0 and not await self.lead():
            raise Superseded("another daemon took the lead")

    async def drain(self, request: Request) -> Reading:
        document: dict[str, Any] = {
            "rows": request.rows,
            "bytes": request.bytes,
            "sleep": request.sleep,
            "asleep": self._asleep,
            "reached": request.reached,
            "skip": request.skip,
            "left": [{"table": w.table, "trip": w.trip} for w in request.left],
            "forget_wide": [{"table": w.table, "trip": w.trip, "snapshot": s} for w, s in request.forget_wide],
            "count": request.count,
            "backlog": request.backlog,
            "seek": request.seek,
        }
        if request.entries is not None:
            document["entries"] = request.entries
        if request.seen is not None:
            document["seen"] = request.seen
        if request.in_hand is not None:
            document["in_hand"] = request.in_hand.id
        if request.slice is not None:
            document["slice"] = request.slice.request()
        lead = self.lease.request()
        if lead is not None:
            document["lead"] = lead
        forget = [[taken.at for taken in request.forget], [taken.id for taken in request.forget]]
        reply, scopes, at, entry_id = await self._row(_DRAIN, [json.dumps(document), *forget])
        self._asleep = reply["asleep"]
        if lead is not None:
            self.lease.renewed(reply["as_of"])
        self.lease.heard(reply["as_of"])
        return _reading(reply, scopes or "", Taken(at, entry_id) if entry_id else None)

    async def mark_unmarked(self) -> None:
        """The target is not primed: every table that is not marked already has to be loaded."""
        await self._row(_MARK_UNMARKED)

    async def is_behind(self, snapshot: str | None) -> bool:
        """Has a target that equals this snapshot not seen what was forgotten for its sake?"""
        return bool((await self._row("select mirror.is_behind(%s)", [snapshot]))[0])

    async def report(self, request: int, state: str, progress: Any, result: Any = None) -> bool:
        """Tells an operator how a request goes; False when it was taken back."""
        written = [request, state, json.dumps(progress), None if result is None else json.dumps(result)]
        return bool((await self._row("select mirror.report(%s, %s, %s::jsonb, %s::jsonb)", written))[0])

    async def faults(self) -> list[Fault]:
        return faults_of((await self._row("select mirror.faults()"))[0])

    async def collapse(self, entries_max: int) -> bool:
        return bool((await self._row("select mirror.collapse(%s)", [entries_max]))[0])

    async def tidy(self) -> None:
        await self._row("select mirror.tidy(%s)", [TIDY_BYTES // 4])

    def watch(self, woken: Callable[[], None]) -> Callable[[], None]:
        """Calls back when the idle session says something by itself (it never does, unless it ends)."""
        loop, fd = asyncio.get_running_loop(), self._connection.fileno()
        loop.add_reader(fd, woken)

        def unwatch() -> None:
            loop.remove_reader(fd)

        return unwatch


def faults_of(said: list[Any]) -> list[Fault]:
    """Text is what a source of an earlier release says: of triggers, without their table."""
    return [
        Fault(**f) if isinstance(f, dict) else Fault("", "capture", f, "Run `mirror install source`.") for f in said
    ]


def _reading(reply: dict[str, Any], scopes: str, taken: Taken | None) -> Reading:
    return Reading(
        snapshot=reply["snapshot"],
        as_of=reply["as_of"],
        scopes=scopes,
        entries=reply["entries"],
        backlog=reply["backlog"],
        wide=tuple(Wide(w["table"], w["trip"]) for w in reply["wide"]),
        broken=reply["broken"],
        slice=reply["slice"],
        lag_s=float(reply["lag"] or 0),
        ages_s={table: float(age) for table, age in (reply.get("ages") or {}).items()},
        waiting=reply.get("waiting"),
        outbox_bytes=reply.get("outbox_bytes"),
        asleep=reply["asleep"],
        taken=taken,
        requests=tuple(reply["requests"] or ()),
        keys=reply["keys"],
        gone_left=reply["gone_left"],
        seen=reply.get("seen"),
        dropped=reply["dropped"],
    )
