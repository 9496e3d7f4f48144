"""Compares a registered webhook with the wanted one, and decides how a rotation of the secret begins.

Rule: a secret is compared in constant time and named by standing and fingerprint, never shown. A secret hidden by
Genesys is no difference: only a delivery tells.
"""

import hmac
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import SecretStr

from schemas.values import EventType
from schemas.webhook_definition import WebhookDefinition
from services.core.delivery.timestamp_rule import HORIZON_US

OVERLAP_LEAST_US: Final = HORIZON_US
"""Least life of a former secret after a rotation: a retry of this age may still be signed with the former secret."""

_WEBHOOK_PATH: Final = re.compile(r"/v1/genesys/lifecycle(?:/([^/?#]+))?$")
_NOTHING: Final = "nothing"


class SecretStanding(StrEnum):
    """The relation of Genesys' secret to the keyring's secrets."""

    CURRENT = "the current secret"
    PREVIOUS = "the previous secret"
    FOREIGN = "a secret that is not in the keyring"
    HIDDEN = "not shown by Genesys"
    ABSENT = "none"


class RotationStart(StrEnum):
    """How a rotation begins."""

    FRESH = "fresh"
    """A new secret is made."""
    RESUMED = "resumed"
    """A rotation has begun, and Genesys has yet to be told the new secret."""
    TOO_EARLY = "too_early"
    """The last rotation is complete, and a new secret would cut off the former secret early."""


@dataclass(frozen=True, slots=True)
class Row:
    """A field of a definition, compared.

    Attributes:
        field: Name of the field.
        held: The value in Genesys, as text.
        wanted: The wanted value, as text.
        differs: True if Genesys has to be told.
    """

    field: str
    held: str
    wanted: str
    differs: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """An integration's webhook in Genesys, compared with the wanted one.

    Attributes:
        rows: A row for each field, the secret last.
        standing: The standing of Genesys' secret.
    """

    rows: tuple[Row, ...]
    standing: SecretStanding

    @property
    def differs(self) -> bool:
        """True if Genesys has to be told."""
        return any(row.differs for row in self.rows)


def compare(
    held: WebhookDefinition | None,
    wanted: WebhookDefinition,
    previous: SecretStr | None,
    fingerprint: Callable[[SecretStr], str],
) -> Comparison:
    """Compares a held definition with the wanted one.

    Args:
        held: The webhook in Genesys; None without a webhook.
        wanted: The wanted webhook, with the keyring's current secret.
        previous: The keyring's previous secret.
        fingerprint: Names a secret without showing it.
    """
    standing = _standing(held, wanted, previous)
    found = [
        _row(name, None if held is None else text(held), text(wanted))
        for name, text in (
            ("url", lambda d: d.url),
            ("events", _events),
            ("retries", lambda d: d.max_retries),
            ("first wait", lambda d: _ms(d.initial_delay_ms)),
            ("backoff", lambda d: d.backoff_multiplier and f"x {d.backoff_multiplier:g}"),
            ("timeout", lambda d: _ms(d.timeout_ms)),
        )
    ]
    shown = "" if held is None or held.secret is None else f"{fingerprint(held.secret)}, "
    assert wanted.secret is not None, "a wanted definition has a secret"
    found.append(
        Row(
            "secret",
            f"{shown}{standing}",
            f"{fingerprint(wanted.secret)}, {SecretStanding.CURRENT}",
            standing not in {SecretStanding.CURRENT, SecretStanding.HIDDEN},
        )
    )
    return Comparison(tuple(found), standing)


def rotation_start(standings: Collection[SecretStanding], *, previous_counts: bool) -> RotationStart:
    """Decides how a rotation begins.

    Args:
        standings: The standing of each integration's secret in Genesys.
        previous_counts: True if the keyring's previous secret is still valid.
    """
    # A new secret makes the current one the previous one. While the previous one counts it would be cut off, and with
    # it every integration that Genesys has not been told of yet.
    if not previous_counts:
        return RotationStart.FRESH
    told = all(standing is SecretStanding.CURRENT for standing in standings)
    return RotationStart.TOO_EARLY if told else RotationStart.RESUMED


def endpoint_of(path: str) -> str | None:
    """Returns the endpoint in a webhook's path; None for a path of a different form, as a proxy may publish."""
    found = _WEBHOOK_PATH.search(path.rstrip("/"))
    return None if found is None else found[1] or "default"


def _standing(held: WebhookDefinition | None, wanted: WebhookDefinition, previous: SecretStr | None) -> SecretStanding:
    if held is None:
        return SecretStanding.ABSENT
    if held.secret is None:
        return SecretStanding.HIDDEN
    # Both are compared always, so that the time does not tell which of them it was.
    is_current, is_previous = _equal(held.secret, wanted.secret), _equal(held.secret, previous)
    if is_current:
        return SecretStanding.CURRENT
    return SecretStanding.PREVIOUS if is_previous else SecretStanding.FOREIGN


def _equal(one: SecretStr, other: SecretStr | None) -> bool:
    text = "" if other is None else other.get_secret_value()
    return hmac.compare_digest(one.get_secret_value().encode(), text.encode())


def _row(name: str, held: object, wanted: object) -> Row:
    return Row(name, _NOTHING if held is None else str(held), str(wanted), held != wanted)


def _events(definition: WebhookDefinition) -> str | None:
    if definition.events is None:
        return None
    order = [str(event) for event in EventType]
    known = [event for event in order if event in definition.events]
    return ", ".join([*known, *sorted(definition.events - set(order))])


def _ms(value: int | None) -> str | None:
    return None if value is None else f"{value:,} ms"
