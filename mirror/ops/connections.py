"""Clients that are slow, silent or too many. uvicorn waits for ever for the rest of a request, and accepts until the
process has no file descriptor left, not even for a database."""

from __future__ import annotations

import asyncio
import resource
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_TIMEOUT_S = 10.0  # for all of a request, from the first chance to say it; for taking the answer as well
CONNECTIONS_MAX = 12_000
FILES_WANTED, FILES_RESERVED = 16_384, 256


def connections_max() -> int:
    """As many as there are files for, less what the mirror itself needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES_WANTED:
        soft = FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, FILES_WANTED)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else min(CONNECTIONS_MAX, soft - FILES_RESERVED)
    return max(16, room)


class Unfinished:
    """The connections that wait for their client (to say all of a request, or to take an answer), the oldest first."""

    def __init__(self, connections_max: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.connections_max = connections_max
        self._clock = clock
        self._since: OrderedDict[Patient, float] = OrderedDict()

    def begin(self, connection: Patient) -> None:
        self._since[connection] = self._clock()
        self._since.move_to_end(connection)

    def end(self, connection: Patient) -> None:
        self._since.pop(connection, None)

    def make_room(self) -> bool:
        """Who has said nothing for longest goes first."""
        if not self._since:
            return False
        self._since.popitem(last=False)[0].transport.abort()
        return True

    def sweep(self) -> None:
        too_old = self._clock() - REQUEST_TIMEOUT_S
        while self._since and next(iter(self._since.values())) < too_old:
            self.make_room()


class Patient(H11Protocol):
    """Patient, but not for ever."""

    unfinished: Unfinished

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn itself
        super().connection_made(transport)
        if len(self.connections) > self.unfinished.connections_max and not self.unfinished.make_room():
            transport.abort()
        self.unfinished.begin(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._note_progress()

    def on_response_complete(self) -> None:
        self.unfinished.begin(self)
        super().on_response_complete()
        self._note_progress()  # the next one may have come already

    def resume_writing(self) -> None:
        super().resume_writing()
        self._note_progress()

    def connection_lost(self, exc: Exception | None) -> None:
        self.unfinished.end(self)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Once. Whoever talks nonsense after our answer (in a body that nobody wanted) has no right to another one, and
        an endpoint that is still at work on the request before has nobody to answer any more."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def _note_progress(self) -> None:
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY) and not self.flow.write_paused:
            self.unfinished.end(self)


def protocol(unfinished: Unfinished) -> type[asyncio.Protocol]:
    """uvicorn makes the objects; this is the class for one server."""
    members: dict[str, Any] = {"unfinished": unfinished}
    return type("Patient", (Patient,), members)
