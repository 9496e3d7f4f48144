"""The platform API of the simulated Genesys: client credentials, paging, rate limits and error bodies.

Sources: the public API's documentation and models (paths, paging, `ErrorBody`, the headers `inin-ratelimit-*` and
`ININ-Correlation-Id`, 429 with `Retry-After`, HTTP 400 for too many token requests); the guide for
`integrations/{id}/webhooks`, which is not public. Faults of the system `genesys` strike here. Under a fault that
falsifies, the answer is a well-formed 200 with wrong content.
"""

import asyncio
import base64
import contextlib
import secrets
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import unquote_plus
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from schemas.values import EventType
from services.adapters.process.clock import now_us
from services.core.saga.calls import Verb
from services.simulator.faults import FaultKind, Faults, System
from services.simulator.genesys import SimulatedGenesys, configuration_body, integration_body
from services.simulator.genesys_budget import Budgets
from services.simulator.wire import abort, form, number

_LIFE_S: Final = 86_400
_SILENT_S: Final = 600.0
"""Longest silence, for a client without a time-out."""
_ERRORS: Final = {
    FaultKind.REFUSE: (403, "missing.any.permissions", "Unable to perform the requested action"),
    FaultKind.ERROR: (503, "service.unavailable", "The service is unavailable"),
    FaultKind.UNAUTHORIZED: (401, "authentication.required", "No authentication bearer token specified"),
}

_STRICT: Final = ConfigDict(
    frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, alias_generator=to_camel
)


class RetryPolicy(BaseModel):
    """`retryPolicy` of a registered webhook."""

    model_config = _STRICT

    max_retries: int = Field(ge=0, le=10)
    initial_delay_ms: int = Field(ge=1, le=60_000)
    backoff_multiplier: float = Field(ge=1, le=10)


class WebhookBody(BaseModel):
    """The body of a PUT of `integrations/{id}/webhooks`; the whole of it replaces the former one."""

    model_config = _STRICT

    url: str = Field(pattern=r"^https?://[^/?#\s]+")
    events: list[EventType] = Field(min_length=1)
    retry_policy: RetryPolicy
    timeout_ms: int = Field(ge=1, le=60_000)
    secret: str = Field(min_length=1)


Answer = Callable[[str, FaultKind | None], Response]
"""Builds the answer for an organisation's id; the fault, if any, falsifies the content."""


class Api:
    """Access tokens, rate limits and routes of the API. Tokens and rates are lost at a restart. For one event loop."""

    def __init__(self, genesys: SimulatedGenesys, faults: Faults, budgets: Budgets) -> None:
        self._genesys = genesys
        self._faults = faults
        self._budgets = budgets
        self._tokens: dict[str, tuple[str, float]] = {}

    def routes(self) -> list[Route]:
        """Returns the routes of the API below `/genesys/api/v2`, and the token endpoint of the login host."""
        top = "/genesys/api/v2"
        return [
            Route("/genesys/login/oauth/token", self._token, methods=["POST"]),
            Route(f"{top}/organizations/me", self._me),
            Route(f"{top}/integrations", self._listing),
            Route(f"{top}/integrations/{{id}}", self._integration),
            Route(f"{top}/integrations/{{id}}/config/current", self._configuration),
            Route(f"{top}/integrations/{{id}}/webhooks", self._webhook, methods=["GET"]),
            Route(f"{top}/integrations/{{id}}/webhooks", self._register, methods=["PUT"]),
        ]

    async def _token(self, request: Request) -> Response:
        grant = (await form(request)).get("grant_type")
        org = self._client(request)
        if org is None:
            return JSONResponse({"error": "invalid_client", "description": "client not found"}, 401)
        if grant != "client_credentials":
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        fault = self._faults.strike(
            System.GENESYS, Verb.READ, org, time.monotonic(), request.url.path, minting=True
        ).ending
        if fault is FaultKind.OVER_MINTED or self._budgets.mint(org).refused:
            text = "rate limit exceeded; please retry later"
            return JSONResponse({"error": "invalid_request", "description": text, "error_description": text}, 400)
        token = secrets.token_urlsafe(32)
        self._tokens[token] = (org, time.monotonic() + _LIFE_S)
        return JSONResponse({"access_token": token, "token_type": "bearer", "expires_in": _LIFE_S})

    async def _me(self, request: Request) -> Response:
        return await self.answer(request, lambda org, _: JSONResponse({"id": org, "name": f"Org {org[:8]}"}))

    async def _listing(self, request: Request) -> Response:
        # `number` gives 0 for an absent parameter; 25 and 1 are then the defaults.
        size = min(max(number(request.query_params.get("pageSize")) or 25, 1), 999)
        page = min(max(number(request.query_params.get("pageNumber")) or 1, 1), 999)
        return await self.answer(
            request,
            lambda org, fault: JSONResponse(_page(self._genesys.listing(org, fault), page, size, fault)),
            org_wide=True,
        )

    async def _integration(self, request: Request) -> Response:
        return await self._answer_about_one(request, integration_body)

    async def _configuration(self, request: Request) -> Response:
        return await self._answer_about_one(request, configuration_body)

    async def _webhook(self, request: Request) -> Response:
        def answer(org: str, _: FaultKind | None) -> Response:
            found = self._genesys.webhook(org, request.path_params["id"].lower())
            return _not_found() if found is None else JSONResponse(found)

        return await self.answer(request, answer)

    async def _register(self, request: Request) -> Response:
        wanted, raw = request.path_params["id"].lower(), await request.body()

        def answer(org: str, _: FaultKind | None) -> Response:
            if self._genesys.integration(org, wanted) is None:
                return _not_found()
            try:
                told = WebhookBody.model_validate_json(raw)
            except ValidationError as invalid:
                fields = ", ".join(sorted({".".join(map(str, fault["loc"])) for fault in invalid.errors()}))
                return error(400, "bad.request", f"The request body is not valid: {fields}")
            kept = told.model_dump(mode="json", by_alias=True)
            self._genesys.register(org, wanted, kept)
            return JSONResponse(kept)

        return await self.answer(request, answer, verb=Verb.UPDATE)

    async def _answer_about_one(self, request: Request, show: Callable[[dict[str, Any]], dict[str, Any]]) -> Response:
        wanted = request.path_params["id"].lower()

        def answer(org: str, fault: FaultKind | None) -> Response:
            row = next((row for row in self._genesys.listing(org, fault) if row["id"] == wanted), None)
            return _not_found() if row is None or fault is FaultKind.FLAPPING else JSONResponse(show(row))

        return await self.answer(request, answer)

    async def answer(
        self, request: Request, answer: Answer, *, org_wide: bool = False, verb: Verb = Verb.READ
    ) -> Response:
        """Applies the faults, checks token and rate limit, and builds the answer.

        Args:
            request: The request of a client.
            answer: Builds the answer for the organisation of the token.
            org_wide: True for a listing: the fault's key is then the organisation, not an integration of the path.
            verb: The verb whose faults strike.
        """
        # An unknown token belongs to no organisation and has expired at second 0. Faults come first all the same, since
        # a system that is down does not check tokens.
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        org, until_s = self._tokens.get(token, ("", 0.0))
        wanted = "" if org_wide else request.path_params.get("id", "")
        key = f"{org}:{wanted.lower()}" if wanted else org
        effect = self._faults.strike(System.GENESYS, verb, key, time.monotonic(), request.url.path)
        if effect.wait_s:
            await asyncio.sleep(effect.wait_s)
        if effect.ending is FaultKind.SILENT:
            await _gone(request)
        if effect.ending in {FaultKind.DOWN, FaultKind.SILENT}:
            return await abort(request)
        response = self._built(effect.ending, token, org if time.monotonic() < until_s else None, answer)
        if effect.ending is FaultKind.LOST_ANSWER:
            return await abort(request)
        if effect.skew_s:
            response.headers["date"] = formatdate(now_us() / 1_000_000 + effect.skew_s, usegmt=True)
        response.headers.setdefault("ININ-Correlation-Id", _correlation())
        return response

    def _built(self, fault: FaultKind | None, token: str, org: str | None, answer: Answer) -> Response:
        """Builds the answer to a request; `org` is None for a token that is unknown or has expired."""
        if fault is FaultKind.RATE_LIMITED:
            return _limited(1)
        if fault in _ERRORS:
            return error(*_ERRORS[fault])
        if org is None:
            return error(*_ERRORS[FaultKind.UNAUTHORIZED])
        spent = self._budgets.request(token, org)
        if spent.refused:
            return _limited(spent.reset_s)
        response = Response(b"", 200) if fault is FaultKind.BLANK else answer(org, fault)
        response.headers.update(spent.headers())
        return response

    def _client(self, request: Request) -> str | None:
        """Returns the organisation of the client that authenticates by HTTP Basic; None for wrong credentials."""
        try:
            text = base64.b64decode(request.headers.get("authorization", "").partition(" ")[2]).decode()
        except ValueError:
            return None
        client_id, _, secret = (unquote_plus(part) for part in text.partition(":"))
        orgs = [o for o, row in self._genesys.orgs().items() if row["client_id"] == client_id]
        return next((o for o in orgs if secrets.compare_digest(self._genesys.orgs()[o]["client_secret"], secret)), None)


def _page(rows: list[dict[str, Any]], page: int, size: int, fault: FaultKind | None) -> dict[str, Any]:
    """Returns one page of a listing in the form of the platform API. Pages count from 1."""
    if fault is FaultKind.SHIFTED_PAGE and page > 1:
        rows = rows[1:]
    total = 0 if fault is FaultKind.EMPTY else len(rows)
    pages = -(-total // size)  # rounded up
    pages_served = pages - 1 if fault is FaultKind.MISSING_PAGE else pages
    part = rows[(page - 1) * size : page * size] if page <= pages_served else []
    path = f"/api/v2/integrations?pageSize={size}&pageNumber="
    body = {
        "entities": [integration_body(row) for row in part],
        "pageSize": size,
        "pageNumber": page,
        "total": total + (fault is FaultKind.WRONG_TOTAL),
        "pageCount": pages,
        "firstUri": f"{path}1",
        "lastUri": f"{path}{max(pages, 1)}",
        "selfUri": f"{path}{page}",
    }
    if page < pages_served:
        body["nextUri"] = f"{path}{page + 1}"
    if page > 1:
        body["previousUri"] = f"{path}{page - 1}"
    return body


def _not_found() -> Response:
    return error(404, "not.found", "The requested resource was not found")


async def _gone(request: Request) -> None:
    """Returns when the client has given up."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SILENT_S):
            while (await request.receive())["type"] != "http.disconnect":
                pass


def _correlation() -> str:
    return str(UUID(bytes=secrets.token_bytes(16)))


def _limited(wait_s: int) -> Response:
    """Returns the 429 with the seconds until the next request may succeed."""
    message = f"Rate limit exceeded the maximum. Retry the request in [{wait_s}] seconds"
    return error(429, "too.many.requests.retry.after", message, {"Retry-After": str(wait_s)})


def error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """Returns an error in the form `ErrorBody` of the platform API, with the correlation id as `contextId`."""
    correlation = _correlation()
    body = {
        "message": message,
        "code": code,
        "status": status,
        "contextId": correlation,
        "details": [],
        "errors": [],
    }
    return JSONResponse(body, status, {"ININ-Correlation-Id": correlation, **(headers or {})})
