"""What the ingress writes: deliveries untouched, wishes to look again, and dead letters. Pure."""

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
_RODE_ALONG: Final = frozenset({"endpoint", "event_timestamp_header", "received_at", "traceparent"})


def delivery(request: Request, key: Key) -> Message:
    """The record of an accepted delivery; its `ce_id` is equal for equal bytes."""
    return codec.received(
        request.body, key=key, ce_id=request.digest.hex(), received_at_us=request.received_us, beside=_beside(request)
    )


def recheck(key: Key, reason: str, now_us: int) -> Message:
    """The wish that Genesys is asked about a key."""
    wish = Recheck(key=key, reason=f"ingress_{reason}", at=now_us)
    return codec.encode(wish, key=key, ce_id=f"{key}/recheck/{now_us}", source=_SOURCE, at_us=now_us)


def dead_letter(request: Request, key: Key | None, reason: str, fault: Malformed) -> Message:
    """The record of an authentic delivery that no service can process; repeats have the same id."""
    letter = DeadLetter(
        id=f"ingress/{request.digest.hex()}",
        key=key,
        reason=reason,
        detail=str(fault),
        origin="ingress",
        at=request.received_us,
        headers=codec.texts(_beside(request)) | {"received_at": rfc3339(request.received_us)},
        body_base64=b64encode(request.body).decode("ascii"),
    )
    return codec.encode(letter, key=key, ce_id=letter.id, source=_SOURCE, at_us=request.received_us)


def expired(spooled: Message, key: Key, now_us: int) -> Message:
    """The record of a delivery that was spooled longer than it may still change anything; repeats have the same id."""
    told = codec.texts(spooled.headers)
    letter = DeadLetter(
        id=f"ingress/{told['ce_id']}/expired",
        key=key,
        reason="spooled_too_long",
        detail="Kafka was away for longer than the spool's age",
        origin="ingress",
        at=now_us,
        headers={name: text for name, text in told.items() if name in _RODE_ALONG},
        body_base64=b64encode(spooled.value).decode("ascii"),
    )
    return codec.encode(letter, key=key, ce_id=letter.id, source=_SOURCE, at_us=now_us)


def _beside(request: Request) -> codec.Headers:
    beside = [("endpoint", (request.endpoint or "").encode()), ("event_timestamp_header", request.head.stated)]
    return beside if request.head.trace is None else [*beside, ("traceparent", request.head.trace)]
