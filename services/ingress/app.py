"""Who answers which path: the webhook's its receiver, everything else a Starlette site.

Rule: whatever fails while a request is judged, its sender is answered, once; this is the one place that catches.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import httptools
from starlette.applications import Starlette
from starlette.requests import Request as SiteRequest
from starlette.responses import Response
from starlette.routing import Route

from services.adapters.health import Checks, routes
from services.ingress import answers, openapi
from services.ingress.answers import Answer
from services.ingress.receive import Receiver
from services.ingress.request import Request
from services.ingress.telling import Telling

_PREFIX: Final = "/v1/genesys/lifecycle/"
_BARE: Final = frozenset({"/v1/genesys/lifecycle", "/api/v1/genesys/lifecycle"})
DEFAULT: Final = "default"
"""The endpoint of the bare paths."""

_USUAL_BYTES: Final = 256
"""Targets up to this length are worth remembering; what an attacker sends in their place costs no memory."""


def endpoint_of(target: bytes) -> str | None:
    """The endpoint that a request's target names; None when it is not a webhook's.

    Raises:
        httptools.HttpParserInvalidURLError: it is no target at all.
        UnicodeDecodeError: nor is it.
    """
    path = unquote(httptools.parse_url(target).path.decode("ascii"))
    if path.startswith(_PREFIX):
        return path[len(_PREFIX) :]
    return DEFAULT if path in _BARE else None


_usual = lru_cache(maxsize=256)(endpoint_of)


class Application:
    """Answers every request of one process."""

    def __init__(self, receiver: Receiver, site: Starlette, telling: Telling) -> None:
        self._receiver = receiver
        self._site = site
        self._telling = telling
        self.answered = telling.answered
        self.held_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def hear(self, request: Request) -> None:
        """The head is whole: note whose path it is, and `refusal` when that can be said already."""
        target = request.target
        try:
            request.endpoint = _usual(target) if len(target) <= _USUAL_BYTES else endpoint_of(target)
            if request.endpoint is not None:
                self._receiver.hear(request)
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            request.refusal = answers.FRAMING
        except Exception:  # noqa: BLE001 - see above
            self._telling.broken()
            request.refusal = answers.BROKEN

    def take(self, request: Request) -> None:
        """Answer a request that is whole, or has a `refusal`."""
        try:
            if request.refusal is not None:
                request.answer(request.refusal)
            elif request.endpoint is not None:
                self._receiver.take(request.endpoint, request)
            else:
                task = self._loop.create_task(self._visit(request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except Exception:  # noqa: BLE001 - see above
            self._telling.broken()
            request.answer(answers.BROKEN)

    async def _visit(self, request: Request) -> None:
        try:
            request.answer(await _visit(self._site, request))
        except Exception:  # noqa: BLE001 - see above
            self._telling.broken()
            request.answer(answers.BROKEN)


async def _visit(site: Callable[..., Awaitable[None]], request: Request) -> Answer:
    """Let the site answer; its bodies are small and whole, and it reads none."""
    url = httptools.parse_url(request.target)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.version,
        "method": request.method.decode("ascii"),
        "scheme": "http",
        "path": unquote(url.path.decode("ascii")),
        "raw_path": url.path,
        "query_string": url.query or b"",
        "root_path": "",
        "headers": request.fields,
        "client": None,
        "server": None,
    }
    start: MutableMapping[str, Any] = {}
    parts: list[bytes] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            parts.append(message.get("body", b""))

    await site(scope, receive, send)
    return answers.foreign(start["status"], start["headers"], b"".join(parts))


def site(checks: Checks, notes: Checks = dict) -> Starlette:
    """Health, metrics, version and the OpenAPI document."""
    document = json.dumps(openapi.document()).encode()

    async def described(_: SiteRequest) -> Response:
        return Response(document, media_type="application/json")

    return Starlette(routes=[*routes(checks, notes), Route("/openapi.json", described)])
