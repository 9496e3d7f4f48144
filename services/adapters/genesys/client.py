"""A client of the Genesys Cloud API that reads the integrations of an organisation, for the reconciler.

Rule: a result is either proven or `NoInformation` is raised, since a wrong absence could remove a tenant. Proven means:
- The token belongs to the organisation (`organizations/me` is asked before each listing).
- The listing's pages are the requested ones and add up to `total`.
- An integration is absent only after a 404 of Genesys itself to a request by id.

Sources: the API's reference (paging, `ErrorBody`, 429 with `Retry-After`), RFC 6749 section 4.4 (client credentials).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

import httpx2

from schemas import genesys
from schemas.genesys import Integration, Organisation, Reading
from schemas.values import Json
from services.adapters.genesys.answers import (
    NoInformation,
    ServerTrouble,
    body_of,
    date_us,
    is_absence,
    refused,
    retry_after_s,
    shaped,
)
from services.adapters.genesys.regions import hosts_of
from services.adapters.genesys.token import Token
from services.adapters.http_client import LOOPBACK

PAGE_SIZE: Final = 100
PAGES_MAX: Final = 999
"""The API's greatest page number."""
_TRIES: Final = 4
_WAIT_MAX_S: Final = 60.0
"""A longer `Retry-After` ends the tries; the next reconciliation asks again."""
_BACKOFF_S: Final = 0.25
"""Wait after the first failed try; doubled after each further one."""
_RETRIED: Final = frozenset({408, 429, 502, 503, 504})
"""Statuses of a temporary refusal."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """The base URLs of an organisation's region.

    Attributes:
        login_url: Base URL before `/oauth/token`.
        api_url: Base URL before `/api/v2`.
    """

    login_url: str
    api_url: str


class GenesysClient:
    """A client for a single organisation, with the organisation's token. Use from one event loop."""

    def __init__(
        self,
        organisation: Organisation,
        hosts: Hosts,
        http: httpx2.AsyncClient,
        *,
        now_us: Callable[[], int],
    ) -> None:
        """Prepare the client; nothing is sent yet.

        Args:
            organisation: The organisation with its credentials; the token must belong to it.
            hosts: Base URLs, from `hosts_for`.
            http: The shared HTTP client, from `connections`; closed by the caller.
            now_us: Clock, microseconds UTC, to check the `Date` of responses.
        """
        self.organisation = organisation
        self._api_url = hosts.api_url.rstrip("/")
        self._now_us = now_us
        self._http = http
        self._token = Token(http, hosts.login_url.rstrip("/"), organisation)

    async def listing(self) -> Reading:
        """Read all integrations of the organisation.

        Raises:
            NoInformation: a request failed, the token belongs to a different organisation, the `Date` cannot be true,
                or the listing is empty or incomplete.
        """
        subject = "organizations/me"
        me = await self.request(subject, "/api/v2/organizations/me")
        # The first response's time is the time of the whole reading: a change during the reading counts as later.
        read_at_us = date_us(me, self._now_us())
        if shaped(genesys.organisation_id, body_of(me, subject), subject) != self.organisation.org_id:
            raise NoInformation("the token belongs to another organisation")
        found: dict[str, Integration] = {}
        odd: tuple[str, ...] = ()
        for number in range(1, PAGES_MAX + 1):
            page = await self._page(number)
            found.update((entity.id, entity) for entity in page.integrations)
            odd += page.odd
            if page.last:
                _require_complete(found, len(odd), page.total)
                return Reading(self.organisation.org_id, self.organisation.client_id, read_at_us, found, odd=odd)
        raise NoInformation("the listing does not end")

    async def integration(self, identity: str) -> Integration | None:
        """Read an integration by id; None if Genesys itself answers that no such integration exists (404).

        Raises:
            NoInformation: the request failed, or a different integration was returned.
        """
        subject = "asked by id"
        answer = await self.request(subject, f"/api/v2/integrations/{identity}", absent=True)
        if answer.status_code == 404:
            return None
        found = shaped(genesys.integration, body_of(answer, subject), subject)
        if found.id != identity:
            raise NoInformation(f"{subject}: another integration was answered")
        return found

    async def configuration(self, identity: str) -> Json:
        """Read the properties of an integration's current configuration.

        Raises:
            NoInformation: the configuration could not be read.
        """
        subject = "config/current"
        answer = await self.request(subject, f"/api/v2/integrations/{identity}/config/current")
        return shaped(genesys.properties, body_of(answer, subject), subject)

    async def _page(self, number: int) -> genesys.Page:
        subject = "integrations"
        answer = await self.request(subject, "/api/v2/integrations", {"pageSize": PAGE_SIZE, "pageNumber": number})
        page = shaped(genesys.page, body_of(answer, subject), subject)
        if page.number != number:
            raise NoInformation("the listing is incomplete: another page was answered")
        return page

    async def request(
        self,
        subject: str,
        path: str,
        query: dict[str, int] | None = None,
        *,
        put: Json | None = None,
        absent: bool = False,
    ) -> httpx2.Response:
        """Send a request with the token, up to four times; return a 200, or a 2xx of a PUT.

        Args:
            subject: The request in a few words, for the reason of a failure.
            path: Path from `/api/v2` on.
            query: Parameters of the URL.
            put: JSON body of a PUT, which may take effect more than once; None sends a GET.
            absent: True to return a 404 of Genesys itself as well.

        Raises:
            NoInformation: the last failure, if no try succeeded.
        """
        trouble = NoInformation("")
        for attempt in range(_TRIES):
            token = await self._token.value()
            answer = await self._send(path, query, put, token)
            if isinstance(answer, str):
                trouble, wait_s = ServerTrouble(f"{subject}: {answer}"), _BACKOFF_S * 2**attempt
            elif answer.status_code == 200 or (put is not None and answer.is_success):
                return answer
            elif answer.status_code == 404 and absent:
                if is_absence(answer):
                    return answer
                # From a proxy: its backend may be away for a moment, so the request is repeated.
                trouble = ServerTrouble(f"{subject}: HTTP 404 that is not Genesys' own")
                wait_s = _BACKOFF_S * 2**attempt
            else:
                trouble = refused(subject, answer.status_code)
                wait_s = self._retry_wait_s(answer, token, attempt)
            # The wait may be infinite: a failure that another try would not cure ends the loop here.
            if attempt + 1 == _TRIES or wait_s > _WAIT_MAX_S:
                break
            await asyncio.sleep(wait_s)
        raise trouble

    async def _send(
        self, path: str, query: dict[str, int] | None, put: Json | None, token: str
    ) -> httpx2.Response | str:
        """Send a request once; return the response, or the failure in words."""
        headers = {"Authorization": f"Bearer {token}"}
        try:
            method = "GET" if put is None else "PUT"
            return await self._http.request(method, self._api_url + path, params=query, json=put, headers=headers)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return f"no answer: {type(error).__name__}"

    def _retry_wait_s(self, answer: httpx2.Response, token: str, attempt: int) -> float:
        """Return the wait before the next try, seconds; infinity if another try would fail as well."""
        if answer.status_code == 401 and attempt == 0:
            # The token may have been revoked early. A new one is tried once: minting too often is itself refused.
            self._token.forget(token)
            return 0.0
        if answer.status_code not in _RETRIED:
            return inf
        asked_s = retry_after_s(answer, self._now_us())
        return _BACKOFF_S * 2**attempt if asked_s is None else asked_s


def connections(timeout_s: float = 10.0) -> httpx2.AsyncClient:
    """Return an HTTP client for all organisations to share; loading the CA certificates once for each would be slow."""
    # No redirects: they lead to a sign-in or maintenance page. A mount of None bypasses a proxy of the environment, for
    # servers on this machine.
    return httpx2.AsyncClient(timeout=timeout_s, follow_redirects=False, mounts=dict.fromkeys(LOOPBACK))


def hosts_for(organisation: Organisation, login_url: str | None, api_url: str | None) -> Hosts:
    """Return the base URLs of an organisation; the given URLs (from the settings) override the region's.

    Raises:
        NoInformation: a URL is missing, and the region is missing or unknown.
    """
    if login_url and api_url:
        return Hosts(login_url, api_url)
    found = hosts_of(organisation.region) if organisation.region else None
    if found is None:
        raise NoInformation("region: missing or not known, and no URL is set")
    return Hosts(login_url or found[0], api_url or found[1])


def _require_complete(found: dict[str, Integration], odd: int, total: int) -> None:
    """Raise `NoInformation` if the listing is empty or does not add up to `total`.

    Args:
        found: Integrations by id. A repeated entity counts once, so repeats make the listing incomplete.
        odd: Count of entities that could not be read as an integration.
        total: Count of entities according to the last page.
    """
    # An empty listing is never believed: it would put every tenant of the organisation in doubt at once.
    if total == 0 or not (found or odd):
        raise NoInformation("the listing is empty")
    if len(found) + odd != total:
        raise NoInformation(f"the listing is incomplete: {len(found) + odd} of {total}")
