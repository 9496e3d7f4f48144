"""A narrow client of the Genesys Cloud API: what the reconciler may know about the integrations of one organisation.

Rule: an answer is either proven or it is `NoInformation`. The token belongs to the organisation, the listing is
complete against its `total`, absence is a 404 to a request by id; everything else says nothing about anybody.
Sources: the API's reference (paging, `ErrorBody`, 429 with `Retry-After`), RFC 6749 section 4.4 (client credentials).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import inf
from typing import Any, Final, TypeVar

import httpx2

from schemas import genesys
from schemas.genesys import Integration, Organisation, Reading, Strange
from schemas.values import Json
from services.adapters.genesys_regions import hosts_of
from services.adapters.http import LOOPBACK

T = TypeVar("T")

PAGE_SIZE: Final = 100
PAGES_MAX: Final = 999
"""The API's greatest page number."""
CLOCK_OFF_US: Final = 90_000_000
"""A `Date` further from our clock is not one we may order events by (W of the time rule)."""
_TRIES: Final = 4
_WAIT_MAX_S: Final = 60.0
_BACKOFF_S: Final = 0.25
_PASSING: Final = frozenset({408, 429, 502, 503, 504})
_TOKEN_MARGIN_S: Final = 60.0


class NoInformation(Exception):
    """Genesys said nothing that may be acted on; `reason` names why, never a secret or a body."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Hosts:
    """Where the organisation's region answers: base URLs before `/oauth/token` and `/api/v2`."""

    login_url: str
    api_url: str


class Genesys:
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
        self._token = _Token(http, hosts.login_url.rstrip("/"), organisation)

    async def listing(self) -> Reading:
        """Read every integration of the organisation.

        Raises:
            NoInformation: an error, another organisation's token, an impossible `Date`, an empty or incomplete listing.
        """
        me = await self._get("/api/v2/organizations/me")
        read_at_us = self._date_us(me)
        identity = _json(me).get("id")
        if not isinstance(identity, str) or identity.lower() != self.organisation.org_id:
            raise NoInformation("the token belongs to another organisation")
        found: dict[str, Integration] = {}
        for number in range(1, PAGES_MAX + 1):
            page = await self._page(number)
            found.update((entity.id, entity) for entity in page.integrations)
            if page.last:
                _complete(found, page.total)
                return Reading(self.organisation.org_id, self.organisation.client_id, read_at_us, found)
        raise NoInformation("the listing does not end")

    async def integration(self, identity: str) -> Integration | None:
        """Ask about one integration by id; None is Genesys' own "no such integration" (404).

        Raises:
            NoInformation: anything else.
        """
        answer = await self._get(f"/api/v2/integrations/{identity}", absent=True)
        if answer.status_code == 404:
            return None
        found = _shaped(genesys.integration, _json(answer))
        if found.id != identity:
            raise NoInformation("another integration was answered")
        return found

    async def configuration(self, identity: str) -> Json:
        """Read the properties of one integration's current configuration.

        Raises:
            NoInformation: they could not be read.
        """
        answer = await self._get(f"/api/v2/integrations/{identity}/config/current")
        return _shaped(genesys.properties, _json(answer))

    async def _page(self, number: int) -> genesys.Page:
        answer = await self._get("/api/v2/integrations", {"pageSize": PAGE_SIZE, "pageNumber": number})
        page = _shaped(genesys.page, _json(answer))
        if page.number != number:
            raise NoInformation("the listing is incomplete: another page was answered")
        return page

    async def _get(self, path: str, query: dict[str, int] | None = None, *, absent: bool = False) -> httpx2.Response:
        reason = ""
        for attempt in range(_TRIES):
            token = await self._token.value()
            answer = await self._once(path, query, token)
            if isinstance(answer, str):
                reason, wait_s = answer, _BACKOFF_S * 2**attempt
            elif answer.status_code == 200 or (absent and answer.status_code == 404):
                return answer
            else:
                reason, wait_s = f"HTTP {answer.status_code}", self._patience_s(answer, token, attempt)
            if attempt + 1 == _TRIES or wait_s > _WAIT_MAX_S:
                break
            await asyncio.sleep(wait_s)
        raise NoInformation(f"{path.split('/')[3]}: {reason}")

    async def _once(self, path: str, query: dict[str, int] | None, token: str) -> httpx2.Response | str:
        headers = {"Authorization": f"Bearer {token}"}
        try:
            return await self._http.get(self._api_url + path, params=query, headers=headers)
        except httpx2.HTTPError as error:
            return f"no answer: {type(error).__name__}"

    def _patience_s(self, answer: httpx2.Response, token: str, attempt: int) -> float:
        """How long to wait before asking again; infinite when asking again would change nothing."""
        if answer.status_code == 401 and attempt == 0:
            self._token.forget(token)
            return 0.0
        if answer.status_code not in _PASSING:
            return inf
        text = answer.headers.get("retry-after", "")
        return float(text) if text.isascii() and text.isdigit() else _BACKOFF_S * 2**attempt

    def _date_us(self, answer: httpx2.Response) -> int:
        try:
            date_us = int(parsedate_to_datetime(answer.headers["date"]).timestamp()) * 1_000_000
        except (KeyError, ValueError):
            raise NoInformation("the answer has no Date") from None
        if abs(date_us - self._now_us()) > CLOCK_OFF_US:
            raise NoInformation("the answer's Date is more than 90 s from our clock")
        return date_us


class _Token:
    """One client-credentials token; however many ask, one is minted."""

    def __init__(self, http: httpx2.AsyncClient, login_url: str, organisation: Organisation) -> None:
        self._http = http
        self._url = f"{login_url}/oauth/token"
        self._auth = (organisation.client_id, organisation.client_secret.get_secret_value())
        self._lock = asyncio.Lock()
        self._text: str | None = None
        self._until_s = 0.0

    async def value(self) -> str:
        async with self._lock:
            now_s = asyncio.get_running_loop().time()
            if self._text is None or now_s >= self._until_s:
                self._text, life_s = await self._mint()
                self._until_s = now_s + max(life_s - _TOKEN_MARGIN_S, life_s / 2)
            return self._text

    def forget(self, token: str) -> None:
        if self._text == token:
            self._text = None

    async def _mint(self) -> tuple[str, float]:
        # Never retried here: minting too often is itself refused (400 "rate limit exceeded").
        try:
            answer = await self._http.post(self._url, data={"grant_type": "client_credentials"}, auth=self._auth)
        except httpx2.HTTPError as error:
            raise NoInformation(f"token: no answer: {type(error).__name__}") from None
        if answer.status_code != 200:
            raise NoInformation(f"token: HTTP {answer.status_code}")
        body = _json(answer)
        token, life_s = body.get("access_token"), body.get("expires_in")
        if not isinstance(token, str) or not token or not isinstance(life_s, int | float):
            raise NoInformation("token: not a token response")
        return token, float(life_s)


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


def _complete(found: dict[str, Integration], total: int) -> None:
    if total == 0 or not found:
        raise NoInformation("the listing is empty")
    if len(found) != total:
        raise NoInformation(f"the listing is incomplete: {len(found)} of {total}")


def _json(answer: httpx2.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        raise NoInformation("the answer is not JSON") from None
    if not isinstance(body, dict):
        raise NoInformation("the answer is not a JSON object")
    return body


def _shaped(read: Callable[[Any], T], body: Any) -> T:
    try:
        return read(body)
    except Strange as error:
        raise NoInformation(str(error)) from None
