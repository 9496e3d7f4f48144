"""Reads the dates of HTTP headers (RFC 9110), as in `Date` and `Retry-After`."""

from datetime import UTC
from email.utils import parsedate_to_datetime


def http_date_us(text: str) -> int | None:
    """Returns a date in microseconds UTC; None for a text that is no date."""
    try:
        found = parsedate_to_datetime(text)
        # "-0000" and a missing zone give a naive time; `timestamp()` would read it in the machine's own zone.
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()) * 1_000_000
    except (ValueError, OverflowError, IndexError):
        return None
