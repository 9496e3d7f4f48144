"""What the ingress writes: deliveries untouched, wishes to look again, and dead letters. Pure."""

from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from schemas import codec
from schemas.codec import Message
from schemas.dead_letter import DeadLetter
from schemas.event import Recheck
from schemas.values import Key, rfc3339
from schemas.webhook import Malformed
from services.ingress.head import Head

_SOURCE: Final = "/genesys-lifecycle/ingress"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One authentic request.

    Attributes:
        endpoint: By which it came.
        head: What its head said.
        body: The raw bytes.
        digest: SHA-256 of the body: equal bytes, equal digest.
        received_us: Our clock when it was whole, microseconds UTC; stamped once, no later stage judges by its own.
    """

    endpoint: str
    head: Head
    body: bytes
    digest: bytes
    received_us: int


def attempt(endpoint: str, head: Head, body: bytes, now_us: int) -> Attempt:
    """Note one authentic request."""
    return Attempt(endpoint, head, body, sha256(body).digest(), now_us)


def delivery(tried: Attempt, key: Key) -> Message:
    """The record of an accepted delivery; its `ce_id` is equal for equal bytes."""
    return codec.received(
        tried.body,
        key=key,
        ce_id=tried.digest.hex(),
        received_at_us=tried.received_us,
        extra=_beside(tried),
    )


def recheck(key: Key, reason: str, now_us: int) -> Message:
    """The wish that Genesys is asked about a key."""
    wish = Recheck(key=key, reason=f"ingress_{reason}", at=now_us)
    return codec.encode(wish, key=key, ce_id=f"{key}/recheck/{now_us}", source=_SOURCE, at_us=now_us)


def dead_letter(tried: Attempt, key: Key | None, reason: str, fault: Malformed) -> Message:
    """The record of an authentic delivery that no service can process; repeats have the same id."""
    letter = DeadLetter(
        id=f"ingress/{tried.digest.hex()}",
        key=key,
        reason=reason,
        detail=str(fault),
        origin="ingress",
        at=tried.received_us,
        headers=_beside(tried) | {"received_at": rfc3339(tried.received_us)},
        body_base64=b64encode(tried.body).decode("ascii"),
    )
    return codec.encode(letter, key=key, ce_id=letter.id, source=_SOURCE, at_us=tried.received_us)


def _beside(tried: Attempt) -> dict[str, str]:
    beside = {"endpoint": tried.endpoint, "event_timestamp_header": tried.head.stated}
    return beside if tried.head.trace is None else beside | {"traceparent": tried.head.trace}
