"""Reduces the keyring to the needs of the ingress: for each endpoint, secrets and the keys bound to the endpoint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from schemas.keyring import Endpoint, Keyring
from services.adapters.process.errors import Unusable
from services.adapters.secrets.keyring import raw
from services.core.delivery.binding import Binding, binding
from services.core.delivery.signature import Secrets


@dataclass(frozen=True, slots=True)
class EndpointCredentials:
    """The secrets and the binding of an endpoint; a request must match both.

    Attributes:
        secrets: The current secret, and the previous secret with its expiry.
        binding: The organisations and integrations for which the endpoint may speak.
    """

    secrets: Secrets
    binding: Binding


CredentialsByEndpoint = Callable[[], Mapping[str, EndpointCredentials]]
"""Returns the credentials in force, by endpoint. Called once a request, so a changed keyring file takes effect with the
next request."""


def endpoint_credentials(keyring: Keyring) -> dict[str, EndpointCredentials]:
    """Returns the credentials of a keyring, by endpoint.

    Raises:
        Unusable: the keyring has no endpoint.
    """
    if not keyring.endpoints:
        raise Unusable("KEYRING_FILE: endpoints: empty; nobody could be believed")
    return {name: _credentials(endpoint) for name, endpoint in keyring.endpoints.items()}


def _credentials(endpoint: Endpoint) -> EndpointCredentials:
    previous = endpoint.previous
    secrets = Secrets(
        raw(endpoint.current.secret),
        None if previous is None else raw(previous.secret),
        0 if previous is None else previous.not_after,
    )
    return EndpointCredentials(secrets, binding(endpoint.orgs, endpoint.integrations))
