"""The time rule of the ingress as a table: accepts genuine retries and refuses replays.

Rule: only the signed `eventTimestamp` (B) bounds the age of a delivery. The header (H) is not signed, so an attacker
may set any time; the header only filters implausible deliveries. The first applicable row counts; code and tests name
the rows T1 to T7. The rule for senders: docs/webhook.md, "Time".
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_S: Final = 1_000_000

WINDOW_US: Final = 90 * _S
"""W, the guide's sliding window; also the greatest lead of the signed time over our clock."""

RETRY_US: Final = 20 * 60 * _S
"""R, the guide's edge case 3: five retries over 20 minutes."""

HORIZON_US: Final = RETRY_US + 2 * WINDOW_US + 120 * _S
"""The greatest age of a signed time, independent of the header: a retry 20 minutes late, with both clocks W apart and
120 s to spare."""


class TimeRule(StrEnum):
    """The rows of the time rule. T1 (a missing or malformed time) is decided by the parsers of header and body."""

    FUTURE = "future"
    """T2: B is more than W ahead of our clock: the sender's clock or ours is wrong."""
    STALE = "stale"
    """T3: B is older than the horizon."""
    FRESH = "fresh"
    """T4: H is within W of our clock."""
    RETRY = "retry"
    """T5: H is outside W, and the signed body calls the delivery a retry."""
    REDELIVERY = "redelivery"
    """T6: H is outside W, and this process has written equal bytes before."""
    UNMARKED = "unmarked"
    """T7: H is outside W, without a retry mark and without an earlier write of equal bytes."""


@dataclass(frozen=True, slots=True)
class TimeVerdict:
    """The consequence of a row.

    Attributes:
        row: The applicable row.
        accepted: True if the delivery may be written.
        recheck: True if the refused delivery may be genuine: a re-check of the key asks Genesys instead.
    """

    row: TimeRule
    accepted: bool
    recheck: bool


TABLE: Final = {
    verdict.row: verdict
    for verdict in (
        TimeVerdict(TimeRule.FUTURE, accepted=False, recheck=False),
        TimeVerdict(TimeRule.STALE, accepted=False, recheck=True),
        TimeVerdict(TimeRule.FRESH, accepted=True, recheck=False),
        TimeVerdict(TimeRule.RETRY, accepted=True, recheck=False),
        TimeVerdict(TimeRule.REDELIVERY, accepted=True, recheck=False),
        TimeVerdict(TimeRule.UNMARKED, accepted=False, recheck=True),
    )
}
"""The verdict of each row."""


def judge(*, now_us: int, header_us: int, signed_us: int, marked: bool, known: bool) -> TimeVerdict:
    """Returns the verdict on the times of an authentic delivery.

    Args:
        now_us: Our clock, microseconds UTC.
        header_us: H, `X-Genesys-Event-Timestamp`, not covered by the signature; microseconds UTC.
        signed_us: B, `eventTimestamp` of the body; microseconds UTC.
        marked: True if the signed body calls the delivery a retry.
        known: True if this process has written equal bytes before.
    """
    # FUTURE and STALE come first: no header, mark or memory may extend the age that the signature bounds.
    if now_us - signed_us < -WINDOW_US:
        return TABLE[TimeRule.FUTURE]
    if now_us - signed_us > HORIZON_US:
        return TABLE[TimeRule.STALE]
    if abs(now_us - header_us) <= WINDOW_US:
        return TABLE[TimeRule.FRESH]
    if marked:
        return TABLE[TimeRule.RETRY]
    return TABLE[TimeRule.REDELIVERY if known else TimeRule.UNMARKED]
