"""The audit queries of the simulated Genesys: at once, or by a transaction in the background.

Source: the API's models AuditRealtimeQueryRequest, AuditQueryExecutionStatusResponse and
AuditQueryExecutionResultsResponse. The realtime query finds audits of the last 14 days alone.
"""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from schemas.times import instant, rfc3339
from services.simulator.faults import FaultKind
from services.simulator.genesys_api import Api, error
from services.simulator.genesys_audits import ACTIONS, ENTITY_TYPE, SERVICE, AuditLog
from services.simulator.wire import number

REALTIME_US: Final = 14 * 86_400_000_000
_PAGE_MAX: Final = 500
_STATES: Final = ("Queued", "Running", "Succeeded")
_NOT_FOUND: Final = (404, "not.found", "The requested resource was not found")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query: the time span, the filters by property, and the order."""

    span: tuple[int, int]
    service: str
    filters: dict[str, str]
    ascending: bool
    body: dict[str, Any]


@dataclass(slots=True)
class _Transaction:
    """A transaction of an organisation; its state moves on with each question."""

    org: str
    asked: _Asked
    started_us: int
    questions: int = 0


class AuditApi:
    """The routes of the audit queries. Transactions are lost at a restart. For one event loop."""

    def __init__(self, api: Api, log: AuditLog, now_us: Callable[[], int]) -> None:
        self._api = api
        self._log = log
        self._now_us = now_us
        self._transactions: dict[str, _Transaction] = {}

    def routes(self) -> list[Route]:
        """Returns the routes below `/genesys/api/v2/audits/query`."""
        top = "/genesys/api/v2/audits/query"
        return [
            Route(f"{top}/realtime", self._realtime, methods=["POST"]),
            Route(f"{top}/realtime/servicemapping", self._mapping),
            Route(f"{top}/servicemapping", self._mapping),
            Route(top, self._begin, methods=["POST"]),
            Route(f"{top}/{{transaction}}", self._state),
            Route(f"{top}/{{transaction}}/results", self._results),
        ]

    async def _realtime(self, request: Request) -> Response:
        asked, body = await _asked(request)

        def answer(org: str, fault: FaultKind | None) -> Response:
            if asked is None:
                return _bad_request()
            begin_us = max(asked.span[0], self._now_us() - REALTIME_US)
            rows = self._found(org, asked, (begin_us, asked.span[1]), fault)
            page = max(1, number(str(body.get("pageNumber", ""))))
            size = min(max(1, number(str(body.get("pageSize", ""))) or 25), _PAGE_MAX)
            return JSONResponse(_page(rows, page, size, fault))

        return await self._api.answer(request, answer, org_wide=True)

    async def _mapping(self, request: Request) -> Response:
        entity = {"name": ENTITY_TYPE, "actions": sorted(set(ACTIONS.values()))}
        body = {"services": [{"name": SERVICE, "entities": [entity]}]}
        return await self._api.answer(request, lambda _, __: JSONResponse(body), org_wide=True)

    async def _begin(self, request: Request) -> Response:
        asked, _ = await _asked(request)

        def answer(org: str, _: FaultKind | None) -> Response:
            if asked is None:
                return _bad_request()
            identity = secrets.token_hex(16)
            self._transactions[identity] = _Transaction(org, asked, self._now_us())
            return JSONResponse(_execution(identity, self._transactions[identity]))

        return await self._api.answer(request, answer, org_wide=True)

    async def _state(self, request: Request) -> Response:
        identity = request.path_params["transaction"]

        def answer(org: str, fault: FaultKind | None) -> Response:
            found = self._transactions.get(identity)
            if found is None or found.org != org:
                return error(*_NOT_FOUND)
            found.questions += 1
            body = _execution(identity, found)
            # An unknown state is no end: the client must go on asking.
            return JSONResponse(body | {"state": "Hibernating"} if fault is FaultKind.UNKNOWN_VALUES else body)

        return await self._api.answer(request, answer, org_wide=True)

    async def _results(self, request: Request) -> Response:
        identity = request.path_params["transaction"]

        def answer(org: str, fault: FaultKind | None) -> Response:
            found = self._transactions.get(identity)
            if found is None or found.org != org or found.questions + 1 < len(_STATES):
                return error(*_NOT_FOUND)
            rows = self._found(org, found.asked, found.asked.span, fault)
            size = min(max(1, number(request.query_params.get("pageSize")) or 25), _PAGE_MAX)
            first = number(request.query_params.get("cursor"))
            body: dict[str, Any] = {"id": identity, "pageSize": size, "entities": rows[first : first + size]}
            return JSONResponse(body | ({"cursor": str(first + size)} if first + size < len(rows) else {}))

        return await self._api.answer(request, answer, org_wide=True)

    def _found(self, org: str, asked: _Asked, span: tuple[int, int], fault: FaultKind | None) -> list[dict[str, Any]]:
        """Returns the audits of a query, in the order asked for."""
        if asked.service != SERVICE:
            return []
        rows = [row for row in self._log.find(org, span, fault) if _matches(row, asked.filters)]
        return rows if asked.ascending else rows[::-1]


async def _asked(request: Request) -> tuple[_Asked | None, dict[str, Any]]:
    """Returns the query of a body, or None for an unusable body; and the body."""
    try:
        body = json.loads(await request.body())
        begin, _, end = str(body["interval"]).partition("/")
        span = (_at_us(begin), _at_us(end))
        filters = {str(one["property"]): str(one["value"]) for one in body.get("filters") or ()}
        orders = [str(one.get("sortOrder", "")).lower() for one in body.get("sort") or ()]
        return _Asked(span, str(body["serviceName"]), filters, orders == ["ascending"], body), body
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, {}


def _at_us(text: str) -> int:
    """Returns an instant of an interval; an instant without a zone is UTC."""
    return instant(text if text.endswith("Z") or "+" in text else f"{text}Z")


def _matches(row: dict[str, Any], filters: dict[str, str]) -> bool:
    values = {"EntityId": row["entity"]["id"], "EntityType": row["entityType"], "Action": row["action"]}
    return all(values.get(name) == value for name, value in filters.items())


def _execution(identity: str, found: _Transaction) -> dict[str, Any]:
    state = _STATES[min(found.questions, len(_STATES) - 1)]
    asked = {name: found.asked.body.get(name) for name in ("interval", "serviceName", "filters", "sort")}
    return {"id": identity, "state": state, "startDate": f"{rfc3339(found.started_us)[:23]}Z", **asked}


def _page(rows: list[dict[str, Any]], page: int, size: int, fault: FaultKind | None) -> dict[str, Any]:
    """Returns a page of the realtime query, falsified as the listing's pages are."""
    if fault is FaultKind.EMPTY:
        rows = []
    if fault is FaultKind.SHIFTED_PAGE and page > 1:
        rows = rows[1:]
    pages = -(-len(rows) // size)
    entities = [] if fault is FaultKind.MISSING_PAGE and page == pages else rows[(page - 1) * size : page * size]
    total = len(rows) + (fault is FaultKind.WRONG_TOTAL)
    return {"entities": entities, "pageSize": size, "pageNumber": page, "total": total, "pageCount": pages}


def _bad_request() -> Response:
    return error(400, "bad.request", "The request could not be understood by the server due to malformed syntax.")
