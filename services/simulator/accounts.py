"""A plain tenants API as many systems have it: ids made by the server, no idempotency keys and no epochs.

Rule: POST makes a tenant, whatever was made before. Only the field `ref`, chosen by the caller, tells the tenants
apart; the API does not look at the field and refuses no second tenant with an equal `ref`.

Three styles of one API keep their tenants together:

- `/accounts/v1/tenants`: 201 with the tenant, `id` a number
- `/accounts/bare/tenants`: 201 without a body, and `Location`; 204 to PATCH
- `/accounts/slow/tenants`: 202 with a job; the tenant has the state `pending` until the job is done, and DELETE takes
  as long

Every request needs a bearer token of `/accounts/oauth/token`, which lives for two minutes and says so as a text.
"""

import base64
import json
import re
import secrets
from functools import partial
from typing import Any, Final
from urllib.parse import unquote_plus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from schemas.values import UUID_PATTERN, key_of
from services.adapters.process.clock import now_us
from services.core.saga.calls import Verb
from services.simulator.faults import System
from services.simulator.memory import Memory
from services.simulator.wire import abort, form
from services.simulator.world import CallOutcome, IncomingCall, OutsideWorld, Reply

_SYSTEM: Final = System.ACCOUNTS
_REF: Final = re.compile(rf"({UUID_PATTERN})\.({UUID_PATTERN})\.g(\d{{1,9}})", re.ASCII)
"""Form of the names of the provisioner; a tenant with a different `ref` belongs to nobody."""
_TOKEN_LIFE_S: Final = 120
_WORK_S: Final = 0.5
"""Seconds that the style `slow` takes for its work."""
_PAGE: Final = 20
"""Tenants of a page, unless the caller asks for fewer by `size`."""
_ABSENT: Final = Reply(404, {"error": "not_found"}, CallOutcome.ABSENT)
_TABLE: Final = "accounts"
_TOKENS: Final = "accounts_tokens"
_COUNTERS: Final = "accounts_counters"


def routes(world: OutsideWorld) -> list[Route]:
    """Returns the routes of token endpoint, tenants and jobs."""
    api = AccountsApi(world)
    return [
        Route("/accounts/oauth/token", api.token, methods=["POST"]),
        Route("/accounts/{style}/tenants", api.tenants, methods=["GET", "POST"]),
        Route("/accounts/{style}/tenants/{id}", api.tenant, methods=["GET", "PATCH", "DELETE"]),
        Route("/accounts/slow/jobs/{id}", api.job, methods=["GET"]),
    ]


class AccountsApi:
    """The API; its rows are in the simulator's memory."""

    def __init__(self, world: OutsideWorld) -> None:
        self._world, self._memory = world, world.memory

    async def token(self, request: Request) -> Response:
        """Issues a token for client credentials; `expires_in` is a text, as from some servers."""
        fields = await form(request)
        if not _is_client(request):
            return JSONResponse({"error": "invalid_client"}, 401)
        if fields.get("grant_type") != "client_credentials":
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        token = secrets.token_urlsafe(24)
        self._memory.put(_TOKENS, token, _now_s() + _TOKEN_LIFE_S)
        return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": str(_TOKEN_LIFE_S)})

    async def tenants(self, request: Request) -> Response:
        """Lists the tenants page by page, or makes a tenant."""
        if request.method == "POST":
            body = await _object(request)
            if body is None:
                return JSONResponse({"error": "invalid_request"}, 400)
            call = _call(Verb.CREATE, str(body.get("ref", "")))
            return await self._serve(request, call, partial(self._make, request, body, call))
        ref = request.query_params.get("ref", "")
        return await self._serve(request, _call(Verb.READ, ref), partial(self._list, request, ref))

    async def tenant(self, request: Request) -> Response:
        """Shows, changes or removes a tenant."""
        row = self._row(request)
        ref = str(row["ref"]) if row else ""
        if request.method == "DELETE":
            return await self._serve(request, _call(Verb.DELETE, ref), partial(self._remove, request))
        if request.method == "PATCH":
            body = await _object(request)
            if body is None:
                return JSONResponse({"error": "invalid_request"}, 400)
            return await self._serve(request, _call(Verb.UPDATE, ref), partial(self._change, request, body))
        return await self._serve(request, _call(Verb.READ, ref), partial(self._show, request))

    async def job(self, request: Request) -> Response:
        """Shows a job of the style `slow`."""
        return await self._serve(request, _call(Verb.READ, ""), partial(self._show_job, request.path_params["id"]))

    async def _serve(self, request: Request, call: IncomingCall, effect: Any) -> Response:
        until_s = self._memory.table(_TOKENS).get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if until_s is None or until_s < _now_s():
            return JSONResponse({"error": "invalid_token"}, 401, {"WWW-Authenticate": "Bearer"})
        reply = await self._world.receive(call, effect)
        if reply is None:
            return await abort(request)
        body, headers = reply.body, {}
        if isinstance(body, dict) and "Location" in body:
            headers = {"Location": str(body["Location"])}
            body = body.get("body")
        if body is None:
            return Response(status_code=reply.status, headers=headers)
        return JSONResponse(body, reply.status, headers)

    def _make(self, request: Request, body: dict[str, Any], call: IncomingCall) -> Reply:
        row_id = str(self._next("tenant"))
        style = request.path_params["style"]
        ready_s = _now_s() + _WORK_S if style == "slow" else 0.0
        row = {**body, "id": int(row_id), "key": call.key, "generation": call.generation, "ready_s": ready_s}
        self._memory.put(_TABLE, row_id, row)
        location = f"/accounts/{style}/tenants/{row_id}"
        if style == "bare":
            return Reply(201, {"Location": location, "body": None}, CallOutcome.DONE)
        if style == "slow":
            job = str(self._next("job"))
            self._memory.put("accounts_jobs", job, row_id)
            location = f"/accounts/slow/jobs/{job}"
            return Reply(202, {"Location": location, "body": {"id": f"job-{job}"}}, CallOutcome.DONE)
        return Reply(201, {"Location": location, "body": _shown(row)}, CallOutcome.DONE)

    def _list(self, request: Request, ref: str) -> Reply:
        rows = [_shown(row) for row in self._rows().values() if ref in {"", row["ref"]}]
        page, size = (_number(request, name, default) for name, default in (("page", 1), ("size", _PAGE)))
        items = rows[(page - 1) * size : page * size]
        return Reply(200, {"items": items, "total": len(rows)}, CallOutcome.DONE if items else CallOutcome.ABSENT)

    def _show(self, request: Request) -> Reply:
        row = self._row(request)
        return Reply(200, _shown(row), CallOutcome.DONE) if row else _ABSENT

    def _change(self, request: Request, body: dict[str, Any]) -> Reply:
        row = self._row(request)
        if row is None:
            return _ABSENT
        changed = row | {name: value for name, value in body.items() if name not in {"id", "key", "generation", "ref"}}
        self._memory.put(_TABLE, request.path_params["id"], changed)
        is_bare = request.path_params["style"] == "bare"
        return Reply(204 if is_bare else 200, None if is_bare else _shown(changed), CallOutcome.DONE)

    def _remove(self, request: Request) -> Reply:
        row = self._row(request)
        if row is None:
            return _ABSENT
        if request.path_params["style"] == "slow":
            gone = row.get("gone_s") or _now_s() + _WORK_S
            self._memory.put(_TABLE, request.path_params["id"], row | {"gone_s": gone})
            return Reply(202, {"state": "removing"}, CallOutcome.DONE)
        self._memory.put(_TABLE, request.path_params["id"], None)
        return Reply(204, None, CallOutcome.DONE)

    def _show_job(self, name: str) -> Reply:
        row_id = self._memory.table("accounts_jobs").get(name.removeprefix("job-"))
        if row_id is None:
            return _ABSENT
        row = self._rows().get(row_id)
        state = "done" if row is None or _state(row) == "active" else "running"
        return Reply(200, {"id": name, "state": state, "tenant": int(row_id)}, CallOutcome.DONE)

    def _row(self, request: Request) -> dict[str, Any] | None:
        return self._rows().get(request.path_params["id"])

    def _rows(self) -> dict[str, Any]:
        """Returns the tenants by id, without those whose slow removal is over."""
        return forget_removed(self._memory)

    def _next(self, name: str) -> int:
        number = int(self._memory.table(_COUNTERS).get(name, 0)) + 1
        self._memory.put(_COUNTERS, name, number)
        return number


def forget_removed(memory: Memory) -> dict[str, Any]:
    """Removes the tenants whose slow removal is over, and returns the tenants that are left, by id."""
    now_s = _now_s()
    over = [row_id for row_id, row in memory.table(_TABLE).items() if row.get("gone_s") and row["gone_s"] <= now_s]
    for row_id in over:
        memory.put(_TABLE, row_id, None)
    return memory.table(_TABLE)


def _now_s() -> float:
    return now_us() / 1_000_000


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a tenant as the API shows it."""
    hidden = {"key", "generation", "ready_s", "gone_s"}
    return {name: value for name, value in row.items() if name not in hidden} | {"state": _state(row)}


def _state(row: dict[str, Any]) -> str:
    if row.get("gone_s"):
        return "removing"
    return "active" if row["ready_s"] <= _now_s() else "pending"


def _call(verb: Verb, ref: str) -> IncomingCall:
    """Returns the call of a request; without epoch and idempotency key, which this API does not know."""
    match = _REF.fullmatch(ref)
    key = key_of(match[1], match[2]) if match else ref
    return IncomingCall(_SYSTEM, verb, key, int(match[3]) if match else 0, 0, "")


async def _object(request: Request) -> dict[str, Any] | None:
    try:
        body = json.loads(await request.body())
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return max(1, int(text)) if text.isascii() and text.isdigit() else default


def _is_client(request: Request) -> bool:
    """True for every client with HTTP Basic credentials, unless the secret begins with `invalid`."""
    kind, _, encoded = request.headers.get("authorization", "").partition(" ")
    try:
        client, separator, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return False
    return kind.lower() == "basic" and bool(client and separator) and not unquote_plus(secret).startswith("invalid")
