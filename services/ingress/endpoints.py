"""The keyring as the ingress uses it: per endpoint, what may sign and for whom."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from schemas.keyring import Endpoint, Keyring
from services.adapters.process.settings import Unusable
from services.adapters.secrets.keyring import raw
from services.core.delivery.binding import Binding, binding
from services.core.delivery.signature import Secrets


@dataclass(frozen=True, slots=True)
class EndpointCredentials:
    """What a request to one endpoint must prove."""

    secrets: Secrets
    binding: Binding


CredentialsByEndpoint = Callable[[], Mapping[str, EndpointCredentials]]
"""The gates in force now, by endpoint. Asked once per request; who answers decides when another keyring counts."""


def endpoint_credentials(keyring: Keyring) -> dict[str, EndpointCredentials]:
    """Read the endpoints of a keyring.

    Raises:
        Unusable: it has none.
    """
    if not keyring.endpoints:
        raise Unusable("KEYRING_FILE: endpoints: empty; nobody could be believed")
    return {name: _gate(endpoint) for name, endpoint in keyring.endpoints.items()}


def _gate(endpoint: Endpoint) -> EndpointCredentials:
    previous = endpoint.previous
    secrets = Secrets(
        raw(endpoint.current.secret),
        None if previous is None else raw(previous.secret),
        0 if previous is None else previous.not_after,
    )
    return EndpointCredentials(secrets, binding(endpoint.orgs, endpoint.integrations))
