"""The sender's wire format, the guide's dialect, and its strict JSON. Only this module and its shape speak it.

Rule: bytes become a typed `Delivery` once, here, after they were proved authentic; nothing behind this module knows
the sender's spelling. Every refusal names a field and a rule, never a value.
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

CE_TYPE: Final = "genesys.webhook.v1"
"""CloudEvents type of an untouched delivery in `lifecycle.received`."""

BODY_MAX_BYTES: Final = 256 * 1024
DEPTH_MAX: Final = 32
INTEGER_MAX: Final = 2**53 - 1
"""I-JSON: integers beyond it differ between readers."""

_EVENTS: Final = {str(event): event for event in EventType}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_COUNT: Final = re.compile(r"\d{1,4}", re.ASCII)
_MARKS: Final = (("retryCount", 1), ("deliveryAttempt", 2))
"""Names of the sender's counts, and from which count on they say that this is a retry."""
_SEQUENCE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

_UUID: Final = re.compile(UUID_SHAPE)


class Malformed(ValueError):
    """Authentic, but not this schema.

    Attributes:
        field: Dotted path of the field, `body` for the whole.
        rule: What it must be.
    """

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


class UnknownEvent(Malformed):
    """Authentic and an object with an `event` that this version does not know: parked, not refused.

    Attributes:
        key: Whom it speaks of, where it says so as the five events do; else None.
        at_us: The signed `eventTimestamp`, where it is readable; else None.
        marked: As of a `Delivery`.
    """

    def __init__(self, key: Key | None, at_us: int | None, *, marked: bool) -> None:
        super().__init__("event", "is not a known lifecycle event")
        self.key = key
        self.at_us = at_us
        self.marked = marked


class Delivery(NamedTuple):
    """One verified attempt of the sender to tell one event.

    Attributes:
        body: The object itself; its named fields have their shape.
        key: `orgId:integrationId`, lower-cased.
        event: One of the five.
        at_us: The signed `eventTimestamp` (B), microseconds UTC.
        event_id: The sender's id (tier 1), None where absent or empty.
        sequence: The sender's sequence as text (tier 2), None where absent.
        marked: The signed metadata calls this a retry (`retryCount` >= 1 or `deliveryAttempt` >= 2).
        odd_marks: A retry mark was there but not readable as a count: treated as absent, counted.
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
        """As this delivery names it."""
        found: str = self.body["tenantId"]
        return found

    @property
    def configuration(self) -> Json:
        """The object, untouched; empty where the sender gave none."""
        return self.body.get("configuration") or {}

    @property
    def installed_by(self) -> str | None:
        """`metadata.installedBy`, stable over retries."""
        return (self.body.get("metadata") or {}).get("installedBy")

    @property
    def source(self) -> str | None:
        """`metadata.source`, stable over retries."""
        return (self.body.get("metadata") or {}).get("source")


def parse(raw: bytes) -> Delivery:
    """Read one verified body.

    Raises:
        UnknownEvent: `event` is a string but none of the five.
        Malformed: anything else that is not the schema.
    """
    return delivery(read_json(raw))


def delivery(body: Any) -> Delivery:
    """Read one body that is JSON already; same errors as `parse`."""
    if not isinstance(body, dict):
        raise Malformed("body", "must be a JSON object")
    name = body.get("event")
    if not isinstance(name, str):
        raise Malformed("event", "must be a string")
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
    # The sender's place for its own ids is `metadata`; the top level is accepted too, and judged in any case.
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
    """Read JSON that every reader understands alike.

    Raises:
        Malformed: not UTF-8, duplicate keys, NaN, Infinity or overflow, integers beyond 2^53-1, or
            deeper than 32.
    """
    try:
        value = from_json(raw, catch_duplicate_keys=True, allow_inf_nan=False, cache_mode="keys")
    except ValueError as error:
        # The parser's message may quote the body: keep its kind alone.
        kind = "has a duplicate key" if "duplicate key" in str(error) else "must be strict UTF-8 JSON"
        raise Malformed("body", kind) from None
    bounded(value)
    return value


def bounded(value: Any) -> None:
    """Whether a value of JSON is within the limits of a delivery, whoever sent it.

    Raises:
        Malformed: a number that readers understand differently, or deeper than 32.
    """
    # Level by level. The parser makes exact types, and most values are text: asked in that order.
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
    """An event of a later version may look otherwise: what is readable of it is read, the rest is no fault."""
    org_id, integration_id, metadata = (body.get(n) for n in ("orgId", "integrationId", "metadata"))
    named = all(isinstance(i, str) and _UUID.fullmatch(i) for i in (org_id, integration_id))
    try:
        at_us = instant(str(body.get("eventTimestamp")))
    except ValueError:
        at_us = None
    marked, _ = _marks(metadata if isinstance(metadata, dict) else {}, body)
    return UnknownEvent(key_of(str(org_id), str(integration_id)) if named else None, at_us, marked=marked)


def _malformed(error: ValidationError) -> Malformed:
    """The first fault, by the dotted path of its field; a fault within a list is the list's."""
    where = error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"]
    path = ".".join(str(part) for part in where[:2])
    return Malformed(path, RULES[path])


def _event_id(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 128 or (not value.isprintable() and _CONTROL.search(value)):
        raise Malformed("metadata.eventId", "must be a string of 1 to 128 characters without control characters")
    return value


def _sequence(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= INTEGER_MAX:
        whole = int(value)
        if whole == value:  # 7.0 is another spelling of 7, as everywhere in canonical JSON
            return str(whole)
    if isinstance(value, str) and _SEQUENCE.fullmatch(value):
        return value
    raise Malformed("metadata.sequence", "must be a whole number, or text of 1 to 64 of A-Z a-z 0-9 . _ -")


def _marks(metadata: Mapping[str, Any], body: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the sender calls this a retry, and whether a mark was there that no count could be read from.

    A count is 0 to 1000, or text of up to 4 digits; of several readable ones the greatest counts.
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
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1000:
        return value
    return int(value) if isinstance(value, str) and _COUNT.fullmatch(value) else None
