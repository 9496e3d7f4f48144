"""The control API of the simulated Genesys: what an administrator of an organisation would click.

`PUT` creates or changes an integration, `DELETE` removes it, `GET /genesys/control/orgs` lists. With `webhook` the
lifecycle events that this is are sent as well; without it Genesys knows and nobody is told.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from schemas.values import UUID_PATTERN, TenantId, key_of
from schemas.webhook_sent import Sent
from services.adapters.process.clock import now_us
from services.simulator.genesys import IntegrationChange, SimulatedGenesys
from services.simulator.webhooks import Webhooks

_PATH = "/genesys/control/orgs/{org}/integrations/{id}"
_METADATA = {"installedBy": "admin@example.com", "source": "marketplace"}
_SILENT = JSONResponse({"error": "no_webhook", "detail": "SIMULATOR_WEBHOOK_URL is not set"}, 409)


class IntegrationBody(BaseModel):
    """The body of a PUT; what is absent stays as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)

    tenant_id: TenantId | None = Field(default=None, alias="tenantId")
    enabled: bool | None = None
    configuration: dict[str, Any] | None = None
    webhook: bool = False
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Put into the webhook's metadata (`eventId`, `sequence`, …)."""
    restamp: bool = False
    """Every attempt of the webhook carries its own `eventTimestamp`."""


class Address(BaseModel):
    """Which integration a path names."""

    org: str = Field(pattern=f"^{UUID_PATTERN}$")
    id: str = Field(pattern=f"^{UUID_PATTERN}$")


class Control:
    """The routes, and the webhooks that follow."""

    def __init__(self, genesys: SimulatedGenesys, webhooks: Webhooks | None) -> None:
        self._genesys = genesys
        self._webhooks = webhooks

    def routes(self) -> list[Route]:
        """Everything below `/genesys/control`."""
        return [
            Route("/genesys/control/orgs", self._list),
            Route(_PATH, self._change, methods=["PUT"]),
            Route(_PATH, self._remove, methods=["DELETE"]),
        ]

    async def _list(self, _: Request) -> Response:
        return JSONResponse({org: [dict(r) for r in self._genesys.listing(org)[1:]] for org in self._genesys.orgs()})

    async def _change(self, request: Request) -> Response:
        try:
            at = _address(request)
            wanted = IntegrationBody.model_validate_json(await request.body())
        except ValidationError as error:
            return _invalid(error)
        if wanted.webhook and self._webhooks is None:
            return _SILENT
        told = IntegrationChange(wanted.tenant_id, wanted.enabled, wanted.configuration)
        events = self._genesys.change(at.org, at.id, told)
        row = self._genesys.integration(at.org, at.id) or {}
        if wanted.webhook:
            self._send(row, events, wanted)
        return JSONResponse({"key": key_of(at.org, at.id), "events": events, "version": row["version"]})

    async def _remove(self, request: Request) -> Response:
        try:
            at = _address(request)
        except ValidationError as error:
            return _invalid(error)
        tell = request.query_params.get("webhook") == "true"
        if tell and self._webhooks is None:
            return _SILENT
        row = self._genesys.remove(at.org, at.id)
        if row is None:
            return JSONResponse({"error": "not_found"}, 404)
        if tell:
            self._send(row, ["uninstalled"], IntegrationBody())
        return JSONResponse({"key": key_of(at.org, at.id), "events": ["uninstalled"]})

    def _send(self, row: dict[str, Any], events: list[str], wanted: IntegrationBody) -> None:
        assert self._webhooks is not None, "asked before"
        base = now_us()
        told = [
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
        self._webhooks.send(told, restamp=wanted.restamp)


def _address(request: Request) -> Address:
    return Address(org=request.path_params["org"].lower(), id=request.path_params["id"].lower())


def _invalid(error: ValidationError) -> Response:
    faults = [f"{'.'.join(map(str, f['loc'])) or 'body'}: {f['msg']}" for f in error.errors(include_url=False)]
    return JSONResponse({"error": "invalid_request", "detail": faults}, 400)
