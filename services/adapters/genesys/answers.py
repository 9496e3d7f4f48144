"""Reads an answer of the Genesys Cloud API: its JSON, its `Date`, its `Retry-After`; or names why it says nothing.

Rule: a reason names what was asked and the fact, never a secret or a body. Trouble of the server is told apart from an
answer that judges one request: only the former says that asking on is of no use.
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
"""A `Date` further from our clock is not one we may order events by (W of the time rule)."""
_OF_THE_SERVER: Final = frozenset({401, 407, 408, 425, 429})
"""Statuses below 500 that say nothing of what was asked for: our token, a proxy, a budget."""


class NoInformation(Exception):
    """Genesys said nothing that may be acted on; `reason` names why, never a secret or a body."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ServerTrouble(NoInformation):
    """The server, or the way to it, is in trouble: whatever is asked next will most likely fare alike."""


def refused(what: str, status: int) -> NoInformation:
    """Returns what a status other than the expected one means.

    A redirect is trouble of the server: it leads to a sign-in or a maintenance page, never to the resource.
    """
    of_the_server = status in _OF_THE_SERVER or status >= 500 or 300 <= status < 400
    return (ServerTrouble if of_the_server else NoInformation)(f"{what}: HTTP {status}")


def body_of(answer: httpx2.Response, what: str) -> dict[str, Any]:
    """Returns the JSON object that an answer consists of.

    Raises:
        ServerTrouble: it is not JSON: a proxy or a maintenance page answered.
        NoInformation: it is JSON and no object.
    """
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        raise ServerTrouble(f"{what}: the answer is not JSON") from None
    if not isinstance(body, dict):
        raise NoInformation(f"{what}: the answer is not a JSON object")
    return body


def is_absence(answer: httpx2.Response) -> bool:
    """True if a 404 is Genesys' own: a proxy without a backend answers 404 as well, and knows of nobody."""
    try:
        return no_such(answer.json())
    except (ValueError, RecursionError):
        return False


def shaped(read: Callable[[Any], T], body: Any, what: str) -> T:
    """Returns a body as it is read.

    Raises:
        NoInformation: it has not the documented shape.
    """
    try:
        return read(body)
    except Strange as error:
        raise NoInformation(f"{what}: {error}") from None


def date_us(answer: httpx2.Response, now_us: int) -> int:
    """Returns the `Date` of an answer, microseconds UTC.

    Raises:
        NoInformation: there is none, or it cannot be true.
    """
    found = _http_date_us(answer.headers.get("date", ""))
    if found is None:
        raise NoInformation("the answer has no Date that can be read")
    if abs(found - now_us) > CLOCK_OFF_US:
        raise NoInformation("the answer's Date is more than 90 s from our clock")
    return found


def retry_after_s(answer: httpx2.Response, now_us: int) -> float | None:
    """Returns how long the server asks us to wait, given in seconds or as a date; None where it does not say."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    at_us = _http_date_us(text)
    return None if at_us is None else max(0.0, (at_us - now_us) / 1_000_000)


def _http_date_us(text: str) -> int | None:
    try:
        found = parsedate_to_datetime(text)
        # "-0000" and a missing zone make a naive time, which Python would take for the machine's own zone.
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()) * 1_000_000
    except (ValueError, OverflowError, IndexError):
        return None
