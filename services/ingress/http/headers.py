"""The head of a request: caps, framing, host and shapes, judged before a byte of the body is read.

Rule: exactly one of each header that decides something, framing that can be read in one way only, and nothing else of
the request is looked at. What HTTP itself asks is asked of every path (`edge`), the rest of a webhook's alone (`read`).
Pure. Sources: RFC 9112, 3.2 (Host) and 6 (framing); RFC 9110, 10.1.1 (Expect); docs/webhook.md.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from schemas.codec import JSON_TYPE
from schemas.times import instant
from schemas.webhook import BODY_MAX_BYTES
from schemas.webhook_sent import SIGNATURE, TIMESTAMP
from services.core.delivery.signature import claimed
from services.ingress.http import answers
from services.ingress.http.answers import Answer
from services.ingress.http.request import DeliveryHeaders, Request

HEADERS_MAX: Final = 64
HEAD_MAX_BYTES: Final = 16 * 1024
"""Names and values of all fields together, without what only separates them."""

TARGET_MAX_BYTES: Final = 8_000
"""What RFC 9110 (4.1) asks of everybody at least."""

_SIGNATURE: Final = SIGNATURE.lower().encode()
_TIMESTAMP: Final = TIMESTAMP.lower().encode()
_LENGTH: Final = b"content-length"
_CODING: Final = b"transfer-encoding"
_HOST: Final = b"host"
_EXPECT: Final = b"expect"
_CONTINUE: Final = b"100-continue"
_TRACEPARENT: Final = b"traceparent"
_READ: Final = frozenset({
    _SIGNATURE, _TIMESTAMP, _LENGTH, _CODING, _HOST, b"content-type", b"content-encoding", _TRACEPARENT,
})  # fmt: skip

_JSON: Final = re.compile(rb"application/json[ \t]*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_DIGITS_MAX: Final = 18
_TRACE: Final = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TWICE: Final = b"\x00"
"""Stands for a header given more than once; no shape matches it."""

_AUTHORITY: Final = re.compile(rb"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
"""A name or an address, and a port. A registered name may hold more by RFC 3986 (commas, percent signs), and no name of
a machine does: what one reader takes for a host and another for a list is refused."""


def fields_of(request: Request) -> dict[bytes, bytes]:
    """Returns the fields of a request by name; a field that must stand alone, and does not, is `_TWICE`."""
    fields = request.fields
    found = dict(fields)
    if len(found) != len(fields):
        _mark_repeated(found, fields)
    return found


def edge(request: Request, found: Mapping[bytes, bytes]) -> Answer | None:
    """Judge what HTTP asks of the head of every request, whatever its path; note if its sender waits for a 100.

    Args:
        request: The request.
        found: Its fields by name.

    Returns:
        The answer that refuses it, if any.
    """
    refusal = _caps(request) or _framing(found, request.version)
    if refusal is not None:
        return refusal
    host = found.get(_HOST)
    if host is None:
        if request.version == "1.1":
            return answers.HOST
    elif not _names_a_host(host):
        return answers.HOST
    return _expectation(request, found) if _EXPECT in found else None


def read(request: Request, found: Mapping[bytes, bytes]) -> DeliveryHeaders | Answer:
    """Judge the head of one request to a webhook's path.

    Args:
        request: The request.
        found: Its fields by name.

    Returns:
        What it says, or the answer that refuses it.
    """
    if request.method != b"POST":
        return answers.NOT_POST
    return size(found) or _kind(found) or _proof(found)


def size(found: Mapping[bytes, bytes]) -> Answer | None:
    """Refuse a body whose length is stated, and beyond the cap."""
    length = found.get(_LENGTH)
    return answers.BODY_TOO_LARGE if length is not None and int(length) > BODY_MAX_BYTES else None


def _mark_repeated(found: dict[bytes, bytes], fields: Sequence[tuple[bytes, bytes]]) -> None:
    names = Counter(name for name, _ in fields)
    found.update((name, _TWICE) for name in _READ if names[name] > 1)


def _caps(request: Request) -> Answer | None:
    fields = request.fields
    if len(request.target) > TARGET_MAX_BYTES:
        return answers.TARGET_TOO_LONG
    # Most heads are so short that nobody need add anything up.
    if len(fields) > HEADERS_MAX or (request.head_bytes > HEAD_MAX_BYTES and _size_bytes(fields) > HEAD_MAX_BYTES):
        return answers.HEAD_TOO_LARGE
    return None


def _size_bytes(fields: Sequence[tuple[bytes, bytes]]) -> int:
    return len(b"".join([part for field in fields for part in field]))


def _framing(found: Mapping[bytes, bytes], version: str) -> Answer | None:
    length, coding = found.get(_LENGTH), found.get(_CODING)
    if coding is not None and (length is not None or coding.lower() != b"chunked" or version != "1.1"):
        return answers.FRAMING
    if length is not None and not (length.isdigit() and len(length) <= _DIGITS_MAX):
        return answers.FRAMING
    return None


@lru_cache(maxsize=256)  # senders name the same host again and again; none that is remembered is longer than a head
def _names_a_host(host: bytes) -> bool:
    return _AUTHORITY.fullmatch(host) is not None


def _expectation(request: Request, found: Mapping[bytes, bytes]) -> Answer | None:
    """Note if the sender waits to be asked for a body that will come; HTTP/1.0 knows no such wait."""
    named = b",".join([value for name, value in request.fields if name == _EXPECT])
    members = [member.strip(b" \t").lower() for member in named.split(b",")]
    follows = _CODING in found or int(found.get(_LENGTH, b"0")) > 0
    request.waits = request.version == "1.1" and follows and _CONTINUE in members
    return None if all(member in {_CONTINUE, b""} for member in members) else answers.EXPECTATION


def _kind(found: Mapping[bytes, bytes]) -> Answer | None:
    coding, kind = found.get(b"content-encoding"), found.get(b"content-type", b"")
    if coding is not None and coding.lower() != b"identity":
        return answers.NOT_JSON
    return None if kind == JSON_TYPE or _JSON.fullmatch(kind) else answers.NOT_JSON


def _proof(found: Mapping[bytes, bytes]) -> DeliveryHeaders | Answer:
    claim = claimed(found.get(_SIGNATURE, b""))
    if claim is None:
        return answers.SIGNATURE
    stated, trace = found.get(_TIMESTAMP, b""), found.get(_TRACEPARENT)
    try:
        stated_us = instant(stated.decode("ascii"))
        return DeliveryHeaders(claim, stated_us, stated, trace if trace and _TRACE.fullmatch(trace) else None)
    except ValueError:
        return answers.TIMESTAMP
