"""Deliveries and positions for tests, valid by default; times are seconds after one fixed noon."""

import json
from typing import Any

from schemas import webhook
from schemas.event import Observed
from schemas.hint import IntegrationAudit
from schemas.times import rfc3339
from services.core.ledger.journal import RecordPosition
from services.core.ledger.projections import ProjectionRules

ORG = "98765432-1234-5678-9abc-def012345678"
INTEGRATION = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"
KEY = f"{ORG}:{INTEGRATION}"
NOON_US = 1_705_320_000_000_000
SECOND_US = 1_000_000
HOUR_S = 3_600
RULES = ProjectionRules(
    b"identity" * 4, b"configuration" * 3, b"audit" * 7, ("crmEndpoint", "syncInterval", "featureFlags"), 86_400
)


def at(seconds: float) -> int:
    """Microseconds of that many seconds after noon."""
    return NOON_US + round(seconds * SECOND_US)


def body(event: str, seconds: float = 0, configuration: Any = None, **metadata: Any) -> dict[str, Any]:
    """One webhook body; `eventId`, `sequence` and `retryCount` go into its metadata."""
    return {
        "event": event,
        "orgId": ORG,
        "integrationId": INTEGRATION,
        "tenantId": "tenant_acme_corp",
        "configuration": {} if configuration is None else configuration,
        "eventTimestamp": rfc3339(at(seconds)),
        "metadata": {"installedBy": "admin@acme.com", "source": "marketplace", **metadata},
    }


def delivery(event: str, seconds: float = 0, configuration: Any = None, **metadata: Any) -> webhook.Delivery:
    """The same, read."""
    return webhook.delivery(body(event, seconds, configuration, **metadata))


def observed(seconds: float = 0, **fields: Any) -> Observed:
    """One observation; installed, enabled and not configured unless said otherwise."""
    defaults = {"installed": True, "enabled": None, "configuration": None, "cause": "recheck"}
    return Observed(orgId=ORG, integrationId=INTEGRATION, read_at=at(seconds), **{**defaults, **fields})


def audited(action: str, seconds: float = 0, audit_id: str | None = None, state: str | None = None) -> IntegrationAudit:
    """One audit that counts as an event; `state` is the new value of the property `intendedState`."""
    changed = {} if state is None else {"intendedstate": state.casefold()}
    name = f"{action}-{seconds:g}" if audit_id is None else audit_id
    return IntegrationAudit(name, KEY, at(seconds), action.casefold(), changed)


def position(
    offset: int, seconds: float = 0, *, committed: int | None = None, incarnation: str = "", trace: str | None = None
) -> RecordPosition:
    """A position in `lifecycle.received`; `seconds` is log time."""
    return RecordPosition("lifecycle.received", 0, offset, at(seconds), committed, incarnation, trace)


def line(whole: dict[str, Any], received_s: float | None = None) -> str:
    """One line for `replay`; received one second after it happened unless said otherwise."""
    if received_s is None:
        return json.dumps({"received_at": whole["eventTimestamp"], "body": whole})
    return json.dumps({"received_at": rfc3339(at(received_s)), "body": whole})
