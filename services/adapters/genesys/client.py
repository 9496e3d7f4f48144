"""A client of the Genesys Cloud API that reads the integrations of an organisation, for the reconciler.

Rule: a result is either proven or `NoInformation` is raised, since a wrong absence could remove a tenant. Proven means:
- The token belongs to the organisation (`organizations/me` is asked before each listing).
- The listing's pages are the requested ones, agree about `total`, list no integration twice, and add up to `total`. A
  page without a next link, or an empty page, ends the listing.
- An integration is absent only after a 404 of Genesys itself to a request by id.

Sources: the API's reference (paging, `ErrorBody`, 429 with `Retry-After`), RFC 6749 section 4.4 (client credentials).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx2

from schemas import genesys
from schemas.genesys import Integration, Organisation, Reading
from schemas.values import Json
from services.adapters.genesys.answers import NoInformation, correlation_of, date_us, shaped
from services.adapters.genesys.api_session import ApiRequest, ApiSession
from services.adapters.genesys.rate_budget import WAIT_MAX_S
from services.adapters.genesys.regions import hosts_of
from services.adapters.http_client import LOOPBACK, no_cookies

PAGE_SIZE: Final = 100
PAGES_MAX: Final = 999
"""The API's greatest page number."""


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
    """A client for a single organisation, with the organisation's token. Use from one event loop.

    Attributes:
        organisation: The organisation with its credentials.
        session: Requests with the organisation's token, for the calls of modules beside this one.
    """

    def __init__(
        self,
        organisation: Organisation,
        hosts: Hosts,
        http: httpx2.AsyncClient,
        *,
        now_us: Callable[[], int],
        wait_max_s: float = WAIT_MAX_S,
    ) -> None:
        """Prepare the client; nothing is sent yet.

        Args:
            organisation: The organisation with its credentials; the token must belong to it.
            hosts: Base URLs, from `hosts_for`.
            http: The shared HTTP client, from `connections`; closed by the caller.
            now_us: Clock, microseconds UTC, to check the `Date` of responses.
            wait_max_s: Longest wait for the token's budget and after a refusal, seconds; beyond, the request fails.
        """
        self.organisation = organisation
        self.session = ApiSession(organisation, hosts.login_url, hosts.api_url, http, now_us, wait_max_s)
        self._now_us = now_us

    async def listing(self) -> Reading:
        """Read all integrations of the organisation.

        Raises:
            NoInformation: a request failed, the token belongs to a different organisation, the `Date` cannot be true,
                or the listing is empty or incomplete.
        """
        # The first response's time is the time of the whole reading: a change during the reading counts as later.
        read_at_us = date_us(await self.own_organisation(), self._now_us())
        found: dict[str, Integration] = {}
        odd: tuple[str, ...] = ()
        total: int | None = None
        for number in range(1, PAGES_MAX + 1):
            page = await self._page(number)
            # A change during the reading moves entities from page to page, and one may be on none of them.
            if total is not None and page.total != total:
                raise NoInformation(f"the listing is incomplete: it changed while it was read, {total} to {page.total}")
            total, before = page.total, len(found) + len(odd)
            found.update((entity.id, entity) for entity in page.integrations)
            odd += page.odd
            # Whatever `nextUri` says: more entities than told, or a page of nothing but repeats, is no listing.
            if page.last or len(found) + len(odd) > total:
                _require_complete(found, len(odd), page.total)
                return Reading(self.organisation.org_id, self.organisation.client_id, read_at_us, found, odd=odd)
            if len(found) + len(odd) == before:
                break
        raise NoInformation("the listing does not end")

    async def own_organisation(self) -> httpx2.Response:
        """Read the token's organisation, and return the answer: without this proof an absence means nothing.

        Raises:
            NoInformation: the request failed, or the token belongs to a different organisation.
        """
        subject = "organizations/me"
        me = await self.session.answer(ApiRequest(subject, "/api/v2/organizations/me"))
        if shaped(genesys.organisation_id, me, subject) != self.organisation.org_id:
            raise NoInformation("the token belongs to another organisation", correlation_of(me))
        return me

    async def integration(self, identity: str) -> Integration | None:
        """Read an integration by id; None if Genesys itself answers that no such integration exists (404).

        Raises:
            NoInformation: the request failed, or a different integration was returned.
        """
        subject = "asked by id"
        answer = await self.session.answer(ApiRequest(subject, f"/api/v2/integrations/{identity}", absent=True))
        if answer.status_code == 404:
            return None
        found = shaped(genesys.integration, answer, subject)
        if found.id != identity:
            raise NoInformation(f"{subject}: another integration was answered", correlation_of(answer))
        return found

    async def configuration(self, identity: str) -> Json:
        """Read the properties of an integration's current configuration.

        Raises:
            NoInformation: the configuration could not be read.
        """
        request = ApiRequest("config/current", f"/api/v2/integrations/{identity}/config/current")
        return await self.session.read(genesys.properties, request)

    async def _page(self, number: int) -> genesys.Page:
        query: dict[str, str | int] = {"pageSize": PAGE_SIZE, "pageNumber": number}
        page = await self.session.read(genesys.page, ApiRequest("integrations", "/api/v2/integrations", query))
        if page.number != number:
            raise NoInformation("the listing is incomplete: another page was answered")
        return page


def connections(timeout_s: float = 10.0) -> httpx2.AsyncClient:
    """Return an HTTP client for all organisations to share; loading the CA certificates once for each would be slow."""
    # No redirects: they lead to a sign-in or maintenance page. A mount of None bypasses a proxy of the environment, for
    # servers on this machine.
    return httpx2.AsyncClient(
        timeout=timeout_s, follow_redirects=False, mounts=dict.fromkeys(LOOPBACK), cookies=no_cookies()
    )


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
