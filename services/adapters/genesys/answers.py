"""Parses responses of the Genesys Cloud API: JSON body, error code, correlation id, `Date` and `Retry-After`.

Rules:
- A response that proves nothing raises `NoInformation`. The reason names the request and the fact, never a secret or a
  body, and ends with the correlation id, by which the support of Genesys finds the request.
- `ServerTrouble` is raised for trouble of the server or of the way there: further requests will most likely fail too.
  Plain `NoInformation` concerns a single request.
- A status of `RETRIED` is a temporary refusal. Any further status is final: a repetition would be refused as well.

Sources: RFC 9110 (5.6.7 dates, 6.6.1 Date, 10.2.3 Retry-After); the API's reference (`ErrorBody`, its `contextId` and
the header `ININ-Correlation-Id`).
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, TypeVar

import httpx2

from schemas.genesys import Strange, no_such
from services.adapters.http_dates import http_date_us

T = TypeVar("T")

CLOCK_OFF_US: Final = 90_000_000
"""Greatest accepted difference between a response's `Date` and our clock (W of the time rule).

Events are ordered by this time, and a `Date` in the future would outrank every later event.
"""
RETRIED: Final = frozenset({408, 429, 502, 503, 504})
"""Statuses of a temporary refusal."""
_SERVER_STATUSES: Final = frozenset({401, 407, 408, 425, 429})
"""Statuses below 500 about our token, a proxy or a rate limit, not about the requested resource."""
_OVER_MINTED: Final = "rate limit exceeded"
"""Part of the description of the 400 for a client that requests tokens too often."""
_CORRELATION: Final = re.compile(r"[\w.:-]{1,100}", re.ASCII)
_CODE: Final = re.compile(r"[\w.-]{1,100}", re.ASCII)


class Unanswered(StrEnum):
    """Sorts of a missing reading, as the metric of reads counts them.

    `NO_CREDENTIALS` is an organisation without a usable file; `INCOMPLETE` an answer that proves nothing.
    """

    NO_CREDENTIALS = "no_credentials"
    REFUSED = "refused"
    RATE_LIMITED = "rate_limited"
    NO_ANSWER = "no_answer"
    INCOMPLETE = "incomplete"


class NoInformation(Exception):
    """Genesys gave no proven answer, so no decision may follow.

    Attributes:
        reason: The request and the fact, without secrets or bodies; with the correlation id of an answer.
        correlation_id: Genesys' id of the request; empty without an answer, or for an answer without an id.
        sort: The reason as a value of a metric's label.
    """

    def __init__(self, reason: str, correlation_id: str = "", *, sort: Unanswered = Unanswered.INCOMPLETE) -> None:
        self.reason = f"{reason} (correlation {correlation_id})" if correlation_id else reason
        super().__init__(self.reason)
        self.correlation_id = correlation_id
        self.sort = sort


class ServerTrouble(NoInformation):
    """The server, or the network before the server, is in trouble; further requests will most likely fail too."""

    def __init__(self, reason: str, correlation_id: str = "", *, sort: Unanswered = Unanswered.NO_ANSWER) -> None:
        super().__init__(reason, correlation_id, sort=sort)


def sort_of(status: int) -> Unanswered:
    """Return the sort of an unexpected HTTP status."""
    if status in {401, 403}:
        return Unanswered.REFUSED
    if status == 429:
        return Unanswered.RATE_LIMITED
    return Unanswered.NO_ANSWER if _is_server_trouble(status) else Unanswered.INCOMPLETE


def _is_server_trouble(status: int) -> bool:
    # 401 too: a refused token says nothing about the requested resource.
    return status in _SERVER_STATUSES or status >= 500 or 300 <= status < 400


class NotPermitted(NoInformation):
    """The client of the organisation lacks a permission (403); the same request by the same client stays refused."""


def refused(subject: str, answer: httpx2.Response) -> NoInformation:
    """Return the exception for an unexpected status.

    A redirect counts as trouble of the server: it leads to a sign-in or maintenance page, never to the resource.

    Args:
        subject: The request in a few words, for the reason.
        answer: The answer.
    """
    status, code = answer.status_code, _error_body(answer).get("code")
    reason = f"{subject}: HTTP {status}"
    if isinstance(code, str) and _CODE.fullmatch(code):
        reason += f" {code}"
    correlation_id, sort = correlation_of(answer), sort_of(status)
    if _is_server_trouble(status):
        return ServerTrouble(reason, correlation_id, sort=sort)
    return (NotPermitted if status == 403 else NoInformation)(reason, correlation_id, sort=sort)


def correlation_of(answer: httpx2.Response) -> str:
    """Return Genesys' id of a request, from the header or from the error body; empty without an id."""
    found = answer.headers.get("inin-correlation-id") or _error_body(answer).get("contextId")
    return found if isinstance(found, str) and _CORRELATION.fullmatch(found) else ""


def is_over_minted(answer: httpx2.Response) -> bool:
    """True if a token was refused because the client requests tokens too often: HTTP 400, and not 429."""
    body = _error_body(answer)
    texts = (body.get(name) for name in ("description", "error_description", "error", "message"))
    return answer.status_code == 400 and any(isinstance(text, str) and _OVER_MINTED in text for text in texts)


def shaped(read: Callable[[Any], T], answer: httpx2.Response, subject: str) -> T:
    """Parse the JSON object in the body of a response with `read`, a parser of `schemas.genesys`.

    Raises:
        ServerTrouble: the body is not JSON, so a proxy or a maintenance page answered.
        NoInformation: the body is JSON, but not an object, or has not the documented shape.
    """
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        raise ServerTrouble(f"{subject}: the answer is not JSON", correlation_of(answer)) from None
    if not isinstance(body, dict):
        raise NoInformation(f"{subject}: the answer is not a JSON object", correlation_of(answer))
    try:
        return read(body)
    except Strange as error:
        raise NoInformation(f"{subject}: {error}", correlation_of(answer)) from None


def is_absence(answer: httpx2.Response) -> bool:
    """True if a 404 comes from Genesys itself. A proxy without a backend also answers 404, which proves nothing."""
    try:
        return no_such(answer.json())
    except (ValueError, RecursionError):
        return False


def date_us(answer: httpx2.Response, now_us: int) -> int:
    """Return the `Date` of a response, microseconds UTC.

    Raises:
        NoInformation: `Date` is missing, unreadable, or more than 90 s from our clock.
    """
    found = http_date_us(answer.headers.get("date", ""))
    if found is None:
        raise NoInformation("the answer has no Date that can be read")
    if abs(found - now_us) > CLOCK_OFF_US:
        raise NoInformation("the answer's Date is more than 90 s from our clock: is this machine's clock set by NTP?")
    return found


def retry_after_s(answer: httpx2.Response, now_us: int) -> float | None:
    """Return the wait that `Retry-After` asks for, in seconds; None if the header is missing or unreadable."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    at_us = http_date_us(text)
    return None if at_us is None else max(0.0, (at_us - now_us) / 1_000_000)


def _error_body(answer: httpx2.Response) -> dict[str, Any]:
    if answer.status_code < 400:
        return {}
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
