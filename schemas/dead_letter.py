"""What could not be processed, whole, with the reason and the way back."""

from base64 import b64decode
from typing import ClassVar

from schemas.values import Instant, Key, Record


class DeadLetter(Record):
    """One refused record or delivery; restricted, since it carries the body untouched."""

    ce_type: ClassVar[str] = "lifecycle.dead-letter.v1"

    id: str
    """`{topic}/{partition}/{offset}` of the origin, or `ingress/{sha256 of the body}`: repeats are equal."""
    key: Key | None
    reason: str
    """`malformed`, `unknown_event`, `conflict`, `unreadable`, `future`, `too_large`, `spooled_too_long`, …"""
    detail: str
    """Names the field and the rule, never a value."""
    origin: str
    """The topic it came from, or `ingress`."""
    at: Instant
    headers: dict[str, str]
    """The headers of the record it was."""
    body_base64: str

    @property
    def body(self) -> bytes:
        """The raw bytes."""
        return b64decode(self.body_base64)
