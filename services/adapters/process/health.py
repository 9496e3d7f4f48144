"""`/livez`, `/readyz`, `/metrics` and `/version` of every service, as Starlette routes.

Rule: live means the process answers; ready means it can take work now, and says what is missing when it cannot.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from importlib.metadata import version

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.adapters.process import metrics
from services.adapters.process.listening import listen

Checks = Callable[[], Mapping[str, str]]
"""Name of a dependency to what is wrong with it; empty text when it is well."""


def routes(checks: Checks, notes: Checks = dict) -> list[Route]:
    """The routes of one service.

    Args:
        checks: What makes it ready.
        notes: What an operator should know and what keeps it from nothing; shown beside, where there is any. A note by
            the name of a check is what that check says, too.
    """

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def readyz(_: Request) -> Response:
        found = checks()
        known = {name: note for name, note in notes().items() if note}
        faults = {name: fault for name, fault in found.items() if fault}
        told = {name: fault or known.get(name, "ok") for name, fault in found.items()}
        body = {"status": "unready" if faults else "ready", "checks": told}
        if known:
            body["notes"] = known
        return JSONResponse(body, status_code=503 if faults else 200)

    async def exposition(_: Request) -> Response:
        return Response(metrics.exposition(), headers={"content-type": metrics.CONTENT_TYPE})

    async def release(_: Request) -> Response:
        return JSONResponse({"name": "genesys-lifecycle", "version": version("genesys-lifecycle")})

    return [
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", exposition),
        Route("/version", release),
    ]


@contextlib.asynccontextmanager
async def serve(checks: Checks, *, host: str, port: int) -> AsyncIterator[int]:
    """Answer the routes on a port of their own, for services without a public one.

    Runs on the caller's loop and leaves the process's signals alone: whoever owns the loop decides when it ends.

    Args:
        checks: What makes it ready.
        host: Address to listen on.
        port: METRICS_PORT; 0 takes a free one.

    Yields:
        The port; it listens already.

    Raises:
        Unusable: the address cannot be had.
    """
    listening = listen(host, port, setting="METRICS_PORT", backlog=64)
    config = uvicorn.Config(
        Starlette(routes=routes(checks)), log_config=None, access_log=False, lifespan="off", ws="none"
    )
    server = _Guest(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="health")
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
        listening.close()


class _Guest(uvicorn.Server):
    """A server that does not take the process's signals over."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
