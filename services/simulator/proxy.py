"""The proxy before the tenants' database: injects faults of system `schemas`, and keeps the call list of `schemas`.

Problem: the tenants' database is a real PostgreSQL, yet faults must strike its calls, and the call list must be right.
Connections are shared by pools and by PgBouncer, so neither a connection nor a login identifies a call.

Approach: each transaction announces its call by `set_config('lifecycle.call', …, true)`. The proxy forwards all
messages unchanged and reads along in both directions. An announcement makes the faults strike. The outcome of the call
follows from the messages of the server: a confirmed COMMIT, an error, or a rollback.

A call may take several transactions (a teardown drops tables in batches), and announces itself in each. Consecutive
transactions of a connection with equal announcements are one call with one entry in the list. So a COMMIT may leave the
outcome open. Then an equal announcement continues the call; any statement but an equal announcement, and the end of the
connection, end the call as unfinished.

Invariants:

- Only a fault makes the proxy answer in place of the server. A transaction without an announcement passes untouched.
- A call is recorded once, and before the client gets the server's COMMIT. A client that has seen the answer finds the
  call in the list.
- A call struck by `down` is not recorded at all.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from services.core.saga.calls import Verb
from services.simulator.faults import FaultEffect, FaultKind, System
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
from services.simulator.world import CallOutcome, IncomingCall, OutsideWorld

_REFUSAL_CLASSES: Final = ("22", "23", "2B", "42")
"""Classes of SQLSTATE that a repeat of the call would get again: data exception, integrity constraint violation,
dependent privileges still exist, syntax error or access rule violation."""
_INJECTED: Final = {
    FaultKind.REFUSE: ("22023", CallOutcome.REFUSED),
    FaultKind.UNAUTHORIZED: ("28P01", CallOutcome.REFUSED),
    FaultKind.ERROR: ("53300", CallOutcome.ERROR),
}
"""Fault to the SQLSTATE of the injected error and the outcome recorded: invalid_parameter_value, invalid_password,
too_many_connections."""
_ENDED: Final = (OSError, EOFError, asyncio.IncompleteReadError)

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class _TrackedCall:
    """An announced call, and the messages of its transactions so far.

    Attributes:
        call: The announcement.
        effect: The effect of the faults.
        tags: Command tags of the completed statements, in order (`DROP SCHEMA`, `SELECT 1`, `COMMIT`).
        sqlstate: SQLSTATE of the last error.
        rolled_back: True after a ROLLBACK of the client.
        settled: True if the call list needs no further entry for this call.
        awaits_more: True between two transactions: the last one committed without deciding the outcome.
    """

    call: Announced
    effect: FaultEffect
    tags: list[str] = field(default_factory=list)
    sqlstate: str | None = None
    rolled_back: bool = False
    settled: bool = False
    awaits_more: bool = False

    @property
    def incoming_call(self) -> IncomingCall:
        """The call for the call list. The epoch is 0, since the database checks the epoch itself (its fence table)."""
        return IncomingCall(
            System.SCHEMAS, self.call.verb, self.call.key, self.call.generation, 0, self.call.idempotency_key
        )

    @property
    def decides(self) -> bool:
        """True if a COMMIT now decides the outcome.

        A teardown drops the tables of a schema in transactions of their own. A COMMIT after such a batch, without a
        DROP SCHEMA so far, decides nothing yet.
        """
        dropped = [tag for tag in self.tags if tag.startswith("DROP ") and tag != "DROP ROLE"]
        return self.call.verb is not Verb.DELETE or not dropped or "DROP SCHEMA" in dropped

    @property
    def committed(self) -> CallOutcome:
        """The outcome after a COMMIT: absent if a DELETE dropped no schema or a READ found no row, else done."""
        if self.call.verb is Verb.DELETE and "DROP SCHEMA" not in self.tags:
            return CallOutcome.ABSENT
        selected = [tag for tag in self.tags if tag.startswith("SELECT")]
        if self.call.verb is Verb.READ and selected[-1:] == ["SELECT 0"]:
            return CallOutcome.ABSENT
        return CallOutcome.DONE

    @property
    def unfinished(self) -> CallOutcome:
        """The outcome without a deciding COMMIT.

        A rollback without an error counts as refused: the client itself has decided against the call.
        """
        if self.sqlstate is not None:
            return CallOutcome.REFUSED if self.sqlstate.startswith(_REFUSAL_CLASSES) else CallOutcome.ERROR
        return CallOutcome.REFUSED if self.rolled_back else CallOutcome.ERROR


@dataclass(slots=True)
class _Session:
    """The state of a client's connection.

    Attributes:
        tracked: The call of the present transaction, or a call between two of its transactions; None without a call.
        in_transaction: True between BEGIN and COMMIT or ROLLBACK, as the server's last ReadyForQuery reported.
    """

    tracked: _TrackedCall | None = None
    in_transaction: bool = False

    def ends_before(self, call: Announced | None) -> bool:
        """True if a statement with this announcement (None: without one) ends the tracked call.

        Only a call between two transactions can end by a statement; an equal announcement continues the call.
        """
        return self.tracked is not None and self.tracked.awaits_more and self.tracked.call != call


class Proxy:
    """Accepts PostgreSQL clients and connects each to the real server. For one event loop."""

    def __init__(self, world: OutsideWorld, target: tuple[str, int]) -> None:
        self._world = world
        self._target = target

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Starts to listen; with port 0 the port is that of the returned server's socket."""
        return await asyncio.start_server(self._accept, host, port, backlog=512)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves a client until either connection ends.

        The end of a connection is no error, nor is a client with a foreign protocol.
        """
        with suppress(*_ENDED, ValueError):
            await self._session((reader, writer))
        writer.close()

    async def _session(self, client: Connection) -> None:
        """Connects to the server, and forwards in both directions until one end closes."""
        code, start = await read_start(client[0])
        # The proxy must read the messages, so encryption is declined with N; the client then sends the real start.
        while code in {SSL_REQUEST, GSS_REQUEST}:
            client[1].write(b"N")
            code, start = await read_start(client[0])
        server = await asyncio.open_connection(*self._target)
        server[1].write(start)
        # A cancel request has a connection of its own, without messages.
        if code == CANCEL_REQUEST:
            await _run_until_one_ends(server, lambda: _copy(client, server), lambda: _copy(server, client))
            return
        session = _Session()
        try:
            await _run_until_one_ends(
                server,
                lambda: self._from_client(client, server, session),
                lambda: self._from_server(server, client, session),
            )
        finally:
            # The connection ended inside a call: nothing was confirmed.
            self._finish_call(session)

    async def _from_client(self, client: Connection, server: Connection, session: _Session) -> None:
        """Forwards the client's messages, and lets faults strike the announced calls; returns to end the connection."""
        while True:
            message = await read_message(client[0])
            statement = message.starts
            call = announced(statement) if statement is not None else None
            if statement is not None and session.ends_before(call):
                self._finish_call(session)
            if call is not None and session.tracked is None:
                session.tracked = await self._track(call)
                ending = session.tracked.effect.ending
                if ending is FaultKind.DOWN:
                    # Settled without an entry: no trace of a call to a system that is down.
                    session.tracked.settled = True
                    return
                if ending in _INJECTED:
                    sqlstate, outcome = _INJECTED[ending]
                    self._record(session.tracked, outcome)
                    session.tracked = None
                    await _answer_error(client, message, sqlstate, in_transaction=session.in_transaction)
                    continue  # the statement does not reach the server
            if session.tracked is not None and statement is not None:
                # The next transaction of the call has begun, or the present one goes on.
                session.tracked.awaits_more = False
                session.tracked.rolled_back |= statement.upper().startswith("ROLLBACK")
            server[1].write(message.raw)
            await server[1].drain()

    async def _track(self, call: Announced) -> _TrackedCall:
        effect = self._world.faults.strike(System.SCHEMAS, call.verb, call.key, time.monotonic())
        if wait_s := self._world.latency_s + effect.wait_s:
            await asyncio.sleep(wait_s)
        return _TrackedCall(call, effect)

    async def _from_server(self, server: Connection, client: Connection, session: _Session) -> None:
        """Forwards the server's messages, and records the outcome of calls; returns to end the connection."""
        # E is ErrorResponse, C is CommandComplete, Z is ReadyForQuery with I for "outside of a transaction".
        while True:
            message = await read_message(server[0])
            if message.kind == b"Z":
                session.in_transaction = message.body != b"I"
            tracked = session.tracked
            if tracked is not None:
                if message.kind == b"E":
                    tracked.sqlstate = message.sqlstate
                elif message.kind == b"C":
                    tracked.tags.append(message.text)
                    if message.text == "COMMIT" and tracked.decides and not tracked.settled:
                        lost = tracked.effect.ending is FaultKind.LOST_ANSWER
                        # Before the COMMIT is forwarded: a client that has its answer must find the call in the list.
                        self._record(tracked, CallOutcome.LOST if lost else tracked.committed)
                        if lost:
                            return  # the server has committed, and the client never gets the answer
                elif message.kind == b"Z" and not session.in_transaction:
                    # The transaction is over. After a COMMIT without a recorded outcome a further transaction may
                    # follow; after an error or a rollback the call has failed.
                    tracked.awaits_more = tracked.tags[-1:] == ["COMMIT"]
                    if not tracked.awaits_more or tracked.settled:
                        self._finish_call(session)
            client[1].write(message.raw)
            await client[1].drain()

    def _finish_call(self, session: _Session) -> None:
        """Records the tracked call as unfinished, unless the call is settled, and forgets the call."""
        if session.tracked is not None:
            self._record(session.tracked, session.tracked.unfinished)
            session.tracked = None

    def _record(self, tracked: _TrackedCall, outcome: CallOutcome) -> None:
        """Adds the call to the call list; a settled call is not added again."""
        if not tracked.settled:
            tracked.settled = True
            self._world.record(tracked.incoming_call, outcome)


async def _answer_error(client: Connection, message: PgMessage, sqlstate: str, *, in_transaction: bool) -> None:
    """Answers a statement with an error, and drops the remaining messages of the statement.

    Raises:
        asyncio.IncompleteReadError: The client closed the connection.
    """
    # After an error in an extended query (Parse, Bind, Execute) the protocol skips all messages up to Sync. A simple
    # query is one message.
    while message.kind not in {b"Q", b"S"}:
        message = await read_message(client[0])
    client[1].write(error(sqlstate, "injected by the simulator", in_transaction=in_transaction))
    await client[1].drain()


async def _copy(source: Connection, sink: Connection) -> None:
    """Forwards bytes until the source ends."""
    while part := await source[0].read(1 << 16):
        sink[1].write(part)
        await sink[1].drain()


async def _run_until_one_ends(server: Connection, *pumps: Callable[[], Awaitable[None]]) -> None:
    """Runs both directions until the first ends, cancels the second, and closes the server's connection.

    Raises:
        Exception: An error of a direction, except for the end of a connection.
    """
    tasks = [asyncio.ensure_future(pump()) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        # Waits until both have ended: a cancelled direction must not write to a closed connection.
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        server[1].close()
    for end in ends:
        if isinstance(end, Exception) and not isinstance(end, _ENDED):
            raise end
