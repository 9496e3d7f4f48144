"""Judges the head of a request: caps, framing, host and header shapes, before a byte of the body is parsed.

Rule: each header that decides something occurs exactly once, framing can be read in one way only, and no further header
is looked at. `edge` applies the rules of HTTP to every path, `read` the further rules of a webhook's path, `read_hint`
those of a hint's path.
No I/O and no clock. Sources: RFC 9112, 3.2 (Host) and 6 (framing); RFC 9110, 10.1.1 (Expect); docs/webhook.md.

The rules are stricter than the RFCs where a proxy in front and this server could read one head in two ways, since a
difference lets a sender smuggle a request past the proxy.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from schemas import hint
from schemas.codec import JSON_TYPE, TRACEPARENT_SHAPE
from schemas.times import instant
from schemas.webhook import BODY_MAX_BYTES
from schemas.webhook_sent import SIGNATURE, TIMESTAMP
from services.core.delivery.signature import parse_claim
from services.ingress.http import answers
from services.ingress.http.answers import Answer
from services.ingress.http.request import DeliveryHeaders, Request

HEADERS_MAX: Final = 64
HEAD_MAX_BYTES: Final = 16 * 1024
"""Cap of the names and values of all fields together, without separators."""

TARGET_MAX_BYTES: Final = 8_000
"""The least that RFC 9110 (4.1) asks every server to accept."""

_SIGNATURE: Final = SIGNATURE.lower().encode()
_TIMESTAMP: Final = TIMESTAMP.lower().encode()
_LENGTH: Final = b"content-length"
_CODING: Final = b"transfer-encoding"
_HOST: Final = b"host"
_EXPECT: Final = b"expect"
_CONTINUE: Final = b"100-continue"
_TRACEPARENT: Final = b"traceparent"
_HINT_SECRET: Final = hint.SECRET_HEADER.lower().encode()
_AUTHORIZATION: Final = hint.AUTHORIZATION.lower().encode()
_SINGLE: Final = frozenset({
    _SIGNATURE, _TIMESTAMP, _LENGTH, _CODING, _HOST, b"content-type", b"content-encoding", _TRACEPARENT,
    _HINT_SECRET, _AUTHORIZATION,
})  # fmt: skip
"""Fields that are read and must not be repeated. `Expect` is a list, and may be (`_expectation`)."""

_BEARER: Final = re.compile(rb"(?:bearer +)?([!-~]{1,1024})", re.IGNORECASE)
"""A secret of printable ASCII, alone or behind the scheme of RFC 6750: EventBridge writes the value as configured."""

_JSON: Final = re.compile(rb"application/json[ \t]*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_DIGITS_MAX: Final = 18
_REPEATED: Final = b"\x00"
"""Value of a field that was repeated. No shape below matches NUL, so each rule refuses a repeated field by itself."""

_AUTHORITY: Final = re.compile(rb"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
"""A host name or address, and a port. RFC 3986 allows more in a registered name (commas, percent signs), but no machine
has such a name, and a proxy may read a list where this server reads a host; so such a name is refused."""


def fields_of(request: Request) -> dict[bytes, bytes]:
    """Returns the fields of a request by name; a repeated field of `_SINGLE` has the value `_REPEATED`."""
    fields = request.fields
    by_name = dict(fields)
    # Equal lengths mean that no name is repeated: the usual case, which needs no counting.
    if len(by_name) != len(fields):
        _mark_repeated(by_name, fields)
    return by_name


def edge(request: Request, by_name: Mapping[bytes, bytes]) -> Answer | None:
    """Judges the head by the rules of HTTP that hold on every path; sets `request.awaits_continue`.

    Args:
        request: A request with a complete head.
        by_name: The fields of the request by name.

    Returns:
        The answer that refuses the request, or None.
    """
    # Framing is judged before everything that parses the length as a number.
    refusal = _caps(request) or _framing(by_name, request.version)
    if refusal is not None:
        return refusal
    host = by_name.get(_HOST)
    if host is None:
        if request.version == "1.1":  # HTTP/1.0 needs no Host (RFC 9112, 3.2)
            return answers.HOST
    elif not _names_a_host(host):
        return answers.HOST
    return _expectation(request, by_name) if _EXPECT in by_name else None


def read(request: Request, by_name: Mapping[bytes, bytes]) -> DeliveryHeaders | Answer:
    """Judges the head of a request to a webhook's path, after `edge` has passed the request.

    Args:
        request: A request with a complete head.
        by_name: The fields of the request by name.

    Returns:
        The parsed header fields, or the answer that refuses the request.
    """
    if request.method != b"POST":
        return answers.NOT_POST
    return size(by_name) or _kind(by_name) or _proof(by_name)


def read_hint(request: Request, by_name: Mapping[bytes, bytes]) -> bytes | Answer:
    """Judges the head of a request to a hint's path, after `edge` has passed the request.

    Args:
        request: A request with a complete head.
        by_name: The fields of the request by name.

    Returns:
        The claimed secret, or the answer that refuses the request.
    """
    if request.method != b"POST":
        return answers.NOT_POST
    refusal = size(by_name) or _kind(by_name)
    if refusal is not None:
        return refusal
    claims = [by_name[name] for name in (_HINT_SECRET, _AUTHORIZATION) if name in by_name]
    # Exactly one of both: which of two secrets counts must not depend on the reader.
    found = _BEARER.fullmatch(claims[0]) if len(claims) == 1 else None
    return answers.HINT_SECRET if found is None else found[1]


def size(by_name: Mapping[bytes, bytes]) -> Answer | None:
    """Returns the refusal of a body whose stated length is beyond the cap, or None; call `edge` before."""
    length = by_name.get(_LENGTH)
    return answers.BODY_TOO_LARGE if length is not None and int(length) > BODY_MAX_BYTES else None


def _mark_repeated(by_name: dict[bytes, bytes], fields: Sequence[tuple[bytes, bytes]]) -> None:
    names = Counter(name for name, _ in fields)
    by_name.update((name, _REPEATED) for name in _SINGLE if names[name] > 1)


def _caps(request: Request) -> Answer | None:
    fields = request.fields
    if len(request.target) > TARGET_MAX_BYTES:
        return answers.TARGET_TOO_LONG
    # `head_bytes` is an upper bound and costs nothing. The exact sum is taken only where the bound is beyond the cap.
    if len(fields) > HEADERS_MAX or (request.head_bytes > HEAD_MAX_BYTES and _size_bytes(fields) > HEAD_MAX_BYTES):
        return answers.HEAD_TOO_LARGE
    return None


def _size_bytes(fields: Sequence[tuple[bytes, bytes]]) -> int:
    return len(b"".join([part for field in fields for part in field]))


def _framing(by_name: Mapping[bytes, bytes], version: str) -> Answer | None:
    length, coding = by_name.get(_LENGTH), by_name.get(_CODING)
    if coding is not None and (length is not None or coding.lower() != b"chunked" or version != "1.1"):
        return answers.FRAMING
    if length is not None and not (length.isdigit() and len(length) <= _DIGITS_MAX):
        return answers.FRAMING
    return None


@lru_cache(maxsize=256)  # senders repeat the same host; a cached host is never longer than a head
def _names_a_host(host: bytes) -> bool:
    return _AUTHORITY.fullmatch(host) is not None


def _expectation(request: Request, by_name: Mapping[bytes, bytes]) -> Answer | None:
    """Sets `request.awaits_continue`; returns the refusal of any expectation except `100-continue`.

    Only HTTP/1.1 senders wait for a 100, and only with a body to send.
    """
    # The mapping has the last value only; `Expect` may be repeated, so all fields are joined into one list.
    joined = b",".join([value for name, value in request.fields if name == _EXPECT])
    members = [member.strip(b" \t").lower() for member in joined.split(b",")]
    has_body = _CODING in by_name or int(by_name.get(_LENGTH, b"0")) > 0
    request.awaits_continue = request.version == "1.1" and has_body and _CONTINUE in members
    return None if all(member in {_CONTINUE, b""} for member in members) else answers.EXPECTATION


def _kind(by_name: Mapping[bytes, bytes]) -> Answer | None:
    coding, kind = by_name.get(b"content-encoding"), by_name.get(b"content-type", b"")
    # The body is verified and parsed as sent: nothing here would undo a content coding.
    if coding is not None and coding.lower() != b"identity":
        return answers.NOT_JSON
    return None if kind == JSON_TYPE or _JSON.fullmatch(kind) else answers.NOT_JSON


def _proof(by_name: Mapping[bytes, bytes]) -> DeliveryHeaders | Answer:
    claim = parse_claim(by_name.get(_SIGNATURE, b""))
    if claim is None:
        return answers.SIGNATURE
    stated, trace = by_name.get(_TIMESTAMP, b""), by_name.get(_TRACEPARENT)
    try:
        stated_us = instant(stated.decode("ascii"))
    except ValueError:
        return answers.TIMESTAMP
    # A malformed traceparent costs a delivery its trace, and no more.
    if trace is not None and TRACEPARENT_SHAPE.fullmatch(trace) is None:
        trace = None
    return DeliveryHeaders(claim, stated_us, stated, trace)
