"""The sender's wire format, the guide's dialect, and its strict JSON. The only module that speaks it.

Rule: bytes become a typed `Delivery` once, here, after they were proved authentic; nothing behind this module knows
the sender's spelling. Every refusal names a field and a rule, never a value.
Sources: the guide (fields), RFC 8259 with I-JSON's limits (JSON profile), RFC 3339 (times).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from jiter import from_json

from schemas.values import UUID_PATTERN, EventType, Json, Key, instant, key_of

CE_TYPE: Final = "genesys.webhook.v1"
"""CloudEvents type of an untouched delivery in `lifecycle.received`."""

BODY_MAX_BYTES: Final = 256 * 1024
DEPTH_MAX: Final = 32
INTEGER_MAX: Final = 2**53 - 1
"""I-JSON: integers beyond it differ between readers."""

_UUID = re.compile(UUID_PATTERN, re.IGNORECASE | re.ASCII)
_TENANT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_DURATION = re.compile(r"P(?=\d|T\d)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?", re.ASCII)
_EVENTS = {str(event): event for event in EventType}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_COUNT = re.compile(r"\d{1,4}", re.ASCII)
_SEQUENCE = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


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


@dataclass(frozen=True, slots=True)
class Delivery:
    """One verified attempt of the sender to tell one event.

    Attributes:
        key: `orgId:integrationId`, lower-cased.
        event: One of the five.
        tenant_id: As this delivery names it.
        configuration: The object, untouched; empty where the sender gave none.
        at_us: The signed `eventTimestamp` (B), microseconds UTC.
        installed_by: `metadata.installedBy`, stable over retries.
        source: `metadata.source`, stable over retries.
        event_id: The sender's id (tier 1), None where absent or empty.
        sequence: The sender's sequence as text (tier 2), None where absent.
        marked: The signed metadata calls this a retry (`retryCount` >= 1 or `deliveryAttempt` >= 2).
        odd_marks: A retry mark was there but not readable as a count: treated as absent, counted.
    """

    key: Key
    event: EventType
    tenant_id: str
    configuration: Json
    at_us: int
    installed_by: str | None
    source: str | None
    event_id: str | None
    sequence: str | None
    marked: bool
    odd_marks: bool = False


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
    event = _event(body)
    metadata = _object(body, "metadata")
    marked, odd_marks = _marks(metadata, body)
    org_id = _text(body, "orgId", _UUID, "must be a UUID")
    integration_id = _text(body, "integrationId", _UUID, "must be a UUID")
    return Delivery(
        key=key_of(org_id, integration_id),
        event=event,
        tenant_id=_text(body, "tenantId", _TENANT_ID, "must be 1 to 128 letters, digits, . _ or -"),
        configuration=_configuration(body),
        at_us=_timestamp(body.get("eventTimestamp")),
        installed_by=_label(metadata, "installedBy"),
        source=_label(metadata, "source"),
        event_id=_event_id(metadata, body),
        sequence=_sequence(metadata, body),
        marked=marked,
        odd_marks=odd_marks,
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
    _bounded(value)
    return value


def _bounded(value: Any) -> None:
    """Walk the values level by level. The parser makes exact types, and most values are text: asked in that order."""
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


def _event(body: Json) -> EventType:
    value = body.get("event")
    if not isinstance(value, str):
        raise Malformed("event", "must be a string")
    event = _EVENTS.get(value)
    if event is None:
        raise _unknown(body)
    return event


def _unknown(body: Json) -> UnknownEvent:
    """An event of a later version may look otherwise: what is readable of it is read, the rest is no fault."""
    org_id, integration_id, metadata = (body.get(n) for n in ("orgId", "integrationId", "metadata"))
    named = all(isinstance(i, str) and _UUID.fullmatch(i) for i in (org_id, integration_id))
    try:
        at_us = _timestamp(body.get("eventTimestamp"))
    except Malformed:
        at_us = None
    marked, _ = _marks(metadata if isinstance(metadata, dict) else {}, body)
    return UnknownEvent(key_of(str(org_id), str(integration_id)) if named else None, at_us, marked=marked)


def _text(body: Mapping[str, Any], field: str, shape: re.Pattern[str], rule: str) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not shape.fullmatch(value):
        raise Malformed(field, rule)
    return value


def _object(body: Mapping[str, Any], field: str) -> Json:
    value = body.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(field, "must be an object")
    return value


def _configuration(body: Mapping[str, Any]) -> Json:
    configuration = _object(body, "configuration")
    endpoint, interval, features = (configuration.get(n) for n in ("crmEndpoint", "syncInterval", "featureFlags"))
    if endpoint is not None and not isinstance(endpoint, str):
        raise Malformed("configuration.crmEndpoint", "must be a string")
    if interval is not None and not (isinstance(interval, str) and _DURATION.fullmatch(interval)):
        raise Malformed("configuration.syncInterval", "must be an ISO 8601 duration")
    if features is not None and not (isinstance(features, list) and all(isinstance(f, str) for f in features)):
        raise Malformed("configuration.featureFlags", "must be a list of strings")
    return configuration


def _timestamp(value: Any) -> int:
    if not isinstance(value, str):
        raise Malformed("eventTimestamp", "must be an RFC 3339 date-time")
    try:
        return instant(value)
    except ValueError:
        raise Malformed("eventTimestamp", "must be an RFC 3339 date-time") from None


def _label(metadata: Mapping[str, Any], field: str) -> str | None:
    value = metadata.get(field)
    if value is not None and not isinstance(value, str):
        raise Malformed(f"metadata.{field}", "must be a string")
    return value


def _either(metadata: Mapping[str, Any], body: Mapping[str, Any], field: str) -> Any:
    """The sender's place for its own ids is `metadata`; the top level is accepted too."""
    value = metadata.get(field)
    return body.get(field) if value is None else value


def _event_id(metadata: Mapping[str, Any], body: Mapping[str, Any]) -> str | None:
    value = _either(metadata, body, "eventId")
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 128 or _CONTROL.search(value):
        raise Malformed("metadata.eventId", "must be a string of 1 to 128 characters without control characters")
    return value


def _sequence(metadata: Mapping[str, Any], body: Mapping[str, Any]) -> str | None:
    value = _either(metadata, body, "sequence")
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
    """Whether the sender calls this a retry, and whether a mark was there that no count could be read from."""
    retry, odd_retry = _count(metadata, body, "retryCount")
    attempt, odd_attempt = _count(metadata, body, "deliveryAttempt")
    return retry >= 1 or attempt >= 2, odd_retry or odd_attempt


def _count(metadata: Mapping[str, Any], body: Mapping[str, Any], field: str) -> tuple[int, bool]:
    """The greatest readable count (0..1000, or text of up to 4 digits), and whether an unreadable one was there."""
    greatest, odd = 0, False
    for value in (metadata.get(field), body.get(field)):
        if value is None:
            continue
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1000:
            greatest = max(greatest, value)
        elif isinstance(value, str) and _COUNT.fullmatch(value):
            greatest = max(greatest, int(value))
        else:
            odd = True
    return greatest, odd
