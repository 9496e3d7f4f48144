"""Identity of events: derives uid, keyed hash, time and retry mark from authentic bytes alone.

Rule: with an event id or a sequence from the sender, all retries of an event have an equal uid. Without both, the uid
is made from hash and time, and `merge` decides later, from all events of the key, if an event is a restamped retry.
Fields that vary between retries (counters, ids of the attempt, trace ids) never enter the hash. The uid of an audit is
made from the audit's own id, and the time from its `eventTime`; both are equal over repetitions.
"""

import hmac
import json
from collections.abc import Mapping
from hashlib import blake2b, sha256
from typing import Any, Final, NamedTuple

import rfc8785

from schemas.event import Observed
from schemas.hint import IntegrationAudit
from schemas.values import EventType, Json, Key, Source
from schemas.webhook import Delivery
from services.core.delivery.audited_events import audited_event

# Theory. The hash F answers one question: do two deliveries say the same? If a varying field enters F, a retry looks
# like a new event; if a field of the content is missing, two events look like one. Metadata therefore enter F by an
# allow-list (`installedBy`, `source`), so a sender's new counter changes nothing, and the whole configuration enters F,
# even fields with names like `retryCount`. F must stay stable over releases: rows of the last 24 h hold hashes of the
# former release.

_AUDITED: Final = "a:"
_WRITES_CONFIGURATION: Final = frozenset({EventType.INSTALLED, EventType.CONFIGURATION_UPDATED})


class EventClaim(NamedTuple):
    """An event as claimed by a record.

    Attributes:
        uid: `e:…`, `s:…`, `f:…`, `a:…` or `r:…`, unique within the key.
        event: The type of the event.
        f: Keyed hash F of the content: the first 128 bits of an HMAC-SHA256 (RFC 2104, section 5), as hex.
        at_us: The signed time, the time of the audit, or the time of the read of Genesys; microseconds UTC.
        marked: True if the sender calls the attempt a retry.
        tenant_id: The tenantId of the record; None for an audit, and for an observation without a tenantId.
        digest: Digest of `text`; None if the event writes no configuration.
        text: Canonical JSON of the configuration; None if the event writes no configuration.
        source: Origin of the claim.
    """

    uid: str
    event: EventType
    f: str
    at_us: int
    marked: bool
    tenant_id: str | None
    digest: str | None
    text: str | None
    source: Source


def identify(
    record: Delivery | IntegrationAudit | Observed, pepper: bytes, *, restamps: bool = True
) -> tuple[EventClaim, ...]:
    """Returns the events claimed by a record: one of a delivery, up to one of an audit, up to three of an observation.

    Args:
        record: An authentic delivery, audit or observation.
        pepper: `material.identity`; a hash without a key would let a reader guess short secrets of a configuration.
        restamps: False for a sender with a constant `eventTimestamp` over retries; retry marks are then ignored.
    """
    if isinstance(record, Delivery):
        return (_claim_of_delivery(record, pepper, restamps=restamps),)
    if isinstance(record, IntegrationAudit):
        stated = audited_event(record)
        return () if stated is None else (_claim_of_audit(record, stated, pepper),)
    return tuple(_claim_of_observation(record, event, pepper) for event in _observed_events(record))


def canonical(value: Any) -> bytes:
    """Returns RFC 8785 canonical JSON; a value outside RFC 8785 (integers beyond 2^53) gets sorted, compact JSON."""
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def keyed(material: bytes, data: bytes) -> str:
    """Returns the HMAC-SHA256 of `data` as hex."""
    return hmac.new(material, data, sha256).hexdigest()


def configuration_text(event: EventType, configuration: Json | None) -> tuple[str | None, str | None]:
    """Returns digest and canonical text of the configuration written by an event; two None if no configuration."""
    if configuration is None or event not in _WRITES_CONFIGURATION:
        return None, None
    data = canonical(configuration)
    return blake2b(data, digest_size=16).hexdigest(), data.decode()


def _claim_of_delivery(delivery: Delivery, pepper: bytes, *, restamps: bool) -> EventClaim:
    stable = {"installedBy": delivery.installed_by, "source": delivery.source}
    content = {"tenantId": delivery.tenant_id, "configuration": delivery.configuration, "metadata": stable}
    f = _hash(delivery.key, delivery.event, content, pepper)
    if delivery.event_id is not None:
        uid = f"e:{delivery.event_id}"
    elif delivery.sequence is not None:
        # The type is part of this uid, unlike of an `eventId` (docs/specification.md, section 3).
        uid = f"s:{delivery.sequence}:{delivery.event}"
    else:
        uid = f"f:{f}:{delivery.at_us}"
    return EventClaim(
        uid,
        delivery.event,
        f,
        delivery.at_us,
        delivery.marked and restamps,
        delivery.tenant_id,
        *configuration_text(delivery.event, delivery.configuration),
        Source.WEBHOOK,
    )


def is_audited(uid: str) -> bool:
    """True for the uid of an audit: nobody has signed the event, and nobody was asked."""
    return uid.startswith(_AUDITED)


def _claim_of_audit(audit: IntegrationAudit, event: EventType, pepper: bytes) -> EventClaim:
    # An audit names neither tenantId nor configuration, so an audited install must erase neither.
    return EventClaim(
        f"{_AUDITED}{audit.audit_id}",
        event,
        _hash(audit.key, event, {"tenantId": None, "configuration": None}, pepper),
        audit.at_us,
        False,
        None,
        None,
        None,
        Source.AUDIT,
    )


def _observed_events(record: Observed) -> list[EventType]:
    """Returns an event per observed aspect; only `uninstalled` if the integration is absent."""
    if not record.installed:
        return [EventType.UNINSTALLED]
    events = [EventType.INSTALLED]
    if record.enabled is not None:
        events.append(EventType.ENABLED if record.enabled else EventType.DISABLED)
    if record.configuration is not None:
        events.append(EventType.CONFIGURATION_UPDATED)
    return events


def _claim_of_observation(record: Observed, event: EventType, pepper: bytes) -> EventClaim:
    # An observed install must not write the configuration: a read may lack the configuration, and an `installed` with
    # an empty configuration would erase the known one. A known configuration is a separate event.
    configuration = record.configuration if event is EventType.CONFIGURATION_UPDATED else None
    content = {"tenantId": record.tenant_id, "configuration": configuration}
    return EventClaim(
        f"r:{record.read_at}:{event}",
        event,
        _hash(record.key, event, content, pepper),
        record.read_at,
        False,
        record.tenant_id,
        *configuration_text(event, configuration),
        record.source,
    )


def _hash(key: Key, event: EventType, content: Mapping[str, Any], pepper: bytes) -> str:
    """Returns the hash F of an event's key, type and content."""
    org_id, _, integration_id = key.partition(":")
    core = {"event": event.value, "orgId": org_id, "integrationId": integration_id, **content}
    return keyed(pepper, canonical(core))[:32]
