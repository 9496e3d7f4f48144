"""The way out for the kinds that speak HTTP: our headers, and for a URL from an event the rules of egress.

Rule: a URL is taken for an event's unless the plan says it is the operator's. An event's URL is judged, resolved once,
all its addresses judged, and the connection goes to one of those; a failure is an answer, never an exception.
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
_ADDRESSES_MAX: Final = 3


class Origin(StrEnum):
    """Who gave a URL."""

    EVENT = "event"
    OPERATOR = "operator"


class Outbound:
    """Sends a step's requests."""

    def __init__(
        self, client: HttpClient, resolver: Resolver, *, allow: Sequence[str], egress_map: Mapping[str, str]
    ) -> None:
        self._client = client
        self._resolve = resolver
        self._allow = tuple(allow)
        self._map = dict(egress_map)

    async def send(self, call: Call, request: HttpRequest, origin: Origin) -> HttpResponse | Answer:
        """Send one request of a call: the whole answer, or what the lack of one means."""
        whole = replace(request, headers=headers(call) | dict(request.headers))
        if origin is Origin.OPERATOR:
            return await self._attempt(call, whole, call.timeout_s)
        return await self._to_stranger(call, whole, min(call.timeout_s, EVENT_TIMEOUT_S))

    async def close(self) -> None:
        """End every connection."""
        await self._client.close()

    async def _to_stranger(self, call: Call, request: HttpRequest, timeout_s: float) -> HttpResponse | Answer:
        judged = egress.judge(request.url, self._allow)
        if isinstance(judged, egress.EgressDenied):
            return Refused(f"url: {judged.reason}", heard=False)
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
        """Try judged addresses in their order until one takes the connection."""
        failure: NotSent | NoAnswer = NotSent("no address")
        for address in addresses[:_ADDRESSES_MAX]:
            try:
                return await self._client.send(replace(request, address=address), timeout_s)
            except NotSent as unreachable:
                failure = unreachable
            except NoAnswer as lost:
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
    """What every call carries: whose it is, which life, how fresh the worker, and which intent."""
    return {
        "Idempotency-Key": call.idempotency_key,
        "Lifecycle-Key": quote(call.key, safe=":"),
        "Lifecycle-Generation": str(call.generation),
        "Lifecycle-Epoch": str(call.epoch),
    }


def origin(call: Call) -> Origin | Refused:
    """Who gave the step's URL, as the plan says; an event, unless it says otherwise."""
    try:
        return Origin(call.settings.get("url_from", Origin.EVENT))
    except ValueError:
        return Refused('url_from: must be "event" or "operator"', heard=False)
