"""Mints and keeps the client-credentials token of one organisation.

Rule: however many ask, one token is minted, and a mint is never repeated here: minting too often is itself refused.
Sources: RFC 6749 sections 4.4 and 5.1 (`expires_in` is recommended, not required) and appendix A.12 (a token is visible
ASCII); the platform's token lives 5 minutes to 48 hours.
"""

import asyncio
from typing import Final

import httpx2

from schemas.genesys import Organisation, token
from services.adapters.genesys.answers import ServerTrouble, body_of, shaped

_WHAT: Final = "token"
_MARGIN_S: Final = 60.0


class Token:
    """The token of one organisation, asked for from one event loop."""

    def __init__(self, http: httpx2.AsyncClient, login_url: str, organisation: Organisation) -> None:
        """Prepare; nothing is sent before the first question.

        Args:
            http: The caller closes it.
            login_url: Base URL before `/oauth/token`.
            organisation: Whose credentials to send.
        """
        self._http = http
        self._url = f"{login_url}/oauth/token"
        self._auth = (organisation.client_id, organisation.client_secret.get_secret_value())
        self._lock = asyncio.Lock()
        self._text: str | None = None
        self._until_s = 0.0

    async def value(self) -> str:
        """Returns a token that counts for some time yet.

        Raises:
            NoInformation: none was given.
        """
        async with self._lock:
            now_s = asyncio.get_running_loop().time()
            if self._text is None or now_s >= self._until_s:
                self._text, life_s = await self._mint()
                self._until_s = now_s + max(life_s - _MARGIN_S, life_s / 2)
            return self._text

    def forget(self, text: str) -> None:
        """Drop a token that was refused, unless a newer one is there already."""
        if self._text == text:
            self._text = None

    async def _mint(self) -> tuple[str, float]:
        try:
            answer = await self._http.post(self._url, data={"grant_type": "client_credentials"}, auth=self._auth)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ServerTrouble(f"{_WHAT}: no answer: {type(error).__name__}") from None
        if answer.status_code != 200:
            # Whatever the status, nothing can be asked without a token.
            raise ServerTrouble(f"{_WHAT}: HTTP {answer.status_code}")
        return shaped(token, body_of(answer, _WHAT), _WHAT)
