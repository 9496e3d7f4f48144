"""The registration of a webhook in the guide's dialect: body of `PUT` and `GET /api/v2/integrations/{id}/webhooks`.

Rule: this module alone knows the field names. A field that is absent or of another type is None and so differs from
every wanted value; nothing is guessed. A secret is a `SecretStr`, and a masked text (`****`) is no secret.
Source: the guide, section 1. The request is not part of the public Genesys Cloud API.
"""

from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr

from schemas.genesys import Strange
from schemas.values import EventType, Json

EVENTS: Final = frozenset(str(event) for event in EventType)
MAX_RETRIES: Final = 5
INITIAL_DELAY_MS: Final = 1_000
BACKOFF_MULTIPLIER: Final = 2
TIMEOUT_MS: Final = 3_000
_NUMBER_MAX: Final = 10**15
_MASK: Final = ("**", "••")


@dataclass(frozen=True, slots=True)
class WebhookDefinition:
    """The webhook of an integration; None for each field that is absent or not readable.

    Attributes:
        url: Where deliveries are sent.
        events: Names of the events that are sent.
        max_retries: Attempts after the first.
        initial_delay_ms: Wait before the first retry.
        backoff_multiplier: Factor of each further wait.
        timeout_ms: Time for an answer.
        secret: Key of the signature; None if Genesys does not show the secret.
    """

    url: str | None
    events: frozenset[str] | None = EVENTS
    max_retries: int | None = MAX_RETRIES
    initial_delay_ms: int | None = INITIAL_DELAY_MS
    backoff_multiplier: float | None = BACKOFF_MULTIPLIER
    timeout_ms: int | None = TIMEOUT_MS
    secret: SecretStr | None = None


def parse(body: Any) -> WebhookDefinition:
    """Returns the definition in an answer's body.

    Raises:
        Strange: The body is no object.
    """
    if not isinstance(body, dict):
        raise Strange("webhook: must be an object")
    policy = body.get("retryPolicy")
    policy = policy if isinstance(policy, dict) else {}
    return WebhookDefinition(
        _text(body.get("url")),
        _names(body.get("events")),
        _whole(policy.get("maxRetries")),
        _whole(policy.get("initialDelayMs")),
        _number(policy.get("backoffMultiplier")),
        _whole(body.get("timeoutMs")),
        _secret(body.get("secret")),
    )


def body(definition: WebhookDefinition) -> Json:
    """Returns the body of the PUT, with the secret in clear.

    Args:
        definition: A whole definition: no field is None.
    """
    assert definition.secret is not None, "a PUT without the secret would unset it"
    assert definition.events is not None, "a PUT without events would unsubscribe from all"
    return {
        "url": definition.url,
        # In the guide's order.
        "events": [str(event) for event in EventType if event in definition.events],
        "retryPolicy": {
            "maxRetries": definition.max_retries,
            "initialDelayMs": definition.initial_delay_ms,
            "backoffMultiplier": definition.backoff_multiplier,
        },
        "timeoutMs": definition.timeout_ms,
        "secret": definition.secret.get_secret_value(),
    }


def _secret(value: Any) -> SecretStr | None:
    if not isinstance(value, str) or not value or any(mask in value for mask in _MASK):
        return None
    return SecretStr(value)


def _names(value: Any) -> frozenset[str] | None:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return None
    return frozenset(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Greater ones are no setting, and an integer without bounds has no float.
    return value if is_number and abs(value) < _NUMBER_MAX else None


def _whole(value: Any) -> int | None:
    found = _number(value)
    return int(found) if found is not None and float(found).is_integer() else None
