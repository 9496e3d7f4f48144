"""Instants: microseconds since 1970 UTC inside the house, RFC 3339 in JSON.

Rule: nothing else ever represents time.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
"""`datetime.fromisoformat` takes far more (week dates, no offset, other separators): this says what it may be given."""
FIRST_US = -62_135_596_800_000_000
LAST_US = 253_402_300_799_999_999
"""What `rfc3339` can write: an offset must not carry an instant out of it."""


def instant(text: str) -> int:
    """Read an RFC 3339 date-time as microseconds since 1970 UTC; digits beyond the sixth are dropped.

    Raises:
        ValueError: not RFC 3339, no offset, or no such instant (week dates, dates alone and numbers are refused).
    """
    if _RFC3339.fullmatch(text) is None:
        raise ValueError("not an RFC 3339 date-time with an offset")
    since = datetime.fromisoformat(text) - _EPOCH
    at_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if not FIRST_US <= at_us <= LAST_US:
        raise ValueError("not within the years 1 to 9999 UTC")
    return at_us


def rfc3339(at_us: int) -> str:
    """Write microseconds since 1970 UTC as RFC 3339 with six digits and `Z`."""
    second, us = divmod(at_us, 1_000_000)
    return f"{_second(second)}.{str(1_000_000 + us)[1:]}Z"  # six digits; half the price of a format


@lru_cache(maxsize=1_024)
def _second(since_1970: int) -> str:
    """One second written out; what happens at the same time is written in the same seconds."""
    return (_EPOCH + timedelta(seconds=since_1970)).isoformat()[:19]
