"""The ASGI application: POST paths go to the receiver before any framework, everything else to a Starlette site."""

import json
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.adapters.health import Checks, routes
from services.ingress import openapi
from services.ingress.body import Receive, Scope, Send

_PREFIX: Final = "/v1/genesys/lifecycle/"
_BARE: Final = frozenset({"/v1/genesys/lifecycle", "/api/v1/genesys/lifecycle"})
DEFAULT: Final = "default"
"""The endpoint of the bare paths."""

Post = Callable[[str, Scope, Receive, Send], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def endpoint_of(path: str) -> str | None:
    """The endpoint that a path names; None when it is not a webhook's."""
    if path.startswith(_PREFIX):
        return path[len(_PREFIX) :]
    return DEFAULT if path in _BARE else None


def application(post: Post, checks: Checks) -> App:
    """Wire the two halves."""
    document = json.dumps(openapi.document()).encode()

    async def described(_: Request) -> Response:
        return Response(document, media_type="application/json")

    site = Starlette(routes=[*routes(checks), Route("/openapi.json", described)])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = endpoint_of(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None:
            await site(scope, receive, send)
        else:
            await post(endpoint, scope, receive, send)

    return app
