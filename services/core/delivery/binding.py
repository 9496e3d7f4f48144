"""Endpoint binding: the organisations and integrations for which an endpoint accepts deliveries."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

ANY: Final = "*"
"""Stands for every identifier in a list of the keyring."""


@dataclass(frozen=True, slots=True)
class Binding:
    """The binding of an endpoint.

    Attributes:
        orgs: Lower-cased ids of organisations; None for any organisation.
        integrations: Lower-cased ids of integrations; None for any integration.
    """

    orgs: frozenset[str] | None
    integrations: frozenset[str] | None

    def covers(self, key: str) -> bool:
        """True if this endpoint accepts a delivery for a key `orgId:integrationId` (lower-cased)."""
        org, _, integration = key.partition(":")
        return (self.orgs is None or org in self.orgs) and (
            self.integrations is None or integration in self.integrations
        )


def binding(orgs: Iterable[str], integrations: Iterable[str]) -> Binding:
    """Returns the binding of two lists of identifiers; `*` in a list allows any id, an empty list allows none."""
    return Binding(_listed(orgs), _listed(integrations))


def _listed(names: Iterable[str]) -> frozenset[str] | None:
    found = frozenset(name.lower() for name in names)
    return None if ANY in found else found
