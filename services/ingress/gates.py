"""The keyring as the ingress uses it: per endpoint, what may sign and for whom."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from schemas.keyring import Endpoint, Keyring
from services.adapters.keyring import raw
from services.adapters.settings import Unusable
from services.core.binding import Binding, binding
from services.core.signature import Secrets


@dataclass(frozen=True, slots=True)
class Gate:
    """What a request to one endpoint must prove."""

    secrets: Secrets
    binding: Binding


Gates = Callable[[], Mapping[str, Gate]]
"""The gates in force now, by endpoint. Asked once per request; who answers decides when another keyring counts."""


def gates(keyring: Keyring) -> dict[str, Gate]:
    """Read the endpoints of a keyring.

    Raises:
        Unusable: it has none.
    """
    if not keyring.endpoints:
        raise Unusable("KEYRING_FILE: endpoints: empty; nobody could be believed")
    return {name: _gate(endpoint) for name, endpoint in keyring.endpoints.items()}


def _gate(endpoint: Endpoint) -> Gate:
    previous = endpoint.previous
    secrets = Secrets(
        raw(endpoint.current.secret),
        None if previous is None else raw(previous.secret),
        0 if previous is None else previous.not_after,
    )
    return Gate(secrets, binding(endpoint.orgs, endpoint.integrations))
