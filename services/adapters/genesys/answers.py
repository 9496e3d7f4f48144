"""Parses responses of the Genesys Cloud API: JSON body, `Date` and `Retry-After`.

Rules:
- A response that proves nothing raises `NoInformation`. The reason names the request and the fact, never a secret or a
  body.
- `ServerTrouble` is raised for trouble of the server or of the way there: further requests will most likely fail too.
  Plain `NoInformation` concerns a single request.

Sources: RFC 9110 (5.6.7 dates, 6.6.1 Date, 10.2.3 Retry-After); the API's reference (`ErrorBody`).
"""

from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import httpx2

from schemas.genesys import Strange, no_such

T = TypeVar("T")

CLOCK_OFF_US: Final = 90_000_000
"""Greatest accepted difference between a response's `Date` and our clock (W of the time rule).

Events are ordered by this time, and a `Date` in the future would outrank every later event.
"""
_SERVER_STATUSES: Final = frozenset({401, 407, 408, 425, 429})
"""Statuses below 500 about our token, a proxy or a rate limit, not about the requested resource."""


class NoInformation(Exception):
    """Genesys gave no proven answer, so no decision may follow.

    Attributes:
        reason: The request and the fact, without secrets or bodies.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ServerTrouble(NoInformation):
    """The server, or the network before the server, is in trouble; further requests will most likely fail too."""


def refused(subject: str, status: int) -> NoInformation:
    """Return the exception for an unexpected status.

    A redirect counts as trouble of the server: it leads to a sign-in or maintenance page, never to the resource.

    Args:
        subject: The request in a few words, for the reason.
        status: HTTP status.
    """
    # 401 too: a refused token says nothing about the requested resource.
    is_server_trouble = status in _SERVER_STATUSES or status >= 500 or 300 <= status < 400
    return (ServerTrouble if is_server_trouble else NoInformation)(f"{subject}: HTTP {status}")


def body_of(answer: httpx2.Response, subject: str) -> dict[str, Any]:
    """Return the JSON object in the body of a response.

    Raises:
        ServerTrouble: the body is not JSON, so a proxy or a maintenance page answered.
        NoInformation: the body is JSON, but not an object.
    """
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        raise ServerTrouble(f"{subject}: the answer is not JSON") from None
    if not isinstance(body, dict):
        raise NoInformation(f"{subject}: the answer is not a JSON object")
    return body


def is_absence(answer: httpx2.Response) -> bool:
    """True if a 404 comes from Genesys itself. A proxy without a backend also answers 404, which proves nothing."""
    try:
        return no_such(answer.json())
    except (ValueError, RecursionError):
        return False


def shaped(read: Callable[[Any], T], body: Any, subject: str) -> T:
    """Parse a body with `read`, a parser of `schemas.genesys`, and return the result.

    Raises:
        NoInformation: the body has not the documented shape.
    """
    try:
        return read(body)
    except Strange as error:
        raise NoInformation(f"{subject}: {error}") from None


def date_us(answer: httpx2.Response, now_us: int) -> int:
    """Return the `Date` of a response, microseconds UTC.

    Raises:
        NoInformation: `Date` is missing, unreadable, or more than 90 s from our clock.
    """
    found = _http_date_us(answer.headers.get("date", ""))
    if found is None:
        raise NoInformation("the answer has no Date that can be read")
    if abs(found - now_us) > CLOCK_OFF_US:
        raise NoInformation("the answer's Date is more than 90 s from our clock")
    return found


def retry_after_s(answer: httpx2.Response, now_us: int) -> float | None:
    """Return the wait that `Retry-After` asks for, in seconds; None if the header is missing or unreadable."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    at_us = _http_date_us(text)
    return None if at_us is None else max(0.0, (at_us - now_us) / 1_000_000)


def _http_date_us(text: str) -> int | None:
    try:
        found = parsedate_to_datetime(text)
        # "-0000" and a missing zone give a naive time; `timestamp()` would read it in the machine's own zone.
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()) * 1_000_000
    except (ValueError, OverflowError, IndexError):
        return None
