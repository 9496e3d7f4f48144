"""The routes `/inventory`, `/calls` and `/faults`: existing resources, recorded calls, and the faults to set.

Rule: the inventory is read from the systems themselves at each request: schemas from the real PostgreSQL, archives from
their folder. A system that cannot be read gives an error, never an empty list.
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

from services.simulator.accounts import forget_removed
from services.simulator.faults import Fault, System
from services.simulator.world import OutsideWorld

ResourcesByKey = dict[str, list[dict[str, Any]]]
"""`orgId:integrationId` to resources, each with `id` and `generation`."""

_SCHEMAS: Final = r"""
SELECT nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname ~ '^t_[0-9a-f]{32}$' ORDER BY oid
"""
_KEPT_IN_MEMORY: Final = (System.MIDDLEWARE, System.CRM, System.SUBSCRIPTIONS, System.TOKENS, System.ACCOUNTS)


def routes(world: OutsideWorld, database_url: str | None, archive: Path) -> list[Route]:
    """Returns the routes of inventory, call list and faults.

    Args:
        world: The outside systems.
        database_url: The tenants' database itself, not the proxy; None leaves `schemas` empty.
        archive: Folder of the archive.
    """
    return [
        Route("/inventory", partial(_inventory, world, database_url, archive)),
        Route("/calls", partial(_calls, world)),
        Route("/faults", partial(_add_fault, world), methods=["POST"]),
        Route("/faults", partial(_clear_faults, world), methods=["DELETE"]),
    ]


async def _inventory(world: OutsideWorld, database_url: str | None, archive: Path, request: Request) -> Response:
    key = request.query_params.get("key")
    forget_removed(world.memory)
    resources: dict[str, ResourcesByKey] = {system: world.inventory(system) for system in _KEPT_IN_MEMORY}
    try:
        resources["schemas"] = {} if database_url is None else await schemas(database_url)
    except psycopg.Error as error:
        return JSONResponse({"error": "unavailable", "detail": f"schemas: {type(error).__name__}"}, 503)
    resources["archive"] = archived(archive)
    # The order of creation in the plan, for a reader of the JSON; the archive last.
    order = (
        System.MIDDLEWARE,
        System.CRM,
        System.SCHEMAS,
        System.SUBSCRIPTIONS,
        System.TOKENS,
        System.ARCHIVE,
        System.ACCOUNTS,
    )
    return JSONResponse({s: {k: v for k, v in resources[s].items() if key in {None, k}} for s in order})


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


async def schemas(database_url: str) -> ResourcesByKey:
    """Returns the tenants' schemas of a database, by the key in each schema's comment.

    A schema without a readable comment is listed under its own name, so that no schema is hidden.

    Raises:
        psycopg.Error: The database cannot be read.
    """
    resources: ResourcesByKey = defaultdict(list)
    async with await psycopg.AsyncConnection.connect(database_url, connect_timeout=5) as connection:
        rows = await (await connection.execute(_SCHEMAS)).fetchall()
    for name, comment in rows:
        labels = _comment(comment)
        resources[str(labels.get("key", name))].append({"id": name, "generation": labels.get("generation")})
    return resources


def archived(folder: Path) -> ResourcesByKey:
    """Returns the archives of a folder by the key in each manifest; a folder without a manifest is no archive."""
    resources: ResourcesByKey = defaultdict(list)
    for manifest in sorted(folder.glob("*/*/g*/manifest.json")):
        labels = json.loads(manifest.read_bytes())
        resources[labels["key"]].append(
            {"id": str(manifest.parent.relative_to(folder)), "generation": labels["generation"]}
        )
    return resources


def _comment(text: str | None) -> dict[str, Any]:
    """Returns the JSON object of a schema's comment; an empty one if the comment is absent or no JSON object."""
    try:
        fields = json.loads(text or "{}")
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
