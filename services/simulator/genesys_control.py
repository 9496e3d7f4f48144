"""The control API of the simulated Genesys, in place of an administrator's clicks in the real one.

`PUT` creates or changes an integration, `DELETE` removes an integration, `POST …/restore` restores a removed
integration, `GET /genesys/control/orgs` lists all, `GET /genesys/control/budgets` counts requests and refusals. With
`webhook` the events of the change are sent as webhooks too. Without `webhook` the change is silent, as if the webhook
were lost.
"""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from schemas.values import UUID_PATTERN, TenantId, key_of
from schemas.webhook_sent import Sent
from services.adapters.process.clock import now_us
from services.simulator.genesys import IntegrationChange, SimulatedGenesys
from services.simulator.genesys_budget import Budgets
from services.simulator.webhooks import Webhooks

_PATH = "/genesys/control/orgs/{org}/integrations/{id}"
_METADATA = {"installedBy": "admin@example.com", "source": "marketplace"}
_NO_WEBHOOK = {"error": "no_webhook", "detail": "no webhook is registered, and SIMULATOR_WEBHOOK_URL is not set"}


class IntegrationBody(BaseModel):
    """The body of a PUT; an absent field leaves the integration's field unchanged.

    Attributes:
        tenant_id: JSON `tenantId`.
        enabled: The integration's flag; a new integration is enabled.
        configuration: The whole configuration, not a patch.
        webhook: True sends the events as webhooks.
        metadata: Added to the metadata of the webhooks (`eventId`, `sequence`, …).
        restamp: True gives every attempt of a webhook an `eventTimestamp` of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)

    tenant_id: TenantId | None = Field(default=None, alias="tenantId")
    enabled: bool | None = None
    configuration: dict[str, Any] | None = None
    webhook: bool = False
    metadata: dict[str, Any] = Field(default_factory=dict)
    restamp: bool = False


class Address(BaseModel):
    """Organisation and integration of a path, as lower-case UUIDs."""

    org: str = Field(pattern=f"^{UUID_PATTERN}$")
    id: str = Field(pattern=f"^{UUID_PATTERN}$")


class Control:
    """The routes of the control API; hands the webhooks of each change to the sender."""

    def __init__(self, genesys: SimulatedGenesys, budgets: Budgets, webhooks: Webhooks) -> None:
        self._genesys = genesys
        self._budgets = budgets
        self._webhooks = webhooks

    def routes(self) -> list[Route]:
        """Returns the routes below `/genesys/control`."""
        return [
            Route("/genesys/control/orgs", self._list),
            Route("/genesys/control/budgets", self._counts),
            Route(f"{_PATH}/restore", self._restore, methods=["POST"]),
            Route(_PATH, self._change, methods=["PUT"]),
            Route(_PATH, self._remove, methods=["DELETE"]),
        ]

    async def _list(self, _: Request) -> Response:
        # [1:]: the first row is the foreign vendor's integration, which no request has created.
        return JSONResponse({org: [dict(r) for r in self._genesys.listing(org)[1:]] for org in self._genesys.orgs()})

    async def _counts(self, _: Request) -> Response:
        return JSONResponse(self._budgets.counts())

    async def _change(self, request: Request) -> Response:
        try:
            address = _address(request)
            wanted = IntegrationBody.model_validate_json(await request.body())
        except ValidationError as error:
            return _invalid(error)
        # Before the change: a refused request must change nothing.
        if wanted.webhook and not self._webhooks.can_send(address.org, address.id):
            return JSONResponse(_NO_WEBHOOK, 409)
        change = IntegrationChange(wanted.tenant_id, wanted.enabled, wanted.configuration)
        events = self._genesys.change(address.org, address.id, change)
        row = self._genesys.integration(address.org, address.id) or {}
        if wanted.webhook:
            self._send(row, events, wanted)
        return JSONResponse({"key": key_of(address.org, address.id), "events": events, "version": row["version"]})

    async def _remove(self, request: Request) -> Response:
        return await self._move(request, "uninstalled", self._genesys.remove)

    async def _restore(self, request: Request) -> Response:
        return await self._move(request, "installed", self._genesys.restore)

    async def _move(self, request: Request, event: str, move: Callable[[str, str], dict[str, Any] | None]) -> Response:
        """Removes or restores an integration; with `?webhook=true` sends the event."""
        try:
            address = _address(request)
        except ValidationError as error:
            return _invalid(error)
        wants_webhook = request.query_params.get("webhook") == "true"
        if wants_webhook and not self._webhooks.can_send(address.org, address.id):
            return JSONResponse(_NO_WEBHOOK, 409)
        row = move(address.org, address.id)
        if row is None:
            return JSONResponse({"error": "not_found"}, 404)
        if wants_webhook:
            self._send(row, [event], IntegrationBody())
        return JSONResponse({"key": key_of(address.org, address.id), "events": [event]})

    def _send(self, row: dict[str, Any], events: list[str], wanted: IntegrationBody) -> None:
        """Hands the webhooks of one change to the sender; returns before the first is sent."""
        # Each further event is a microsecond later: equal timestamps would hide the order of the events.
        base = now_us()
        webhook_events = [
            Sent(
                event=event,
                org_id=row["org"],
                integration_id=row["id"],
                tenant_id=row["tenant_id"] or f"tenant-{row['id'][:8]}",
                configuration=row["configuration"],
                at_us=base + order,
                metadata={**_METADATA, **wanted.metadata},
            )
            for order, event in enumerate(events)
        ]
        self._webhooks.send(webhook_events, restamp=wanted.restamp)


def _address(request: Request) -> Address:
    return Address(org=request.path_params["org"].lower(), id=request.path_params["id"].lower())


def _invalid(error: ValidationError) -> Response:
    """Returns the 400 that names each invalid field."""
    faults = [f"{'.'.join(map(str, f['loc'])) or 'body'}: {f['msg']}" for f in error.errors(include_url=False)]
    return JSONResponse({"error": "invalid_request", "detail": faults}, 400)
