"""The head of a request: caps and shapes, judged before a byte of the body is read.

Rule: exactly one of each header that decides something, framing that can be read in one way only, and nothing else of
the request is looked at. Pure. Sources: RFC 9112 section 6 (framing), the specification's section 2.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.values import instant
from schemas.webhook import BODY_MAX_BYTES
from schemas.webhook_sent import SIGNATURE, TIMESTAMP
from services.core.signature import claimed
from services.ingress import answers
from services.ingress.answers import Answer

HEADERS_MAX: Final = 64
HEAD_MAX_BYTES: Final = 16 * 1024

_SIGNATURE: Final = SIGNATURE.lower().encode()
_TIMESTAMP: Final = TIMESTAMP.lower().encode()
_LENGTH: Final = b"content-length"
_CODING: Final = b"transfer-encoding"
_READ: Final = frozenset({
    _SIGNATURE, _TIMESTAMP, _LENGTH, _CODING, b"host", b"content-type", b"content-encoding", b"traceparent",
})  # fmt: skip

_JSON: Final = re.compile(rb"application/json[ \t]*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_TRACE: Final = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TWICE: Final = b"\x00"
"""Stands for a header given more than once; no shape matches it."""


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of an acceptable request says.

    Attributes:
        claim: The 32 bytes that the signature claims.
        stated_us: H, the unsigned time, microseconds UTC.
        stated: The same as it was written.
        trace: A well-formed `traceparent`, or None.
    """

    claim: bytes
    stated_us: int
    stated: str
    trace: str | None


def read(scope: Mapping[str, Any]) -> Head | Answer:
    """Judge one ASGI scope.

    Returns:
        The head, or the answer that refuses it.
    """
    if scope["method"] != "POST":
        return answers.NOT_POST
    headers = scope["headers"]
    if len(headers) > HEADERS_MAX or sum([len(name) + len(value) for name, value in headers]) > HEAD_MAX_BYTES:
        return answers.HEAD_TOO_LARGE
    found = _once(headers)
    return _framing(found, scope["http_version"]) or _kind(found) or _proof(found)


def _once(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ:
            found[name] = _TWICE if name in found else value
    return found


def _framing(found: Mapping[bytes, bytes], http_version: str) -> Answer | None:
    length, coding = found.get(_LENGTH), found.get(_CODING)
    if coding is not None and (length is not None or coding.lower() != b"chunked" or http_version != "1.1"):
        return answers.FRAMING
    if length is not None and not _DIGITS.fullmatch(length):
        return answers.FRAMING
    host = found.get(b"host")
    if host == _TWICE or (host is None and http_version == "1.1"):
        return answers.HOST
    return answers.BODY_TOO_LARGE if length is not None and int(length) > BODY_MAX_BYTES else None


def _kind(found: Mapping[bytes, bytes]) -> Answer | None:
    coded = found.get(b"content-encoding", b"identity").lower() != b"identity"
    return answers.NOT_JSON if coded or not _JSON.fullmatch(found.get(b"content-type", b"")) else None


def _proof(found: Mapping[bytes, bytes]) -> Head | Answer:
    claim = claimed(found.get(_SIGNATURE, b""))
    if claim is None:
        return answers.SIGNATURE
    trace = found.get(b"traceparent", b"")
    try:
        stated = found.get(_TIMESTAMP, b"").decode("ascii")
        return Head(claim, instant(stated), stated, trace.decode() if _TRACE.fullmatch(trace) else None)
    except ValueError:
        return answers.TIMESTAMP
