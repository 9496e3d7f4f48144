"""Sends the requests of a described API: authentication, pace, redirects, and the meaning of each answer.

Rules:

- A change is sent only while the worker's lease lasts, and only with time left for an answer. A worker that was stopped
  between two requests of a call sends nothing afterwards.
- A status that the description names counts as described; every further status by the table for all kinds
  (`services.provisioner.kinds.answers`).
- A secret leaves the process in a request alone. An error code that quotes a secret is not repeated.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote, urlsplit

from services.adapters.http_client import HttpRequest, HttpResponse
from services.core.rest.description import Described, Description
from services.core.rest.reading import document_of
from services.core.rest.requests import NoRequest, RestRequest, absolute, at_origin, build
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
from services.core.saga.references import fill_late, late_references
from services.provisioner.kinds.answers import meaning, reason_of, retry_after_s
from services.provisioner.kinds.outbound import Origin, Outbound
from services.provisioner.kinds.rest_tokens import ClientTokens, RequestPacer

_ENOUGH_S: Final = 0.1
"""Seconds that must be left for a request; less would only make an unknown answer."""
_REDIRECTS_MAX: Final = 5
_KEEPS_METHOD: Final = frozenset({307, 308})
_REDIRECTS: Final = frozenset({301, 302, 303, *_KEEPS_METHOD})
_GONE: Final = frozenset({404, 410})
_MISSING: Final = "put what is missing into SECRETS_DIR or PLAN_MISSINGS, under the name in the plan"


@dataclass(frozen=True, slots=True)
class RestAnswer:
    """A successful answer.

    Attributes:
        url: URL of the request.
        status: HTTP status.
        document: The document of the expressions.
        wait_s: Wait asked for by the system, seconds; None without any.
    """

    url: str = field(repr=False)
    status: int
    document: Mapping[str, Any] = field(repr=False)
    wait_s: float | None


@dataclass(frozen=True, slots=True)
class RestTask:
    """A call under way.

    Attributes:
        call: The call.
        description: The API of the step.
        origin: Origin of the step's URL.
        until_s: Monotonic second of the end of the call.
    """

    call: Call
    description: Description
    origin: Origin
    until_s: float


class RestExchange:
    """Sends requests; shared by all calls of a process."""

    def __init__(
        self, outbound: Outbound, secrets: Mapping[str, str], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepares the exchange; nothing connects yet.

        Args:
            outbound: Sends under the egress rules.
            secrets: Secrets of the plan by name.
            now_s: Monotonic clock, seconds.
        """
        self._outbound, self._secrets, self._now_s = outbound, secrets, now_s
        self._tokens, self._pacer = ClientTokens(now_s), RequestPacer(now_s)

    def begin(self, call: Call, description: Description, origin: Origin) -> RestTask:
        """Returns the task of a call that begins now."""
        return RestTask(call, description, origin, self._now_s() + call.timeout_s)

    def filled(self, value: Any, resource: Mapping[str, Any]) -> Any:
        """Returns a setting with its late references; a missing one is left out."""
        return fill_late(value, {"resource": resource, "secrets": self._secrets})[0]

    async def close(self) -> None:
        """Closes the HTTP client shared by the kinds; a repeated close is harmless."""
        await self._outbound.close()

    async def ask(
        self,
        task: RestTask,
        verb: Verb,
        described: Described,
        base: str,
        resource: Mapping[str, Any],
        query: Mapping[str, Any] | None = None,
        url: str | None = None,
    ) -> RestAnswer | Answer:
        """Sends a request of the API and judges the answer.

        Args:
            task: The call under way.
            verb: Effect of the request: READ for a request that changes nothing.
            described: The request.
            base: Base URL.
            resource: Outputs of the resource.
            query: Further parameters.
            url: Whole URL in place of the described path.

        Returns:
            A successful answer, or the answer of the step; `Absent` for a missing resource.
        """
        known = {"resource": resource, "secrets": self._secrets}
        request = build(described, base, known, headers=task.description.headers, query=query)
        if isinstance(request, NoRequest):
            return _without_request(request)
        if url is not None:
            request = replace(request, url=url)
        call = replace(task.call, verb=verb)
        response = await self._sent(replace(task, call=call), request, base)
        if not isinstance(response, HttpResponse):
            return response
        answer = self._judged(call, described, response)
        if not isinstance(answer, Done):
            return answer
        body = response.text if response.other else response.body
        document = document_of(request.url, response.status, response.headers, body)
        return RestAnswer(request.url, response.status, document, retry_after_s(response.headers))

    def _judged(self, call: Call, described: Described, response: HttpResponse) -> Answer:
        """Returns the meaning of an answer; `Done` for every success, 202 included."""
        status = response.status
        # The codes of an error must quote no secret: the secrets stand beside the inputs of the call.
        shown = replace(call, outputs={**call.outputs, "": self._used_secrets(call.settings)})
        if status in described.absent:
            return Absent()
        if status in described.retry:
            return Retryable(reason_of(shown, response), retry_after_s(response.headers))
        if status in described.refused:
            return Refused(reason_of(shown, response))
        if call.verb is Verb.UPDATE and status in _GONE and not response.other:
            return Absent()
        if status in described.done:
            return meaning(shown, replace(response, status=200))
        answer = meaning(shown, response)
        is_taken = isinstance(answer, Unknown) and answer.succeeded
        return Done() if is_taken else answer

    def _used_secrets(self, value: Any) -> list[str]:
        """Returns the values of the secrets that are named in a setting."""
        names = [path.partition(".")[2] for path in late_references(value) if path.startswith("secrets.")]
        return [self._secrets[name] for name in names if name in self._secrets]

    async def _sent(self, task: RestTask, request: RestRequest, base: str) -> HttpResponse | Answer:
        """Sends a request with authentication; after a 401 to a cached token once more, with a new token."""
        own = _own_headers(task)
        for is_last in (False, True):
            auth = await self._authentication(task, base)
            if not isinstance(auth, _Authentication):
                return auth
            whole = HttpRequest(
                request.method,
                request.url,
                {**request.headers, **auth.headers},
                request.body,
                request.form,
                basic=auth.basic,
            )
            response = await self._followed(task, whole, own)
            if not isinstance(response, HttpResponse) or response.status != 401 or auth.client is None or is_last:
                return response
            # Nothing was done, so the request may be repeated, a create included.
            self._tokens.drop(auth.client, auth.token)
        raise AssertionError("the second pass returns")

    async def _followed(self, task: RestTask, request: HttpRequest, own: Mapping[str, str]) -> HttpResponse | Answer:
        """Sends a request, and follows redirects within the origin where the plan allows them."""
        for _ in range(_REDIRECTS_MAX):
            response = await self._send(task, request, own)
            if not isinstance(response, HttpResponse) or not task.description.same_origin_redirects:
                return response
            target = absolute(request.url, response.headers.get("location", ""))
            if response.status not in _REDIRECTS or target is None or "location" not in response.headers:
                return response
            if request.method != "GET" and response.status not in _KEEPS_METHOD:
                return response  # the method would change, and with it the meaning of the request
            request = replace(request, url=target)
        return Retryable("too many redirects")

    async def _send(self, task: RestTask, request: HttpRequest, own: Mapping[str, str]) -> HttpResponse | Answer:
        per_second = task.description.max_per_second
        if per_second is not None:
            parts = urlsplit(request.url)
            if not await self._pacer.wait(f"{parts.scheme}://{parts.netloc}", per_second, task.until_s):
                return Retryable("max_per_second leaves no place within timeout_s", well=True)
        left_s = task.until_s - self._now_s()
        if left_s < _ENOUGH_S:
            return Retryable("no time was left for the request", well=True)
        if task.call.verb is not Verb.READ and not task.call.is_held():
            return Retryable("the lease has ended", well=True)
        # Without its query, which is the plan's: the egress rules refuse a query in the URL of an event.
        url, _, query = request.url.partition("?")
        request = replace(request, url=url, query=query)
        return await self._outbound.send(replace(task.call, timeout_s=left_s), request, task.origin, own)

    async def _authentication(self, task: RestTask, base: str) -> "_Authentication | Answer":
        auth, missing = fill_late(dict(task.description.auth), {"secrets": self._secrets})
        if missing:
            return OperatorRefused(f"missing: {', '.join(missing)}", _MISSING)
        text = {name: str(value) for name, value in auth.items()}
        match text.get("type"):
            case "bearer":
                return _Authentication({"Authorization": f"Bearer {text.get('token', '')}"})
            case "basic":
                return _Authentication(basic=(text.get("user", ""), text.get("password", "")))
            case "header":
                return _Authentication({text.get("name", ""): text.get("value", "")})
            case "client_credentials":
                return await self._client_credentials(task, base, text)
        return _Authentication()

    async def _client_credentials(
        self, task: RestTask, base: str, auth: Mapping[str, str]
    ) -> "_Authentication | Answer":
        url = at_origin(base, auth.get("token_url", "")) or auth.get("token_url", "")
        parts = (url, auth.get("client_id", ""), auth.get("client_secret", ""), auth.get("scope", ""))
        client = sha256("\0".join(parts).encode()).hexdigest()
        token = await self._tokens.get(client, lambda: self._fetch_token(task, url, auth))
        if not isinstance(token, str):
            return token
        return _Authentication({"Authorization": f"Bearer {token}"}, client=client, token=token)

    async def _fetch_token(self, task: RestTask, url: str, auth: Mapping[str, str]) -> tuple[str, Any] | Answer:
        """Requests a token (RFC 6749 section 4.4); a failure leaves nothing in doubt, since nothing is made."""
        form = {"grant_type": "client_credentials"} | ({"scope": auth["scope"]} if auth.get("scope") else {})
        client_id, secret = auth.get("client_id", ""), auth.get("client_secret", "")
        basic = None
        if auth.get("client_in") == "form":
            form |= {"client_id": client_id, "client_secret": secret}
        else:
            # RFC 6749 section 2.3.1: id and secret are form-encoded before they become a Basic header.
            basic = (quote(client_id, safe=""), quote(secret, safe=""))
        read_call = replace(task.call, verb=Verb.READ)
        response = await self._send(replace(task, call=read_call), HttpRequest("POST", url, form=form, basic=basic), {})
        if not isinstance(response, HttpResponse):
            return response
        # As CREATE, since a 404 of a token endpoint is an outage and never an absent resource.
        shown = replace(task.call, verb=Verb.CREATE, outputs={"": [secret]})
        answer = meaning(shown, response)
        token = response.body.get("access_token") if isinstance(response.body, dict) else None
        if isinstance(answer, Done | Absent):
            if isinstance(token, str) and token.isascii() and token.isprintable():
                return token, response.body.get("expires_in")
            return Contradicted("auth: access_token is not shown")
        reason = f"auth: {answer.reason}"
        return Retryable(reason) if isinstance(answer, Unknown) else replace(answer, reason=reason)


@dataclass(frozen=True, slots=True)
class _Authentication:
    """Authentication of a request; `client` and `token` are set for a token from the cache."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    basic: tuple[str, str] | None = field(default=None, repr=False)
    client: str | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)


def _own_headers(task: RestTask) -> dict[str, str]:
    """Returns the headers with intent and epoch, under the names of the plan."""
    named = {
        task.description.idempotency_header: task.call.idempotency_key,
        task.description.epoch_header: str(task.call.epoch),
    }
    return {name: value for name, value in named.items() if name}


def _without_request(request: NoRequest) -> Answer:
    if any(name.startswith("secrets.") for name in request.missing):
        return OperatorRefused(request.reason, _MISSING)
    return Contradicted(request.reason)
