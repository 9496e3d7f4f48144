"""What the public Genesys Cloud API says of integrations, and the file that lets us ask it for one organisation.

Rule: only what we use is read, and it must have its shape: a body that has not is `Strange`, never guessed at.
Source: the API's models Integration, IntegrationEntityListing and IntegrationConfiguration.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from schemas.values import UUID_PATTERN, Json

_UUID = re.compile(UUID_PATTERN, re.IGNORECASE | re.ASCII)


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
        intended_state: As Genesys spells it; may be a value that this version does not know.
        type_id: Of its integration type, None where the API gives none.
    """

    id: str
    intended_state: str
    type_id: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the listing."""

    number: int
    total: int
    last: bool
    integrations: tuple[Integration, ...]


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
    """

    org_id: str
    client_id: str
    read_at_us: int
    integrations: Mapping[str, Integration]
    absent: frozenset[str] = frozenset()
    configurations: Mapping[str, Json] = field(default_factory=dict)


def integration(body: Any) -> Integration:
    """Read one integration.

    Raises:
        Strange: no UUID or no intended state.
    """
    if not isinstance(body, dict):
        raise Strange("integration: must be an object")
    identity, state, kind = body.get("id"), body.get("intendedState"), body.get("integrationType")
    if not isinstance(identity, str) or not _UUID.fullmatch(identity):
        raise Strange("integration.id: must be a UUID")
    if not isinstance(state, str):
        raise Strange("integration.intendedState: must be a string")
    type_id = kind.get("id") if isinstance(kind, dict) else None
    return Integration(identity.lower(), state, type_id if isinstance(type_id, str) else None)


def page(body: Any) -> Page:
    """Read one page of the listing.

    Raises:
        Strange: a count or the entities are missing, or an entity is not an integration.
    """
    if not isinstance(body, dict):
        raise Strange("listing: must be an object")
    entities, number, total = body.get("entities"), body.get("pageNumber"), body.get("total")
    if not isinstance(entities, list):
        raise Strange("listing.entities: must be a list")
    if not isinstance(number, int) or not isinstance(total, int):
        raise Strange("listing.pageNumber, listing.total: must be whole numbers")
    return Page(number, total, not body.get("nextUri"), tuple(integration(entity) for entity in entities))


def properties(body: Any) -> Json:
    """Read the properties of a configuration.

    Raises:
        Strange: there are none.
    """
    found = body.get("properties") if isinstance(body, dict) else None
    if not isinstance(found, dict):
        raise Strange("configuration.properties: must be an object")
    return found
