"""Middleware, CRM and event subscriptions: three systems that keep named resources by our REST contract.

Rule: a path has one resource, so a repeated PUT can never make a second one, keys remembered or not. The path of the
CRM begins with the customer's host: the same name at two hosts is two resources.
"""

import json
import time
from functools import partial
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.core.saga.calls import Verb
from services.simulator.faults import System
from services.simulator.wire import abort, arrival, form, serve
from services.simulator.world import Arrival, CallOutcome, OutsideWorld, Reply

_ABSENT = Reply(404, {"error": "not_found"}, CallOutcome.ABSENT)
_PATHS = {System.MIDDLEWARE: "/middleware", System.CRM: "/crm", System.SUBSCRIPTIONS: "/subscriptions"}


def routes(world: OutsideWorld) -> list[Route]:
    """The routes of the three, each with resources at any depth below its path: the last segment is the name."""
    found = [Route("/crm/{prefix:path}services/oauth2/token", partial(_crm_token, world), methods=["POST"])]
    for system, path in _PATHS.items():
        endpoint = partial(_resource, world, system)
        found.append(Route(path + "/{name:path}", endpoint, methods=["PUT", "GET", "DELETE"]))
    return found


async def _resource(world: OutsideWorld, system: System, request: Request) -> Response:
    place: str = request.path_params["name"]
    verb = {"GET": Verb.READ, "DELETE": Verb.DELETE}.get(request.method) or _putting(world, system, place)
    call = await arrival(request, system, verb)
    if not call.key:
        return JSONResponse({"error": "invalid_request", "detail": "Lifecycle-Key: missing"}, 400)
    desired = await request.body()
    effects = {
        "PUT": partial(_put, world, place, call, desired),
        "GET": partial(_get, world, place, call),
        "DELETE": partial(_delete, world, place, call),
    }
    return await serve(request, world, call, effects[request.method])


def _putting(world: OutsideWorld, system: System, place: str) -> Verb:
    """Whether a PUT creates; a connection that moves to another host is changed, for who sets faults or counts."""
    rows = world.memory.table(system)
    moves = system is System.CRM and any(row["id"] == place.rpartition("/")[2] for row in rows.values())
    return Verb.UPDATE if place in rows or moves else Verb.CREATE


def _put(world: OutsideWorld, place: str, call: Arrival, desired: bytes) -> Reply:
    try:
        body = json.loads(desired)
    except ValueError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("enabled"), bool):
        return Reply(400, {"error": "invalid_request", "detail": "enabled: must be a boolean"}, CallOutcome.REFUSED)
    before = world.memory.table(call.system).get(place)
    if before and (before["key"], before["generation"]) != (call.key, call.generation):
        return Reply(409, {"error": "exists", **before}, CallOutcome.REFUSED)
    name = place.rpartition("/")[2]
    row = {"id": name, "name": name, "key": call.key, "generation": call.generation, "desired": body}
    world.memory.put(call.system, place, row)
    return Reply(200 if before else 201, row, CallOutcome.DONE)


def _get(world: OutsideWorld, place: str, call: Arrival) -> Reply:
    row = world.memory.table(call.system).get(place)
    return Reply(200, row, CallOutcome.DONE) if row else _ABSENT


def _delete(world: OutsideWorld, place: str, call: Arrival) -> Reply:
    if place not in world.memory.table(call.system):
        return _ABSENT
    world.memory.put(call.system, place, None)
    return Reply(204, None, CallOutcome.DONE)


async def _crm_token(world: OutsideWorld, request: Request) -> Response:
    """The CRM's own OAuth: looks at the client's secret alone. It keeps nothing, so it is in no call list."""
    if world.faults.is_down(System.CRM, unquote(request.headers.get("lifecycle-key", "")), time.monotonic()):
        return await abort(request)
    fields = await form(request)
    secret = fields.get("client_secret", "")
    if fields.get("grant_type") != "client_credentials":
        return JSONResponse({"error": "unsupported_grant_type"}, 400)
    if not secret or secret.startswith("invalid"):
        return JSONResponse({"error": "invalid_client", "error_description": "invalid client credentials"}, 401)
    return JSONResponse({"access_token": "crm-session", "token_type": "Bearer"})
