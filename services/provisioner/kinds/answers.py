"""What an HTTP answer means for a step: the one table for every kind that speaks HTTP.

Rule: an outage is not a refusal, and a success proves only what it shows. A silence after sending is `Unknown`, unless
the call could change nothing. An answer judges the tenant's inputs only where it comes from the system that the tenant
named; the operator's own system refuses the operator (`RefusedUs`).
Sources: RFC 9110 (status codes, Retry-After), RFC 4918 (423), RFC 6585 (429), RFC 6749 section 5.2 (codes of a token
endpoint), draft-ietf-httpapi-idempotency-key-header-07 (409, 422); docs/rest-contract.md has the table for people.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, Final

from services.adapters.http_client import HttpResponse, NoAnswer, NotSent
from services.adapters.process import clock
from services.core.saga.calls import (
    Absent,
    Answer,
    Call,
    Contradicted,
    Done,
    Refused,
    RefusedUs,
    Retryable,
    Unknown,
    Verb,
)

_PASSING: Final = frozenset({405, 408, 423, 425, 429})
"""405 comes from an ingress without a backend; the others ask for another try."""
_STALE: Final = "stale_epoch"
"""Of docs/rest-contract.md: the lease is lost, which its next holder need not suffer for, or its number is to rise."""
_IN_PROGRESS: Final = re.compile(
    r"in_?(progress|flight)|concurrent|processing(?!_?(err|fail))|(idempotenc|request|operation|^key).*in_?use",
    re.IGNORECASE,
)
"""Codes of a 409 that answers a request of ours while an equal one is under way; a name that is taken has others."""
_SAYS_NO_MORE: Final = "conflict"
"""The name of the status itself, which some frameworks send as the code."""
_LIMITED: Final = re.compile(r"request_limit_exceeded|rate_?limit|too_many_requests", re.IGNORECASE)
"""Codes that say that a quota is used up, whatever their status: Salesforce sends them with 400 and 403."""
_GONE: Final = frozenset({404, 410})
_CHANGES: Final = frozenset({Verb.CREATE, Verb.UPDATE})
_ACCESS: Final = frozenset({401, 403, 407})
_CLIENT: Final = frozenset({"invalid_client", "unauthorized_client"})
_SECRET_MIN: Final = 8
"""Characters: shorter texts stand in many codes by chance."""
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]{0,99})(\.[0-9]{1,99})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_SECONDS_DIGITS: Final = 9
_CREDENTIALS: Final = "give this step credentials that its system accepts"
_ADDRESS: Final = "correct the step's url: the system sends requests elsewhere"
_CERTIFICATE: Final = "renew the system's certificate, or let this machine trust its issuer"
_URL: Final = "correct the step's url"


def meaning(call: Call, response: HttpResponse) -> Answer:  # noqa: PLR0911 - one line a case, in order
    """Returns the meaning of one answer for the call's resource; `Done` carries no outputs yet."""
    status, codes = response.status, _codes(response.body)
    if 200 <= status < 300:
        return _success(call, response)
    if status in _GONE and call.verb not in _CHANGES:
        # A proxy without a backend says 404 too, in HTML or in a sentence: that says nothing of the resource.
        return Retryable(f"HTTP {status} without JSON") if response.other else Absent()
    if status == 409 and call.verb is Verb.CREATE and is_ours(call, response.body):
        return Done()
    wait_s, reason = _retry_after_s(response.headers), _reason(call, response)
    if status == 409 and _STALE in codes:
        return Retryable(reason, wait_s, well=True)
    busy = status == 409 and (wait_s is not None or _is_busy(call, codes))
    if busy or status >= 500 or status in _PASSING or status == 404 or any(map(_LIMITED.search, codes)):
        return Retryable(reason, wait_s)
    if of_operator(call):
        if status in _ACCESS or not _CLIENT.isdisjoint(codes):
            return RefusedUs(reason, _CREDENTIALS) if call.own_credentials else Refused(reason)
        if 301 <= status < 400:
            return RefusedUs(reason, _ADDRESS)
    return Refused(reason)


def _is_busy(call: Call, codes: Sequence[str]) -> bool:
    """True if a 409 with these codes is about another request of ours; to the repeat of a lost one it is by default."""
    if any(map(_IN_PROGRESS.search, codes)):
        return True
    return call.repeats and all(code.lower() == _SAYS_NO_MORE for code in codes)


def _success(call: Call, response: HttpResponse) -> Answer:
    if response.is_html:
        reason = f"HTTP {response.status} with HTML where JSON is due"
        return Unknown(reason) if call.verb in _CHANGES else Retryable(reason)
    if response.status == 202 and call.verb is not Verb.READ:
        return Unknown("HTTP 202: taken, and not done yet", succeeded=True)
    return Done()


def silence(call: Call, failure: NotSent | NoAnswer) -> Answer:
    """Returns what it means that no whole answer came."""
    if isinstance(failure, NoAnswer):
        return Retryable(failure.reason) if call.verb is Verb.READ else Unknown(failure.reason)
    if failure.untrusted and of_operator(call):
        return RefusedUs(failure.reason, _CERTIFICATE)
    if failure.passing:
        return Retryable(failure.reason)
    return RefusedUs(failure.reason, _URL) if of_operator(call) else Refused(failure.reason, heard=False)


def of_operator(call: Call) -> bool:
    """True if the call goes to a system of the operator's own."""
    return call.settings.get("url_from") == "operator"


def is_ours(call: Call, body: Any) -> bool:
    """True if a resource shown in an answer is the one that this life of the key made, or makes."""
    return isinstance(body, Mapping) and not _foreign_field(call, body)


def shown(call: Call, response: HttpResponse) -> str | Contradicted | Unknown:
    """Returns the `id` of our resource that a successful answer shows, or what the lack of one means.

    After a change the resource is read back; what a read does not show as ours is for a person to look at.
    """
    body = response.body
    field = _foreign_field(call, body) if isinstance(body, Mapping) else None
    if isinstance(body, Mapping) and field is None:
        return str(body.get("id", ""))
    if call.verb is not Verb.READ:
        return Unknown("the answer shows no resource of ours", succeeded=True)
    if field is None:
        return Contradicted("the answer shows no resource")
    known = {name: value for name, value in body.items() if value is not None}
    anothers = _foreign_field(call, {"key": call.key, "generation": call.generation} | known)
    return Contradicted(f"{anothers} is not ours", anothers=True) if anothers else Contradicted(f"{field} is not shown")


def difference(asked: Any, found: Any, path: str = "") -> str | None:
    """Returns the path of the first value that was asked for and is shown otherwise; what is not shown differs in none.

    A number and its text are equal: some systems show numbers as text.
    """
    if isinstance(asked, Mapping) and isinstance(found, Mapping):
        inner = (difference(asked[name], found[name], f"{path}.{name}") for name in asked if name in found)
        return next((where for where in inner if where), None)
    if isinstance(asked, list | tuple) and isinstance(found, list) and len(asked) == len(found):
        pairs = enumerate(zip(asked, found, strict=True))
        inner = (difference(one, other, f"{path}.{place}") for place, (one, other) in pairs)
        return next((where for where in inner if where), None)
    return None if _equal(asked, found) else path.removeprefix(".")


def _equal(asked: Any, found: Any) -> bool:
    """True if two values are the same; a number and its text are, in both directions."""
    if isinstance(asked, bool) or isinstance(found, bool):
        return asked is found
    if isinstance(asked, str) is isinstance(found, str):
        return bool(asked == found)
    one, other = _number(asked), _number(found)
    return one is not None and one == other


def _number(value: Any) -> Decimal | None:
    """The number that a value is, or that a text shows in JSON's own words."""
    text = str(value) if isinstance(value, str | int | float) else ""
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _foreign_field(call: Call, body: Mapping[str, Any]) -> str | None:
    """The first of the two fields that say whose a resource is, if it does not say that it is ours."""
    ours = {"key": call.key, "generation": call.generation}
    return next((name for name, value in ours.items() if not _equal(value, body.get(name))), None)


def _reason(call: Call, response: HttpResponse) -> str:
    """The status, and the error code where the body has one that does not quote what the call was given."""
    code = next(iter(_codes(response.body)), None)
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


def _codes(body: Any) -> list[str]:
    """The error codes of a body, the most telling first.

    They stand in the body, as in RFC 6749, or in its `error`, as Stripe sends them, or in the first of a list of
    errors, which is the body itself at Salesforce and is called `errors` at many others.
    """
    whole = _first(body)
    told = [whole.get(name) for name in ("error", "code", "errorCode")]
    for inner in (_first(whole.get("error")), _first(whole.get("errors"))):
        told += [inner.get(name) for name in ("code", "errorCode", "error", "type")]
    return [code for code in told if isinstance(code, str) and _CODE.fullmatch(code)]


def _first(value: Any) -> Mapping[str, Any]:
    """The object that a value is, or that stands first in it; empty where there is none."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, Mapping) else {}


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The wait that a system asks for: seconds, or a date, which is read against the answer's own `Date` if any."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) <= _SECONDS_DIGITS:
        return float(text)
    try:
        asked_s = parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    try:
        now_s = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        now_s = clock.now_us() / 1_000_000
    return max(0.0, asked_s - now_s)
