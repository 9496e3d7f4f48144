"""An audit of Genesys Cloud as Amazon EventBridge delivers it: the envelope, parsed as far as the product needs.

Rule: this module alone reads the envelope. A field with a meaning is strict; every further field is ignored, since
Amazon and Genesys add fields without notice. The meaning of an audit is decided elsewhere: a request for a re-check
(`services.core.delivery.hint_rule`), or an event (`services.core.delivery.audited_events`).
Sources: the envelope of partner events in Amazon's documentation, and the notification topics
`v2.audits.entitytype.{id}.entityid.{id}` of Genesys Cloud. Order and number of deliveries are promised by neither.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from schemas.times import instant
from schemas.values import UUID_PATTERN, Key, key_of
from schemas.webhook import Malformed, read_json

SECRET_HEADER: Final = "X-Lifecycle-Hint-Secret"  # noqa: S105 - the name of a header
"""Header with the secret of a hint's endpoint."""
AUTHORIZATION: Final = "Authorization"
"""Header that may carry the secret instead, alone or behind the scheme `Bearer`."""
PATH: Final = "/v1/genesys/audit/"
"""Path of a hint, before the name of the endpoint."""

CE_TYPE: Final = "genesys.audit.v1"
"""CloudEvents type of an untouched envelope in `lifecycle.received`, from an endpoint with the authority `event`."""

AUDIT_TOPICS: Final = "v2.audits."
"""Begins the name of every audit topic. The envelopes of all further topics have other bodies."""

_SOURCE: Final = re.compile(rf"aws\.partner/genesys\.com/cloud/((?i:{UUID_PATTERN}))/[^/\s]{{1,256}}", re.ASCII)
_UUID: Final = re.compile(UUID_PATTERN, re.IGNORECASE | re.ASCII)
_ACCOUNT: Final = re.compile(r"[0-9]{12}", re.ASCII)
_TEXT_MAX: Final = 256
"""Greatest length of an id, a topic, and the name of a service, an entity type or an action."""


class Envelope(NamedTuple):
    """An envelope of EventBridge with a notification of Genesys Cloud.

    Attributes:
        org_id: The organisation, from the partner event source; lower case.
        account: The AWS account of the event bus, 12 digits; None if absent.
        topic: The notification topic.
        event: `detail.eventBody`; its form depends on the topic.
    """

    org_id: str
    account: str | None
    topic: str
    event: Mapping[str, Any]


class AuditSubject(NamedTuple):
    """The subject of an audit, in the words of Genesys.

    Attributes:
        service: `serviceName`.
        entity_type: `entityType`.
        action: `action`.
    """

    service: str
    entity_type: str
    action: str


class IntegrationAudit(NamedTuple):
    """An audit of an integration.

    Attributes:
        audit_id: Id of the audit message, equal over repetitions.
        key: `orgId:integrationId`.
        at_us: `eventTime`, by the clock of Genesys; microseconds UTC.
        action: `action`, in lower case.
        changed: The new value of each property in `propertyChanges`, both in lower case; only values that are a single
            text. A change of another form is left out, since the form of property changes is promised by nobody.
    """

    audit_id: str
    key: Key
    at_us: int
    action: str
    changed: Mapping[str, str]


def parse(raw: bytes) -> Envelope:
    """Parses the body of an authentic request.

    Raises:
        Malformed: The body is no envelope of EventBridge with a notification of Genesys Cloud.
    """
    whole = read_json(raw)
    if not isinstance(whole, dict):
        raise Malformed("body", "must be a JSON object")
    source = whole.get("source")
    found = _SOURCE.fullmatch(source) if isinstance(source, str) else None
    if found is None:
        raise Malformed("source", "must be aws.partner/genesys.com/cloud/ORGANISATION/SUFFIX")
    account = whole.get("account")
    if account is not None and (not isinstance(account, str) or _ACCOUNT.fullmatch(account) is None):
        raise Malformed("account", "must be 12 digits")
    detail = _object(whole, "detail", "detail")
    return Envelope(
        found[1].lower(),
        account,
        _text(detail, "topicName", "detail.topicName"),
        _object(detail, "eventBody", "detail.eventBody"),
    )


def subject(event: Mapping[str, Any]) -> AuditSubject:
    """Returns the subject of an audit.

    Args:
        event: The `event` of an envelope of an audit topic.

    Raises:
        Malformed: A name is absent, or no text.
    """
    names = ("serviceName", "entityType", "action")
    return AuditSubject(*(_text(event, name, f"detail.eventBody.{name}") for name in names))


def audit(envelope: Envelope) -> IntegrationAudit:
    """Returns the audit of an integration.

    Raises:
        Malformed: Id, time or entity are absent or malformed.
    """
    event = envelope.event
    identity = _text(_object(event, "entity", "detail.eventBody.entity"), "id", "detail.eventBody.entity.id")
    if _UUID.fullmatch(identity) is None:
        raise Malformed("detail.eventBody.entity.id", "must be a UUID")
    try:
        at_us = instant(_text(event, "eventTime", "detail.eventBody.eventTime"))
    except ValueError:
        raise Malformed("detail.eventBody.eventTime", "must be an RFC 3339 date-time") from None
    return IntegrationAudit(
        _text(event, "id", "detail.eventBody.id"),
        key_of(envelope.org_id, identity),
        at_us,
        subject(event).action.casefold(),
        _changed(event.get("propertyChanges")),
    )


def _changed(changes: Any) -> Mapping[str, str]:
    """Returns new values by property; of several changes of a property the last counts."""
    found: dict[str, str] = {}
    for change in changes if isinstance(changes, list) else ():
        match change:
            case {"property": str(name), "newValues": [str(value)]}:
                found[name.casefold()] = value.casefold()
    return found


def _object(whole: Mapping[str, Any], name: str, path: str) -> Mapping[str, Any]:
    found = whole.get(name)
    if not isinstance(found, dict):
        raise Malformed(path, "must be an object")
    return found


def _text(whole: Mapping[str, Any], name: str, path: str) -> str:
    found = whole.get(name)
    if not isinstance(found, str) or not 0 < len(found) <= _TEXT_MAX or not found.isprintable():
        raise Malformed(path, f"must be a string of 1 to {_TEXT_MAX} printable characters")
    return found
