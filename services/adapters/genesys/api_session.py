"""Sends the requests of an organisation's client: token, rate budget, repetitions.

Rules:
- A request waits for the token's budget, so that Genesys has nothing to refuse; the budget is shared by all callers.
- A temporary refusal (408, 429, 502, 503, 504) and a missing answer are repeated, up to four times in all, after
  `Retry-After` or a doubling wait. Any further refusal is final.
- A 401 renews the token once: the token may have been revoked early, and minting too often is itself refused.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx2

from schemas.genesys import Organisation
from services.adapters.genesys.answers import (
    RETRIED,
    NoInformation,
    ServerTrouble,
    correlation_of,
    is_absence,
    refused,
    retry_after_s,
    shaped,
)
from services.adapters.genesys.exchange import exchange
from services.adapters.genesys.rate_budget import WAIT_MAX_S, RateBudget
from services.adapters.genesys.token import Token
from services.adapters.http_client import NoAnswer

T = TypeVar("T")

_TRIES: Final = 4
_BACKOFF_S: Final = 0.25
"""Wait after the first failed try; doubled after each further one."""


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request to the API.

    Attributes:
        subject: The request in a few words, for the reason of a failure.
        path: Path from `/api/v2` on.
        query: Parameters of the URL.
        body: JSON body of a POST; without `body` and `put` the request is a GET.
        put: JSON body of a PUT, which may take effect more than once.
        absent: True to return a 404 of Genesys itself as well.
        share: Part of the token's budget that requests like this may spend together; 1 for no limit.
    """

    subject: str
    path: str
    query: dict[str, str | int] | None = None
    body: dict[str, Any] | None = None
    put: dict[str, Any] | None = None
    absent: bool = False
    share: float = 1.0

    @property
    def content(self) -> dict[str, Any] | None:
        """Returns the JSON body; None for a GET."""
        return self.body if self.put is None else self.put

    @property
    def method(self) -> str:
        """Returns the HTTP method."""
        return "GET" if self.content is None else "POST" if self.put is None else "PUT"


class ApiSession:
    """Requests with the token of a single organisation. Use from one event loop."""

    def __init__(
        self,
        organisation: Organisation,
        login_url: str,
        api_url: str,
        http: httpx2.AsyncClient,
        now_us: Callable[[], int],
        wait_max_s: float = WAIT_MAX_S,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            organisation: The organisation with its credentials.
            login_url: Base URL before `/oauth/token`.
            api_url: Base URL before `/api/v2`.
            http: The shared HTTP client; closed by the caller.
            now_us: Clock, microseconds UTC.
            wait_max_s: Longest wait for the budget and after a refusal, seconds; beyond, the request fails.
        """
        self._api_url = api_url.rstrip("/")
        self._http = http
        self._now_us = now_us
        self._token = Token(http, login_url.rstrip("/"), organisation, now_us)
        self._budget, self._wait_max_s = RateBudget(wait_max_s), wait_max_s

    async def read(self, parse: Callable[[Any], T], request: ApiRequest) -> T:
        """Send a request and parse the answer's body with `parse`, a parser of `schemas.genesys`.

        Raises:
            NoInformation: no try succeeded, or the body has not the documented shape.
        """
        return shaped(parse, await self.answer(request), request.subject)

    async def answer(self, request: ApiRequest) -> httpx2.Response:
        """Send a request, up to four times; return a 200, of a POST or PUT any 2xx, or the 404 of `absent`.

        Raises:
            NoInformation: the last failure, if no try succeeded.
        """
        subject, renewed, attempt = request.subject, False, 0
        trouble: NoInformation
        while True:
            attempt += 1
            token = await self._token.value()
            answer = await self._send(request, token)
            wait_s = _BACKOFF_S * 2 ** (attempt - 1)
            if isinstance(answer, str):
                trouble = ServerTrouble(f"{subject}: {answer}")
            elif answer.status_code == 200 or (request.content is not None and answer.is_success):
                return answer
            elif answer.status_code == 404 and request.absent:
                if is_absence(answer):
                    return answer
                # From a proxy: its backend may be away for a moment, so the request is repeated.
                trouble = ServerTrouble(f"{subject}: HTTP 404 that is not Genesys' own", correlation_of(answer))
            elif answer.status_code == 401 and not renewed:
                renewed = True
                self._token.forget(token)
                continue
            else:
                trouble = refused(subject, answer)
                wait_s = retry_after_s(answer, self._now_us()) or wait_s
                if answer.status_code not in RETRIED or wait_s > self._wait_max_s:
                    raise trouble
            if attempt >= _TRIES:
                raise trouble
            await asyncio.sleep(wait_s)

    async def _send(self, request: ApiRequest, token: str) -> httpx2.Response | str:
        """Send a request once; return the response, or the failure in words."""
        headers = {"Authorization": f"Bearer {token}"}
        await self._budget.take(request.share)
        answer: httpx2.Response | None = None
        refused_s: float | None = None
        try:
            answer = await exchange(
                self._http,
                request.method,
                self._api_url + request.path,
                params=request.query,
                json=request.content,
                headers=headers,
            )
        except NoAnswer as none:
            return f"no answer: {none.reason}"
        else:
            if answer.status_code == 429:
                refused_s = retry_after_s(answer, self._now_us()) or _BACKOFF_S
            return answer
        finally:
            await self._budget.answered(None if answer is None else answer.headers, refused_s)
