"""Reduces the keyring to the needs of the ingress: for each endpoint, secrets and what is bound to the endpoint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from schemas.keyring import Authority, Endpoint, HintEndpoint, Keyring
from services.adapters.process.errors import Unusable
from services.adapters.secrets.keyring import raw
from services.core.delivery.binding import Binding, binding
from services.core.delivery.hint_rule import HintBinding, hint_binding
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


@dataclass(frozen=True, slots=True)
class HintCredentials:
    """The secrets and the binding of an endpoint for hints; a request must match both.

    Attributes:
        secrets: The current secret, and the previous secret with its expiry.
        binding: The organisations and AWS accounts for which the endpoint may speak.
        authority: `EVENT` if an audit counts as an event.
    """

    secrets: Secrets
    binding: HintBinding
    authority: Authority = Authority.API


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of a keyring.

    Attributes:
        endpoints: Credentials of deliveries, by endpoint.
        hints: Credentials of hints, by endpoint.
    """

    endpoints: Mapping[str, EndpointCredentials]
    hints: Mapping[str, HintCredentials]


CredentialsByEndpoint = Callable[[], Mapping[str, EndpointCredentials]]
"""Returns the credentials in force, by endpoint. Called once a request, so a changed keyring file takes effect with the
next request."""

HintCredentialsByEndpoint = Callable[[], Mapping[str, HintCredentials]]
"""The same for hints."""


def credentials(keyring: Keyring) -> Credentials:
    """Returns the credentials of a keyring.

    Raises:
        Unusable: the keyring has no endpoint.
    """
    if not keyring.endpoints and not keyring.hints:
        raise Unusable("KEYRING_FILE: endpoints: empty; nobody could be believed")
    return Credentials(
        {
            name: EndpointCredentials(_secrets(endpoint), binding(endpoint.orgs, endpoint.integrations))
            for name, endpoint in keyring.endpoints.items()
        },
        {
            name: HintCredentials(_secrets(hint), hint_binding(hint.orgs, hint.accounts), hint.authority)
            for name, hint in keyring.hints.items()
        },
    )


def _secrets(held: Endpoint | HintEndpoint) -> Secrets:
    previous = held.previous
    return Secrets(
        raw(held.current.secret),
        None if previous is None else raw(previous.secret),
        0 if previous is None else previous.not_after,
    )
