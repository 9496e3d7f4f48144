"""A sender's connection: parses requests as their bytes come, answers in the order of the requests, keeps deadlines.

Problem: uvicorn's ASGI cycle makes a task, a scope and two events for each request, which costs about as much as proof,
parsing and producing together (docs/decisions/0014), and uvicorn has no deadline for receiving a request. This protocol
class takes the place of uvicorn's, without ASGI: plain calls lead from the last byte of a request to the producer.

Approach: a sender may pipeline. Every complete request goes to the application at once and waits in `_unanswered`; no
request waits for the acknowledgement of another. An early answer is kept in the request (`given`), and `_write_answers`
writes from the front of the queue as far as requests are answered. An unparsable request is refused in its turn, and is
the last of the connection.

Invariants:

- Answers leave in the order of the requests, and nothing is written behind an answer with `Connection: close`.
- Once `_read_closed` is set the parser is ended, and no byte is parsed any more. Requests taken before are still
  answered; losing the connection cancels no write to Kafka or to the spool.
- `_application.held_bytes` is the sum of `_held_bytes` of all connections: each change goes through `_count_held`.
- Reading pauses while the sender does not read, or has more than `_UNANSWERED_MAX` requests unanswered. The deadline
  of receiving a request does not run while reading is paused.

All methods run on the event loop, and calls nest: the transport may call `pause_writing` from within `write`, and the
application may answer from within `on_request`. A method must leave the state consistent before calling out.
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
"""Above the greatest burst that is promised (20,000 connections at once)."""

HELD_MAX_BYTES: Final = 128 * 1024 * 1024
"""Cap of incomplete bodies on all connections together; a body beyond it is refused with 503. A body that comes in one
piece with its head never counts."""

_UNANSWERED_MAX: Final = 8
"""Unanswered requests of a connection beyond which reading pauses. Requests in bytes read before are still taken."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestHandler(Protocol):
    """The application behind all connections of a process.

    Attributes:
        held_bytes: Bytes of incomplete bodies on all connections; the connections keep the sum.
        date: The `Date` line of every answer.
    """

    held_bytes: int
    date: DateField

    def on_headers(self, request: Request) -> None:
        """Sets `endpoint` of a request with a complete head, and `refusal` where the head alone decides."""

    def on_request(self, request: Request) -> None:
        """Answers a request that is complete or has a `refusal`, now or later."""

    def on_answered(self, request: Request, now_s: float) -> None:
        """Counts an answered request; `now_s` is the loop's clock."""


class Connection:
    """The asyncio protocol of a connection. Without asyncio.Protocol as base, mypyc makes this a flat class."""

    def __init__(self, application: RequestHandler, *, server_state: ServerState, **_unused: Any) -> None:
        """Prepares for a connection; uvicorn's server calls this.

        Args:
            application: Answers the requests.
            server_state: uvicorn's state; the server shuts down the `connections` in the state at the end.
            **_unused: Further arguments of uvicorn to every protocol class.
        """
        self._loop = asyncio.get_running_loop()
        self._application = application
        self._connections: set[Any] = server_state.connections
        self._transport: asyncio.Transport
        self._parser = RequestParser(
            self._new_request, application.on_headers, self._on_expect_continue, self._on_complete
        )
        self._unanswered: deque[Request] = deque()
        self._held_bytes = 0
        self._read_paused = False
        self._write_paused = False
        self._read_closed = False
        self._owes_continue = False
        self._last_write_s = self._loop.time()

    # Called by the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Registers the connection; refuses a connection beyond `CONNECTIONS_MAX` with 503."""
        self._transport = transport
        self._connections.add(self)
        if len(self._connections) > CONNECTIONS_MAX:
            self._fail(answers.CROWDED)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection. Only answers are lost: the records of requests taken before are still written."""
        del exc
        self._connections.discard(self)
        self._unanswered.clear()
        self._close_read()

    def data_received(self, data: bytes) -> None:
        """Parses bytes, and refuses an unparsable request."""
        if self._read_closed:
            return
        try:
            self._parser.feed(data)
        except UnparsableRequest as unparsable:
            # Reading may have been closed while these bytes were parsed: the last answer is decided then, and the
            # error is only how the parser was stopped.
            if not self._read_closed:
                self._fail(unparsable.answer)
        if self._held_bytes or self._parser.held_bytes:
            self._count_held()

    def eof_received(self) -> bool:
        """Ends reading when the sender has closed the sending side; the sender may still read.

        Returns:
            True if an answer is outstanding: the transport must stay open.
        """
        request = self._parser.request
        # Without a complete head (`version`) nothing was asked, and nothing is answered.
        if request is not None and request.version:
            self._fail(answers.FRAMING)
        self._close_read()
        return bool(self._unanswered)

    def pause_writing(self) -> None:
        """Pauses reading while the sender does not read: answers must not pile up."""
        self._write_paused = True
        self._update_reading()

    def resume_writing(self) -> None:
        """Resumes reading when the sender reads again."""
        self._write_paused = False
        self._update_reading()

    # Called by the server.

    def shutdown(self) -> None:
        """Closes an idle connection; else lets the next or the last outstanding answer close the connection."""
        request = self._parser.request
        if request is not None:
            # Completing a head sets `keep_alive` anew; a draining application then clears it again.
            request.keep_alive = False
        elif self._unanswered:
            self._close_read()
        else:
            self._transport.close()

    def expire(self, now_s: float, receive_s: float, idle_s: float) -> None:
        """Ends the connection of a slow sender.

        Args:
            now_s: The loop's clock, seconds.
            receive_s: Limit from the first byte of a request to the last, and for reading a written answer.
            idle_s: Limit from the last answer, or the beginning of the connection, to the first byte of a request.
        """
        request = self._parser.request
        if self._write_paused or self._transport.is_closing():
            # `close` would first send the buffered answer, and never end where the sender does not read.
            if now_s - self._last_write_s > receive_s:
                self._transport.abort()
        elif request is not None:
            if now_s - request.begun_s > receive_s and not self._read_paused:
                self._fail(answers.LATE)
        elif not self._unanswered and now_s - self._last_write_s > idle_s:
            self._transport.close()

    # Parsing, and its end.

    def _new_request(self) -> Request:
        return Request(self._loop.time(), self._write_answers)

    def _on_expect_continue(self) -> None:
        # A 100 belongs to the request at the front. Behind unanswered requests it would be read as an answer to one of
        # them, so it waits until their answers are written (`_after_write`).
        if self._unanswered:
            self._owes_continue = True
        else:
            self._transport.write(_CONTINUE)

    def _count_held(self) -> None:
        """Updates the sum of held bytes; refuses and drops this connection's body where the sum is beyond the cap."""
        held_bytes = self._parser.held_bytes
        self._application.held_bytes += held_bytes - self._held_bytes
        self._held_bytes = held_bytes
        request = self._parser.request
        if request is not None and held_bytes and self._application.held_bytes > HELD_MAX_BYTES:
            request.refusal = answers.SATURATED
            self._parser.drop()
            self._count_held()

    def _fail(self, answer: Answer) -> None:
        """Refuses the request under way, or a request made for the refusal alone, and closes reading."""
        request = self._parser.request or self._new_request()
        self._close_read()  # first: when the application answers at once, the parser must have let go of the request
        request.keep_alive = False
        if request.refusal is None:
            request.refusal = answer
        self._on_complete(request)

    def _close_read(self) -> None:
        """Stops parsing for good; unanswered requests are still answered."""
        self._read_closed = True
        self._parser.end()
        if self._held_bytes:
            self._count_held()

    # Requests in their order, and their answers.

    def _on_complete(self, request: Request) -> None:
        # Behind the request that ends the connection only a refusal is queued: any other request would be written to
        # Kafka without ever being answered.
        if self._read_closed and request.refusal is None:
            return
        self._unanswered.append(request)
        if not request.keep_alive or (request.refusal is not None and request.refusal.closes):
            self._close_read()
        elif len(self._unanswered) > _UNANSWERED_MAX:
            self._update_reading()
        self._application.on_request(request)

    def _update_reading(self) -> None:
        """Pauses or resumes reading as `_write_paused` and the number of unanswered requests demand."""
        pause = self._write_paused or len(self._unanswered) > _UNANSWERED_MAX
        if pause and not self._read_paused:
            self._transport.pause_reading()
        elif self._read_paused and not pause:
            self._transport.resume_reading()
            if self._parser.request is not None:  # the sender could not go on, so its deadline begins anew
                self._parser.request.begun_s = self._loop.time()
        self._read_paused = pause

    def _write_answers(self, request: Request) -> None:
        """Writes all answers whose turn has come; called for each request as soon as answered, in any order."""
        now_s = self._loop.time()
        unanswered, transport = self._unanswered, self._transport
        while unanswered and (answer := unanswered[0].given) is not None and not transport.is_closing():
            first = unanswered.popleft()
            last = answer.closes or not first.keep_alive or (self._read_closed and not unanswered)
            data = answer.status_line + self._application.date.at(now_s) + (answer.closing if last else answer.kept)
            # An answer to HEAD has the fields of the whole answer, and no content.
            transport.write(data if first.method != b"HEAD" else data[: data.index(b"\r\n\r\n") + 4])
            self._last_write_s = now_s
            if last:
                unanswered.clear()
                self._close_read()
                transport.close()
        if self._read_paused or self._owes_continue:
            self._after_write()
        # Counted also where the connection is lost: the request was answered, and its record written.
        self._application.on_answered(request, now_s)

    def _after_write(self) -> None:
        """Resumes reading and sends a delayed 100, where the answers just written allow."""
        if not self._transport.is_closing():
            self._update_reading()
            request = self._parser.request
            if self._owes_continue and not self._unanswered:
                self._owes_continue = False
                # A body that has begun needs no 100 any more.
                if request is not None and request.version and not request.size_bytes:
                    self._transport.write(_CONTINUE)
