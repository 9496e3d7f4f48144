"""Parser of the sender's wire format, and the strict JSON profile of request bodies.

Rule: authenticated bytes become a typed `Delivery` here and only here; no later module uses the sender's field names.
Every refusal names a field and a rule, never a value.
Sources: the guide (fields), RFC 8259 with I-JSON's limits (JSON profile), RFC 3339 (times).
"""

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final, NamedTuple

from jiter import from_json
from pydantic import ValidationError

from schemas.times import instant
from schemas.values import EventType, Json, Key, key_of
from schemas.webhook_shape import RULES, SHAPE, UUID_SHAPE

# Theory. The signature proves the bytes, so two readers of the bytes must agree on their meaning: the receiver decides
# by the parsed body, but `lifecycle.received` carries the raw bytes, and the ledger parses the bytes again. JSON with
# duplicate keys, NaN or huge integers means different things to different parsers and is therefore refused. The limits
# of depth and size bound the work per request. `schemas.webhook_schema` publishes these rules to the sender's
# developers, and a property test keeps both in step.

CE_TYPE: Final = "genesys.webhook.v1"
"""CloudEvents type of an untouched delivery in `lifecycle.received`."""

BODY_MAX_BYTES: Final = 256 * 1024
DEPTH_MAX: Final = 32
INTEGER_MAX: Final = 2**53 - 1
"""I-JSON (RFC 7493): parsers with doubles read a larger integer as a different number."""

PROBE: Final = "operator_probe"
"""Value of `event` of a probe: our own name, which no sender uses for an event."""

_EVENTS: Final = {str(event): event for event in EventType}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_COUNT: Final = re.compile(r"\d{1,4}", re.ASCII)
_MARKS: Final = (("retryCount", 1), ("deliveryAttempt", 2))
"""The sender's retry counters, each with the least count that marks a retry."""
_SEQUENCE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

_UUID: Final = re.compile(UUID_SHAPE)


class Malformed(ValueError):
    """Raised for an authentic body that breaks the schema.

    Attributes:
        field: Dotted path of the field; `body` for the whole body.
        rule: The broken rule, as "must be a UUID".
    """

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


class UnknownEvent(Malformed):
    """Raised for an authentic body with an unknown `event`; a dead letter, not a refusal.

    Attributes:
        key: The key, if the body has UUIDs as `orgId` and `integrationId`; else None.
        at_us: The signed `eventTimestamp` in microseconds UTC, if readable; else None.
        marked: True if the signed body calls the delivery a retry, as in `Delivery`.
    """

    def __init__(self, key: Key | None, at_us: int | None, *, marked: bool) -> None:
        super().__init__("event", "is not a known lifecycle event")
        self.key = key
        self.at_us = at_us
        self.marked = marked


class Probe(UnknownEvent):
    """Raised for a probe (`PROBE`): an operator's question about URL, secret, binding and clock, which tells no event.

    A probe has a key and a signed time. A body that lacks one of them is an ordinary unknown event.
    """


class Delivery(NamedTuple):
    """An authentic, well-formed attempt of the sender to deliver an event.

    Attributes:
        body: The JSON object; the fields named in `schemas.webhook_shape` have the documented shape.
        key: `orgId:integrationId`, lower-cased.
        event: The type of the event.
        at_us: The signed `eventTimestamp` (B), microseconds UTC.
        event_id: The sender's id of the event (tier 1); None if absent or empty.
        sequence: The sender's sequence number as text (tier 2); None if absent or empty.
        marked: True if the signed body calls the delivery a retry (`retryCount` >= 1 or `deliveryAttempt` >= 2).
        odd_marks: True if a retry counter was present but unreadable. The counter then counts as absent; a metric shows
            the number of such deliveries.
    """

    body: Json
    key: Key
    event: EventType
    at_us: int
    event_id: str | None
    sequence: str | None
    marked: bool
    odd_marks: bool = False

    @property
    def tenant_id(self) -> str:
        """Returns `tenantId` as in the body."""
        found: str = self.body["tenantId"]
        return found

    @property
    def configuration(self) -> Json:
        """Returns the configuration object, untouched; empty if absent or null."""
        return self.body.get("configuration") or {}

    @property
    def installed_by(self) -> str | None:
        """Returns `metadata.installedBy`, equal over retries."""
        return (self.body.get("metadata") or {}).get("installedBy")

    @property
    def source(self) -> str | None:
        """Returns `metadata.source`, equal over retries."""
        return (self.body.get("metadata") or {}).get("source")


def parse(raw: bytes) -> Delivery:
    """Parses an authentic body.

    Raises:
        Probe: `event` is `PROBE`.
        UnknownEvent: `event` is a string, but no known event.
        Malformed: The body breaks a further rule of the JSON profile or the schema.
    """
    return delivery(read_json(raw))


def delivery(body: Any) -> Delivery:
    """Parses a body of decoded JSON.

    Raises:
        Probe: `event` is `PROBE`.
        UnknownEvent: `event` is a string, but no known event.
        Malformed: The body breaks a further rule of the schema.
    """
    if not isinstance(body, dict):
        raise Malformed("body", "must be a JSON object")
    name = body.get("event")
    if not isinstance(name, str):
        raise Malformed("event", "must be a string")
    # Before the schema: an event of a later version may have different fields, and becomes a dead letter, no refusal.
    event = _EVENTS.get(name)
    if event is None:
        raise _unknown(body)
    try:
        SHAPE.validate_python(body, strict=True)
        at_us = instant(body["eventTimestamp"])
    except ValidationError as error:
        raise _malformed(error) from None
    except ValueError:
        raise Malformed("eventTimestamp", RULES["eventTimestamp"]) from None
    metadata = body.get("metadata") or {}
    # The documented level of the ids is `metadata`; the top level is accepted as well. Both levels are checked in any
    # case, so a malformed id is refused even if the id at the preferred level is good.
    event_id, sequence = _event_id(body.get("eventId")), _sequence(body.get("sequence"))
    marked, odd_marks = _marks(metadata, body)
    return Delivery(
        body,
        key_of(body["orgId"], body["integrationId"]),
        event,
        at_us,
        _event_id(metadata.get("eventId")) or event_id,
        _sequence(metadata.get("sequence")) or sequence,
        marked,
        odd_marks,
    )


def read_json(raw: bytes) -> Any:
    """Decodes JSON of the strict profile, which every parser reads alike.

    Raises:
        Malformed: The bytes are not UTF-8, or the JSON has duplicate keys, NaN, Infinity, a float overflow, an integer
            beyond 2^53-1, or more than 32 levels.
    """
    try:
        value = from_json(raw, catch_duplicate_keys=True, allow_inf_nan=False, cache_mode="keys")
    except ValueError as error:
        # The parser's message may quote the body, so only the kind of the error is kept.
        kind = "has a duplicate key" if "duplicate key" in str(error) else "must be strict UTF-8 JSON"
        raise Malformed("body", kind) from None
    bounded(value)
    return value


def bounded(value: Any) -> None:
    """Checks a JSON value against the limits of a delivery; also used for values from outside webhooks.

    Raises:
        Malformed: The value has an infinite or undefined number, an integer beyond 2^53-1, or more than 32 levels.
    """
    # Level by level without recursion, so a hostile depth cannot exhaust the stack. The parser makes exact types and
    # most values are text, so exact types are compared and text comes first.
    depth, level = 0, [value]
    while level:
        below: list[Any] = []
        for node in level:
            kind = type(node)
            if kind is str:
                continue
            if kind is not dict and kind is not list:
                _number(node)
                continue
            if depth == DEPTH_MAX:
                raise Malformed("body", f"must not nest deeper than {DEPTH_MAX}")
            below += node.values() if kind is dict else node
        level = below
        depth += 1


def _number(node: Any) -> None:
    if isinstance(node, float) and not isfinite(node):
        raise Malformed("body", "numbers must be finite")
    if isinstance(node, int) and abs(node) > INTEGER_MAX:
        raise Malformed("body", "integers must not exceed 2^53-1")


def _unknown(body: Json) -> UnknownEvent:
    """Returns the error for an unknown event, with the readable fields; unreadable fields are no fault here."""
    org_id, integration_id, metadata = (body.get(n) for n in ("orgId", "integrationId", "metadata"))
    named = all(isinstance(i, str) and _UUID.fullmatch(i) for i in (org_id, integration_id))
    try:
        at_us = instant(str(body.get("eventTimestamp")))
    except ValueError:
        at_us = None
    marked, _ = _marks(metadata if isinstance(metadata, dict) else {}, body)
    key = key_of(str(org_id), str(integration_id)) if named else None
    kind = Probe if body["event"] == PROBE and key is not None and at_us is not None else UnknownEvent
    return kind(key, at_us, marked=marked)


def _malformed(error: ValidationError) -> Malformed:
    """Returns the error for the first fault, by the dotted path of the field; a fault within a list names the list."""
    where = error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"]
    path = ".".join(str(part) for part in where[:2])
    return Malformed(path, RULES[path])


def _event_id(value: Any) -> str | None:
    """Returns an event id; None if absent or empty."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 128 or (not value.isprintable() and _CONTROL.search(value)):
        raise Malformed("metadata.eventId", "must be a string of 1 to 128 characters without control characters")
    return value


def _sequence(value: Any) -> str | None:
    """Returns a sequence number as text; None if absent or empty."""
    if value is None or value == "":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= INTEGER_MAX:
        whole = int(value)
        if whole == value:  # 7.0 and 7 are equal in canonical JSON, so both give the uid of 7
            return str(whole)
    if isinstance(value, str) and _SEQUENCE.fullmatch(value):
        return value
    raise Malformed("metadata.sequence", "must be a whole number, or text of 1 to 64 of A-Z a-z 0-9 . _ -")


def _marks(metadata: Mapping[str, Any], body: Mapping[str, Any]) -> tuple[bool, bool]:
    """Returns two flags: a readable counter marks a retry, and an unreadable counter is present.

    A counter is an integer from 0 to 1000 or a text of up to 4 digits. A single marking counter is enough.
    """
    marked = odd = False
    for field, least in _MARKS:
        for value in (metadata.get(field), body.get(field)):
            if value is None:
                continue
            count = _count(value)
            if count is None:
                odd = True
            elif count >= least:
                marked = True
    return marked, odd


def _count(value: Any) -> int | None:
    """Returns the value of a retry counter; None for an unreadable value."""
    # bool is a subclass of int: `true` must not count as 1.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1000:
        return value
    return int(value) if isinstance(value, str) and _COUNT.fullmatch(value) else None
