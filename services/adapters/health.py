"""`/livez`, `/readyz`, `/metrics` and `/version` of every service, as Starlette routes.

Rule: live means the process answers; ready means it can take work now, and says what is missing when it cannot.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.adapters import metrics

Checks = Callable[[], Mapping[str, str]]
"""Name of a dependency to what is wrong with it; empty text when it is well."""


def routes(checks: Checks) -> list[Route]:
    """The routes of one service."""

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def readyz(_: Request) -> Response:
        found = checks()
        faults = {name: fault for name, fault in found.items() if fault}
        body = {"status": "unready" if faults else "ready", "checks": {n: f or "ok" for n, f in found.items()}}
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
