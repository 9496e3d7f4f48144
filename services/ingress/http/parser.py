"""Bytes become requests: httptools' parser, with our caps, and without upgrades.

Rule: never more of a body in memory than the cap; a body that is refused, or of no webhook, is read and forgotten, and
so are trailers. `Upgrade` is ignored (RFC 9110, 7.8): such a request is what it would be without. Whatever cannot be
read in one way only is `Unreadable`. An answer does not depend on the pieces in which the bytes come: a head is judged
when it is whole, and one that gets too long before is cut off at the same byte.
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
"""What may come of a request beside its body, white space and trailers included. Well above the largest head that the
exact caps allow (services/ingress/http/headers.py): a head without end is cut off here."""

_PIECE_BYTES: Final = 16 * 1024
"""The parser is fed no more at once. What stood before a request in its piece is counted to it, and may be the body of
the request before: it is less than what lies between the largest head and `UNREAD_MAX_BYTES`."""

_A_BYTES_CHUNK: Final = 8
"""A byte of body may come as a chunk of its own: `1`, CR, LF, the byte, CR, LF; and a little for an extension."""

DROPPED_MAX_BYTES: Final = 16 * 1024 * 1024
"""So much of a refused body is read, so that its sender, who may still be writing, sees the answer."""

_VERSIONS: Final = frozenset({"1.0", "1.1"})


class UnparsableRequest(Exception):
    """Nothing behind this point can be read.

    Attributes:
        answer: What to say, unless the request under way was refused before.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.reason)
        self.answer = answer


class RequestParser:
    """What one connection hears.

    Attributes:
        request: The one under way, from its first byte until it is whole.
    """

    def __init__(
        self,
        begin: Callable[[], Request],
        on_headers: Callable[[Request], None],
        on_expect_continue: Callable[[], None],
        on_complete: Callable[[Request], None],
    ) -> None:
        """Hear nothing yet.

        Args:
            begin: Makes a request when its first byte comes.
            on_headers: Told when its head is whole; may refuse it.
            on_expect_continue: Told when its sender waits to be asked for the body.
            on_complete: Told when it is whole.
        """
        self._begin = begin
        self._on_headers = on_headers
        self._on_expect_continue = on_expect_continue
        self._on_complete = on_complete
        self._parser = self._fresh()
        self.request: Request | None = None
        self._target = b""
        self._fields: list[Field] = []
        self._parts: list[bytes] = []
        self._come_bytes = self._piece_bytes = 0
        self._has_head = False

    @property
    def held_bytes(self) -> int:
        """What is kept of a body that is not whole."""
        return self.request.size_bytes if self._parts and self.request is not None else 0

    def feed(self, data: bytes) -> None:
        """Hear some bytes.

        Raises:
            Unreadable: and what comes after them must not be fed.
        """
        while len(data) > (room := self._room):
            self._feed_piece(data[:room])
            data = data[room:]
        self._feed_piece(data)

    @property
    def _room(self) -> int:
        """How many bytes the parser is fed at once: none of a head behind the one at which it is cut off."""
        if self.request is None or self.request.version:
            return _PIECE_BYTES
        return min(_PIECE_BYTES, UNREAD_MAX_BYTES + 1 - self._come_bytes)

    def _feed_piece(self, data: bytes) -> None:
        self._piece_bytes = len(data)
        self._come_bytes += self._piece_bytes
        try:
            self._feed(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise UnparsableRequest(self._refused(answers.FRAMING)) from error
        request = self.request
        if request is not None and self._come_bytes > UNREAD_MAX_BYTES + _A_BYTES_CHUNK * request.size_bytes:
            long = answers.TARGET_TOO_LONG if len(self._target) > TARGET_MAX_BYTES else answers.HEAD_TOO_LARGE
            raise UnparsableRequest(answers.FRAMING if request.version else self._refused(long))

    def drop(self) -> None:
        """Forget what came of the body, and what will."""
        self._parts.clear()

    def end(self) -> None:
        """Hear nothing any more."""
        self.request = None
        self._parts.clear()
        self._parser = None  # it holds us

    # What the parser finds.

    def on_message_begin(self) -> None:
        """A first byte; a head that is read again had one before.

        What stood before it in the same piece is counted to its head too.

        Raises:
            ValueError: nothing more is heard; this fails the parser.
        """
        if self._parser is None:
            raise ValueError
        if self.request is None:
            self.request = self._begin()
            self._come_bytes = self._piece_bytes
        self._target, self._fields, self._has_head = b"", [], False

    def on_url(self, part: bytes) -> None:
        """Part of the target."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field; trailers come by this way too, and are nobody's."""
        if not self._has_head:  # RFC 9112, 5.1: white space around a value is not of it
            self._fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """The head is whole.

        Raises:
            ValueError: the parser takes other versions too, and knows nothing of refusals; this fails it.
        """
        parser, request = self._parser, self.request
        assert parser is not None
        assert request is not None
        version = parser.get_http_version()
        if version not in _VERSIONS:
            raise ValueError
        upgrades = parser.should_upgrade()
        if upgrades and self._ignores_upgrade():
            return
        request.method, request.target, request.fields = parser.get_method(), self._target, self._fields
        request.keeps = version == "1.1" and parser.should_keep_alive() and not upgrades
        request.version = version
        request.head_bytes = self._come_bytes
        self._has_head = True
        self._on_headers(request)
        if request.waits:
            if request.refusal is not None:  # this sender waits for our answer: asking for the body would be a lie
                raise ValueError
            self._on_expect_continue()

    def on_body(self, part: bytes) -> None:
        """Part of the body: kept up to the cap, else dropped.

        Raises:
            ValueError: more than we read of a refused one; this fails the parser.
        """
        request = self.request
        assert request is not None
        request.size_bytes += len(part)
        if request.refusal is None:
            if request.size_bytes <= BODY_MAX_BYTES:
                if request.endpoint is not None:
                    self._parts.append(part)
                return
            request.refusal = answers.BODY_TOO_LARGE
            self._parts.clear()
        if request.size_bytes > DROPPED_MAX_BYTES:
            raise ValueError

    def on_message_complete(self) -> None:
        """The request is whole."""
        parser = self._parser
        assert parser is not None
        if parser.should_upgrade() and self._ignores_upgrade():
            return
        request, self.request = self.request, None
        assert request is not None
        if parts := self._parts:
            request.body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
        self._on_complete(request)

    def _refused(self, answer: Answer) -> Answer:
        """Returns the refusal of what has no whole head; notes its method, since an answer to HEAD has no content."""
        if self._parser is not None and self.request is not None:
            self.request.method = self._parser.get_method()
        return answer

    def _feed(self, data: bytes) -> None:
        """Feed the parser; behind an upgrade a fresh one reads the same head without it, and then the body."""
        while (parser := self._parser) is not None:
            try:
                parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if not self._ignores_upgrade():
                    raise
                version, rest = parser.get_http_version().encode(), data[upgrade.args[0] :]
                lines = [b"%s %s HTTP/%s" % (parser.get_method(), self._target, version)]
                lines += [b"%s: %s" % field for field in self._fields if field[0] != b"upgrade"]
                self._parser = self._fresh()
                data = b"\r\n".join([*lines, b"", b""]) + rest
            else:
                return

    def _ignores_upgrade(self) -> bool:
        """Whether this head asks for one, so that what follows it is kept from this parser; CONNECT is refused."""
        parser = self._parser
        return parser is not None and parser.should_upgrade() and parser.get_method() != b"CONNECT"

    def _fresh(self) -> httptools.HttpRequestParser | None:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        return parser
