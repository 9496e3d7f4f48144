"""uvicorn's HTTP/1.1 protocol with what it lacks: a deadline for receiving, a cap on heads, and our answers.

Rule: the application answers whatever has come so far that it can; only a head that never became a request is answered
here. `Upgrade` is ignored (RFC 9110, 7.8): such a request is what it would be without. One sweep over all connections
watches the deadlines, instead of a timer a request (`expire`).
It sets internals of uvicorn's cycle (`more_body`, `message_event`, `keep_alive`); a contract test watches them.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from services.ingress import answers
from services.ingress.answers import Answer
from services.ingress.body import ENDED
from services.ingress.receive import BEGUN

HEAD_MAX_BYTES: Final = 64 * 1024
"""A head still incomplete after so many bytes is cut off; the exact caps are judged when it is whole."""

_VERSIONS: Final = frozenset({"1.0", "1.1"})

CONNECTIONS_MAX: Final = 30_000
"""Above the greatest burst we promise to take (20,000 at once)."""


class _Parser(httptools.HttpRequestParser):
    """A parser that knows of no upgrade but CONNECT, which is refused."""

    def __init__(self, protocol: "Protocol") -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._protocol = protocol

    def ignores_upgrade(self) -> bool:
        """Whether this head asks for one, so that what follows it is kept from this parser."""
        return self.should_upgrade() and self.get_method() != b"CONNECT"

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # asyncio gives no other
        """Feed it; behind an upgrade a fresh parser reads the same head without it, and then the body."""
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self.ignores_upgrade():
                raise
            rest = data[upgrade.args[0] :]
            version = self.get_http_version().encode()
            lines = [b"%s %s HTTP/%s" % (self.get_method(), self._protocol.url, version)]
            lines += [b"%s: %s" % field for field in self._protocol.headers if field[0] != b"upgrade"]
            self._protocol.parser = _Parser(self._protocol)
            self._protocol.parser.feed_data(b"\r\n".join([*lines, b"", b""]) + rest)


class Protocol(HttpToolsProtocol):
    """One connection.

    Attributes:
        on_refusal: Told each answer given here, set once by the server for all connections.
    """

    parser: _Parser
    on_refusal: Callable[[Answer], None] = staticmethod(lambda _: None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        self.parser = _Parser(self)
        self._waiting_since_s = self.loop.time()
        self._begun_s: float | None = None
        self._head_bytes = 0
        self._deaf = False
        if len(self.connections) > CONNECTIONS_MAX:
            self._refuse(answers.CROWDED)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, until it failed once."""
        if self._deaf:
            return
        super().data_received(data)
        if self._begun_s is not None and not self._has_head():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_MAX_BYTES:
                self._refuse(answers.HEAD_TOO_LARGE)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's own contract; uvicorn never keeps it open
        """The sender writes nothing more; it may still read.

        Returns:
            Whether an answer is owed, so that the connection must stay.
        """
        if self._begun_s is not None and self._has_head():
            self._end_body(answers.FRAMING)
        else:
            self._deafen()
        return self._is_answering()

    def on_message_begin(self) -> None:
        """Note when the first byte of a request came; a head that is read again had come before."""
        super().on_message_begin()
        if self._begun_s is None:
            self._begun_s = self.loop.time()
        self.scope["state"][BEGUN] = self._begun_s
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Trailers come by the same way as headers; what is begun here is a list that nobody reads.

        Raises:
            ValueError: the parser takes other versions too; this fails it.
        """
        if self.parser.get_http_version() not in _VERSIONS:
            raise ValueError
        if self.parser.ignores_upgrade():
            return
        super().on_headers_complete()
        self.headers = []

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self.parser.ignores_upgrade():
            return
        super().on_message_complete()
        self._begun_s = None

    def on_response_complete(self) -> None:
        """A pipelined request waited for us, not for its sender."""
        super().on_response_complete()
        if self._begun_s is not None:
            self._begun_s = self.loop.time()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words for it are not repeated
        """The parser gave up on this connection."""
        if self._begun_s is not None and self._has_head():
            self._end_body(answers.FRAMING)
        else:
            self._refuse(answers.FRAMING)

    def expire(self, now_s: float, receive_s: float, idle_s: float) -> None:
        """Cut off a sender who is too slow.

        Args:
            now_s: The loop's clock.
            receive_s: From the first byte of a request to its last.
            idle_s: From the connection to the first byte.
        """
        if self._begun_s is None:
            if self._latest() is None and now_s - self._waiting_since_s > idle_s:
                self.transport.close()
        elif now_s - self._begun_s > receive_s and not self.pipeline:
            if self._has_head():
                self._end_body(answers.LATE)
            elif self._is_answering():
                self._deafen()
            else:
                self._refuse(answers.LATE)

    def _has_head(self) -> bool:
        latest = self._latest()
        return latest is not None and latest.scope is self.scope

    def _is_answering(self) -> bool:
        latest = self._latest()
        return latest is not None and not latest.response_complete

    def _latest(self) -> RequestResponseCycle | None:
        """The request whose head came last; before the first there is none, whatever uvicorn's annotation says."""
        return self.cycle

    def _end_body(self, answer: Answer) -> None:
        """Let the application answer the request whose body ends here."""
        self._deafen()
        state: dict[str, Any] = self.cycle.scope["state"]
        state.setdefault(ENDED, answer)
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def _refuse(self, answer: Answer) -> None:
        """Answer what never became a request; an earlier request still being answered keeps the word."""
        answering = self._is_answering()
        self._deafen()
        if not answering and not self.transport.is_closing():
            self.on_refusal(answer)
            self.transport.write(answers.raw(answer))
            self.transport.close()

    def _deafen(self) -> None:
        """Hear nothing more on this connection, and close it after the last answer owed."""
        self._deaf = True
        self._begun_s = None
        if (latest := self._latest()) is not None:
            latest.keep_alive = False
