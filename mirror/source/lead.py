"""The lead, as this process holds it: a lease in a row of the primary (schema/source/lead.sql), judged by its clock.

Here it is trusted for less than it lasts, on the monotonic clock, from before the request, and by the primary's clock
as often as that is heard (ours may be slow): who was paused, or cut off, writes nothing more. The drain renews it on
its way; only a batch that takes very long needs a renewal of its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mirror.errors import MirrorError, Superseded, Unreachable
from mirror.limits import CONNECT_S, HANDED_S, LEASE_MIN_S, LOOK_S, QUIET_S
from mirror.postgres import Session, connect, fetched

LEASE_SLEEPS = 2.4  # a daemon that sleeps renews when it looks, so that its lease outlasts two sleeps
RENEW_AFTER, KEEP_AFTER, TRUST = 1 / 3, 1 / 2, 0.9  # of a lease
TAKE_S, GIVE_BACK_S = float(CONNECT_S), 0.5
AGAIN_S = 0.5
# The life is numbered before the lead says anything new: what it says is what the primary remembers of earlier lives.
_LEAD = "select mirror.lead(%s, %s, %s, %s), clock_timestamp() from mirror.begin_life()"
# Has the server something to do for that session, or had it just now? (It cannot tell where track_activities is off.)
_AT_WORK = """
    select exists (
      select from pg_stat_get_activity(%s) as a
      where a.state is null or a.state = 'disabled'
         or a.state = 'active' and a.wait_event_type is distinct from 'Client'
         or a.state_change > clock_timestamp() - make_interval(secs => %s))
"""


def lease_s(sleep_s: float) -> float:
    """How long a lease lasts for a daemon that sleeps so long at most."""
    return max(LEASE_MIN_S, LEASE_SLEEPS * sleep_s)


class Holder:
    """Who leads: this process, through all its sessions. One that lost its session need not wait for its own lease."""

    def __init__(self, command: str) -> None:
        self.id = str(uuid.uuid4())
        self.name = f"mirror {command} on {socket.gethostname()}, process {os.getpid()}"


class _DeafError(Unreachable):
    """The working session is; the source is there."""


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, as the source says, and until when it need not be heard of."""

    name: str
    until: datetime

    def __str__(self) -> str:
        return f"the lease of {self.name}, until {self.until:%H:%M:%S} UTC"


class Lease:
    """`session`: the working session, by whose life the others judge whether the holder is alive."""

    def __init__(
        self,
        session: Session,
        holder: Holder,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._holder = holder
        self.seconds = seconds
        self._clock = clock
        self._renewed_at: float | None = None  # None: not ours
        self._theirs = datetime.max.replace(tzinfo=UTC)  # the primary's clock then
        self._asked_at = 0.0
        self._looked_at = float("-inf")

    @property
    def left_s(self) -> float:
        """For how long it may be trusted."""
        if self._renewed_at is None:
            return 0.0
        return self._renewed_at + TRUST * self.seconds - self._clock()

    async def take(self, session: Session | None = None) -> bool:
        """Takes it or renews it, in this session or another one."""
        began = self._clock()
        values = [self._holder.id, self.seconds, self._holder.name, self._session.info.backend_pid]
        taken, self._theirs = await fetched(session or self._session, "source", _LEAD, values, within_s=TAKE_S)
        self._renewed_at = began if taken else None
        return bool(taken)

    def request(self) -> dict[str, Any] | None:
        """What a drain takes along to renew it, when that is due."""
        self._asked_at = self._clock()
        if self._renewed_at is None or self._asked_at - self._renewed_at < RENEW_AFTER * self.seconds:
            return None
        return {"holder": self._holder.id, "seconds": self.seconds, "name": self._holder.name}

    def renewed(self, as_of: str) -> None:
        """That drain has answered."""
        self._renewed_at, self._theirs = self._asked_at, datetime.fromisoformat(as_of)

    def heard(self, as_of: str) -> None:
        """What the primary's clock says: more may have passed than ours has counted."""
        if self._renewed_at is not None:
            passed_s = (datetime.fromisoformat(as_of) - self._theirs).total_seconds()
            self._renewed_at = min(self._renewed_at, self._clock() - passed_s)

    async def keep(self, url: str, is_alive: Callable[[], bool]) -> None:
        """Beside the loop, for a batch that takes longer than drains are apart: renews over a session of its own, since
        the working one may be busy, or dead. Ends with an error when the lead is lost, the loop hangs, or the working
        session waits for an answer that the server has given."""
        while True:
            if self._renewed_at is None:
                raise Superseded("another daemon took the lead")
            wait_s = self._renewed_at + KEEP_AFTER * self.seconds - self._clock()
            if wait_s > 0 and not self._is_quiet():
                await asyncio.sleep(min(wait_s, LOOK_S))
                continue
            if not is_alive():
                raise Superseded("nothing was done for too long: the lead is given up")
            try:
                async with asyncio.timeout(max(0.0, self.left_s)):
                    await self._renew_beside(url)
            except (Superseded, _DeafError):
                raise
            except (MirrorError, TimeoutError) as error:
                if self.left_s <= AGAIN_S:
                    raise Superseded("the lead could not be renewed in time") from error
                await asyncio.sleep(AGAIN_S)

    def _is_quiet(self) -> bool:
        """The working session has waited long enough to be asked about, again."""
        return self._session.silent_s >= QUIET_S and self._clock() - self._looked_at >= QUIET_S

    async def _renew_beside(self, url: str) -> None:
        session = await connect(url, "source")
        try:
            if not await self.take(session):
                raise Superseded("another daemon took the lead")
            self._looked_at = self._clock()
            values = [self._session.info.backend_pid, HANDED_S]
            is_at_work = (await fetched(session, "source", _AT_WORK, values, within_s=TAKE_S))[0]
            if not is_at_work and self._session.silent_s >= QUIET_S:
                raise _DeafError("source", "the connection is dead: an answer did not arrive")
        finally:
            await session.close()

    async def give_back(self) -> None:
        """The standby need not wait. Where that does not work, the end of the session says the same."""
        if self._renewed_at is None:
            return
        self._renewed_at = None
        with suppress(MirrorError):
            await fetched(self._session, "source", "select mirror.unlead(%s)", [self._holder.id], within_s=GIVE_BACK_S)
