"""Sends the requests of the HTTP kinds, with our headers, and protects against hostile URLs from events (SSRF).

Rule: a URL counts as an event's unless the plan declares the URL as the operator's. A URL from an event passes the
checks in the order below, and the order must not change:

1. the text of the URL against the allow-list (`services.core.saga.egress`);
2. one resolution of the host;
3. every address of the host must be public;
4. the connection goes to a checked address, under the certificate of the host's name. A second resolution could lead to
   an unchecked address (DNS rebinding).

A failure is an answer, never an exception.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Final
from urllib.parse import quote, urlsplit

from services.adapters.http_client import HttpClient, HttpRequest, HttpResponse, NoAnswer, NotSent, Resolver
from services.core.saga import egress
from services.core.saga.calls import Answer, Call, Refused
from services.provisioner.kinds.answers import silence

EVENT_TIMEOUT_S: Final = 5.0
"""Time limit of a request to a URL from an event, if shorter than the step's own."""
_ADDRESSES_MAX: Final = 3
"""Addresses of one host to try for a connection."""


class Origin(StrEnum):
    """Origin of a step's URL: the event, hence the tenant, or the operator."""

    EVENT = "event"
    OPERATOR = "operator"


class Outbound:
    """Sends the requests of steps."""

    def __init__(
        self, client: HttpClient, resolver: Resolver, *, allow: Sequence[str], egress_map: Mapping[str, str]
    ) -> None:
        self._client = client
        self._resolve = resolver
        self._allow = tuple(allow)
        self._map = dict(egress_map)

    async def send(self, call: Call, request: HttpRequest, origin: Origin) -> HttpResponse | Answer:
        """Sends one request of a call.

        Args:
            call: The call; its time limit is the request's.
            request: The request, without the headers of every call.
            origin: Origin of the URL.

        Returns:
            The complete HTTP response, or the answer of the step if no complete response came.
        """
        whole = replace(request, headers=headers(call) | dict(request.headers))
        if origin is Origin.OPERATOR:
            return await self._attempt(call, whole, call.timeout_s)
        return await self._send_checked(call, whole, min(call.timeout_s, EVENT_TIMEOUT_S))

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.close()

    async def _send_checked(self, call: Call, request: HttpRequest, timeout_s: float) -> HttpResponse | Answer:
        """Sends a request to a URL from an event."""
        judged = egress.judge(request.url, self._allow)
        if isinstance(judged, egress.EgressDenied):
            return Refused(f"url: {judged.reason}", heard=False)
        # EGRESS_MAP (one machine only) replaces resolution, never the allow-list; its URLs are the operator's.
        if local := egress.mapped(judged, self._map):
            return await self._attempt(call, replace(request, url=local), timeout_s)
        try:
            addresses = await self._resolve(judged.host, timeout_s)
        except NotSent as failure:
            return silence(call, failure)
        if denied := egress.judge_addresses(addresses):
            return Refused(f"url: {denied.reason}", heard=False)
        return await self._pinned(call, replace(request, url=judged.url), addresses, timeout_s)

    async def _pinned(
        self, call: Call, request: HttpRequest, addresses: Sequence[str], timeout_s: float
    ) -> HttpResponse | Answer:
        """Tries checked addresses in order; the next address only while nothing was sent to the one before."""
        failure: NotSent | NoAnswer = NotSent("no address")
        for address in addresses[:_ADDRESSES_MAX]:
            try:
                return await self._client.send(replace(request, address=address), timeout_s)
            except NotSent as unreachable:
                failure = unreachable
            except NoAnswer as lost:
                # The request may have taken effect: a second attempt at another address could repeat the effect.
                return silence(call, lost)
        return silence(call, failure)

    async def _attempt(self, call: Call, request: HttpRequest, timeout_s: float) -> HttpResponse | Answer:
        if urlsplit(request.url).scheme not in {"http", "https"}:
            return Refused("url: not http or https", heard=False)
        try:
            return await self._client.send(request, timeout_s)
        except (NotSent, NoAnswer) as failure:
            return silence(call, failure)


def headers(call: Call) -> dict[str, str]:
    """Returns the headers of every request: intent, key, generation, and the epoch that reveals a stale worker."""
    return {
        "Idempotency-Key": call.idempotency_key,
        "Lifecycle-Key": quote(call.key, safe=":"),
        "Lifecycle-Generation": str(call.generation),
        "Lifecycle-Epoch": str(call.epoch),
    }


def origin(call: Call) -> Origin | Refused:
    """Returns the origin of the step's URL: the plan's `url_from`, by default the event."""
    try:
        return Origin(call.settings.get("url_from", Origin.EVENT))
    except ValueError:
        return Refused('url_from: must be "event" or "operator"', heard=False)
