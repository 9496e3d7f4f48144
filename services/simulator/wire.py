"""Between HTTP and the world: reads our headers, writes answers, and ends a connection without one.

The headers are those of our REST contract (docs/rest-contract.md).
"""

import asyncio
import hashlib
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, cast
from urllib.parse import parse_qsl, unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.adapters.process.clock import now_us
from services.core.saga.calls import Verb
from services.simulator.faults import System
from services.simulator.world import Arrival, OutsideWorld, Reply

_ABORT = "lifecycle.abort"


class Protocol(HttpToolsProtocol):
    """Lets an application end its connection: ASGI has no word for a server that dies."""

    def on_message_begin(self) -> None:
        """Hand the transport's `abort` to the application with the request."""
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)[_ABORT] = self.transport.abort


class Dated:
    """Says in each answer when it was given.

    Uvicorn's own header is up to a second old; an answer given after a question would seem to be from before it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                now = formatdate(now_us() / 1_000_000, usegmt=True)
                message["headers"] = [*message.get("headers", ()), (b"date", now.encode())]
            await send(message)

        await self._app(scope, receive, dated)


async def abort(request: Request) -> Response:
    """End the connection at once; the response returned is never seen."""
    request.scope[_ABORT]()
    await asyncio.sleep(0)  # the protocol hears of it before the response is sent
    return Response()


def number(text: str | None) -> int:
    """A header that must be a whole number; anything else counts as 0."""
    return int(text) if text and text.isascii() and text.isdigit() else 0


async def form(request: Request) -> dict[str, str]:
    """The fields of a form; of a repeated one the last counts."""
    return dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True))


async def arrival(request: Request, system: System, verb: Verb) -> Arrival:
    """Read one call of ours."""
    headers = request.headers
    body = await request.body()
    content = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + body).hexdigest()
    return Arrival(
        system=system,
        verb=verb,
        key=unquote(headers.get("lifecycle-key", "")),
        generation=number(headers.get("lifecycle-generation")),
        epoch=number(headers.get("lifecycle-epoch")),
        idempotency_key=headers.get("idempotency-key", ""),
        content=content,
    )


async def serve(request: Request, world: OutsideWorld, call: Arrival, effect: Callable[[], Reply]) -> Response:
    """Let the world answer one call."""
    reply = await world.receive(call, effect)
    if reply is None:
        return await abort(request)
    return Response(status_code=204) if reply.status == 204 else JSONResponse(reply.body, reply.status)
