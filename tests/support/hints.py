"""What an API destination of Amazon EventBridge sends of an audit of Genesys Cloud; valid by default."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from schemas.hint import SECRET_HEADER
from schemas.times import rfc3339
from services.adapters.process.clock import now_us
from tests.support.ingress_process import HINT_ACCOUNT, HINT_SECRET, head

HINT_PATH = "/v1/genesys/audit/audit"


def envelope(key: str, action: str = "Create", at_us: int | None = None, **changes: Any) -> dict[str, Any]:
    """The envelope of an audit; a change names a field of `eventBody`, and None drops the field."""
    org_id, _, integration_id = key.partition(":")
    at = rfc3339(now_us() if at_us is None else at_us)
    event = {
        "id": str(uuid4()),
        "userId": str(uuid4()),
        "userHomeOrgId": org_id,
        "username": {"id": ""},
        "clientId": {"id": str(uuid4())},
        "serviceName": "Integrations",
        "eventTime": at,
        "action": action,
        "entityType": "Integration",
        "entity": {"id": integration_id, "name": "canary-name of acme"},
        "propertyChanges": [{"property": "intendedState", "oldValues": ["DISABLED"], "newValues": ["ENABLED"]}],
    } | changes
    return {
        "version": "0",
        "id": str(uuid4()),
        "detail-type": "v2.audits.entitytype.{id}.entityid.{id}",
        "source": f"aws.partner/genesys.com/cloud/{org_id}/lifecycle",
        "account": HINT_ACCOUNT,
        "time": at,
        "region": "us-east-1",
        "resources": [],
        "detail": {
            "topicName": f"v2.audits.entitytype.Integration.entityid.{integration_id}",
            "version": "2",
            "eventBody": {name: value for name, value in event.items() if value is not None},
            "metadata": {"CorrelationId": str(uuid4())},
            "timestamp": at,
        },
    }


def hint_request(
    whole: Any, secret: str | None = HINT_SECRET, path: str = HINT_PATH, fields: Mapping[str, str | None] | None = None
) -> bytes:
    """A whole request with an envelope, or with raw bytes, as EventBridge sends one."""
    payload = whole if isinstance(whole, bytes) else json.dumps(whole).encode()
    own: dict[str, str | None] = {
        "X-Genesys-Signature": None,
        "X-Genesys-Event-Timestamp": None,
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "Amazon/EventBridge/ApiDestinations",
        "Range": "bytes=0-1048575",
        SECRET_HEADER: secret,
    }
    return head(payload, path=path, fields=own | dict(fields or {})) + payload
