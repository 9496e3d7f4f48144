"""Parses the bytes of a connection into requests: httptools' parser (llhttp), with our own caps and without upgrades.

Problem: the senders are strangers. Bytes read in two ways by a proxy and by this server smuggle a request; a head or a
body without end fills the memory; and llhttp stops at an `Upgrade` field, though an ordinary body may follow.

Approach: llhttp does the syntax and calls the `on_…` methods below. Three rules stand on top:

- Memory is bounded. The body of a delivery is kept up to the cap; refused bodies, bodies on further paths, and trailers
  are read and dropped. Everything else of a request (head, chunk framing, trailers) has a budget, `UNREAD_MAX_BYTES`,
  checked by `_feed_piece` after each piece.
- The answer does not depend on how the bytes were cut into pieces. A head is judged when complete, never before. A
  head without end is cut off by the budget, and llhttp is fed no byte beyond: the refusal is equal for bytes that come
  at once and for bytes that come singly (docs/decisions/0028).
- `Upgrade` is ignored, as RFC 9110 (7.8) allows: `_feed` writes the head again without the field, and feeds the new
  head and the bytes behind the old head to a new parser. Only CONNECT is refused.

A callback stops llhttp by raising: httptools turns any exception into an HttpParserError, and `_feed_piece` turns the
error into `UnparsableRequest`. Afterwards nothing may be fed, since the boundary of the next request is unknown.
"""

from collections.abc import Callable
from typing import Final

import httptools

from schemas.webhook import BODY_MAX_BYTES
from services.ingress.http import answers
from services.ingress.http.answers import Answer, Field
from services.ingress.http.headers import TARGET_MAX_BYTES
from services.ingress.http.request import Request

UNREAD_MAX_BYTES: Final = 64 * 1024
"""Budget of a request beside its body: head, chunk framing and trailers, white space included. Well above the largest
head that the exact caps allow (services/ingress/http/headers.py), so only a head without end is cut off here."""

_PIECE_BYTES: Final = 16 * 1024
"""The most that llhttp is fed at once. Bytes in front of a request in its piece, such as the end of the request before,
count to its budget. They are fewer than the difference between `UNREAD_MAX_BYTES` and the largest head, so no head
within the caps is refused for its position in a piece."""

_WIRE_BYTES_A_BODY_BYTE: Final = 8
"""A byte of body may come as a chunk of its own: `1`, CR, LF, the byte, CR, LF; and a little for an extension."""

DROPPED_MAX_BYTES: Final = 16 * 1024 * 1024
"""The most that is read of a refused body. Reading on lets a sender that is still writing see the answer."""

_VERSIONS: Final = frozenset({"1.0", "1.1"})


class UnparsableRequest(Exception):
    """The bytes from here on cannot be parsed.

    Attributes:
        answer: The refusal, unless the request under way was refused before.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.reason)
        self.answer = answer


class RequestParser:
    """Parses the requests of a connection.

    Attributes:
        request: The request under way, from the first byte until complete; None between requests.
    """

    def __init__(
        self,
        new_request: Callable[[], Request],
        on_headers: Callable[[Request], None],
        on_expect_continue: Callable[[], None],
        on_complete: Callable[[Request], None],
    ) -> None:
        """Prepares for the first byte.

        Args:
            new_request: Makes a request when the first byte is parsed.
            on_headers: Called when the head is complete; may set `refusal`.
            on_expect_continue: Called when the sender waits for a 100 before the body.
            on_complete: Called when the request is complete.
        """
        self._new_request = new_request
        self._on_headers = on_headers
        self._on_expect_continue = on_expect_continue
        self._on_complete = on_complete
        self._parser = self._new_parser()
        self.request: Request | None = None
        self._target = b""
        self._fields: list[Field] = []
        self._parts: list[bytes] = []
        # Bytes fed since the beginning of the piece in which the request began, and bytes of the present piece.
        self._fed_bytes = self._piece_bytes = 0
        self._head_complete = False

    @property
    def held_bytes(self) -> int:
        """Bytes kept of an incomplete body."""
        return self.request.size_bytes if self._parts and self.request is not None else 0

    def feed(self, data: bytes) -> None:
        """Parses bytes; the callbacks are called from here.

        Raises:
            UnparsableRequest: the bytes cannot be parsed; nothing may be fed afterwards.
        """
        while len(data) > (limit := self._feed_limit):
            self._feed_piece(data[:limit])
            data = data[limit:]
        self._feed_piece(data)

    @property
    def _feed_limit(self) -> int:
        """The most that llhttp is fed at once; of a head, at most a single byte beyond the budget."""
        if self.request is None or self.request.version:
            return _PIECE_BYTES
        return min(_PIECE_BYTES, UNREAD_MAX_BYTES + 1 - self._fed_bytes)

    def _feed_piece(self, data: bytes) -> None:
        # Counted before feeding: `on_message_begin` and `on_headers_complete` use the sums.
        self._piece_bytes = len(data)
        self._fed_bytes += self._piece_bytes
        try:
            self._feed(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise UnparsableRequest(self._with_method(answers.FRAMING)) from error
        request = self.request
        if request is not None and self._fed_bytes > UNREAD_MAX_BYTES + _WIRE_BYTES_A_BODY_BYTE * request.size_bytes:
            long = answers.TARGET_TOO_LONG if len(self._target) > TARGET_MAX_BYTES else answers.HEAD_TOO_LARGE
            raise UnparsableRequest(answers.FRAMING if request.version else self._with_method(long))

    def drop(self) -> None:
        """Drops the parts of the body received until now; later parts are dropped because the caller sets `refusal`."""
        self._parts.clear()

    def end(self) -> None:
        """Stops parsing for good and forgets the request under way."""
        self.request = None
        self._parts.clear()
        # Also breaks the reference cycle with the callbacks: the process collects garbage rarely, so a connection must
        # be freed by its reference count.
        self._parser = None

    # Called by httptools, which finds these methods by name.

    def on_message_begin(self) -> None:
        """Begins a request, unless the head is read again without `Upgrade`.

        Raises:
            ValueError: parsing was ended within this piece; fails the parser.
        """
        if self._parser is None:
            raise ValueError
        if self.request is None:
            self.request = self._new_request()
            # llhttp does not say where in the piece the request begins, so the whole piece counts (`_PIECE_BYTES`).
            self._fed_bytes = self._piece_bytes
        self._target, self._fields, self._head_complete = b"", [], False

    def on_url(self, part: bytes) -> None:
        """Appends a part of the target."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Adds a header field; drops trailers, which httptools reports through this method too."""
        if not self._head_complete:  # RFC 9112, 5.1: white space around a value is not part of the value
            self._fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """Judges a complete head.

        Raises:
            ValueError: neither HTTP/1.0 nor 1.1 (llhttp accepts more), or the sender of a refused request waits for a
                100; fails the parser.
        """
        parser, request = self._parser, self.request
        assert parser is not None
        assert request is not None
        version = parser.get_http_version()
        if version not in _VERSIONS:
            raise ValueError
        upgrades = parser.should_upgrade()
        if upgrades and self._ignores_upgrade():
            return  # this head is read again, and judged then
        request.method, request.target, request.fields = parser.get_method(), self._target, self._fields
        request.keep_alive = version == "1.1" and parser.should_keep_alive() and not upgrades
        request.version = version
        request.head_bytes = self._fed_bytes
        self._head_complete = True
        self._on_headers(request)
        if request.awaits_continue:
            # A 100 would ask for a body that is refused already. Without a 100 the body may never come, so the end of
            # this request cannot be waited for: the connection ends with the refusal.
            if request.refusal is not None:
                raise ValueError
            self._on_expect_continue()

    def on_body(self, part: bytes) -> None:
        """Keeps a part of the body up to the cap, and drops parts of a refused body.

        Raises:
            ValueError: a refused body is longer than `DROPPED_MAX_BYTES`; fails the parser.
        """
        request = self.request
        assert request is not None
        request.size_bytes += len(part)
        if request.refusal is None:
            if request.size_bytes <= BODY_MAX_BYTES:
                if request.endpoint is not None or request.hint_endpoint is not None:
                    self._parts.append(part)
                return
            request.refusal = answers.BODY_TOO_LARGE
            self._parts.clear()
        if request.size_bytes > DROPPED_MAX_BYTES:
            raise ValueError

    def on_message_complete(self) -> None:
        """Hands a complete request over."""
        parser = self._parser
        assert parser is not None
        # llhttp completes a message at the end of a head with `Upgrade`; the message read again is the real one.
        if parser.should_upgrade() and self._ignores_upgrade():
            return
        # Cleared before the callback: the connection asks for the request under way, and this one is none any more.
        request, self.request = self.request, None
        assert request is not None
        if parts := self._parts:
            request.body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
        self._on_complete(request)

    def _with_method(self, answer: Answer) -> Answer:
        """Returns the refusal of an incomplete head; sets the method, since an answer to HEAD has no content."""
        if self._parser is not None and self.request is not None:
            self.request.method = self._parser.get_method()
        return answer

    def _feed(self, data: bytes) -> None:
        """Feeds llhttp; at an ignored upgrade, goes on with a new parser that reads the head without `Upgrade`."""
        while (parser := self._parser) is not None:
            try:
                parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if not self._ignores_upgrade():
                    raise
                # The argument is the offset behind the head. A parser that has seen an upgrade reads nothing more.
                version, rest = parser.get_http_version().encode(), data[upgrade.args[0] :]
                lines = [b"%s %s HTTP/%s" % (parser.get_method(), self._target, version)]
                lines += [b"%s: %s" % field for field in self._fields if field[0] != b"upgrade"]
                self._parser = self._new_parser()
                data = b"\r\n".join([*lines, b"", b""]) + rest
            else:
                return

    def _ignores_upgrade(self) -> bool:
        """True if the head asks for an ignored upgrade. CONNECT, an upgrade to llhttp too, is refused instead."""
        parser = self._parser
        return parser is not None and parser.should_upgrade() and parser.get_method() != b"CONNECT"

    def _new_parser(self) -> httptools.HttpRequestParser | None:
        parser = httptools.HttpRequestParser(self)
        # As uvicorn does: bytes behind a request with `Connection: close` are no error. The connection, not llhttp,
        # decides to read no further.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser
