"""Sends the requests of the HTTP kinds with our headers, and turns failures into answers.

Rule: a URL counts as an event's unless the plan declares the URL as the operator's. A URL from an event is judged by
the egress rules (`services.core.saga.egress`), and the connection goes to a judged address
(`services.adapters.pinned_client`). A failure is an answer, never an exception.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from urllib.parse import quote

from services.adapters.http_client import HttpClient, HttpRequest, HttpResponse, NoAnswer, NotSent, Resolver
from services.adapters.pinned_client import JudgedUrl, PinnedClient, UrlDenied
from services.adapters.process import tracing
from services.core.saga import egress
from services.core.saga.calls import Answer, Call, Refused
from services.provisioner.kinds.answers import silence


class Origin(StrEnum):
    """Origin of a step's URL: the event, hence the tenant, or the operator."""

    EVENT = "event"
    OPERATOR = "operator"


class Outbound:
    """Sends the requests of steps."""

    def __init__(
        self, client: HttpClient, resolver: Resolver, *, allow: Sequence[str], egress_map: Mapping[str, str]
    ) -> None:
        def judge(url: str) -> JudgedUrl | egress.EgressDenied:
            judged = egress.judge(url, allow)
            if isinstance(judged, egress.EgressDenied):
                return judged
            # EGRESS_MAP (one machine only) replaces resolution, never the allow-list; its URLs are the operator's.
            return JudgedUrl(judged.url, judged.host, substitute=egress.mapped(judged, egress_map))

        self._client = PinnedClient(client, resolver, judge, egress.judge_addresses)

    async def send(
        self, call: Call, request: HttpRequest, origin: Origin, every: Mapping[str, str] | None = None
    ) -> HttpResponse | Answer:
        """Sends one request of a call.

        Args:
            call: The call; its time limit is the request's.
            request: The request, without the headers of every call.
            origin: Origin of the URL.
            every: Headers of every call; None for the headers of our REST contract.

        Returns:
            The complete HTTP response, or the answer of the step if no complete response came.
        """
        whole = replace(request, headers={**(headers(call) if every is None else every), **request.headers})
        send = self._client.send_judged
        if origin is Origin.OPERATOR:
            send, whole = self._client.send_trusted, _traced(whole)
        try:
            return await send(whole, call.timeout_s)
        except UrlDenied as denied:
            return Refused(f"url: {denied.reason}", heard=False)
        except (NotSent, NoAnswer) as failure:
            return silence(call, failure)

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.close()


def headers(call: Call) -> dict[str, str]:
    """Returns the headers of every request: intent, key, generation, and the epoch that reveals a stale worker."""
    return {
        "Idempotency-Key": call.idempotency_key,
        "Lifecycle-Key": quote(call.key, safe=":"),
        "Lifecycle-Generation": str(call.generation),
        "Lifecycle-Epoch": str(call.epoch),
    }


def _traced(request: HttpRequest) -> HttpRequest:
    """Returns the request with the context of the call's span, if traces are on.

    Only for the operator's systems: the system behind a tenant's URL learns nothing of our traces.
    """
    trace = tracing.outgoing()
    return request if trace is None else replace(request, headers={"traceparent": trace, **request.headers})


def origin(call: Call) -> Origin | Refused:
    """Returns the origin of the step's URL: the plan's `url_from`, by default the event."""
    try:
        return Origin(call.settings.get("url_from", Origin.EVENT))
    except ValueError:
        return Refused('url_from: must be "event" or "operator"', heard=False)
