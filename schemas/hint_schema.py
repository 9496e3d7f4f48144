"""JSON Schema of the envelope that a hint's path takes, for OpenAPI.

Rule: every body of which `schemas.hint` reads all parts is valid under this schema; the reverse does not hold, as for
`schemas.webhook_schema`. A notification of another topic or entity is acknowledged without these fields.
"""

from typing import Any, Final

_HEX: Final = "[0-9A-Fa-f]"
_UUID: Final = f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"
_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": 256}

ENVELOPE: Final[dict[str, Any]] = {
    "title": "Hint",
    "description": "An audit of Genesys Cloud in the envelope of Amazon EventBridge. Further fields are ignored.",
    "type": "object",
    "required": ["source", "detail"],
    "properties": {
        "source": {"type": "string", "pattern": f"^aws\\.partner/genesys\\.com/cloud/{_UUID}/[^/]+$"},
        "account": {"type": ["string", "null"], "pattern": "^[0-9]{12}$"},
        "detail": {
            "type": "object",
            "required": ["topicName", "eventBody"],
            "properties": {
                "topicName": _TEXT,
                "eventBody": {
                    "type": "object",
                    "required": ["id", "serviceName", "eventTime", "action", "entityType", "entity"],
                    "properties": {
                        "id": {"description": "The audit's id: equal over repetitions.", **_TEXT},
                        "serviceName": _TEXT,
                        "eventTime": {"type": "string", "format": "date-time"},
                        "action": _TEXT,
                        "entityType": _TEXT,
                        "entity": {
                            "type": "object",
                            "required": ["id"],
                            "properties": {"id": {"type": "string", "pattern": f"^{_UUID}$"}},
                        },
                    },
                },
            },
        },
    },
}
