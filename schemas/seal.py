"""The record of a seal: proves which records stand in a range of a partition of the audit trail, and in which order.

The reconciler writes a seal into the partition of the sealed range, behind the range and without a Kafka key. How a
seal is verified without this program stands in docs/audit-trail.md.
"""

from typing import ClassVar

from schemas.values import Instant, Record


class Seal(Record):
    """A seal over the offsets from `first` up to, and without, `next` of a partition of `lifecycle.audit`.

    The range follows the range of the former seal without a gap. So the former seal itself stands inside the range.
    """

    ce_type: ClassVar[str] = "lifecycle.seal.v1"

    partition: int
    number: int
    """1, 2, 3 … per partition."""
    first: int
    """First offset of the range: `next` of the former seal, or the first offset of the log for the first seal."""
    next: int
    """Offset behind the range."""
    count: int
    """Number of audit records in the range, repeats included and seals left out; offsets may have gaps."""
    macs: str
    """SHA-256 over the MACs of the audit records in the order of the log, each followed by a line feed, as hex."""
    former: str | None
    """SHA-256 over the seals in the range, as hex: the former seal, and a seal of a second sealer that came too late.
    Each counts as its offset in decimal digits, a space, its value and a line feed. Null if the range holds no seal."""
    first_at: Instant
    """Kafka's timestamp of the first audit record in the range."""
    former_at: Instant | None
    """Field `at` of the former seal; null for the first seal."""
    at: Instant
    """Time of sealing."""
    mac: str
    """HMAC-SHA256 over the canonical JSON of the other fields, under `material.seal`."""
