"""What the public Genesys Cloud API says of integrations, and the file that lets us ask it for one organisation.

Rule: only what we use is read, and it must have its shape: a body that has not is `Strange`, never guessed at. A number
written as text is that number. In a listing one odd entity says nothing of the others, so it is kept apart.
Source: the API's models Integration, IntegrationEntityListing, IntegrationConfiguration and ErrorBody.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from schemas.values import UUID_PATTERN, Json

_UUID = re.compile(UUID_PATTERN, re.IGNORECASE | re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]+")
"""RFC 6749 appendix A.12, without the space that no header may end with."""
_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)
TOKEN_LIFE_S: Final = 300.0
"""Of a token whose `expires_in` does not say: the shortest that the platform gives (5 minutes to 48 hours)."""


class Strange(ValueError):
    """A body that is not what the API documents; the text names the field and the rule, never a value."""


class Organisation(BaseModel):
    """One file of the folder `ORGS_DIR`: how to ask Genesys about one organisation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    org_id: str = Field(pattern=f"(?i)^{UUID_PATTERN}$")
    client_id: str = Field(min_length=1)
    client_secret: SecretStr = Field(min_length=1)
    region: str | None = None
    """`eu-west-1` or `mypurecloud.ie`; null where the hosts are given by the environment."""
    tenant_id_from: str | None = None
    """The configuration property that names the tenant, for keys that no webhook has named yet."""
    integration_type: str | None = None
    """Only integrations of this type are ours to install; null takes every integration of the organisation."""

    @field_validator("org_id")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.lower()


@dataclass(frozen=True, slots=True)
class Integration:
    """One entity of the listing.

    Attributes:
        id: Lower-cased UUID.
        intended_state: As Genesys spells it; may be a value that this version does not know. None where it is no text.
        type_id: Of its integration type, None where the API gives none.
    """

    id: str
    intended_state: str | None
    type_id: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the listing.

    Attributes:
        number: From 1.
        total: Entities of all pages.
        last: True if the page names no next one.
        integrations: Those that have an id.
        odd: Why the others are none, one sentence each.
    """

    number: int
    total: int
    last: bool
    integrations: tuple[Integration, ...]
    odd: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What one complete read of one organisation says. An integration that was not asked about is in no field.

    Attributes:
        org_id: Proven: the token belongs to it.
        client_id: Who looked: another client may see less.
        read_at_us: `Date` of the read's first answer, Genesys' clock.
        integrations: Everything listed, by id, and what was found by id though it is not in the listing.
        absent: Ids that are not listed and that Genesys, asked by id, does not know (404).
        configurations: `properties` of `config/current`, where they could be read.
        unread: Why, of ids that were asked about and gave no answer or no configuration.
        odd: Why entities of the listing are nobody's.
    """

    org_id: str
    client_id: str
    read_at_us: int
    integrations: Mapping[str, Integration]
    absent: frozenset[str] = frozenset()
    configurations: Mapping[str, Json] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    odd: tuple[str, ...] = ()


def integration(body: Any) -> Integration:
    """Returns one integration; what it is not told of it is None.

    Raises:
        Strange: it has no UUID, so nobody knows which one it is.
    """
    if not isinstance(body, dict):
        raise Strange(f"integration: must be an object, and is {_named(body)}")
    identity, state, kind = body.get("id"), body.get("intendedState"), body.get("integrationType")
    if not isinstance(identity, str) or not _UUID.fullmatch(identity):
        raise Strange("integration.id: must be a UUID")
    type_id = kind.get("id") if isinstance(kind, dict) else None
    return Integration(
        identity.lower(),
        state if isinstance(state, str) else None,
        type_id if isinstance(type_id, str) else None,
    )


def page(body: Any) -> Page:
    """Returns one page of the listing.

    Raises:
        Strange: a count or the entities are missing.
    """
    if not isinstance(body, dict):
        raise Strange("listing: must be an object")
    entities, number, total = body.get("entities"), _whole(body.get("pageNumber")), _whole(body.get("total"))
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
    # An empty page is the last one, whatever it says: a listing that never ends would be read for ever.
    return Page(number, total, not entities or not body.get("nextUri"), tuple(found), tuple(odd))


def properties(body: Any) -> Json:
    """Returns the properties of a configuration. Null is no configuration that was emptied: it says nothing.

    Raises:
        Strange: there are none.
    """
    found = body.get("properties") if isinstance(body, dict) else None
    if not isinstance(found, dict):
        raise Strange(f"properties: must be an object, and is {_named(found)}")
    return found


def organisation_id(body: Any) -> str:
    """Returns the id of the organisation that a token belongs to, lower-cased.

    Raises:
        Strange: it is not told.
    """
    identity = body.get("id") if isinstance(body, dict) else None
    if not isinstance(identity, str):
        raise Strange(f"id: must be text, and is {_named(identity)}")
    return identity.lower()


def token(body: Any) -> tuple[str, float]:
    """Returns an access token and its life in seconds.

    Raises:
        Strange: there is no token that a header can carry.
    """
    found = body.get("access_token") if isinstance(body, dict) else None
    if not isinstance(found, str) or not _TOKEN.fullmatch(found):
        raise Strange("access_token: must be visible ASCII; this is not a token response")
    return found, _life_s(body.get("expires_in"))


def no_such(body: Any) -> bool:
    """True if an error body says that what was asked for does not exist."""
    if not isinstance(body, dict):
        return False
    return _whole(body.get("status")) == 404 or body.get("code") == "not.found"


def _life_s(value: Any) -> float:
    try:
        life_s = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        life_s = 0.0
    return life_s if isfinite(life_s) and life_s > 0 else TOKEN_LIFE_S


def _whole(value: Any) -> int | None:
    """Returns a whole number, written as a number or as text; None where it is neither."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _named(value: Any) -> str:
    """Returns the JSON name of a value's type, never the value."""
    if value is None:
        return "null or missing"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "something else")
