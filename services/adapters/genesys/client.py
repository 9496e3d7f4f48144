"""A narrow client of the Genesys Cloud API: what the reconciler may know about the integrations of one organisation.

Rule: an answer is either proven or it is `NoInformation`. The token belongs to the organisation, the listing is
complete against its `total`, absence is a 404 to a request by id; everything else says nothing about anybody.
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
_BACKOFF_S: Final = 0.25
_PASSING: Final = frozenset({408, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Hosts:
    """Where the organisation's region answers: base URLs before `/oauth/token` and `/api/v2`."""

    login_url: str
    api_url: str


class GenesysClient:
    """One organisation, one token, asked from one event loop."""

    def __init__(
        self,
        organisation: Organisation,
        hosts: Hosts,
        http: httpx2.AsyncClient,
        *,
        now_us: Callable[[], int],
    ) -> None:
        """Prepare; nothing is sent before the first question.

        Args:
            organisation: Whose world the token must be.
            hosts: From `hosts_for`.
            http: From `connections`; the caller closes it.
            now_us: Our clock, to refuse a `Date` that cannot be true.
        """
        self.organisation = organisation
        self._api_url = hosts.api_url.rstrip("/")
        self._now_us = now_us
        self._http = http
        self._token = Token(http, hosts.login_url.rstrip("/"), organisation)

    async def listing(self) -> Reading:
        """Read every integration of the organisation.

        Raises:
            NoInformation: an error, another organisation's token, an impossible `Date`, an empty or incomplete listing.
        """
        what = "organizations/me"
        me = await self._get(what, "/api/v2/organizations/me")
        read_at_us = date_us(me, self._now_us())
        if shaped(genesys.organisation_id, body_of(me, what), what) != self.organisation.org_id:
            raise NoInformation("the token belongs to another organisation")
        found: dict[str, Integration] = {}
        odd: tuple[str, ...] = ()
        for number in range(1, PAGES_MAX + 1):
            page = await self._page(number)
            found.update((entity.id, entity) for entity in page.integrations)
            odd += page.odd
            if page.last:
                _complete(found, len(odd), page.total)
                return Reading(self.organisation.org_id, self.organisation.client_id, read_at_us, found, odd=odd)
        raise NoInformation("the listing does not end")

    async def integration(self, identity: str) -> Integration | None:
        """Ask about one integration by id; None is Genesys' own "no such integration" (404).

        Raises:
            NoInformation: anything else.
        """
        what = "asked by id"
        answer = await self._get(what, f"/api/v2/integrations/{identity}", absent=True)
        if answer.status_code == 404:
            return None
        found = shaped(genesys.integration, body_of(answer, what), what)
        if found.id != identity:
            raise NoInformation(f"{what}: another integration was answered")
        return found

    async def configuration(self, identity: str) -> Json:
        """Read the properties of one integration's current configuration.

        Raises:
            NoInformation: they could not be read.
        """
        what = "config/current"
        answer = await self._get(what, f"/api/v2/integrations/{identity}/config/current")
        return shaped(genesys.properties, body_of(answer, what), what)

    async def _page(self, number: int) -> genesys.Page:
        what = "integrations"
        answer = await self._get(what, "/api/v2/integrations", {"pageSize": PAGE_SIZE, "pageNumber": number})
        page = shaped(genesys.page, body_of(answer, what), what)
        if page.number != number:
            raise NoInformation("the listing is incomplete: another page was answered")
        return page

    async def _get(
        self, what: str, path: str, query: dict[str, int] | None = None, *, absent: bool = False
    ) -> httpx2.Response:
        trouble = NoInformation("")
        for attempt in range(_TRIES):
            token = await self._token.value()
            answer = await self._once(path, query, token)
            if isinstance(answer, str):
                trouble, wait_s = ServerTrouble(f"{what}: {answer}"), _BACKOFF_S * 2**attempt
            elif answer.status_code == 200:
                return answer
            elif answer.status_code == 404 and absent:
                if is_absence(answer):
                    return answer
                trouble, wait_s = ServerTrouble(f"{what}: HTTP 404 that is not Genesys' own"), _BACKOFF_S * 2**attempt
            else:
                trouble = refused(what, answer.status_code)
                wait_s = self._patience_s(answer, token, attempt)
            if attempt + 1 == _TRIES or wait_s > _WAIT_MAX_S:
                break
            await asyncio.sleep(wait_s)
        raise trouble

    async def _once(self, path: str, query: dict[str, int] | None, token: str) -> httpx2.Response | str:
        headers = {"Authorization": f"Bearer {token}"}
        try:
            return await self._http.get(self._api_url + path, params=query, headers=headers)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return f"no answer: {type(error).__name__}"

    def _patience_s(self, answer: httpx2.Response, token: str, attempt: int) -> float:
        """How long to wait before asking again; infinite when asking again would change nothing."""
        if answer.status_code == 401 and attempt == 0:
            self._token.forget(token)
            return 0.0
        if answer.status_code not in _PASSING:
            return inf
        asked_s = retry_after_s(answer, self._now_us())
        return _BACKOFF_S * 2**attempt if asked_s is None else asked_s


def connections(timeout_s: float = 10.0) -> httpx2.AsyncClient:
    """One client for all organisations: each of its own would read the certificates of the world again."""
    return httpx2.AsyncClient(timeout=timeout_s, follow_redirects=False, mounts=dict.fromkeys(LOOPBACK))


def hosts_for(organisation: Organisation, login_url: str | None, api_url: str | None) -> Hosts:
    """Where to ask; URLs from the environment override the region.

    Raises:
        NoInformation: neither says.
    """
    if login_url and api_url:
        return Hosts(login_url, api_url)
    found = hosts_of(organisation.region) if organisation.region else None
    if found is None:
        raise NoInformation("region: missing or not known, and no URL is set")
    return Hosts(login_url or found[0], api_url or found[1])


def _complete(found: dict[str, Integration], odd: int, total: int) -> None:
    if total == 0 or not (found or odd):
        raise NoInformation("the listing is empty")
    if len(found) + odd != total:
        raise NoInformation(f"the listing is incomplete: {len(found) + odd} of {total}")
