"""Which event is this? From signed bytes alone: a uid, a keyed hash of what it says, a time and a mark.

Rule: retries of one event get one uid wherever the sender gives an id or a sequence; without either, the uid is the
hash and the time, and what is a restamp of what is judged later from the whole set (`merge`). What a retry may vary
(counters, ids of the attempt, trace ids) never reaches the hash: metadata enters by an allow-list, and a name inside
`configuration` is data, whatever it is called.
"""

import hmac
import json
from collections.abc import Mapping
from hashlib import blake2b, sha256
from typing import Any, Final, NamedTuple

import rfc8785

from schemas.event import Observed
from schemas.values import EventType, Json, Key, Source
from schemas.webhook import Delivery

_WRITES_CONFIGURATION: Final = frozenset({EventType.INSTALLED, EventType.CONFIGURATION_UPDATED})


class EventClaim(NamedTuple):
    """One event as one record tells it.

    Attributes:
        uid: `e:…`, `s:…`, `f:…` or `r:…`, unique within the key.
        event: One of the five.
        f: Keyed hash of what it says: 128 bits of an HMAC-SHA256 (RFC 2104, section 5), as hex.
        at_us: The signed time, or when Genesys was read.
        marked: The sender calls this attempt a retry.
        tenant_id: As told.
        digest: Of `text`; None where this event writes no configuration.
        text: Canonical JSON of the configuration.
        source: Who asserts it.
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


def identify(record: Delivery | Observed, pepper: bytes, *, restamps: bool = True) -> tuple[EventClaim, ...]:
    """The events that a record tells: one for a delivery, up to three for an observation.

    Args:
        record: Proved authentic.
        pepper: `material.identity`; a bare hash of a short secret could be guessed.
        restamps: False for a sender that keeps `eventTimestamp` over retries: its marks then say nothing.
    """
    if isinstance(record, Delivery):
        return (_delivered(record, pepper, restamps=restamps),)
    return tuple(_observed(record, event, pepper) for event in _seen(record))


def canonical(value: Any) -> bytes:
    """RFC 8785 canonical JSON; what that cannot express (integers beyond 2^53) in a stable form of our own."""
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def keyed(material: bytes, data: bytes) -> str:
    """HMAC-SHA256 as hex."""
    return hmac.new(material, data, sha256).hexdigest()


def text_of(event: EventType, configuration: Json | None) -> tuple[str | None, str | None]:
    """Digest and canonical text of the configuration that an event writes; nothing for events that write none."""
    if configuration is None or event not in _WRITES_CONFIGURATION:
        return None, None
    data = canonical(configuration)
    return blake2b(data, digest_size=16).hexdigest(), data.decode()


def _delivered(delivery: Delivery, pepper: bytes, *, restamps: bool) -> EventClaim:
    stable = {"installedBy": delivery.installed_by, "source": delivery.source}
    told = {"tenantId": delivery.tenant_id, "configuration": delivery.configuration, "metadata": stable}
    f = _hash(delivery.key, delivery.event, told, pepper)
    if delivery.event_id is not None:
        uid = f"e:{delivery.event_id}"
    elif delivery.sequence is not None:
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
        *text_of(delivery.event, delivery.configuration),
        Source.WEBHOOK,
    )


def _seen(record: Observed) -> list[EventType]:
    """What a read says, one event an aspect; of an integration that is not there it says nothing further."""
    if not record.installed:
        return [EventType.UNINSTALLED]
    events = [EventType.INSTALLED]
    if record.enabled is not None:
        events.append(EventType.ENABLED if record.enabled else EventType.DISABLED)
    if record.configuration is not None:
        events.append(EventType.CONFIGURATION_UPDATED)
    return events


def _observed(record: Observed, event: EventType, pepper: bytes) -> EventClaim:
    # An observed install writes N alone: the configuration is an event of its own, or unknown.
    configuration = record.configuration if event is EventType.CONFIGURATION_UPDATED else None
    told = {"tenantId": record.tenant_id, "configuration": configuration}
    return EventClaim(
        f"r:{record.read_at}:{event}",
        event,
        _hash(record.key, event, told, pepper),
        record.read_at,
        False,
        record.tenant_id,
        *text_of(event, configuration),
        record.source,
    )


def _hash(key: Key, event: EventType, told: Mapping[str, Any], pepper: bytes) -> str:
    org_id, _, integration_id = key.partition(":")
    core = {"event": event.value, "orgId": org_id, "integrationId": integration_id, **told}
    return keyed(pepper, canonical(core))[:32]
