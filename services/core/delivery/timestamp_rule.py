"""Tells a replay from a retry: the time rule of the ingress, as a table.

Rule: only the signed `eventTimestamp` (B) bounds the age of a delivery; the header (H) is free to whoever replays it
and is a plausibility filter. First row that applies; T1 to T7 are their names here and in the tests. The rule for
senders: docs/webhook.md, "Time".
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_S: Final = 1_000_000

WINDOW_US: Final = 90 * _S
"""W, the guide's sliding window; also how far the signed time may be ahead of our clock."""

RETRY_US: Final = 20 * 60 * _S
"""R, the guide's edge case 3: five retries over 20 minutes."""

HORIZON_US: Final = RETRY_US + 2 * WINDOW_US + 120 * _S
"""The greatest age of a signed time, whatever the header says."""


class TimeRule(StrEnum):
    """The rows of the time rule; T1 (a time missing or malformed) is decided where times are read."""

    FUTURE = "future"
    """T2: B is further ahead than W: the sender's clock or ours is wrong."""
    STALE = "stale"
    """T3: B is older than the horizon."""
    FRESH = "fresh"
    """T4: H is within W of our clock."""
    RETRY = "retry"
    """T5: H is not, but the signed metadata calls this a retry."""
    REDELIVERY = "redelivery"
    """T6: H is not, but this process has written these bytes before."""
    UNMARKED = "unmarked"
    """T7: H is not, and nothing vouches for these bytes."""


@dataclass(frozen=True, slots=True)
class TimeVerdict:
    """What follows from a row.

    Attributes:
        row: The row that applied.
        accepted: The delivery may be written.
        recheck: It may not, and what it says may still be true: ask Genesys about its key.
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


def judge(*, now_us: int, header_us: int, signed_us: int, marked: bool, known: bool) -> TimeVerdict:
    """Judge the times of one authentic delivery.

    Args:
        now_us: Our clock, microseconds UTC.
        header_us: H, `X-Genesys-Event-Timestamp`, not covered by the signature.
        signed_us: B, `eventTimestamp` of the body.
        marked: The signed metadata calls it a retry.
        known: This process has written these bytes before.
    """
    if now_us - signed_us < -WINDOW_US:
        return TABLE[TimeRule.FUTURE]
    if now_us - signed_us > HORIZON_US:
        return TABLE[TimeRule.STALE]
    if abs(now_us - header_us) <= WINDOW_US:
        return TABLE[TimeRule.FRESH]
    if marked:
        return TABLE[TimeRule.RETRY]
    return TABLE[TimeRule.REDELIVERY if known else TimeRule.UNMARKED]
