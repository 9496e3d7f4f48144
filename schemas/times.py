"""Instants: microseconds since 1970 UTC inside the program, RFC 3339 in JSON.

Rule: a wall-clock instant has no further representation in this project, in particular no `datetime` and no float.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
"""The accepted form. `datetime.fromisoformat` alone accepts more: week dates, missing offsets, a space for `T`."""
FIRST_US = -62_135_596_800_000_000
LAST_US = 253_402_300_799_999_999
"""Bounds of the years 1 to 9999 UTC, the range of `rfc3339`: an offset may carry a valid date out of this range."""


def instant(text: str) -> int:
    """Returns an RFC 3339 date-time as microseconds since 1970 UTC; digits beyond the sixth are dropped.

    Raises:
        ValueError: The text is not RFC 3339, has no offset, or names no instant of the years 1 to 9999 UTC. Week dates,
            dates alone and numbers are refused.
    """
    if _RFC3339.fullmatch(text) is None:
        raise ValueError("not an RFC 3339 date-time with an offset")
    since = datetime.fromisoformat(text) - _EPOCH
    at_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if not FIRST_US <= at_us <= LAST_US:
        raise ValueError("not within the years 1 to 9999 UTC")
    return at_us


def rfc3339(at_us: int) -> str:
    """Returns microseconds since 1970 UTC as RFC 3339, with six fractional digits and `Z`."""
    second, us = divmod(at_us, 1_000_000)
    # Adding a million and cutting the first digit pads to six digits, at half the cost of a format specification.
    return f"{_second(second)}.{str(1_000_000 + us)[1:]}Z"


@lru_cache(maxsize=1_024)
def _second(since_1970: int) -> str:
    """Returns the date and time of a whole second, without offset."""
    # Cached, because records of about the present moment share few distinct seconds.
    return (_EPOCH + timedelta(seconds=since_1970)).isoformat()[:19]
