"""Builds the records of the ingress: deliveries untouched, requests for a re-check, dead letters. No I/O, no clock."""

from base64 import b64encode
from typing import Final

from schemas import codec
from schemas.codec import Message
from schemas.dead_letter import DeadLetter
from schemas.event import Recheck
from schemas.times import rfc3339
from schemas.values import Key
from schemas.webhook import Malformed
from services.ingress.http.request import Request

_SOURCE: Final = "/genesys-lifecycle/ingress"
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
    wish = Recheck(key=key, reason=f"ingress_{reason}", at=now_us)
    return codec.encode(wish, key=key, ce_id=f"{key}/recheck/{now_us}", source=_SOURCE, at_us=now_us)


def dead_letter(request: Request, key: Key | None, reason: str, fault: Malformed) -> Message:
    """Returns the dead letter of an authentic delivery that no service can process; repeats have an equal id."""
    letter = DeadLetter(
        id=f"ingress/{request.digest.hex()}",
        key=key,
        reason=reason,
        detail=str(fault),
        origin="ingress",
        at=request.received_us,
        headers=codec.texts(_delivery_headers(request)) | {"received_at": rfc3339(request.received_us)},
        body_base64=b64encode(request.body).decode("ascii"),
    )
    return codec.encode(letter, key=key, ce_id=letter.id, source=_SOURCE, at_us=request.received_us)


def expired(spooled: Message, key: Key, now_us: int) -> Message:
    """Returns the dead letter of a delivery expired in the spool; repeats have an equal id."""
    headers = codec.texts(spooled.headers)
    letter = DeadLetter(
        id=f"ingress/{headers['ce_id']}/expired",
        key=key,
        reason="spooled_too_long",
        detail="Kafka was away for longer than the spool's age",
        origin="ingress",
        at=now_us,
        headers={name: text for name, text in headers.items() if name in _LETTER_HEADERS},
        body_base64=b64encode(spooled.value).decode("ascii"),
    )
    return codec.encode(letter, key=key, ce_id=letter.id, source=_SOURCE, at_us=now_us)


def _delivery_headers(request: Request) -> codec.Headers:
    headers = [("endpoint", (request.endpoint or "").encode()), ("event_timestamp_header", request.head.timestamp)]
    trace = request.head.traceparent
    return headers if trace is None else [*headers, ("traceparent", trace)]
