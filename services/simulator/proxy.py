"""The tenants' database behind a proxy: faults by what a transaction announces, and the call list of `schemas`.

Rule: the database is the real one and is never spoken for, except by a fault. What came of a call is read from the
wire: a COMMIT that the server confirmed, an error, a rollback. A transaction that announces nothing passes untouched.
A call that takes several transactions announces itself in each; the proxy takes those that follow each other for one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from services.core.saga.calls import Verb
from services.simulator.faults import FaultKind, Struck, System
from services.simulator.pgwire import (
    CANCEL_REQUEST,
    GSS_REQUEST,
    SSL_REQUEST,
    Announced,
    PgMessage,
    announced,
    error,
    read_message,
    read_start,
)
from services.simulator.world import Arrival, CallOutcome, OutsideWorld

_REFUSAL_CLASSES: Final = ("22", "23", "2B", "42")
_INJECTED: Final = {
    FaultKind.REFUSE: ("22023", CallOutcome.REFUSED),
    FaultKind.UNAUTHORIZED: ("28P01", CallOutcome.REFUSED),
    FaultKind.ERROR: ("53300", CallOutcome.ERROR),
}
_ENDED: Final = (OSError, EOFError, asyncio.IncompleteReadError)

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class _Watched:
    """What one announced call did so far."""

    call: Announced
    struck: Struck
    tags: list[str] = field(default_factory=list)
    sqlstate: str | None = None
    rolled_back: bool = False
    told: bool = False
    undecided: bool = False

    @property
    def arrival(self) -> Arrival:
        return Arrival(
            System.SCHEMAS, self.call.verb, self.call.key, self.call.generation, 0, self.call.idempotency_key
        )

    @property
    def decides(self) -> bool:
        """Whether a COMMIT now says what came of the call; a schema's tables go in transactions of their own."""
        dropped = [tag for tag in self.tags if tag.startswith("DROP ") and tag != "DROP ROLE"]
        return self.call.verb is not Verb.DELETE or not dropped or "DROP SCHEMA" in dropped

    @property
    def committed(self) -> CallOutcome:
        """What a confirmed COMMIT means: absent when it found nothing to drop or to read."""
        if self.call.verb is Verb.DELETE and "DROP SCHEMA" not in self.tags:
            return CallOutcome.ABSENT
        selected = [tag for tag in self.tags if tag.startswith("SELECT")]
        if self.call.verb is Verb.READ and selected[-1:] == ["SELECT 0"]:
            return CallOutcome.ABSENT
        return CallOutcome.DONE

    @property
    def unfinished(self) -> CallOutcome:
        """What a transaction that ended without COMMIT means; who rolls back without an error refuses itself."""
        if self.sqlstate is not None:
            return CallOutcome.REFUSED if self.sqlstate.startswith(_REFUSAL_CLASSES) else CallOutcome.ERROR
        return CallOutcome.REFUSED if self.rolled_back else CallOutcome.ERROR


@dataclass(slots=True)
class _Session:
    """One client's connection, and the call that its transaction is for."""

    watched: _Watched | None = None
    in_transaction: bool = False

    def is_over_for(self, call: Announced | None) -> bool:
        """True if this call, or none, begins the next transaction, and the last one was for another call."""
        return self.watched is not None and self.watched.undecided and self.watched.call != call


class Proxy:
    """Accepts PostgreSQL clients for one real server."""

    def __init__(self, world: OutsideWorld, target: tuple[str, int]) -> None:
        self._world = world
        self._target = target

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Listen; the server's sockets tell the port."""
        return await asyncio.start_server(self._accept, host, port, backlog=512)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(*_ENDED, ValueError):
            await self._session((reader, writer))
        writer.close()

    async def _session(self, client: Wire) -> None:
        code, start = await read_start(client[0])
        while code in {SSL_REQUEST, GSS_REQUEST}:
            client[1].write(b"N")
            code, start = await read_start(client[0])
        server = await asyncio.open_connection(*self._target)
        server[1].write(start)
        if code == CANCEL_REQUEST:
            await _both(server, lambda: _copy(client, server), lambda: _copy(server, client))
            return
        session = _Session()
        try:
            await _both(
                server,
                lambda: self._from_client(client, server, session),
                lambda: self._from_server(server, client, session),
            )
        finally:
            self._end(session)

    async def _from_client(self, client: Wire, server: Wire, session: _Session) -> None:
        while True:
            message = await read_message(client[0])
            statement = message.starts
            call = announced(statement) if statement is not None else None
            if statement is not None and session.is_over_for(call):
                self._end(session)
            if call is not None and session.watched is None:
                session.watched = await self._struck(call)
                ending = session.watched.struck.ending
                if ending is FaultKind.DOWN:
                    session.watched.told = True
                    return
                if ending in _INJECTED:
                    sqlstate, outcome = _INJECTED[ending]
                    self._tell(session.watched, outcome)
                    session.watched = None
                    await _answer_error(client, message, sqlstate, in_transaction=session.in_transaction)
                    continue
            if session.watched is not None and statement is not None:
                session.watched.undecided = False
                session.watched.rolled_back |= statement.upper().startswith("ROLLBACK")
            server[1].write(message.raw)
            await server[1].drain()

    async def _struck(self, call: Announced) -> _Watched:
        struck = self._world.faults.strike(System.SCHEMAS, call.verb, call.key, time.monotonic())
        if wait_s := self._world.latency_s + struck.wait_s:
            await asyncio.sleep(wait_s)
        return _Watched(call, struck)

    async def _from_server(self, server: Wire, client: Wire, session: _Session) -> None:
        while True:
            message = await read_message(server[0])
            if message.kind == b"Z":
                session.in_transaction = message.body != b"I"
            watched = session.watched
            if watched is not None:
                if message.kind == b"E":
                    watched.sqlstate = message.sqlstate
                elif message.kind == b"C":
                    watched.tags.append(message.text)
                    if message.text == "COMMIT" and watched.decides and not watched.told:
                        lost = watched.struck.ending is FaultKind.LOST_ANSWER
                        self._tell(watched, CallOutcome.LOST if lost else watched.committed)
                        if lost:
                            return
                elif message.kind == b"Z" and not session.in_transaction:
                    watched.undecided = watched.tags[-1:] == ["COMMIT"]
                    if not watched.undecided or watched.told:
                        self._end(session)
            client[1].write(message.raw)
            await client[1].drain()

    def _end(self, session: _Session) -> None:
        """Put the call on the list that a session was at, as it stands."""
        if session.watched is not None:
            self._tell(session.watched, session.watched.unfinished)
            session.watched = None

    def _tell(self, watched: _Watched, outcome: CallOutcome) -> None:
        """Put the call on the list, once."""
        if not watched.told:
            watched.told = True
            self._world.record(watched.arrival, outcome)


async def _answer_error(client: Wire, message: PgMessage, sqlstate: str, *, in_transaction: bool) -> None:
    """Answer a statement with an error; of an extended query the rest is skipped up to its Sync."""
    while message.kind not in {b"Q", b"S"}:
        message = await read_message(client[0])
    client[1].write(error(sqlstate, "injected by the simulator", in_transaction=in_transaction))
    await client[1].drain()


async def _copy(source: Wire, sink: Wire) -> None:
    while part := await source[0].read(1 << 16):
        sink[1].write(part)
        await sink[1].drain()


async def _both(server: Wire, *pumps: Callable[[], Awaitable[None]]) -> None:
    """Run two pumps until one ends, then end the server's connection."""
    tasks = [asyncio.ensure_future(pump()) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        server[1].close()
    for end in ends:
        if isinstance(end, Exception) and not isinstance(end, _ENDED):
            raise end
