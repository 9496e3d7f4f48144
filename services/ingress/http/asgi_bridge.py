"""The operations app beside the webhook (health, metrics, version, OpenAPI document), and a minimal ASGI call.

Only the webhook's path must be fast, and the connection answers the webhook without ASGI (docs/decisions/0014). This
module is not compiled: mypyc takes no typed dictionaries, and ASGI's messages are dictionaries (docs/decisions/0017).
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

import httptools
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import Route

from services.adapters.process.health import Checks, routes
from services.ingress.http import answers, openapi
from services.ingress.http.answers import Answer
from services.ingress.http.request import Request


def operations_app(checks: Checks, notes: Checks = dict) -> Starlette:
    """Returns the Starlette app for health, metrics, version and the OpenAPI document.

    Args:
        checks: Returns the faults for which `/readyz` fails.
        notes: Returns the faults shown by `/readyz` without failing.
    """
    document = json.dumps(openapi.document()).encode()

    async def described(_: StarletteRequest) -> Response:
        return Response(document, media_type="application/json")

    return Starlette(routes=[*routes("ingress", checks, notes), Route("/openapi.json", described)])


async def call_asgi(app: Callable[..., Awaitable[None]], request: Request) -> Answer:
    """Calls the app with a request and returns the answer.

    The app gets an empty body, since no route reads a body. The content is collected whole, since all are small.
    """
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

    await app(scope, receive, send)
    return answers.from_operations_app(start["status"], start["headers"], b"".join(parts))
