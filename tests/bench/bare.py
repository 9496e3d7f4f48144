"""Servers to compare with: `python -m tests.bench.bare NAME PORT`. Same uvicorn, loop and parser as the ingress.

`asgi` answers 200 to whatever comes without reading it, `starlette` the same through a route.
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.ingress import main as ingress

_OK = b'{"status":"queued"}'
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_OK))],
}
_BODY = {"type": "http.response.body", "body": _OK}
_BACKLOG = 8192


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """200, and nothing else."""
    await send(_START)
    await send(_BODY)


def starlette() -> Any:
    """200 through a route."""

    async def answer(_: Request) -> Response:
        return Response(_OK, media_type="application/json")

    return Starlette(routes=[Route("/v1/genesys/lifecycle/{endpoint}", answer, methods=["POST"])])


def run(make: Callable[[], Any], port: int, **options: Any) -> None:
    """Serve an application until SIGTERM.

    Args:
        make: Called in the loop that serves.
        port: On 127.0.0.1.
        options: Of uvicorn, where they differ from those of all servers here.
    """

    async def serve(listening: socket.socket) -> None:
        config = uvicorn.Config(
            make(),
            **{"http": "httptools", **ingress.UVICORN_OPTIONS, **options},
            timeout_keep_alive=75,
        )
        ingress.tune_garbage_collector()
        await uvicorn.Server(config).serve(sockets=[listening])

    with (
        socket.create_server(("127.0.0.1", port), backlog=_BACKLOG) as listener,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(serve(listener))


if __name__ == "__main__":
    run({"asgi": lambda: asgi, "starlette": starlette}[sys.argv[1]], int(sys.argv[2]))
