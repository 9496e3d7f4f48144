"""Middleware, CRM and event subscriptions: three systems that keep named resources by docs/rest-contract.md.

Rule: a path has one resource. So a repeated PUT cannot create a second resource, even without a check of idempotency
keys. A path of the CRM begins with the customer's host: equal names at two hosts are two resources.
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
from services.simulator.wire import abort, form, read_call, serve
from services.simulator.world import CallOutcome, IncomingCall, OutsideWorld, Reply

_ABSENT = Reply(404, {"error": "not_found"}, CallOutcome.ABSENT)
_PATHS = {System.MIDDLEWARE: "/middleware", System.CRM: "/crm", System.SUBSCRIPTIONS: "/subscriptions"}


def routes(world: OutsideWorld) -> list[Route]:
    """Returns the routes of the three systems. The last segment of a path is the name of the resource."""
    # The CRM's token endpoint comes first: the routes of the resources would match its path as well.
    all_routes = [Route("/crm/{prefix:path}services/oauth2/token", partial(_crm_token, world), methods=["POST"])]
    for system, prefix in _PATHS.items():
        endpoint = partial(_resource, world, system)
        all_routes.append(Route(prefix + "/{name:path}", endpoint, methods=["PUT", "GET", "DELETE"]))
    return all_routes


async def _resource(world: OutsideWorld, system: System, request: Request) -> Response:
    path: str = request.path_params["name"]
    # Starlette routes HEAD wherever GET is routed, and uvicorn leaves the body out.
    method = "GET" if request.method == "HEAD" else request.method
    verb = {"GET": Verb.READ, "DELETE": Verb.DELETE}.get(method) or _put_verb(world, system, path)
    call = await read_call(request, system, verb)
    if not call.key:
        return JSONResponse({"error": "invalid_request", "detail": "Lifecycle-Key: missing"}, 400)
    desired = await request.body()
    effects = {
        "PUT": partial(_put, world, path, call, desired),
        "GET": partial(_get, world, path, call),
        "DELETE": partial(_delete, world, path, call),
    }
    return await serve(request, world, call, effects[method])


def _put_verb(world: OutsideWorld, system: System, path: str) -> Verb:
    """Returns the verb of a PUT for faults and call list: CREATE for a new resource, UPDATE for a known one.

    In the CRM a known name at a new path is a connection that moves to a new host, and counts as UPDATE.
    """
    rows = world.memory.table(system)
    moves = system is System.CRM and any(row["id"] == path.rpartition("/")[2] for row in rows.values())
    return Verb.UPDATE if path in rows or moves else Verb.CREATE


def _put(world: OutsideWorld, path: str, call: IncomingCall, desired: bytes) -> Reply:
    """Creates or replaces a resource; answers 409 if the path belongs to a different key or generation."""
    try:
        body = json.loads(desired)
    except ValueError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("enabled"), bool):
        return Reply(400, {"error": "invalid_request", "detail": "enabled: must be a boolean"}, CallOutcome.REFUSED)
    before = world.memory.table(call.system).get(path)
    # A path of a different owner is never overwritten. The answer names the owner, so the caller can report the clash.
    if before and (before["key"], before["generation"]) != (call.key, call.generation):
        return Reply(409, {"error": "exists", **before}, CallOutcome.REFUSED)
    name = path.rpartition("/")[2]
    row = {"id": name, "name": name, "key": call.key, "generation": call.generation, "desired": body}
    world.memory.put(call.system, path, row)
    return Reply(200 if before else 201, row, CallOutcome.DONE)


def _get(world: OutsideWorld, path: str, call: IncomingCall) -> Reply:
    row = world.memory.table(call.system).get(path)
    return Reply(200, row, CallOutcome.DONE) if row else _ABSENT


def _delete(world: OutsideWorld, path: str, call: IncomingCall) -> Reply:
    if path not in world.memory.table(call.system):
        return _ABSENT
    world.memory.put(call.system, path, None)
    return Reply(204, None, CallOutcome.DONE)


async def _crm_token(world: OutsideWorld, request: Request) -> Response:
    """Answers a token request to the CRM's own OAuth server; checks only the client secret.

    The request changes no state, so no fault is used up and the call list has no entry. A standing `down` fault of the
    CRM strikes here too.
    """
    if world.faults.is_down(System.CRM, unquote(request.headers.get("lifecycle-key", "")), time.monotonic()):
        return await abort(request)
    fields = await form(request)
    secret = fields.get("client_secret", "")
    if fields.get("grant_type") != "client_credentials":
        return JSONResponse({"error": "unsupported_grant_type"}, 400)
    if not secret or secret.startswith("invalid"):
        return JSONResponse({"error": "invalid_client", "error_description": "invalid client credentials"}, 401)
    return JSONResponse({"access_token": "crm-session", "token_type": "Bearer"})
