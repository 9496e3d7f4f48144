"""Parsers for answers of the public Genesys Cloud API, and the file with an organisation's API credentials.

Rule: only the fields in use are parsed, and a field of an undocumented shape raises `Strange`; no value is guessed. A
number written as text counts as the number. In a listing, a malformed entity invalidates only itself: `Page.odd` holds
the reason, and the remaining entities are used.
Source: the API's models Integration, IntegrationEntityListing, IntegrationConfiguration and ErrorBody.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from schemas.values import UUID_PATTERN, Json

# Theory. A tenant may be removed because Genesys no longer lists an integration, so a wrong reading destroys data.
# Every parser below therefore separates "Genesys says no" (an absent integration, a 404) from "no information"
# (`Strange`, an entity in `Page.odd`, an id in `Reading.unread`). Never turn the second into the first.

_UUID = re.compile(UUID_PATTERN, re.IGNORECASE | re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]+")
"""Token characters of RFC 6749 appendix A.12 except the space, since a header value must not end with a space."""
_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_WHOLE_MAX: Final = 10**18
TOKEN_LIFE_S: Final = 300.0
"""Assumed life of a token without a usable `expires_in`: the shortest on the platform (5 minutes to 48 hours)."""


class Strange(ValueError):
    """Raised for a body of an undocumented shape; the text names the field and the rule, never a value."""


class Organisation(BaseModel):
    """A file of the folder `ORGS_DIR`: the API credentials and settings of an organisation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    org_id: str = Field(pattern=f"(?i)^{UUID_PATTERN}$")
    client_id: str = Field(min_length=1)
    client_secret: SecretStr = Field(min_length=1)
    region: str | None = None
    """Region name or domain (`eu-west-1`, `mypurecloud.ie`); null if the environment names the hosts."""
    tenant_id_from: str | None = None
    """Name of the configuration property with the tenantId, for keys without a tenantId from a webhook."""
    integration_types: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Types of the integrations under management; empty manages every integration of the organisation."""
    integration_type: str | None = None
    """A single type under management, the form of earlier releases; counts beside `integration_types`."""
    name: str | None = None
    """A label for operators; no decision depends on the label."""

    @property
    def types(self) -> frozenset[str]:
        """Returns the types under management; empty for all."""
        # An empty text in the earlier form names a type that no integration has: not the same as no text.
        former = () if self.integration_type is None else (self.integration_type,)
        return frozenset((*self.integration_types, *former))

    @field_validator("org_id")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.lower()


@dataclass(frozen=True, slots=True)
class Integration:
    """An integration, as an entity of the listing or from a read by id.

    Attributes:
        id: Lower-cased UUID.
        intended_state: The text of `intendedState`, perhaps unknown to this version; None if absent or not text.
        type_id: Id of the integration type; None if absent or not text.
    """

    id: str
    intended_state: str | None
    type_id: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the listing.

    Attributes:
        number: Page number, from 1.
        total: Number of entities on all pages.
        last: True if the page is empty or names no next page.
        integrations: The well-formed entities.
        odd: A sentence for each malformed entity.
    """

    number: int
    total: int
    last: bool
    integrations: tuple[Integration, ...]
    odd: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of a complete read of an organisation. An id outside listing and questions is in no field.

    Attributes:
        org_id: Id of the organisation; proven to be the token's own.
        client_id: The API client of the read; a client with fewer rights may see fewer integrations.
        read_at_us: `Date` of the first answer, microseconds UTC by the clock of Genesys.
        integrations: By id: the listed integrations, and the unlisted integrations found by a read of the id.
        absent: Ids outside the listing for which Genesys answered a read with 404.
        configurations: By id: `properties` of `config/current`, for each readable configuration that is still held.
        released: By id: MAC of a configuration that was read, agreed with the view, and is not held any more.
        unread: By id: the reason for a missing answer or a missing configuration.
        odd: A sentence for each malformed entity of the listing; such an entity has no usable id.
    """

    org_id: str
    client_id: str
    read_at_us: int
    integrations: Mapping[str, Integration]
    absent: frozenset[str] = frozenset()
    configurations: Mapping[str, Json] = field(default_factory=dict)
    released: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    odd: tuple[str, ...] = ()


def integration(body: Any) -> Integration:
    """Returns the integration of a JSON value; absent optional fields are None.

    Raises:
        Strange: The value is not an object or has no UUID as `id`.
    """
    if not isinstance(body, dict):
        raise Strange(f"integration: must be an object, and is {_named(body)}")
    identity, state, kind = body.get("id"), body.get("intendedState"), body.get("integrationType")
    if not isinstance(identity, str) or not _UUID.fullmatch(identity):
        raise Strange("integration.id: must be a UUID")
    type_id = kind.get("id") if isinstance(kind, dict) else None
    return Integration(
        identity.lower(),
        # One text for all integrations: a run over many organisations holds all of them.
        sys.intern(state) if isinstance(state, str) else None,
        sys.intern(type_id) if isinstance(type_id, str) else None,
    )


def page(body: Any) -> Page:
    """Returns a page of the listing.

    Raises:
        Strange: The body is not an object, or `entities`, `pageNumber` or `total` is missing or malformed.
    """
    if not isinstance(body, dict):
        raise Strange("listing: must be an object")
    entities, number, total = body.get("entities"), whole(body.get("pageNumber")), whole(body.get("total"))
    if not isinstance(entities, list):
        raise Strange(f"listing.entities: must be a list, and is {_named(entities)}")
    if number is None or total is None:
        raise Strange("listing.pageNumber, listing.total: must be whole numbers")
    found, odd = [], []
    for entity in entities:
        try:
            found.append(integration(entity))
        except Strange as error:
            odd.append(str(error))
    # An empty page counts as the last even if it names a next page: an endless listing would be read for ever.
    return Page(number, total, not entities or not body.get("nextUri"), tuple(found), tuple(odd))


def properties(body: Any) -> Json:
    """Returns the properties of a configuration.

    Raises:
        Strange: `properties` is absent, null or not an object.
    """
    # Null must not count as an empty configuration: null is no information, {} would replace the tenant's settings.
    found = body.get("properties") if isinstance(body, dict) else None
    if not isinstance(found, dict):
        raise Strange(f"properties: must be an object, and is {_named(found)}")
    return found


def organisation_id(body: Any) -> str:
    """Returns the lower-cased id of the organisation of an access token.

    Raises:
        Strange: The body has no text as `id`.
    """
    identity = body.get("id") if isinstance(body, dict) else None
    if not isinstance(identity, str):
        raise Strange(f"id: must be text, and is {_named(identity)}")
    return identity.lower()


def token(body: Any) -> tuple[str, float]:
    """Returns an access token and the token's life in seconds.

    Raises:
        Strange: `access_token` is absent, or has characters outside visible ASCII and so cannot stand in a header.
    """
    found = body.get("access_token") if isinstance(body, dict) else None
    if not isinstance(found, str) or not _TOKEN.fullmatch(found):
        raise Strange("access_token: must be visible ASCII; this is not a token response")
    return found, _life_s(body.get("expires_in"))


def no_such(body: Any) -> bool:
    """True if an error body reports an absent entity: status 404 or code `not.found`."""
    if not isinstance(body, dict):
        return False
    return whole(body.get("status")) == 404 or body.get("code") == "not.found"


def _life_s(value: Any) -> float:
    """Returns the life in seconds, written as a number or as text; `TOKEN_LIFE_S` for an unusable value."""
    try:
        life_s = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        life_s = 0.0
    return life_s if isfinite(life_s) and life_s > 0 else TOKEN_LIFE_S


def whole(value: Any) -> int | None:
    """Returns a whole number of at most 18 digits, written as a number or as text; None for every further value."""
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else None
    is_whole = (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and value.is_integer()
    )
    # An integer of JSON has no bounds, and one of 400 digits has no float to calculate with.
    return int(value) if is_whole and abs(value) < _WHOLE_MAX else None


def _named(value: Any) -> str:
    """Returns the JSON name of a value's type, for error texts without values."""
    if value is None:
        return "null or missing"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "something else")
