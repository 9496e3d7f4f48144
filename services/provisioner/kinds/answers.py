"""What an HTTP answer means for a step: the one table for every kind that speaks HTTP.

Rule: only what is known. A silence after sending is `Unknown`, unless the call could change nothing.
Sources: RFC 9110 (status codes, Retry-After), RFC 6585 (429), draft-ietf-httpapi-idempotency-key-header-07 (409, 422).
"""

import re
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from services.adapters.http import NoAnswer, NotSent, Response
from services.core.calls import Absent, Answer, Call, Done, Refused, Retryable, Unknown, Verb

_PASSING: Final = frozenset({408, 425, 429})
_STALE: Final = "stale_epoch"
"""Of docs/rest-contract.md: the lease is lost, which its next holder need not suffer for, or its number is to rise."""
_GONE: Final = frozenset({404, 410})
_SECONDS_DIGITS: Final = 6
_SECRET_MIN: Final = 8
"""Characters: shorter texts stand in many codes by chance."""
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


def meaning(call: Call, response: Response) -> Answer:
    """What one answer says of the call's resource; `Done` carries no outputs yet."""
    status = response.status
    if 200 <= status < 300:
        return Done()
    if status in _GONE and call.verb in {Verb.READ, Verb.DELETE}:
        return Absent()
    if status == 409 and call.verb is Verb.CREATE and is_ours(call, response.body):
        return Done()
    wait_s = _retry_after_s(response.headers)
    busy = status == 409 and wait_s is not None
    stale = status == 409 and _code(response.body) == _STALE
    if status >= 500 or status in _PASSING or busy or stale:
        return Retryable(_reason(call, response), wait_s, well=stale)
    return Refused(_reason(call, response))


def silence(call: Call, failure: NotSent | NoAnswer) -> Answer:
    """What it says when no whole answer came."""
    if isinstance(failure, NotSent):
        return Retryable(failure.reason, silent=failure.passing)
    if call.verb is Verb.READ:
        return Retryable(failure.reason, silent=True)
    return Unknown(failure.reason)


def is_ours(call: Call, body: Any) -> bool:
    """Whether a resource shown in an answer is the one this life of the key made, or makes."""
    return isinstance(body, Mapping) and (body.get("key"), body.get("generation")) == (call.key, call.generation)


def _reason(call: Call, response: Response) -> str:
    """The status, and the error code where the body has one that does not quote what the call was given."""
    code = _code(response.body)
    if code is None or any(_quotes(code, text) for text in _texts([call.settings, call.outputs])):
        return f"HTTP {response.status}"
    return f"HTTP {response.status} {code}"


def _quotes(code: str, text: str) -> bool:
    return code in text or (len(text) >= _SECRET_MIN and text in code)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, str):
        yield value


def _code(body: Any) -> str | None:
    code = body.get("error") or body.get("code") if isinstance(body, Mapping) else None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The wait a system asks for: seconds, or a date that is read against the answer's own `Date`."""
    text = headers.get("retry-after", "")
    if text.isascii() and text.isdigit() and len(text) < _SECONDS_DIGITS:
        return float(text)
    try:
        wait = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError):
        return None
    return max(0.0, wait.total_seconds())
