"""The sender's side of the dialect: the body of one attempt, and the names of the headers that go with it.

Rule: what `schemas.webhook` reads is written here and nowhere else. A retry is the same event; from the second attempt
on its metadata say so. Source: the guide (headers, body, edge case 3).
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.times import rfc3339
from schemas.values import Json

SIGNATURE: Final = "X-Genesys-Signature"
TIMESTAMP: Final = "X-Genesys-Event-Timestamp"


@dataclass(frozen=True, slots=True)
class Sent:
    """One event, as its sender tells it.

    Attributes:
        event: Its name; one that nobody knows can be sent too.
        org_id: `orgId`.
        integration_id: `integrationId`.
        tenant_id: `tenantId`.
        configuration: The whole configuration rides along with every event.
        at_us: `eventTimestamp`, microseconds UTC.
        metadata: `installedBy`, `source`, `eventId`, and whatever else.
    """

    event: str
    org_id: str
    integration_id: str
    tenant_id: str
    configuration: Json
    at_us: int
    metadata: Json = field(default_factory=dict)


def body(sent: Sent, retry: int) -> bytes:
    """The raw body of one attempt.

    Args:
        sent: The event.
        retry: How many attempts went before.
    """
    again = {"retryCount": retry, "deliveryAttempt": retry + 1} if retry else {}
    told: dict[str, Any] = {
        "event": sent.event,
        "integrationId": sent.integration_id,
        "orgId": sent.org_id,
        "tenantId": sent.tenant_id,
        "configuration": sent.configuration,
        "eventTimestamp": rfc3339(sent.at_us),
        "metadata": {**sent.metadata, **again},
    }
    return json.dumps(told).encode()


def headers(signature: str, at_us: int) -> dict[str, str]:
    """The headers of one attempt.

    Args:
        signature: Hex MAC of its body.
        at_us: When it is made, microseconds UTC.
    """
    return {"Content-Type": "application/json", SIGNATURE: signature, TIMESTAMP: rfc3339(at_us)}
