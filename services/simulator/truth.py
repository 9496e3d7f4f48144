"""What the simulator says of the outside: what exists, what was called; and the faults that may be set.

Rule: it answers from the systems themselves. Schemas are read from the real PostgreSQL, archives from their folder;
what cannot be read is an error, never an empty list.
"""

import json
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.simulator.faults import Fault, System
from services.simulator.world import OutsideWorld

Found = dict[str, list[dict[str, Any]]]

_SCHEMAS: Final = r"""
SELECT nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname ~ '^t_[0-9a-f]{32}$' ORDER BY oid
"""
_KEPT: Final = (System.MIDDLEWARE, System.CRM, System.SUBSCRIPTIONS, System.TOKENS)


def routes(world: OutsideWorld, database_url: str | None, archive: Path) -> list[Route]:
    """Inventory, call list and faults."""
    return [
        Route("/inventory", partial(_inventory, world, database_url, archive)),
        Route("/calls", partial(_calls, world)),
        Route("/faults", partial(_add_fault, world), methods=["POST"]),
        Route("/faults", partial(_clear_faults, world), methods=["DELETE"]),
    ]


async def _inventory(world: OutsideWorld, database_url: str | None, archive: Path, request: Request) -> Response:
    key = request.query_params.get("key")
    found: dict[str, Found] = {system: world.exist(system) for system in _KEPT}
    try:
        found["schemas"] = {} if database_url is None else await schemas(database_url)
    except psycopg.Error as error:
        return JSONResponse({"error": "unavailable", "detail": f"schemas: {type(error).__name__}"}, 503)
    found["archive"] = archived(archive)
    order = (System.MIDDLEWARE, System.CRM, System.SCHEMAS, System.SUBSCRIPTIONS, System.TOKENS, System.ARCHIVE)
    return JSONResponse({s: {k: v for k, v in found[s].items() if key in {None, k}} for s in order})


async def _calls(world: OutsideWorld, request: Request) -> Response:
    return JSONResponse(world.calls(request.query_params.get("key")))


async def _add_fault(world: OutsideWorld, request: Request) -> Response:
    try:
        fault = Fault.model_validate_json(await request.body())
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, f['loc'])) or 'body'}: {f['msg']}" for f in error.errors(include_url=False)]
        return JSONResponse({"error": "invalid_request", "detail": faults}, 400)
    world.faults.add(fault, time.monotonic())
    return JSONResponse(fault.model_dump(mode="json"), 201)


async def _clear_faults(world: OutsideWorld, _: Request) -> Response:
    return JSONResponse({"cleared": world.faults.clear()})


async def schemas(database_url: str) -> Found:
    """The tenants' schemas of a database, by what their comments say; one without a comment is under its own name."""
    found: Found = defaultdict(list)
    async with await psycopg.AsyncConnection.connect(database_url, connect_timeout=5) as connection:
        rows = await (await connection.execute(_SCHEMAS)).fetchall()
    for name, comment in rows:
        told = _comment(comment)
        found[str(told.get("key", name))].append({"id": name, "generation": told.get("generation")})
    return found


def archived(folder: Path) -> Found:
    """The archives of a folder: what has a manifest, by what it says."""
    found: Found = defaultdict(list)
    for manifest in sorted(folder.glob("*/*/g*/manifest.json")):
        told = json.loads(manifest.read_bytes())
        found[told["key"]].append({"id": str(manifest.parent.relative_to(folder)), "generation": told["generation"]})
    return found


def _comment(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
