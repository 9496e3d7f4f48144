"""An OAuth server: tokens by RFC 6749 section 4.4, revocation by RFC 7009, and one grant for each name.

Rule: a name has at most one live token; issuing again under it ends the former. Its own client may read a grant back by
name, since an answer may be lost on the way.
"""

import base64
import secrets
from functools import partial
from urllib.parse import unquote_plus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.core.saga.calls import Verb
from services.simulator.faults import System
from services.simulator.wire import arrival, form, serve
from services.simulator.world import Arrival, CallOutcome, OutsideWorld, Reply

_SCOPE = "tenant:"
_LIFE_S = 86_400
_BAD_CLIENT = JSONResponse({"error": "invalid_client"}, 401, {"WWW-Authenticate": 'Basic realm="oauth"'})


def routes(world: OutsideWorld) -> list[Route]:
    """Token endpoint, revocation endpoint and grants."""
    return [
        Route("/oauth/token", partial(_token, world), methods=["POST"]),
        Route("/oauth/revoke", partial(_revoke, world), methods=["POST"]),
        Route("/oauth/grants/{name:path}", partial(_grant, world), methods=["GET"]),
    ]


async def _token(world: OutsideWorld, request: Request) -> Response:
    fields = await form(request)
    scope = fields.get("scope", "")
    if not _known_client(request):
        return _BAD_CLIENT
    if fields.get("grant_type") != "client_credentials":
        return JSONResponse({"error": "unsupported_grant_type"}, 400)
    if not scope.startswith(_SCOPE):
        return JSONResponse({"error": "invalid_scope"}, 400)
    call = await arrival(request, System.TOKENS, Verb.CREATE)
    return await serve(request, world, call, partial(_issue, world, scope.removeprefix(_SCOPE), call))


def _issue(world: OutsideWorld, name: str, call: Arrival) -> Reply:
    row = {
        "id": secrets.token_hex(8),
        "name": name,
        "key": call.key,
        "generation": call.generation,
        "access_token": secrets.token_urlsafe(32),
        "token_type": "Bearer",
        "expires_in": _LIFE_S,
        "scope": _SCOPE + name,
    }
    world.memory.put(call.system, name, row)
    return Reply(200, row, CallOutcome.DONE)


async def _revoke(world: OutsideWorld, request: Request) -> Response:
    token = (await form(request)).get("token", "")
    if not _known_client(request):
        return _BAD_CLIENT
    if not token:
        return JSONResponse({"error": "invalid_request"}, 400)
    call = await arrival(request, System.TOKENS, Verb.DELETE)
    return await serve(request, world, call, partial(_end, world, token, call))


def _end(world: OutsideWorld, token: str, call: Arrival) -> Reply:
    """RFC 7009 section 2.2: a token nobody knows is revoked too."""
    names = [name for name, row in world.memory.table(call.system).items() if row["access_token"] == token]
    for name in names:
        world.memory.put(call.system, name, None)
    return Reply(200, {}, CallOutcome.DONE if names else CallOutcome.ABSENT)


async def _grant(world: OutsideWorld, request: Request) -> Response:
    if not _known_client(request):
        return _BAD_CLIENT
    call = await arrival(request, System.TOKENS, Verb.READ)
    return await serve(request, world, call, partial(_read, world, request.path_params["name"], call))


def _read(world: OutsideWorld, name: str, call: Arrival) -> Reply:
    row = world.memory.table(call.system).get(name)
    return Reply(200, row, CallOutcome.DONE) if row else Reply(404, {"error": "not_found"}, CallOutcome.ABSENT)


def _known_client(request: Request) -> bool:
    """Any client that gives credentials, unless its secret begins with `invalid`."""
    kind, _, encoded = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return False
    try:
        client, found, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return False
    return bool(client and found) and not unquote_plus(secret).startswith("invalid")
