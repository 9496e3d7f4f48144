"""The head of a request: caps and shapes, judged before a byte of the body is read.

Rule: exactly one of each header that decides something, framing that can be read in one way only, and nothing else of
the request is looked at. Pure. Sources: RFC 9112 section 6 (framing), the specification's section 2.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from schemas.codec import JSON_TYPE
from schemas.times import instant
from schemas.webhook import BODY_MAX_BYTES
from schemas.webhook_sent import SIGNATURE, TIMESTAMP
from services.core.signature import claimed
from services.ingress import answers
from services.ingress.answers import Answer
from services.ingress.request import Head, Request

HEADERS_MAX: Final = 64
HEAD_MAX_BYTES: Final = 16 * 1024

_SIGNATURE: Final = SIGNATURE.lower().encode()
_TIMESTAMP: Final = TIMESTAMP.lower().encode()
_LENGTH: Final = b"content-length"
_CODING: Final = b"transfer-encoding"
_HOST: Final = b"host"
_TRACEPARENT: Final = b"traceparent"
_READ: Final = frozenset({
    _SIGNATURE, _TIMESTAMP, _LENGTH, _CODING, _HOST, b"content-type", b"content-encoding", _TRACEPARENT,
})  # fmt: skip

_JSON: Final = re.compile(rb"application/json[ \t]*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_DIGITS_MAX: Final = 18
_TRACE: Final = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TWICE: Final = b"\x00"
"""Stands for a header given more than once; no shape matches it."""


def read(request: Request) -> Head | Answer:
    """Judge the head of one request to a webhook's path.

    Returns:
        What it says, or the answer that refuses it.
    """
    if request.method != b"POST":
        return answers.NOT_POST
    fields = request.fields
    if len(fields) > HEADERS_MAX or (request.head_bytes > HEAD_MAX_BYTES and _size_bytes(fields) > HEAD_MAX_BYTES):
        return answers.HEAD_TOO_LARGE
    found = dict(fields)
    if len(found) != len(fields):
        _mark_repeated(found, fields)
    return _framing(found, request.version) or _kind(found) or _proof(found)


def _mark_repeated(found: dict[bytes, bytes], fields: Sequence[tuple[bytes, bytes]]) -> None:
    names = Counter(name for name, _ in fields)
    found.update((name, _TWICE) for name in _READ if names[name] > 1)


def _size_bytes(fields: Sequence[tuple[bytes, bytes]]) -> int:
    return len(b"".join([part for field in fields for part in field]))


def _framing(found: Mapping[bytes, bytes], version: str) -> Answer | None:
    length, coding, host = found.get(_LENGTH), found.get(_CODING), found.get(_HOST)
    if coding is not None and (length is not None or coding.lower() != b"chunked" or version != "1.1"):
        return answers.FRAMING
    if length is not None and not (length.isdigit() and len(length) <= _DIGITS_MAX):
        return answers.FRAMING
    if host == _TWICE or (host is None and version == "1.1"):
        return answers.HOST
    return answers.BODY_TOO_LARGE if length is not None and int(length) > BODY_MAX_BYTES else None


def _kind(found: Mapping[bytes, bytes]) -> Answer | None:
    coding, kind = found.get(b"content-encoding"), found.get(b"content-type", b"")
    if coding is not None and coding.lower() != b"identity":
        return answers.NOT_JSON
    return None if kind == JSON_TYPE or _JSON.fullmatch(kind) else answers.NOT_JSON


def _proof(found: Mapping[bytes, bytes]) -> Head | Answer:
    claim = claimed(found.get(_SIGNATURE, b""))
    if claim is None:
        return answers.SIGNATURE
    stated, trace = found.get(_TIMESTAMP, b""), found.get(_TRACEPARENT)
    try:
        stated_us = instant(stated.decode("ascii"))
        return Head(claim, stated_us, stated, trace if trace and _TRACE.fullmatch(trace) else None)
    except ValueError:
        return answers.TIMESTAMP
