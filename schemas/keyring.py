"""The keyring file: the secrets of each endpoint for webhooks or hints, and the key material of the installation.

Rule: a secret is a `SecretStr` of at least 32 UTF-8 bytes and appears in no log, repr or error; the text of a
validation error names a rule, never a value.
"""

import re
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from schemas.values import UUID_PATTERN, Instant

_UUID: Final = re.compile(UUID_PATTERN, re.IGNORECASE | re.ASCII)
_ACCOUNT: Final = re.compile(r"[0-9]{12}", re.ASCII)
_HEADER_VALUE: Final = re.compile(r"[!-~]+", re.ASCII)


def _long_enough(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < 32:
        raise ValueError("shorter than 32 bytes")
    return secret


def _anyone_or_one(name: str) -> str:
    if name != "*" and _UUID.fullmatch(name) is None:
        raise ValueError("neither * nor a UUID")
    return name


def _anyone_or_account(name: str) -> str:
    if name != "*" and _ACCOUNT.fullmatch(name) is None:
        raise ValueError("neither * nor the 12 digits of an AWS account")
    return name


Secret = Annotated[SecretStr, AfterValidator(_long_enough)]
Bound = Annotated[str, AfterValidator(_anyone_or_one)]
"""`*` or a UUID. A misspelt name is refused here, because an endpoint bound to no key would refuse every delivery."""
Account = Annotated[str, AfterValidator(_anyone_or_account)]
"""`*` or an AWS account."""


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


class Authority(StrEnum):
    """The authority over an integration that an audit names."""

    API = "api"
    """Genesys is asked: the audit is a hint."""
    EVENT = "event"
    """Nobody is asked: the audit counts as an event, and the secret alone proves it."""


class HintEndpoint(_Strict):
    """An endpoint for audits of EventBridge: the secrets, and the organisations and AWS accounts of these secrets."""

    current: Current
    previous: Previous | None = None
    orgs: tuple[Bound, ...] = ("*",)
    accounts: tuple[Account, ...] = ("*",)
    authority: Authority = Authority.API

    @model_validator(mode="after")
    def _fits_a_header(self) -> Self:
        # The secret itself is the value of a header, so spaces and letters beyond ASCII would never arrive as written.
        held = [self.current.secret, *([] if self.previous is None else [self.previous.secret])]
        if not all(_HEADER_VALUE.fullmatch(secret.get_secret_value()) for secret in held):
            raise ValueError("a secret of hints is made of printable ASCII without spaces")
        return self

    @model_validator(mode="after")
    def _names_whom_its_events_change(self) -> Self:
        # The secret stands in a header of every request, and here it installs and removes tenants: a leaked one must
        # not reach every organisation.
        for name, bound in (("orgs", self.orgs), ("accounts", self.accounts)):
            if self.authority is Authority.EVENT and (not bound or "*" in bound):
                raise ValueError(f"the authority `event` needs {name} by name; `*` is not enough")
        return self


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
    hints: dict[str, HintEndpoint] = Field(default_factory=dict)
    material: Material | None = None

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        # Commands, logs and metrics name an endpoint without saying its sort.
        if self.endpoints.keys() & self.hints.keys():
            raise ValueError("a name in `endpoints` stands in `hints` too")
        return self
