"""Every answer of the ingress, as a table: the only file that chooses an HTTP status.

Rule: an answer is a value, built once at import. A refusal shows the sender a row of the table and never the reason;
the reason goes to metric and log. Errors are problem details. Sources: docs/webhook.md, RFC 9110, RFC 9457.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

Field = tuple[bytes, bytes]

RETRY_AFTER_S: Final = 5
"""`Retry-After` of a 503: longer than a broker's change of leadership, shorter than the sender's later waits."""

FLOODED_AFTER_S: Final = 60
"""`Retry-After` of a 429: room comes back over 5 minutes, and EventBridge tries again for up to a day."""

OK: Final = 200

OPERATIONS: Final = "site"
"""Reason of the operations app's answers, which are neither counted nor logged."""

_CLOSE: Final = (b"connection", b"close")
_RETRY: Final = (b"retry-after", b"%d" % RETRY_AFTER_S)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, serialised in both forms that a connection may need; only `Date` is added when sending.

    Attributes:
        status: HTTP status.
        label: The status as text, a metric's label.
        reason: Label of metric and log line; never sent.
        closes: True if the connection ends with this answer, even if the sender wants to keep the connection.
        status_line: The status line with CR LF; the `Date` line follows.
        kept: Header fields, empty line and content for a connection that stays open.
        closing: The rest of the answer as in `kept`, with `Connection: close`.
    """

    status: int
    label: str
    reason: str
    closes: bool
    status_line: bytes
    kept: bytes
    closing: bytes


def _json_answer(status: HTTPStatus, reason: str, content: dict[str, Any], *fields: Field) -> Answer:
    payload = json.dumps(content, separators=(",", ":")).encode()
    kind = b"application/json" if status < HTTPStatus.BAD_REQUEST else b"application/problem+json"
    return _build(
        status, reason, [(b"content-type", kind), (b"content-length", b"%d" % len(payload)), *fields], payload
    )


def from_operations_app(status: int, fields: list[Field], payload: bytes) -> Answer:
    """Returns the answer that the operations app chose."""
    return _build(status, OPERATIONS, fields, payload)


def _build(status: int, reason: str, fields: list[Field], payload: bytes) -> Answer:
    closes = _CLOSE in fields
    line = b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode())
    kept, closing = (_serialised(found, payload) for found in (fields, fields if closes else [*fields, _CLOSE]))
    return Answer(status, str(int(status)), reason, closes, line, kept, closing)


def _serialised(fields: Iterable[Field], payload: bytes) -> bytes:
    return b"\r\n".join([*(name + b": " + value for name, value in fields), b"", payload])


def _accepted(state: str, *fields: Field) -> Answer:
    return _json_answer(HTTPStatus.OK, state, {"status": state}, *fields)


def _problem(status: HTTPStatus, reason: str, *fields: Field, **members: str) -> Answer:
    content = {"type": "about:blank", "title": status.phrase, "status": int(status), **members}
    return _json_answer(status, reason, content, *fields)


def _unauthorized(reason: str) -> Answer:
    """Returns a 401. All 401 answers are equal to the byte: a forger learns nothing from the answer."""
    return _problem(HTTPStatus.UNAUTHORIZED, reason, (b"www-authenticate", b"Genesys-Signature"))


def _hint_unauthorized(reason: str) -> Answer:
    """Returns a 401 to a hint. All of them are equal to the byte, as for deliveries."""
    return _problem(HTTPStatus.UNAUTHORIZED, reason, (b"www-authenticate", b"Bearer"))


def _unavailable(reason: str, *fields: Field) -> Answer:
    return _problem(HTTPStatus.SERVICE_UNAVAILABLE, reason, _RETRY, *fields)


# Accepted: the record is durable.
QUEUED: Final = _accepted("queued")
DUPLICATE_HANDLED: Final = _accepted("duplicate_handled")
DEAD_LETTERED: Final = _accepted("parked")
SPOOLED: Final = _accepted("spooled", _RETRY)

# Accepted: a probe, of which nothing is kept.
PROVED: Final = _accepted("proved")

# Refused for the form of the request. Where framing is broken or a head is cut off, the end of the request is unknown
# and the connection must end (`_CLOSE`): the bytes that follow could be taken for another request.
NOT_POST: Final = _problem(HTTPStatus.METHOD_NOT_ALLOWED, "not_post", (b"allow", b"POST"))
NOT_JSON: Final = _problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not_json", (b"accept", b"application/json"))
TARGET_TOO_LONG: Final = _problem(HTTPStatus.REQUEST_URI_TOO_LONG, "target_too_long", _CLOSE)
HEAD_TOO_LARGE: Final = _problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", _CLOSE)
BODY_TOO_LARGE: Final = _problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large")
FRAMING: Final = _problem(HTTPStatus.BAD_REQUEST, "framing", _CLOSE, detail="ambiguous or broken framing")
HOST: Final = _problem(HTTPStatus.BAD_REQUEST, "host", _CLOSE, detail="exactly one Host is required, a name or address")
TARGET: Final = _problem(HTTPStatus.BAD_REQUEST, "target", detail="`*` is a target of OPTIONS alone")
EXPECTATION: Final = _problem(HTTPStatus.EXPECTATION_FAILED, "expectation", detail="only 100-continue can be expected")
LATE: Final = _problem(HTTPStatus.REQUEST_TIMEOUT, "late", _CLOSE)

# Refused because signature, time or binding do not prove the sender.
SIGNATURE: Final = _unauthorized("signature_shape")
TIMESTAMP: Final = _unauthorized("timestamp_shape")
NO_ENDPOINT: Final = _unauthorized("endpoint")
FORGED: Final = _unauthorized("forged")
FUTURE: Final = _unauthorized("future")
STALE: Final = _unauthorized("stale")
UNMARKED: Final = _unauthorized("unmarked")
UNBOUND: Final = _problem(HTTPStatus.FORBIDDEN, "unbound")

# Hints: what an authentic notification asks nothing of, and what proves no sender.
IGNORED: Final = {
    reason: _json_answer(HTTPStatus.OK, reason, {"status": "ignored"})
    for reason in ("ignored_topic", "ignored_entity", "ignored_action", "ignored_change")
}
HINT_SECRET: Final = _hint_unauthorized("secret_shape")
HINT_NO_ENDPOINT: Final = _hint_unauthorized("endpoint")
HINT_FORGED: Final = _hint_unauthorized("forged")
FLOODED: Final = _problem(HTTPStatus.TOO_MANY_REQUESTS, "flooded", (b"retry-after", b"%d" % FLOODED_AFTER_S))

# Refused for now; the sender retries.
KAFKA: Final = _unavailable("kafka")
SATURATED: Final = _unavailable("saturated")
CROWDED: Final = _unavailable("crowded", _CLOSE)
BROKEN: Final = _unavailable("broken")

TABLE: Final = (
    QUEUED, DUPLICATE_HANDLED, DEAD_LETTERED, SPOOLED, PROVED,
    NOT_POST, NOT_JSON, TARGET_TOO_LONG, HEAD_TOO_LARGE, BODY_TOO_LARGE, FRAMING, HOST, TARGET, EXPECTATION, LATE,
    SIGNATURE, TIMESTAMP, NO_ENDPOINT, FORGED, FUTURE, STALE, UNMARKED, UNBOUND,
    KAFKA, SATURATED, CROWDED, BROKEN,
)  # fmt: skip
"""All answers to deliveries except `malformed`, which is built for each fault, and `OPTIONS`."""

HINTS: Final = (
    QUEUED, DUPLICATE_HANDLED, SPOOLED, *IGNORED.values(),
    NOT_POST, NOT_JSON, BODY_TOO_LARGE, FRAMING, LATE, HINT_SECRET, HINT_NO_ENDPOINT, HINT_FORGED, UNBOUND, FLOODED,
    KAFKA, SATURATED, BROKEN,
)  # fmt: skip
"""All answers to hints, likewise except `malformed`. What `headers.edge` and the connection refuse before the path is
judged has no path, and is counted with the answers to deliveries."""

OPTIONS: Final = _build(HTTPStatus.NO_CONTENT, OPERATIONS, [], b"")
"""The answer to `OPTIONS *`, which only asks if the server lives (RFC 9110, 9.3.7)."""


def malformed(field: str, rule: str) -> Answer:
    """Returns the refusal of an authentic body that breaks the schema: names the field and the rule, never a value."""
    return _problem(HTTPStatus.BAD_REQUEST, "malformed", detail=f"{field} {rule}", field=field)
