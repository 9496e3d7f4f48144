"""Classifies HTTP responses as answers of a step, for every HTTP kind. docs/rest-contract.md has the table for users.

Rules (docs/decisions/0033):

- An outage is not a refusal: a refusal rolls a tenant back, so a response counts as a refusal only if no passing cause
  is likely. Proxies, ingresses and quotas answer with 4xx as well.
- A success proves only the fields shown. A 2xx without our resource is read back.
- No response after sending is `Unknown`, or `Retryable` if the call could not change anything.
- A refusal of credentials judges the tenant only if the system or the credentials are the tenant's. The operator's
  system refusing the operator's credentials is `OperatorRefused`: no tenant is rolled back.

Sources: RFC 9110 (status codes, Retry-After), RFC 4918 (423), RFC 6585 (429), RFC 6749 section 5.2 (codes of a token
endpoint), draft-ietf-httpapi-idempotency-key-header-07 (409, 422).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from services.adapters.http_client import HttpResponse, NoAnswer, NotSent
from services.adapters.http_dates import http_date_us
from services.adapters.process import clock
from services.core.saga.calls import (
    Absent,
    Answer,
    Call,
    Contradicted,
    Done,
    OperatorRefused,
    Refused,
    Retryable,
    Unknown,
    Verb,
)
from services.core.saga.json_values import equal

_PASSING: Final = frozenset({405, 408, 423, 425, 429})
"""Statuses of an outage. An ingress without a backend answers 405; 408, 423, 425 and 429 ask for a retry."""
_STALE: Final = "stale_epoch"
"""Code in docs/rest-contract.md for a call with an outdated epoch. The system is well; the next holder of the lease
calls with a greater epoch."""
_IN_PROGRESS: Final = re.compile(
    r"in_?(progress|flight)|concurrent|processing(?!_?(err|fail))|(idempotenc|request|operation|^key).*in_?use",
    re.IGNORECASE,
)
"""Codes of a 409 to a request of ours while an equal request is under way. A 409 for a name that is taken has different
codes and is a refusal."""
_UNSPECIFIC: Final = "conflict"
"""The name of status 409, sent as the code by some frameworks; without information beyond the status."""
_LIMITED: Final = re.compile(r"request_limit_exceeded|rate_?limit|too_many_requests", re.IGNORECASE)
"""Codes of an exhausted quota, with any status: Salesforce sends them with 400 and 403."""
_GONE: Final = frozenset({404, 410})
_CHANGES: Final = frozenset({Verb.CREATE, Verb.UPDATE})
_ACCESS: Final = frozenset({401, 403, 407})
_CLIENT: Final = frozenset({"invalid_client", "unauthorized_client"})
_SECRET_MIN: Final = 8
"""Length in characters from which an input inside an error code counts as quoted; shorter texts match by chance."""
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_SECONDS_DIGITS: Final = 9
_CREDENTIALS: Final = "give this step credentials that its system accepts"
_ADDRESS: Final = "correct the step's url: the system sends requests elsewhere"
_CERTIFICATE: Final = "renew the system's certificate, or let this machine trust its issuer"
_URL: Final = "correct the step's url"


def meaning(call: Call, response: HttpResponse) -> Answer:  # noqa: PLR0911 - one line a case, in order
    """Returns the answer of a step for one HTTP response. The order of the cases matters: the first match counts.

    Args:
        call: The call of the request; its verb decides between absent and outage.
        response: The complete response.

    Returns:
        The answer. `Done` has no outputs yet and proves no resource: see `shown`.
    """
    status, codes = response.status, _codes(response.body)
    if 200 <= status < 300:
        return _success(call, response)
    if status in _GONE and call.verb not in _CHANGES:
        # A proxy without a backend answers 404 as well, in HTML or plain text: no evidence about the resource.
        return Retryable(f"HTTP {status} without JSON") if response.other else Absent()
    # A repeated create whose first answer was lost.
    if status == 409 and call.verb is Verb.CREATE and is_ours(call, response.body):
        return Done()
    wait_s, reason = retry_after_s(response.headers), reason_of(call, response)
    if status == 409 and _STALE in codes:
        return Retryable(reason, wait_s, well=True)
    busy = status == 409 and (wait_s is not None or _is_busy(call, codes))
    # 404 here answers a PUT: the path is missing, as behind a proxy without its backend.
    if busy or status >= 500 or status in _PASSING or status == 404 or any(map(_LIMITED.search, codes)):
        return Retryable(reason, wait_s)
    if of_operator(call):
        if status in _ACCESS or not _CLIENT.isdisjoint(codes):
            return OperatorRefused(reason, _CREDENTIALS) if call.own_credentials else Refused(reason)
        if 301 <= status < 400:
            return OperatorRefused(reason, _ADDRESS)
    return Refused(reason)


def _is_busy(call: Call, codes: Sequence[str]) -> bool:
    """True if a 409 with these codes means that an equal request of ours is under way.

    The repeat of a call with a lost answer is assumed to meet its first request, unless a code says more.
    """
    if any(map(_IN_PROGRESS.search, codes)):
        return True
    return call.repeats and all(code.lower() == _UNSPECIFIC for code in codes)


def _success(call: Call, response: HttpResponse) -> Answer:
    # A login page or a proxy's page: the system itself may not have seen the request.
    if response.is_html:
        reason = f"HTTP {response.status} with HTML where JSON is due"
        return Unknown(reason) if call.verb in _CHANGES else Retryable(reason)
    if response.status == 202 and call.verb is not Verb.READ:
        return Unknown("HTTP 202: taken, and not done yet", succeeded=True)
    return Done()


def silence(call: Call, failure: NotSent | NoAnswer) -> Answer:
    """Returns the answer of a step for a request without a complete response."""
    if isinstance(failure, NoAnswer):
        return Retryable(failure.reason) if call.verb is Verb.READ else Unknown(failure.reason)
    if failure.untrusted and of_operator(call):
        return OperatorRefused(failure.reason, _CERTIFICATE)
    if failure.passing:
        return Retryable(failure.reason)
    return OperatorRefused(failure.reason, _URL) if of_operator(call) else Refused(failure.reason, heard=False)


def of_operator(call: Call) -> bool:
    """True if the plan declares the system of the call as the operator's."""
    return call.settings.get("url_from") == "operator"


def is_ours(call: Call, body: Any) -> bool:
    """True if a body shows the resource of this key and generation."""
    return isinstance(body, Mapping) and not _foreign_field(call, body)


def shown(call: Call, response: HttpResponse) -> str | Contradicted | Unknown:
    """Returns the `id` of our resource in a successful response, or the answer of the step if the resource is missing.

    After a change a missing resource is `Unknown`, and the resource is read back by name. After a read a missing or
    foreign resource is `Contradicted`, and the tenant waits for an operator.
    """
    body = response.body
    field = _foreign_field(call, body) if isinstance(body, Mapping) else None
    if isinstance(body, Mapping) and field is None:
        return str(body.get("id", ""))
    if call.verb is not Verb.READ:
        return Unknown("the answer shows no resource of ours", succeeded=True)
    if field is None:
        return Contradicted("the answer shows no resource")
    # A field that is missing or null proves no foreign owner: our own values stand in for such fields.
    present = {name: value for name, value in body.items() if value is not None}
    foreign = _foreign_field(call, {"key": call.key, "generation": call.generation} | present)
    return Contradicted(f"{foreign} is not ours", anothers=True) if foreign else Contradicted(f"{field} is not shown")


def _foreign_field(call: Call, body: Mapping[str, Any]) -> str | None:
    """Returns the first of the owner fields `key` and `generation` with a foreign or missing value; None if ours."""
    ours = {"key": call.key, "generation": call.generation}
    return next((name for name, value in ours.items() if not equal(value, body.get(name))), None)


def reason_of(call: Call, response: HttpResponse) -> str:
    """Returns the status, with the error code of the body if the code quotes no input of the call.

    Reasons reach the log and the audit trail; inputs may hold secrets and personal data.
    """
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
    """Returns the error codes of a body, the most specific first.

    Codes stand in the body itself (RFC 6749), in its `error` (Stripe), or in the first of a list of errors: the body
    itself (Salesforce) or its `errors`.
    """
    whole = _first(body)
    found = [whole.get(name) for name in ("error", "code", "errorCode")]
    for inner in (_first(whole.get("error")), _first(whole.get("errors"))):
        found += [inner.get(name) for name in ("code", "errorCode", "error", "type")]
    # Only short identifiers: a sentence may quote an input.
    return [code for code in found if isinstance(code, str) and _CODE.fullmatch(code)]


def _first(value: Any) -> Mapping[str, Any]:
    """Returns the value if an object, the first element of a list if an object, else an empty object."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, Mapping) else {}


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Returns the wait in `Retry-After`, in seconds; None without a valid value.

    A date is compared with the `Date` of the response, if given: the clocks of two machines may differ.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) <= _SECONDS_DIGITS:
        return float(text)
    asked_us, now_us = http_date_us(text), http_date_us(headers.get("date", ""))
    if asked_us is None:
        return None
    return max(0.0, (asked_us - (clock.now_us() if now_us is None else now_us)) / 1_000_000)
