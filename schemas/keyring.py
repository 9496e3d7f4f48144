"""The keyring file: the secrets of each webhook endpoint, and the key material of the installation.

Rule: a secret is a `SecretStr` of at least 32 UTF-8 bytes and appears in no log, repr or error; the text of a
validation error names a rule, never a value.
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
"""`*` or a UUID. A misspelt name is refused here, because an endpoint bound to no key would refuse every delivery."""


class _Strict(BaseModel):
    # Without hide_input_in_errors pydantic would quote the faulty input, here a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Current(_Strict):
    """The secret in force of an endpoint."""

    secret: Secret
    made_at: Instant | None = None
    """Time of creation by a command of `lifecycle keyring`; absent for a secret written by hand."""


class Previous(_Strict):
    """The former secret of an endpoint, accepted before `not_after`."""

    secret: Secret
    not_after: Instant


class Endpoint(_Strict):
    """A webhook endpoint: the secrets, and the organisations and integrations accepted under these secrets."""

    current: Current
    previous: Previous | None = None
    orgs: tuple[Bound, ...] = ("*",)
    integrations: tuple[Bound, ...] = ("*",)
    restamps: bool = True
    """False for a sender with a constant `eventTimestamp` over retries; the sender's retry marks are then ignored."""


class Material(_Strict):
    """Keys of the installation. The lists are rotated, newest first; `identity` must not change while a journal lives.

    A new `identity` changes the hash F of every event: a retry of a known event would count as new, or as a conflict.
    """

    identity: Secret
    configuration: Secret
    audit: tuple[Secret, ...] = Field(min_length=1)
    seal: tuple[Secret, ...] = Field(min_length=1)
    outputs: tuple[Secret, ...] = Field(min_length=1)


class Keyring(_Strict):
    """The whole file. The ingress needs no `material`, and the services behind Kafka need no secrets of endpoints."""

    endpoints: dict[str, Endpoint]
    material: Material | None = None
