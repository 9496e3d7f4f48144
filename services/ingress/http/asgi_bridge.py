"""The Starlette site beside the webhook: health, metrics, version and the OpenAPI document, through a little ASGI."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

import httptools
from starlette.applications import Starlette
from starlette.requests import Request as SiteRequest
from starlette.responses import Response
from starlette.routing import Route

from services.adapters.process.health import Checks, routes
from services.ingress.http import answers, openapi
from services.ingress.http.answers import Answer
from services.ingress.http.request import Request


def operations_app(checks: Checks, notes: Checks = dict) -> Starlette:
    """Health, metrics, version and the OpenAPI document."""
    document = json.dumps(openapi.document()).encode()

    async def described(_: SiteRequest) -> Response:
        return Response(document, media_type="application/json")

    return Starlette(routes=[*routes(checks, notes), Route("/openapi.json", described)])


async def call_asgi(site: Callable[..., Awaitable[None]], request: Request) -> Answer:
    """Let the site answer; its bodies are small and whole, and it reads none."""
    url = httptools.parse_url(request.target)
    path = url.path or b"/"
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.version,
        "method": request.method.decode("ascii"),
        "scheme": "http",
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
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
