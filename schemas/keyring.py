"""The keyring file: which secret speaks for which endpoint, and the house's own key material.

Rule: a secret is a `SecretStr` of at least 32 UTF-8 bytes and appears in no log, repr or error; what a validator says
of a fault names a rule and never a value.
"""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from schemas.values import UUID_PATTERN, Instant

_UUID: Final = re.compile(UUID_PATTERN, re.IGNORECASE | re.ASCII)


def _long_enough(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < 32:
        raise ValueError("shorter than 32 bytes")
    return secret


def _anyone_or_one(name: str) -> str:
    if name != "*" and _UUID.fullmatch(name) is None:
        raise ValueError("neither * nor a UUID")
    return name


Secret = Annotated[SecretStr, AfterValidator(_long_enough)]
Bound = Annotated[str, AfterValidator(_anyone_or_one)]
"""`*`, or one organisation or integration; a name that is neither would bind to nobody, and silently."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Current(_Strict):
    """The secret in force."""

    secret: Secret
    made_at: Instant | None = None
    """When a command of ours made it; absent where somebody else did."""


class Previous(_Strict):
    """The secret before it, accepted until `not_after`."""

    secret: Secret
    not_after: Instant


class Endpoint(_Strict):
    """One webhook URL: its secrets and the organisations and integrations they may speak for."""

    current: Current
    previous: Previous | None = None
    orgs: tuple[Bound, ...] = ("*",)
    integrations: tuple[Bound, ...] = ("*",)
    restamps: bool = True
    """False: this sender keeps `eventTimestamp` over retries, so its retry marks say nothing."""


class Material(_Strict):
    """Keys of the house. Lists are rotated, newest first; `identity` never while a journal lives."""

    identity: Secret
    configuration: Secret
    audit: tuple[Secret, ...] = Field(min_length=1)
    seal: tuple[Secret, ...] = Field(min_length=1)
    outputs: tuple[Secret, ...] = Field(min_length=1)


class Keyring(_Strict):
    """The whole file. Ingress needs no `material`, the other services need no `endpoints`' secrets."""

    endpoints: dict[str, Endpoint]
    material: Material | None = None
