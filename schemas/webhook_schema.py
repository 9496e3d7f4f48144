"""JSON Schema of the webhook body, for the sender's developers and for OpenAPI.

Rule: every body accepted by `webhook.parse` is valid under this schema. The reverse does not hold: a schema cannot
express all rules (dates like 30 February, duplicate keys, bounds of numbers), so `parse` refuses more. A property test
compares schema and parser.
"""

from typing import Any, Final

from schemas.values import EventType

# The rules of `schemas.webhook_shape` are repeated here, because JSON Schema and pydantic patterns are different
# dialects. The descriptions are published (schemas/json, OpenAPI): run `make schemas` after a change.

_HEX: Final = "[0-9A-Fa-f]"
_UUID: Final = {
    "type": "string",
    "pattern": f"^{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}$",
    "maxLength": 36,
}
_LABEL: Final = {"type": ["string", "null"]}
_COUNT: Final = {
    "description": "A whole number from 0 to 1000, or text of up to 4 digits; anything else counts as absent."
}
_EVENT_ID: Final = {
    "description": "The sender's own id of the event: equal over retries. Empty counts as absent.",
    "type": ["string", "null"],
    "maxLength": 128,
    "pattern": "^[^\\u0000-\\u001f\\u007f]*$",
}
_SEQUENCE: Final = {
    "description": "The sender's own sequence number of the event: equal over retries. Empty counts as absent.",
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 2**53 - 1},
        {"type": "string", "pattern": "^[A-Za-z0-9._-]*$", "maxLength": 64},
        {"type": "null"},
    ],
}
_VOLATILE: Final = {
    "eventId": _EVENT_ID,
    "sequence": _SEQUENCE,
    "retryCount": _COUNT,
    "deliveryAttempt": _COUNT,
}
_DURATION: Final = r"^P(?=\d|T\d)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?$"

BODY: Final[dict[str, Any]] = {
    "title": "Webhook",
    "description": "One lifecycle event of one integration. Fields that are not named here are kept.",
    "type": "object",
    "required": ["event", "integrationId", "orgId", "tenantId", "eventTimestamp"],
    "properties": {
        "event": {
            "description": "Another string is parked, not refused; `operator_probe` is answered and not kept.",
            "type": "string",
            "enum": [str(event) for event in EventType],
        },
        "integrationId": _UUID,
        "orgId": _UUID,
        "tenantId": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", "maxLength": 128},
        "configuration": {
            "type": ["object", "null"],
            "properties": {
                "crmEndpoint": {"type": ["string", "null"]},
                "syncInterval": {
                    "description": "ISO 8601 duration.",
                    "type": ["string", "null"],
                    "pattern": _DURATION,
                },
                "featureFlags": {"type": ["array", "null"], "items": {"type": "string"}},
            },
        },
        "eventTimestamp": {
            "description": "RFC 3339 with an offset; digits beyond microseconds are dropped.",
            "type": "string",
            "format": "date-time",
            "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$",
        },
        "metadata": {
            "type": ["object", "null"],
            "properties": {"installedBy": _LABEL, "source": _LABEL, **_VOLATILE},
        },
        **_VOLATILE,
    },
}
