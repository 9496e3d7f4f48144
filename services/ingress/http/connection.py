"""One connection: requests are taken as they come, and answered in the order in which they came.

Rule: nobody waits for another's answer, only for its turn to be written. A request that cannot be read to its end is
answered too, in its turn, and is the last one heard.
It is what uvicorn asks of a protocol class, without ASGI between: a task and its events would cost a delivery more than
its proof does (docs/decisions/0014). uvicorn has no deadline for receiving; `expire` keeps ours.
"""

import asyncio
from collections import deque
from typing import Any, Final, Protocol

from uvicorn.server import ServerState

from services.ingress.http import answers
from services.ingress.http.answers import Answer
from services.ingress.http.date_field import DateField
from services.ingress.http.parser import RequestParser, UnparsableRequest
from services.ingress.http.request import Request

CONNECTIONS_MAX: Final = 30_000
"""Above the greatest burst we promise to take (20,000 at once)."""

HELD_MAX_BYTES: Final = 128 * 1024 * 1024
"""Bodies that are not whole, on all connections together; one that would be more is refused for now. A body that comes
in one piece with its head never counts."""

_OWED_MAX: Final = 8
"""Answers that may be owed to one connection; beyond it we read no further."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestHandler(Protocol):
    """Whoever answers.

    Attributes:
        held_bytes: What all connections hold of bodies that are not whole; they keep it.
        date: The `Date` of every answer.
    """

    held_bytes: int
    date: DateField

    def on_headers(self, request: Request) -> None:
        """The head is whole: note whose path it is, and `refusal` when that can be said already."""

    def on_request(self, request: Request) -> None:
        """The request is whole, or it has a `refusal`: answer it, now or later."""

    def on_answered(self, request: Request, now_s: float) -> None:
        """It has its answer, at this time of the loop's clock."""


class Connection:
    """One connection of a sender: an asyncio.Protocol in all but descent, so that it is compiled to one flat class."""

    def __init__(self, application: RequestHandler, *, server_state: ServerState, **_unused: Any) -> None:
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
        self._parser = RequestParser(self._begin, application.on_headers, self._expected, self._queue)
        self._owed: deque[Request] = deque()
        self._held_bytes = 0
        self._paused = False
        self._write_paused = False
        self._read_closed = False
        self._expected_late = False
        self._waiting_since_s = self._loop.time()

    # What the transport tells.

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take the connection, unless there are too many."""
        self._transport = transport
        self._all.add(self)
        if len(self._all) > CONNECTIONS_MAX:
            self._fail(answers.CROWDED)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more; what was taken is finished all the same."""
        del exc
        self._all.discard(self)
        self._owed.clear()
        self._close_read()

    def data_received(self, data: bytes) -> None:
        """Hear it, until something could not be read."""
        if self._read_closed:
            return
        try:
            self._parser.feed(data)
        except UnparsableRequest as unreadable:
            if not self._read_closed:
                self._fail(unreadable.answer)
        if self._held_bytes or self._parser.held_bytes:
            self._hold()

    def eof_received(self) -> bool:
        """The sender writes nothing more; it may still read.

        Returns:
            Whether an answer is owed, so that the connection must stay.
        """
        request = self._parser.request
        if request is not None and request.version:
            self._fail(answers.FRAMING)
        self._close_read()
        return bool(self._owed)

    def pause_writing(self) -> None:
        """The sender does not read: we read no further either."""
        self._write_paused = True
        self._read_or_not()

    def resume_writing(self) -> None:
        """It reads again."""
        self._write_paused = False
        self._read_or_not()

    # What uvicorn's server asks.

    def shutdown(self) -> None:
        """The process ends: close when nothing is owed or begun, else behind the last answer."""
        request = self._parser.request
        if request is not None:
            request.keeps = False  # where its head is still to come, whoever hears that says so again
        elif self._owed:
            self._close_read()
        else:
            self._transport.close()

    def expire(self, now_s: float, receive_s: float, idle_s: float) -> None:
        """Cut off a sender who is too slow.

        Args:
            now_s: The loop's clock.
            receive_s: From the first byte of a request to its last, and from an answer until it is read.
            idle_s: From the connection, or the last answer, to the first byte.
        """
        request = self._parser.request
        if self._write_paused or self._transport.is_closing():
            if now_s - self._waiting_since_s > receive_s:
                self._transport.abort()
        elif request is not None:
            if now_s - request.begun_s > receive_s and not self._paused:
                self._fail(answers.LATE)
        elif not self._owed and now_s - self._waiting_since_s > idle_s:
            self._transport.close()

    # What is heard.

    def _begin(self) -> Request:
        return Request(self._loop.time(), self._reply)

    def _expected(self) -> None:
        if self._owed:
            self._expected_late = True
        else:
            self._transport.write(_CONTINUE)

    def _hold(self) -> None:
        """Count what we hold, and refuse what is too much."""
        held_bytes = self._parser.held_bytes
        self._application.held_bytes += held_bytes - self._held_bytes
        self._held_bytes = held_bytes
        request = self._parser.request
        if request is not None and held_bytes and self._application.held_bytes > HELD_MAX_BYTES:
            request.refusal = answers.SATURATED
            self._parser.drop()
            self._hold()

    def _fail(self, answer: Answer) -> None:
        """The request that is being heard ends here; so does hearing."""
        request = self._parser.request or self._begin()
        self._close_read()
        request.keeps = False
        if request.refusal is None:
            request.refusal = answer
        self._queue(request)

    def _close_read(self) -> None:
        """Hear nothing more; what is owed is still answered."""
        self._read_closed = True
        self._parser.end()
        if self._held_bytes:
            self._hold()

    # Turns.

    def _queue(self, request: Request) -> None:
        if self._read_closed and request.refusal is None:  # its sender was told, or said, that nothing more is heard
            return
        self._owed.append(request)
        if not request.keeps or (request.refusal is not None and request.refusal.closes):
            self._close_read()
        elif len(self._owed) > _OWED_MAX:
            self._read_or_not()
        self._application.on_request(request)

    def _read_or_not(self) -> None:
        pause = self._write_paused or len(self._owed) > _OWED_MAX
        if pause and not self._paused:
            self._transport.pause_reading()
        elif self._paused and not pause:
            self._transport.resume_reading()
            if self._parser.request is not None:  # it waited for us, not for its sender
                self._parser.request.begun_s = self._loop.time()
        self._paused = pause

    def _reply(self, request: Request) -> None:
        """One of those owed has its answer; write what has its turn."""
        now_s = self._loop.time()
        owed, transport = self._owed, self._transport
        while owed and (answer := owed[0].given) is not None and not transport.is_closing():
            first = owed.popleft()
            last = answer.closes or not first.keeps or (self._read_closed and not owed)
            data = answer.line + self._application.date.at(now_s) + (answer.closing if last else answer.kept)
            transport.write(data if first.method != b"HEAD" else data[: data.index(b"\r\n\r\n") + 4])
            self._waiting_since_s = now_s
            if last:
                owed.clear()
                self._close_read()
                transport.close()
        if self._paused or self._expected_late:
            self._go_on()
        self._application.on_answered(request, now_s)

    def _go_on(self) -> None:
        """An answer less is owed."""
        if not self._transport.is_closing():
            self._read_or_not()
            request = self._parser.request
            if self._expected_late and not self._owed:
                self._expected_late = False
                if request is not None and request.version and not request.size_bytes:
                    self._transport.write(_CONTINUE)
