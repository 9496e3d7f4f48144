"""The small values that every record shares: keys, instants, event types, JSON.

Rule: an instant is an `int` of microseconds since 1970 UTC inside the house and RFC 3339 in JSON; nothing else
ever represents time.
"""

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
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

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
"""`datetime.fromisoformat` takes far more (week dates, no offset, other separators): this says what it may be given."""
_FIRST_US = -62_135_596_800_000_000
_LAST_US = 253_402_300_799_999_999
"""What `rfc3339` can write: an offset must not carry an instant out of it."""
UUID_PATTERN = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def instant(text: str) -> int:
    """Read an RFC 3339 date-time as microseconds since 1970 UTC; digits beyond the sixth are dropped.

    Raises:
        ValueError: not RFC 3339, no offset, or no such instant (week dates, dates alone and numbers are refused).
    """
    if _RFC3339.fullmatch(text) is None:
        raise ValueError("not an RFC 3339 date-time with an offset")
    since = datetime.fromisoformat(text) - _EPOCH
    at_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if not _FIRST_US <= at_us <= _LAST_US:
        raise ValueError("not within the years 1 to 9999 UTC")
    return at_us


def rfc3339(at_us: int) -> str:
    """Write microseconds since 1970 UTC as RFC 3339 with six digits and `Z`."""
    second, us = divmod(at_us, 1_000_000)
    return f"{_second(second)}.{us:06d}Z"


@lru_cache(maxsize=1_024)
def _second(since_1970: int) -> str:
    """One second written out; what happens at the same time is written in the same seconds."""
    return (_EPOCH + timedelta(seconds=since_1970)).isoformat()[:19]


def _read_instant(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str):
        return instant(value)
    if info.mode == "json":  # seconds or microseconds? A number of JSON does not say
        raise ValueError("not an RFC 3339 date-time with an offset")
    return value


Instant = Annotated[
    int,
    Field(ge=_FIRST_US, le=_LAST_US),
    BeforeValidator(_read_instant),
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""Microseconds since 1970 UTC; in JSON RFC 3339 and nothing else."""

Uuid = Annotated[str, StringConstraints(pattern=f"^{UUID_PATTERN}$")]
"""Lower-case."""

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
    """Who asserted an event."""

    WEBHOOK = "webhook"
    RECONCILER = "reconciler"
    OPERATOR = "operator"


class Record(BaseModel):
    """A value of ours in Kafka: frozen; unknown fields of a newer writer are ignored."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )


def key_of(org_id: str, integration_id: str) -> Key:
    """Join the two identifiers, lower-cased, to the key."""
    return f"{org_id.lower()}:{integration_id.lower()}"
