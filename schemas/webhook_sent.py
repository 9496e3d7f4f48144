"""The sender's side of the wire format: body and headers of an attempt, as sent by the simulator and `lifecycle send`.

Rule: this module alone writes the format that `schemas.webhook` parses. A retry repeats the event; from the second
attempt on, the metadata carry retry counters. Source: the guide (headers, body, edge case 3).
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.times import rfc3339
from schemas.values import Json
from schemas.webhook import PROBE

SIGNATURE: Final = "X-Genesys-Signature"
TIMESTAMP: Final = "X-Genesys-Event-Timestamp"


@dataclass(frozen=True, slots=True)
class Sent:
    """An event to be sent.

    Attributes:
        event: Name of the event; unknown names are allowed, for tests of parking.
        org_id: `orgId`.
        integration_id: `integrationId`.
        tenant_id: `tenantId`.
        configuration: The whole configuration, sent with every event.
        at_us: `eventTimestamp`, microseconds UTC.
        metadata: `installedBy`, `source`, `eventId` and further fields, sent untouched.
    """

    event: str
    org_id: str
    integration_id: str
    tenant_id: str
    configuration: Json
    at_us: int
    metadata: Json = field(default_factory=dict)


def body(sent: Sent, retry: int) -> bytes:
    """Returns the raw body of an attempt.

    Args:
        sent: The event.
        retry: Number of earlier attempts; 0 for the first attempt, which has no retry counters.
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


def probe(org_id: str, integration_id: str, at_us: int) -> bytes:
    """Returns the raw body of a probe, which the ingress proves like a delivery and does not keep."""
    told = {"event": PROBE, "integrationId": integration_id, "orgId": org_id, "eventTimestamp": rfc3339(at_us)}
    return json.dumps(told).encode()


def headers(signature: str, at_us: int) -> dict[str, str]:
    """Returns the headers of an attempt.

    Args:
        signature: Hex MAC of the body.
        at_us: Time of the attempt, microseconds UTC.
    """
    return {"Content-Type": "application/json", SIGNATURE: signature, TIMESTAMP: rfc3339(at_us)}
