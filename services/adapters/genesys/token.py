"""Requests and caches the client-credentials token of an organisation.

Rule: concurrent callers share a single request for a token, and a failed request is not repeated here, because Genesys
refuses clients that request tokens too often.
Sources: RFC 6749 sections 4.4 and 5.1 (`expires_in` is recommended, not required) and appendix A.12 (a token is visible
ASCII); a token of the platform lives 5 minutes to 48 hours.
"""

import asyncio
from typing import Final

import httpx2

from schemas.genesys import Organisation, token
from services.adapters.genesys.answers import ServerTrouble, body_of, shaped

_SUBJECT: Final = "token"
_MARGIN_S: Final = 60.0
"""Part of a token's life that is not used, so that a token does not expire on its way."""


class Token:
    """The token of an organisation. Use from one event loop."""

    def __init__(self, http: httpx2.AsyncClient, login_url: str, organisation: Organisation) -> None:
        """Prepare; nothing is sent before the first call of `value`.

        Args:
            http: HTTP client; closed by the caller.
            login_url: Base URL before `/oauth/token`.
            organisation: The organisation with its credentials.
        """
        self._http = http
        self._url = f"{login_url}/oauth/token"
        self._auth = (organisation.client_id, organisation.client_secret.get_secret_value())
        self._lock = asyncio.Lock()
        self._text: str | None = None
        self._until_s = 0.0

    async def value(self) -> str:
        """Return a valid token, from the cache or from a new request.

        Raises:
            NoInformation: Genesys gave no token.
        """
        # The lock is held during the request: concurrent callers wait for its token.
        async with self._lock:
            now_s = asyncio.get_running_loop().time()
            if self._text is None or now_s >= self._until_s:
                self._text, life_s = await self._mint()
                # `now_s` was read before the request, so the life is never overrated. A life below two minutes is
                # used by half, since the margin would leave too little.
                self._until_s = now_s + max(life_s - _MARGIN_S, life_s / 2)
            return self._text

    def forget(self, text: str) -> None:
        """Drop a refused token from the cache, unless a concurrent caller has already replaced it."""
        if self._text == text:
            self._text = None

    async def _mint(self) -> tuple[str, float]:
        """Request a token; return the token and its life in seconds.

        Raises:
            NoInformation: Genesys gave no token.
        """
        try:
            answer = await self._http.post(self._url, data={"grant_type": "client_credentials"}, auth=self._auth)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ServerTrouble(f"{_SUBJECT}: no answer: {type(error).__name__}") from None
        if answer.status_code != 200:
            # `ServerTrouble` for every status: without a token every further request would fail.
            raise ServerTrouble(f"{_SUBJECT}: HTTP {answer.status_code}")
        return shaped(token, body_of(answer, _SUBJECT), _SUBJECT)
