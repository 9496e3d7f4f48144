"""The routes `/livez`, `/readyz`, `/metrics` and `/version` of every service.

Rule: live means that the process answers. Ready means that the process can take work now; the body of `/readyz` names
the failing checks otherwise.
"""

import asyncio
import contextlib
import platform
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
"""Returns the fault of each dependency by name; empty text for a dependency without a fault."""


def routes(service: str, checks: Checks, notes: Checks = dict) -> list[Route]:
    """Return the routes of a service, with metrics of its build and its checks.

    Args:
        service: Name of the service; chooses the tables of metrics.
        checks: The service is ready if no check has a fault.
        notes: Notes for an operator that do not make the service unready; shown in `notes` if not empty. A note with
            the name of a check without a fault is also shown as the check's text, in place of "ok".
    """
    release_name = version("genesys-lifecycle")
    metrics.BUILD_INFO.labels(service, release_name, platform.python_version()).set(1)
    metrics.READY_CHECK.set_function(lambda: {(name,): not fault for name, fault in checks().items()})

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def readyz(_: Request) -> Response:
        results = checks()
        remarks = {name: note for name, note in notes().items() if note}
        faults = {name: fault for name, fault in results.items() if fault}
        shown = {name: fault or remarks.get(name, "ok") for name, fault in results.items()}
        body = {"status": "unready" if faults else "ready", "checks": shown}
        if remarks:
            body["notes"] = remarks
        return JSONResponse(body, status_code=503 if faults else 200)

    async def exposition(_: Request) -> Response:
        return Response(metrics.exposition(service), headers={"content-type": metrics.CONTENT_TYPE})

    async def release(_: Request) -> Response:
        return JSONResponse({"name": "genesys-lifecycle", "version": release_name})

    return [
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", exposition),
        Route("/version", release),
    ]


@contextlib.asynccontextmanager
async def serve(service: str, checks: Checks, notes: Checks = dict, *, host: str, port: int) -> AsyncIterator[int]:
    """Serve the routes on a separate port, for services without a public port, during the context.

    Runs on the caller's event loop and installs no signal handlers: the service decides when to end.

    Args:
        service: Name of the service.
        checks: The service is ready if no check has a fault.
        notes: As `routes`.
        host: Address to listen on.
        port: METRICS_PORT; 0 takes a free port.

    Yields:
        The port, which already accepts connections.

    Raises:
        Unusable: the address is not available.
    """
    # Our own socket: a port already in use then names the setting, and `port` 0 can be reported before serving.
    listening = listen(host, port, setting="METRICS_PORT", backlog=64)
    # log_config=None: uvicorn would otherwise install its own log handlers beside the JSON log.
    config = uvicorn.Config(
        Starlette(routes=routes(service, checks, notes)), log_config=None, access_log=False, lifespan="off", ws="none"
    )
    server = _ServerWithoutSignals(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="health")
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
        listening.close()


class _ServerWithoutSignals(uvicorn.Server):
    """A uvicorn server that leaves SIGINT and SIGTERM to the service."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own method replaces the process's signal handlers during the context.
        yield
