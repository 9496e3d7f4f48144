"""The OAuth server: client credentials by RFC 6749 section 4.4, revocation by RFC 7009, and a grant for each name.

Rule: a name, taken from the scope `tenant:{name}`, has at most one live token; a new token under a name ends the former
token. A client may read a grant back by name, token included, since the answer to the issue may have been lost.
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
from services.simulator.wire import form, read_call, serve
from services.simulator.world import CallOutcome, IncomingCall, OutsideWorld, Reply

_SCOPE = "tenant:"
_LIFE_S = 86_400
_BAD_CLIENT = JSONResponse({"error": "invalid_client"}, 401, {"WWW-Authenticate": 'Basic realm="oauth"'})


def routes(world: OutsideWorld) -> list[Route]:
    """Returns the routes of token endpoint, revocation endpoint and grants."""
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
    call = await read_call(request, System.TOKENS, Verb.CREATE)
    return await serve(request, world, call, partial(_issue, world, scope.removeprefix(_SCOPE), call))


def _issue(world: OutsideWorld, name: str, call: IncomingCall) -> Reply:
    """Issues a token under `name`; replaces the former token."""
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
    call = await read_call(request, System.TOKENS, Verb.DELETE)
    return await serve(request, world, call, partial(_revoke_token, world, token, call))


def _revoke_token(world: OutsideWorld, token: str, call: IncomingCall) -> Reply:
    """Revokes a token. By RFC 7009 section 2.2 the answer for an unknown token is 200 too."""
    # By value, since a revocation gives the token and not the name; at most one name has the token.
    names = [name for name, row in world.memory.table(call.system).items() if row["access_token"] == token]
    for name in names:
        world.memory.put(call.system, name, None)
    return Reply(200, {}, CallOutcome.DONE if names else CallOutcome.ABSENT)


async def _grant(world: OutsideWorld, request: Request) -> Response:
    if not _known_client(request):
        return _BAD_CLIENT
    call = await read_call(request, System.TOKENS, Verb.READ)
    return await serve(request, world, call, partial(_read_grant, world, request.path_params["name"], call))


def _read_grant(world: OutsideWorld, name: str, call: IncomingCall) -> Reply:
    row = world.memory.table(call.system).get(name)
    return Reply(200, row, CallOutcome.DONE) if row else Reply(404, {"error": "not_found"}, CallOutcome.ABSENT)


def _known_client(request: Request) -> bool:
    """True for every client with HTTP Basic credentials, unless the secret begins with `invalid`."""
    kind, _, encoded = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return False
    try:
        client, separator, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return False
    return bool(client and separator) and not unquote_plus(secret).startswith("invalid")
