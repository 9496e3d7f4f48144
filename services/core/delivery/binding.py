"""For whom a secret may speak: the organisations and integrations that an endpoint is bound to."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Binding:
    """The identifiers one endpoint may speak for; None stands for any."""

    orgs: frozenset[str] | None
    integrations: frozenset[str] | None

    def covers(self, key: str) -> bool:
        """Whether a delivery about `orgId:integrationId` (lower-cased) may come through this endpoint."""
        org, _, integration = key.partition(":")
        return (self.orgs is None or org in self.orgs) and (
            self.integrations is None or integration in self.integrations
        )


def binding(orgs: Iterable[str], integrations: Iterable[str]) -> Binding:
    """Read two lists of identifiers; `*` in one stands for any, an empty one for nobody."""
    return Binding(_listed(orgs), _listed(integrations))


def _listed(names: Iterable[str]) -> frozenset[str] | None:
    found = frozenset(name.lower() for name in names)
    return None if ANY in found else found
