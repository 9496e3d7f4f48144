"""Single requests to the Genesys Cloud API with an organisation's credentials, for a diagnosis.

Rule: nothing is repeated and every status is returned: a diagnosis wants the first answer, unlike the reconciler's
client.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import httpx2

from schemas import genesys
from schemas.genesys import Organisation, Strange
from services.adapters.genesys.answers import NoInformation
from services.adapters.genesys.client import Hosts
from services.adapters.genesys.exchange import exchange
from services.adapters.http_client import NoAnswer
from services.adapters.http_dates import http_date_us


@dataclass(frozen=True, slots=True)
class DiagnosticAnswer:
    """An answer of the API.

    Attributes:
        status: HTTP status.
        body: The JSON body; None for a body of another form.
        ahead_us: Lead of our clock over the `Date` of the answer, microseconds; None without a readable `Date`.
    """

    status: int
    body: Any
    ahead_us: int | None


class TokenRefused(Exception):
    """The login host answered without a token.

    Attributes:
        status: HTTP status; 200 for a body without a token.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


class DiagnosticSession:
    """Requests with a token of a single organisation, from `log_in`."""

    def __init__(self, http: httpx2.AsyncClient, api_url: str, token: str, now_us: Callable[[], int]) -> None:
        self._http = http
        self._api_url = api_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._now_us = now_us

    @classmethod
    async def log_in(
        cls, organisation: Organisation, hosts: Hosts, http: httpx2.AsyncClient, now_us: Callable[[], int]
    ) -> Self:
        """Request a token, once.

        Args:
            organisation: The organisation with its credentials.
            hosts: Base URLs, from `hosts_for`.
            http: HTTP client, from `connections`; closed by the caller.
            now_us: Our clock, microseconds UTC.

        Raises:
            TokenRefused: the login host answered without a token.
            NoInformation: the login host did not answer.
        """
        auth = (organisation.client_id, organisation.client_secret.get_secret_value())
        url = f"{hosts.login_url.rstrip('/')}/oauth/token"
        try:
            answer = await exchange(http, "POST", url, data={"grant_type": "client_credentials"}, auth=auth)
        except NoAnswer as none:
            raise NoInformation(none.reason) from None
        try:
            token, _ = genesys.token(_json(answer) if answer.status_code == httpx2.codes.OK else None)
        except Strange:
            raise TokenRefused(answer.status_code) from None
        return cls(http, hosts.api_url, token, now_us)

    async def ask(self, path: str, **query: int) -> DiagnosticAnswer:
        """Send a GET, once.

        Args:
            path: Path from `/api/v2` on.
            query: Parameters of the URL.

        Raises:
            NoInformation: the API did not answer.
        """
        began_us = self._now_us()
        try:
            answer = await exchange(self._http, "GET", self._api_url + path, params=query, headers=self._headers)
        except NoAnswer as none:
            raise NoInformation(none.reason) from None
        # The server wrote its `Date` somewhere in between; the middle is the best guess.
        middle_us = (began_us + self._now_us()) // 2
        date_us = http_date_us(answer.headers.get("date", ""))
        return DiagnosticAnswer(answer.status_code, _json(answer), None if date_us is None else middle_us - date_us)


def _json(answer: httpx2.Response) -> Any:
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None
