"""One connection: requests are answered one after the other, in the order in which they came, whoever answers them.

Rule: a request that cannot be read to its end is answered too, in its turn, and is the last one heard.
It is what uvicorn asks of a protocol class, without ASGI between: a task and its events would cost a delivery more than
its proof does (docs/decisions/0014). uvicorn has no deadline for receiving; `expire` keeps ours.
"""

import asyncio
from collections import deque
from typing import Any, Final, Protocol

from uvicorn.server import ServerState

from services.ingress import answers
from services.ingress.answers import Answer
from services.ingress.hearing import Hearing, Unreadable
from services.ingress.request import Request

CONNECTIONS_MAX: Final = 30_000
"""Above the greatest burst we promise to take (20,000 at once)."""

HELD_MAX_BYTES: Final = 128 * 1024 * 1024
"""Bodies that are not whole, and requests that wait for their turn, on all connections together; a body that would be
more is refused for now. One that comes in one piece with its head never counts."""

_TURNS_MAX: Final = 8
"""Requests that may wait for their turn; beyond it we read no further."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Application(Protocol):
    """Whoever answers.

    Attributes:
        held_bytes: What all connections hold of requests that cannot be answered yet; they keep it.
    """

    held_bytes: int

    def hear(self, request: Request) -> None:
        """The head is whole: note whose path it is, and `refusal` when that can be said already."""

    def take(self, request: Request) -> None:
        """The request is whole, or it has a `refusal`: answer it, now or later."""

    def answered(self, request: Request, now_s: float) -> None:
        """It has its answer, at this time of the loop's clock."""


class Connection(asyncio.Protocol):
    """One connection of a sender."""

    def __init__(self, application: Application, *, server_state: ServerState, **_unused: Any) -> None:
        """Begin one.

        Args:
            application: Whoever answers.
            server_state: Where uvicorn's server finds the connections at its end.
            **_unused: What else it gives every protocol.
        """
        self._loop = asyncio.get_running_loop()
        self._application = application
        self._all: set[Any] = server_state.connections
        self._transport: asyncio.Transport
        self._hearing = Hearing(self._begin, application.hear, self._expected, self._queue)
        self._turns: deque[Request] = deque()
        self._answering: Request | None = None
        self._held_bytes = 0
        self._advancing = False
        self._choked = False
        self._deaf = False
        self._waiting_since_s = self._loop.time()

    # What the transport tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Take the connection, unless there are too many."""
        self._transport = transport
        self._all.add(self)
        if len(self._all) > CONNECTIONS_MAX:
            self._cut(answers.CROWDED)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more; what is being answered is finished all the same."""
        del exc
        self._all.discard(self)
        self._turns.clear()
        self._deafen()

    def data_received(self, data: bytes) -> None:
        """Hear it, until something could not be read."""
        if self._deaf:
            return
        try:
            self._hearing.feed(data)
        except Unreadable as unreadable:
            self._cut(unreadable.answer)
        if self._held_bytes or self._hearing.held_bytes:
            self._hold()

    def eof_received(self) -> bool:
        """The sender writes nothing more; it may still read.

        Returns:
            Whether an answer is owed, so that the connection must stay.
        """
        if self._has_head():
            self._cut(answers.FRAMING)
        self._deafen()
        return self._answering is not None or bool(self._turns)

    def pause_writing(self) -> None:
        """The sender does not read: it is not answered either."""
        self._choked = True

    def resume_writing(self) -> None:
        """It reads again."""
        self._choked = False
        self._advance()

    # What uvicorn's server asks.

    def shutdown(self) -> None:
        """The process ends: close when nothing is owed, else behind the last answer."""
        request = self._hearing.request
        if request is not None and request.version:
            request.keeps = False
        elif self._answering is not None or self._turns:
            self._deafen()
        else:
            self._transport.close()

    def expire(self, now_s: float, receive_s: float, idle_s: float) -> None:
        """Cut off a sender who is too slow.

        Args:
            now_s: The loop's clock.
            receive_s: From the first byte of a request to its last, and from an answer until it is read.
            idle_s: From the connection, or the last answer, to the first byte.
        """
        if self._answering is not None:
            return
        request = self._hearing.request
        if self._choked or self._transport.is_closing():
            if now_s - self._waiting_since_s > receive_s:
                self._transport.abort()
        elif request is None:
            if now_s - self._waiting_since_s > idle_s:
                self._transport.close()
        elif now_s - request.begun_s > receive_s:
            self._cut(answers.LATE)

    # What is heard.

    def _begin(self) -> Request:
        return Request(self._loop.time(), self._reply)

    def _has_head(self) -> bool:
        request = self._hearing.request
        return request is not None and bool(request.version)

    def _expected(self) -> None:
        if self._answering is None and not self._turns:
            self._transport.write(_CONTINUE)

    def _hold(self) -> None:
        """Count what we hold, and refuse what is too much."""
        held_bytes = self._hearing.held_bytes + sum(len(request.body) for request in self._turns)
        self._application.held_bytes += held_bytes - self._held_bytes
        self._held_bytes = held_bytes
        request = self._hearing.request
        if request is not None and self._hearing.held_bytes and self._application.held_bytes > HELD_MAX_BYTES:
            request.refusal = answers.SATURATED
            self._hearing.drop()
            self._hold()

    def _cut(self, answer: Answer) -> None:
        """The request that is being heard ends here; so does hearing."""
        request = self._hearing.request or self._begin()
        self._deafen()
        request.keeps = False
        if request.refusal is None:
            request.refusal = answer
        self._queue(request)

    def _deafen(self) -> None:
        """Hear nothing more; what is owed is still answered."""
        self._deaf = True
        self._hearing.end()
        if self._held_bytes:
            self._hold()

    # Turns.

    def _queue(self, request: Request) -> None:
        if self._transport.is_closing():  # it was told that nothing more is heard
            return
        if self._answering is None and not self._turns and not self._choked:
            self._answering = request
            self._application.take(request)
            return
        self._turns.append(request)
        if len(self._turns) > _TURNS_MAX:
            self._transport.pause_reading()

    def _advance(self) -> None:
        """Let those who wait be answered, one after the other."""
        if self._advancing:
            return
        self._advancing = True
        while self._turns and self._answering is None and not self._choked:
            if len(self._turns) == _TURNS_MAX + 1:
                self._transport.resume_reading()
            self._answering = self._turns.popleft()
            self._application.take(self._answering)
        self._advancing = False

    def _reply(self, request: Request) -> None:
        now_s = self._loop.time()
        self._application.answered(request, now_s)
        answer, self._answering = request.given, None
        if answer is None or self._transport.is_closing():
            return
        last = answer.closes or not request.keeps or (self._deaf and not self._turns)
        data = answer.closing if last else answer.kept
        self._transport.write(data if request.method != b"HEAD" else data[: data.index(b"\r\n\r\n") + 4])
        self._waiting_since_s = now_s
        if last:
            self._turns.clear()
            self._deafen()
            self._transport.close()
            return
        if self._hearing.request is not None:  # it waited for us, not for its sender
            self._hearing.request.begun_s = now_s
        if self._turns:
            self._advance()
