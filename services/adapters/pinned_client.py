"""Sends HTTP requests to foreign URLs, and protects the network inside against hostile URLs (SSRF).

Rule: a judged request passes the steps in the order below, and the order must not change:

1. the text of the URL is judged by a function of the caller;
2. one resolution of the host;
3. every address of the host is judged by a second function of the caller;
4. the connection goes to a judged address, under the certificate of the host's name. A second resolution could lead to
   an unjudged address (DNS rebinding).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol
from urllib.parse import urlsplit

from services.adapters.http_client import HttpClient, HttpRequest, HttpResponse, NotSent, Resolver

JUDGED_TIMEOUT_S: Final = 5.0
"""Time limit of a judged request, if shorter than the caller's own."""
_ADDRESSES_MAX: Final = 3
"""Addresses of one host to try for a connection."""


class UrlDenied(NotSent):
    """The URL is forbidden, or an address of its host: no connection was opened. The reason never quotes the URL."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, passing=False)


class Denial(Protocol):
    """Refusal of a URL or an address by a function of the caller."""

    @property
    def reason(self) -> str:
        """The broken rule, without the URL."""


@dataclass(frozen=True, slots=True)
class JudgedUrl:
    """An allowed URL.

    Attributes:
        url: URL in its normal form, to be sent to.
        host: Host of the URL, to be resolved.
        substitute: URL in place of resolution, for tests on one machine; the substitute is not judged.
    """

    url: str
    host: str
    substitute: str | None = None


class PinnedClient:
    """Sends requests to judged or trusted URLs."""

    def __init__(
        self,
        client: HttpClient,
        resolver: Resolver,
        judge_url: Callable[[str], JudgedUrl | Denial],
        judge_addresses: Callable[[Sequence[str]], Denial | None],
    ) -> None:
        """Prepares the client; nothing connects yet.

        Args:
            client: HTTP client; closed by `close`.
            resolver: Resolves a host name to all of its addresses.
            judge_url: Judges the text of a URL.
            judge_addresses: Judges all addresses of a host; None allows every address.
        """
        self._client, self._resolve = client, resolver
        self._judge_url, self._judge_addresses = judge_url, judge_addresses

    async def send_judged(self, request: HttpRequest, timeout_s: float) -> HttpResponse:
        """Sends a request to a foreign URL, within `timeout_s` and `JUDGED_TIMEOUT_S` for each attempt.

        Raises:
            UrlDenied: the URL, its scheme or an address of the host is forbidden.
            NotSent: the request was not sent, for a different reason.
            NoAnswer: the request may have been sent, and no complete response came.
        """
        limit_s = min(timeout_s, JUDGED_TIMEOUT_S)
        judged = self._judge_url(request.url)
        if not isinstance(judged, JudgedUrl):
            raise UrlDenied(judged.reason)
        if judged.substitute:
            return await self.send_trusted(replace(request, url=judged.substitute), limit_s)
        addresses = await self._resolve(judged.host, limit_s)
        if denied := self._judge_addresses(addresses):
            raise UrlDenied(denied.reason)
        return await self._send_pinned(replace(request, url=judged.url), addresses, limit_s)

    async def send_trusted(self, request: HttpRequest, timeout_s: float) -> HttpResponse:
        """Sends a request to a URL that needs no judgement, by HTTP or HTTPS.

        Raises:
            UrlDenied: the URL has a different scheme.
            NotSent: the request was not sent, for a different reason.
            NoAnswer: the request may have been sent, and no complete response came.
        """
        if urlsplit(request.url).scheme not in {"http", "https"}:
            raise UrlDenied("not http or https")
        return await self._client.send(request, timeout_s)

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.close()

    async def _send_pinned(self, request: HttpRequest, addresses: Sequence[str], timeout_s: float) -> HttpResponse:
        """Tries judged addresses in order; the next address only while nothing was sent to the one before."""
        # `NoAnswer` ends the loop: a second attempt at another address could repeat the effect of the first.
        failure = NotSent("no address")
        for address in addresses[:_ADDRESSES_MAX]:
            try:
                return await self._client.send(replace(request, address=address), timeout_s)
            except NotSent as unreachable:
                failure = unreachable
        raise failure
