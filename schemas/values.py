"""Types shared by all records: keys, event types, JSON objects, instants as model fields, and the base of records."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)

from schemas.times import FIRST_US, LAST_US, instant, rfc3339

UUID_PATTERN = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def _read_instant(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str):
        return instant(value)
    if info.mode == "json":  # a number is refused: JSON does not tell seconds from microseconds
        raise ValueError("not an RFC 3339 date-time with an offset")
    return value


Instant = Annotated[
    int,
    Field(ge=FIRST_US, le=LAST_US),
    BeforeValidator(_read_instant),
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""Microseconds since 1970 UTC in Python, RFC 3339 text in JSON; a JSON number is refused."""

Uuid = Annotated[str, StringConstraints(pattern=f"^{UUID_PATTERN}$")]
"""A lower-case UUID."""

Key = Annotated[str, StringConstraints(pattern=f"^{UUID_PATTERN}:{UUID_PATTERN}$")]
"""`orgId:integrationId`, both lower-case UUIDs: the unit of order, state and provisioning, and the Kafka key."""

TenantId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]

Json = dict[str, Any]
"""A JSON object."""


class EventType(StrEnum):
    """The five lifecycle events of the guide."""

    INSTALLED = "installed"
    UNINSTALLED = "uninstalled"
    ENABLED = "enabled"
    DISABLED = "disabled"
    CONFIGURATION_UPDATED = "configuration_updated"


class Source(StrEnum):
    """Origin of an event: a webhook, an audit that counts as an event, a read by the reconciler, a command."""

    WEBHOOK = "webhook"
    AUDIT = "audit"
    RECONCILER = "reconciler"
    OPERATOR = "operator"


class Record(BaseModel):
    """Base of the records in Kafka and PostgreSQL: frozen, and unknown fields of a newer writer are ignored."""

    # Docstrings of fields become descriptions in schemas/json, and the input stays out of error texts: it may be
    # secret.
    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )


def key_of(org_id: str, integration_id: str) -> Key:
    """Returns the key of the two identifiers, lower-cased."""
    return f"{org_id.lower()}:{integration_id.lower()}"
