"""Translates between HTTP and the outside systems: parses calls, writes answers, aborts connections.

The headers of a call are those of docs/rest-contract.md.
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
from services.simulator.world import IncomingCall, OutsideWorld, Reply

_ABORT = "lifecycle.abort"


class Protocol(HttpToolsProtocol):
    """A protocol for uvicorn that lets the application abort the connection.

    ASGI has no message for a death of the server without an answer, so the transport's `abort` is put into the scope.
    """

    def on_message_begin(self) -> None:
        """Adds the transport's `abort` to the scope of each request."""
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)[_ABORT] = self.transport.abort


class Dated:
    """ASGI middleware that adds the header `Date` with the time of the answer, unless the answer has one.

    Uvicorn's own header is renewed once a second, so the `Date` of an answer could be older than the request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request of the ASGI server."""

        async def dated(message: Message) -> None:
            # The headers go with the start of the response; a body may follow in several messages.
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if not any(name == b"date" for name, _ in headers):
                    headers.append((b"date", formatdate(now_us() / 1_000_000, usegmt=True).encode()))
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, dated)


async def abort(request: Request) -> Response:
    """Aborts the connection. Returns a response only for the type: the client never gets the response."""
    request.scope[_ABORT]()
    # One turn of the event loop, in which the protocol's `connection_lost` runs; else uvicorn would write the response.
    await asyncio.sleep(0)
    return Response()


def number(text: str | None) -> int:
    """Returns the whole number of a text; 0 for an absent text, or with any character but ASCII digits."""
    return int(text) if text and text.isascii() and text.isdigit() else 0


async def form(request: Request) -> dict[str, str]:
    """Returns the fields of a form body; of a repeated field the last value counts."""
    return dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True))


async def read_call(request: Request, system: System, verb: Verb) -> IncomingCall:
    """Parses headers and body of a call; absent headers are empty or 0.

    `content` is a hash of method, path and body: the means to find an idempotency key reused for a different request.
    """
    headers = request.headers
    body = await request.body()
    content = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + body).hexdigest()
    return IncomingCall(
        system=system,
        verb=verb,
        key=unquote(headers.get("lifecycle-key", "")),
        generation=number(headers.get("lifecycle-generation")),
        epoch=number(headers.get("lifecycle-epoch")),
        idempotency_key=headers.get("idempotency-key", ""),
        content=content,
    )


async def serve(request: Request, world: OutsideWorld, call: IncomingCall, effect: Callable[[], Reply]) -> Response:
    """Carries out a call and returns the HTTP answer; aborts the connection if a fault withholds the answer."""
    reply = await world.receive(call, effect)
    if reply is None:
        return await abort(request)
    return Response(status_code=204) if reply.status == 204 else JSONResponse(reply.body, reply.status)
