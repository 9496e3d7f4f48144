"""The shape of a webhook body for pydantic: the fields with a rule, and the text of each rule.

Rule: `schemas.webhook` alone uses this module, and takes the values from the body after validation.
"""

from typing import Annotated, Final, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

# Typed dictionaries, not models: the body stays a plain dict with unknown fields kept, and validation builds no objects
# on the path of every delivery. Every field with a shape needs an entry in RULES, which `schemas.webhook` looks up by
# path.

_HEX: Final = "[0-9A-Fa-f]"
UUID_SHAPE: Final = f"^{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}$"
_TIME_PART: Final = r"T(?:#H(?:#M)?(?:#S)?|#M(?:#S)?|#S)".replace("#S", "[0-9]+(?:[.,][0-9]+)?S").replace("#", "[0-9]+")
_DATE_PART: Final = "(?:#Y(?:#M)?(?:#W)?(?:#D)?|#M(?:#W)?(?:#D)?|#W(?:#D)?|#D)".replace("#", "[0-9]+")

_Uuid = Annotated[str, Field(pattern=UUID_SHAPE)]


class _Configuration(TypedDict, total=False):
    crmEndpoint: str | None
    syncInterval: Annotated[str, Field(pattern=f"^P(?:{_DATE_PART}(?:{_TIME_PART})?|{_TIME_PART})$")] | None
    featureFlags: list[str] | None


class _Metadata(TypedDict, total=False):
    installedBy: str | None
    source: str | None


class _Body(TypedDict):
    """The fields with a shape. Further fields are allowed, with any value, and stay in the body."""

    metadata: NotRequired[_Metadata | None]
    orgId: _Uuid
    integrationId: _Uuid
    tenantId: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    configuration: NotRequired[_Configuration | None]
    eventTimestamp: str


SHAPE: Final = TypeAdapter(_Body).validator
"""Validator of a whole body."""

RULES: Final = {
    "metadata": "must be an object",
    "orgId": "must be a UUID",
    "integrationId": "must be a UUID",
    "tenantId": "must be 1 to 128 letters, digits, . _ or -",
    "configuration": "must be an object",
    "configuration.crmEndpoint": "must be a string",
    "configuration.syncInterval": "must be an ISO 8601 duration",
    "configuration.featureFlags": "must be a list of strings",
    "eventTimestamp": "must be an RFC 3339 date-time",
    "metadata.installedBy": "must be a string",
    "metadata.source": "must be a string",
}
"""The rule of each field, by the field's dotted path."""
