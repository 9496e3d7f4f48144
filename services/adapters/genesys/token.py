"""Requests and caches the client-credentials token of an organisation.

Rules:
- Concurrent callers share a single request for a token, and its failure as well: a hundred callers in a row would each
  request a token, and Genesys refuses clients that request tokens too often.
- That refusal is an HTTP 400 instead of a 429, and passes: the request is repeated after a wait, as after every
  temporary refusal.
- A token is renewed a minute before its end. While the renewal fails the token serves on up to its end.

Sources: RFC 6749 sections 4.4 and 5.1 (`expires_in` is recommended, not required) and appendix A.12 (a token is visible
ASCII); a token of the platform lives 5 minutes to 48 hours.
"""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Final

import httpx2

from schemas.genesys import Organisation, token
from services.adapters.genesys.answers import (
    RETRIED,
    NoInformation,
    ServerTrouble,
    Unanswered,
    correlation_of,
    is_over_minted,
    retry_after_s,
    shaped,
    sort_of,
)
from services.adapters.genesys.exchange import exchange
from services.adapters.http_client import NoAnswer

_SUBJECT: Final = "token"
_MARGIN_S: Final = 60.0
"""Part of a token's life before which the token is renewed."""
_WAY_S: Final = 5.0
"""End of a token's life that is never used, so that a token does not expire on its way; a tenth of a short life."""
_TRIES: Final = 4
_WAIT_S: Final = 2.0
"""Wait after the first refused request; doubled after each further one."""
_WAIT_MAX_S: Final = 60.0
_RENEW_AGAIN_S: Final = 10.0
"""Seconds from a failed renewal to the next, while the present token lives."""


class Token:
    """The token of an organisation. Use from one event loop."""

    def __init__(
        self, http: httpx2.AsyncClient, login_url: str, organisation: Organisation, now_us: Callable[[], int]
    ) -> None:
        """Prepare; nothing is sent before the first call of `value`.

        Args:
            http: HTTP client; closed by the caller.
            login_url: Base URL before `/oauth/token`.
            organisation: The organisation with its credentials.
            now_us: Clock, microseconds UTC, for a `Retry-After` that is a date.
        """
        self._http = http
        self._url = f"{login_url}/oauth/token"
        self._auth = (organisation.client_id, organisation.client_secret.get_secret_value())
        self._now_us = now_us
        self._request: asyncio.Task[str] | None = None
        self._text: str | None = None
        self._renew_s = self._end_s = -inf

    async def value(self) -> str:
        """Return a valid token, from the cache or from a new request.

        Raises:
            NoInformation: Genesys gave no token.
        """
        if self._text is not None and _now_s() < self._renew_s:
            return self._text
        if self._request is None:
            self._request = asyncio.create_task(self._renew(), name="genesys token")
            self._request.add_done_callback(self._ended)
        # Shielded: a caller that is cut off must not end the request of the callers beside it.
        return await asyncio.shield(self._request)

    def forget(self, text: str) -> None:
        """Drop a refused token from the cache, unless a concurrent caller has already replaced it."""
        if self._text == text:
            self._text = None

    def _ended(self, request: asyncio.Task[str]) -> None:
        self._request = None
        if not request.cancelled():
            request.exception()  # taken here too: each waiting caller may be gone by now

    async def _renew(self) -> str:
        now_s = _now_s()
        try:
            text, life_s = await self._mint()
        except NoInformation:
            if self._text is None or _now_s() >= self._end_s:
                raise
            self._renew_s = min(_now_s() + _RENEW_AGAIN_S, self._end_s)
            return self._text
        # `now_s` was read before the request, so the life is never overrated. A life below two minutes is used by
        # half, since the margin would leave too little.
        self._text, self._end_s = text, now_s + life_s - min(_WAY_S, life_s / 10)
        self._renew_s = now_s + max(life_s - _MARGIN_S, life_s / 2)
        return text

    async def _mint(self) -> tuple[str, float]:
        """Request a token, up to four times; return the token and its life in seconds.

        Raises:
            NoInformation: Genesys gave no token.
        """
        for attempt in range(_TRIES):
            wait_s = _WAIT_S * 2**attempt
            try:
                form = {"grant_type": "client_credentials"}
                answer = await exchange(self._http, "POST", self._url, data=form, auth=self._auth)
            except NoAnswer as none:
                # Not repeated: the time-outs of several tries would hold up every caller for a minute.
                raise ServerTrouble(f"{_SUBJECT}: no answer: {none.reason}") from None
            if answer.status_code == 200:
                return shaped(token, answer, _SUBJECT)
            over_minted = is_over_minted(answer)
            reason = f"{_SUBJECT}: HTTP {answer.status_code}" + (" rate limit exceeded" if over_minted else "")
            # `ServerTrouble` for every status: without a token every further request would fail.
            trouble = ServerTrouble(
                reason, correlation_of(answer), sort=_sort_of(answer.status_code, over_minted=over_minted)
            )
            wait_s = retry_after_s(answer, self._now_us()) or wait_s
            if not (over_minted or answer.status_code in RETRIED) or wait_s > _WAIT_MAX_S:
                break
            if attempt + 1 < _TRIES:
                await asyncio.sleep(wait_s)
        raise trouble


def _sort_of(status: int, *, over_minted: bool) -> Unanswered:
    if status != 400:
        return sort_of(status)
    # RFC 6749 section 5.2: wrong credentials may be answered 400 as well as 401.
    return Unanswered.RATE_LIMITED if over_minted else Unanswered.REFUSED


def _now_s() -> float:
    return asyncio.get_running_loop().time()
