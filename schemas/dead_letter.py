"""The record of a dead letter: a refused record or delivery, the reason, and the position of the origin."""

from base64 import b64decode
from enum import StrEnum
from typing import ClassVar

from schemas.values import Instant, Key, Record


class DeadLetterReason(StrEnum):
    """The reason for which a record or delivery was refused."""

    MALFORMED = "malformed"
    """An authentic body that is not of the sender's schema."""
    UNKNOWN_EVENT = "unknown_event"
    """An authentic body whose `event` no release knows yet."""
    CONFLICT = "conflict"
    """A uid that was delivered before with a different content; the earlier content counts."""
    FUTURE = "future"
    """An observation dated more than 90 s ahead of log time."""
    TOO_LARGE = "too_large"
    """A record whose row would not fit into one Kafka record."""
    UNREADABLE = "unreadable"
    """A record without a known type, with a wrong key, or not of its schema."""
    MISPLACED = "misplaced"
    """A record in a partition that its key does not belong to."""
    SPOOLED_TOO_LONG = "spooled_too_long"
    """A delivery that waited in the spool for longer than 6 h."""


class DeadLetter(Record):
    """A refused record or delivery. The topic is restricted, because a dead letter carries the body untouched."""

    ce_type: ClassVar[str] = "lifecycle.dead-letter.v1"

    id: str
    """`{topic}/{partition}/{offset}` of the origin, or `ingress/{sha256 of the body}`; equal in every repetition."""
    key: Key | None
    reason: DeadLetterReason
    detail: str
    """Names the field and the rule, never a value."""
    origin: str
    """The topic of the refused record, or `ingress`."""
    origin_partition: int | None = None
    """The partition of the refused record; null for a delivery that no topic holds, and in older dead letters."""
    origin_offset: int | None = None
    """The offset of the refused record; null as the partition."""
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
