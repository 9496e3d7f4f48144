"""Builds the records of the ingress: deliveries untouched, requests for a re-check, dead letters. No I/O, no clock."""

from typing import Final

from schemas import codec
from schemas.codec import Message
from schemas.dead_letter import DeadLetterReason
from schemas.event import Recheck
from schemas.hint import CE_TYPE, IntegrationAudit
from schemas.times import rfc3339
from schemas.values import Key
from schemas.webhook import Malformed
from services.core.dead_letters import dead_letter_of, origin_of_delivery
from services.ingress.http.request import Request

_NAME: Final = "ingress"
_SOURCE: Final = f"/genesys-lifecycle/{_NAME}"
_LETTER_HEADERS: Final = frozenset({"endpoint", "event_timestamp_header", "received_at", "traceparent"})
"""Headers of a spooled delivery that its dead letter repeats."""


def delivery(request: Request, key: Key) -> Message:
    """Returns the record of an accepted delivery; equal bytes have an equal `ce_id`."""
    return codec.received(
        request.body,
        key=key,
        ce_id=request.digest.hex(),
        received_at_us=request.received_us,
        beside=_delivery_headers(request),
    )


def recheck(key: Key, reason: str, now_us: int) -> Message:
    """Returns the request for a re-check: the reconciler reads the key from Genesys."""
    record = Recheck(key=key, reason=f"ingress_{reason}", at=now_us)
    return codec.encode(record, key=key, ce_id=f"{key}/recheck/{now_us}", source=_SOURCE, at_us=now_us)


def hinted_recheck(audit: IntegrationAudit, read_after_us: int, now_us: int) -> Message:
    """Returns the request for a re-check that an audit asks; repeats of an audit have an equal id.

    Args:
        audit: The audit of an integration.
        read_after_us: A read from this time on answers the request, microseconds UTC.
        now_us: The clock, microseconds UTC.
    """
    record = Recheck(key=audit.key, reason=f"hint_{audit.action}", at=read_after_us)
    ce_id = f"{audit.key}/hint/{audit.audit_id}"
    return codec.encode(record, key=audit.key, ce_id=ce_id, source=_SOURCE, at_us=now_us)


def audited(request: Request, audit: IntegrationAudit) -> Message:
    """Returns the record of an audit that counts as an event: the envelope, untouched; repeats have an equal id."""
    at_us = request.received_us
    ce_id = f"{audit.key}/audit/{audit.audit_id}"
    return Message(
        audit.key.encode(),
        request.body,
        [
            *codec.attributes(ce_id=ce_id, ce_type=CE_TYPE, source=_SOURCE, at_us=at_us),
            ("endpoint", (request.hint_endpoint or "").encode()),
            ("received_at", rfc3339(at_us).encode()),
        ],
    )


def dead_letter(request: Request, key: Key | None, reason: DeadLetterReason, fault: Malformed) -> Message:
    """Returns the dead letter of an authentic delivery that no service can process; repeats have an equal id."""
    at_us = request.received_us
    headers = [*_delivery_headers(request), ("received_at", rfc3339(at_us).encode())]
    raw = Message(None, request.body, headers)
    return dead_letter_of(origin_of_delivery(request.digest.hex(), at_us), key, reason, str(fault), raw, source=_NAME)


def expired(spooled: Message, key: Key, now_us: int) -> Message:
    """Returns the dead letter of a delivery expired in the spool; repeats have an equal id."""
    origin = origin_of_delivery(f"{codec.texts(spooled.headers)['ce_id']}/expired", now_us)
    raw = Message(None, spooled.value, [pair for pair in spooled.headers if pair[0] in _LETTER_HEADERS])
    detail = "Kafka was away for longer than the spool's age"
    return dead_letter_of(origin, key, DeadLetterReason.SPOOLED_TOO_LONG, detail, raw, source=_NAME)


def is_recheck(spooled: Message) -> bool:
    """True if a spooled record is a request for a re-check, and not a delivery."""
    return codec.texts(spooled.headers).get("ce_type") == Recheck.ce_type


def _delivery_headers(request: Request) -> codec.Headers:
    headers = [("endpoint", (request.endpoint or "").encode()), ("event_timestamp_header", request.head.timestamp)]
    # Our own span, where traces are on; the sender's context is then a link of the span.
    trace = request.trace or request.head.traceparent
    return headers if trace is None else [*headers, ("traceparent", trace)]
