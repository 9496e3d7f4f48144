"""The shape of a body in the sender's format, for pydantic: which fields there are and what each must be.

Rule: what a body says is read in `schemas.webhook`, which alone asks this module.
"""

from typing import Annotated, Final, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

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
    """The fields that have a shape; what is not named here is kept and may be anything."""

    metadata: NotRequired[_Metadata | None]
    orgId: _Uuid
    integrationId: _Uuid
    tenantId: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    configuration: NotRequired[_Configuration | None]
    eventTimestamp: str


SHAPE: Final = TypeAdapter(_Body).validator
"""Of a whole body."""

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
"""What each field must be, by its dotted path."""
