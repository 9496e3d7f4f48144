"""The record of a dead letter: a refused record or delivery, the reason, and the position of the origin."""

from base64 import b64decode
from typing import ClassVar

from schemas.values import Instant, Key, Record


class DeadLetter(Record):
    """A refused record or delivery. The topic is restricted, because a dead letter carries the body untouched."""

    ce_type: ClassVar[str] = "lifecycle.dead-letter.v1"

    id: str
    """`{topic}/{partition}/{offset}` of the origin, or `ingress/{sha256 of the body}`; equal in every repetition."""
    key: Key | None
    reason: str
    """`malformed`, `unknown_event`, `conflict`, `unreadable`, `future`, `too_large`, `spooled_too_long`, …"""
    detail: str
    """Names the field and the rule, never a value."""
    origin: str
    """The topic of the refused record, or `ingress`."""
    at: Instant
    """Log time of the refused record, or time of receipt."""
    headers: dict[str, str]
    """The headers of the refused record."""
    body_base64: str
    """The raw bytes of the refused value; the ledger and the provisioner keep at most the first 1 MiB."""

    @property
    def body(self) -> bytes:
        """Returns the decoded bytes of `body_base64`."""
        return b64decode(self.body_base64)
