"""The keyring file: which secret speaks for which endpoint, and the house's own key material.

Rule: a secret is a `SecretStr` of at least 32 UTF-8 bytes and appears in no log, repr or error.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from schemas.values import Instant


def _long_enough(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < 32:
        raise ValueError("shorter than 32 bytes")
    return secret


Secret = Annotated[SecretStr, AfterValidator(_long_enough)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Current(_Strict):
    """The secret in force."""

    secret: Secret


class Previous(_Strict):
    """The secret before it, accepted until `not_after`."""

    secret: Secret
    not_after: Instant


class Endpoint(_Strict):
    """One webhook URL: its secrets and the organisations and integrations they may speak for."""

    current: Current
    previous: Previous | None = None
    orgs: tuple[str, ...] = ("*",)
    integrations: tuple[str, ...] = ("*",)
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
