"""Requests to Genesys as it really answers: budget headers, 429, over-minting, correlation ids, audits."""

import asyncio
import gzip
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from schemas.genesys import Organisation
from services.adapters.genesys.answers import NoInformation, NotPermitted, ServerTrouble
from services.adapters.genesys.audit_queries import AUDIT_SHARE, MANY, REALTIME_US, SHORTEST_US, TooMany, read_audits
from services.adapters.genesys.client import GenesysClient, Hosts, connections
from services.adapters.genesys.regions import DOMAINS, hosts_of
from services.adapters.process.clock import now_us
from tests.support.genesys_server import FakeGenesys, serving

ORG = "11111111-1111-4111-8111-111111111111"
HOUR_US = 3_600_000_000
TOKEN, AUDITS = "/login/oauth/token", "/api/v2/audits/query"
CORRELATION = "6f3c2b1e-9f0a-4f7b-8a51-2d0a0d7f4c11"

OVER_MINTED = {
    "error": "invalid_request",
    "description": "rate limit exceeded; please retry later",
    "error_description": "rate limit exceeded; please retry later",
}
LIMITED = {
    "message": "Rate limit exceeded the maximum. Retry the request in [1] seconds",
    "code": "too.many.requests.retry.after",
    "status": 429,
    "contextId": CORRELATION,
    "details": [],
    "errors": [],
}
FORBIDDEN = {
    "message": "Unable to perform the requested action. You are missing the following permission(s): audits:audit:view",
    "code": "missing.permissions",
    "status": 403,
    "messageParams": {"permissions": "audits:audit:view"},
    "contextId": CORRELATION,
    "details": [],
    "errors": [],
}


def identity(number: int) -> str:
    return f"aaaaaaaa-0000-4000-8000-{number:012d}"


def audit(number: int, **changes: Any) -> dict[str, Any]:
    """An audit message as the API answers it."""
    return {
        "id": f"bbbbbbbb-0000-4000-8000-{number:012d}",
        "userHomeOrgId": ORG,
        "user": {"id": "c0a1a3a0-6e9c-4b51-8f5b-000000000001", "name": "Admin"},
        "client": {"id": "c0a1a3a0-6e9c-4b51-8f5b-000000000002", "selfUri": "/api/v2/oauth/clients/c0a1a3a0"},
        "remoteIp": ["203.0.113.7"],
        "serviceName": "Integrations",
        "eventDate": f"2026-11-29T12:00:{number % 60:02d}.123Z",
        "message": {"message": "integration was changed", "messageParams": {}},
        "action": "Update",
        "entity": {"id": identity(number), "name": f"Lifecycle {number}", "selfUri": ""},
        "entityType": "Integration",
        "propertyChanges": [{"property": "intendedState", "oldValues": ["DISABLED"], "newValues": ["ENABLED"]}],
        "context": {},
        **changes,
    }


class PlatformBudget:
    """A token's budget as the platform keeps it: so many requests a window, figures in every answer, then 429."""

    def __init__(self, allowed: int, window_s: int) -> None:
        self.allowed, self.window_s = allowed, window_s
        self.count = self.refused = self.audits = 0
        self.until_s = 0.0

    def spend(self, world: FakeGenesys, request: Request) -> Response | None:
        if request.url.path == TOKEN:
            return None
        now_s = time.monotonic()
        if now_s >= self.until_s:
            self.count, self.audits, self.until_s = 0, 0, now_s + self.window_s
        reset_s = int(self.until_s - now_s)
        if self.count >= self.allowed:
            self.refused += 1
            return JSONResponse(LIMITED, 429, headers={"retry-after": str(reset_s + 1)})
        self.count += 1
        self.audits += request.url.path.startswith(AUDITS)
        response = page_of([]) if request.url.path.startswith(AUDITS) else world.truth(request)
        figures = {"count": self.count, "allowed": self.allowed, "reset": reset_s}
        response.headers.update({f"inin-ratelimit-{name}": str(value) for name, value in figures.items()})
        return response


def page_of(entities: list[Any], number: int = 1, total: int | None = None) -> Response:
    count = len(entities) if total is None else total
    return JSONResponse({"entities": entities, "pageSize": 100, "pageNumber": number, "total": count, "pageCount": 1})


@pytest.fixture
async def genesys() -> AsyncIterator[FakeGenesys]:
    world = FakeGenesys(ORG)
    for number in range(3):
        world.add(identity(number))
    async with serving(world) as served:
        yield served


@asynccontextmanager
async def connecting(genesys: FakeGenesys, timeout_s: float) -> AsyncIterator[GenesysClient]:
    organisation = Organisation.model_validate({"org_id": ORG, "client_id": "client", "client_secret": "s"})
    async with connections(timeout_s) as http:
        yield GenesysClient(organisation, Hosts(f"{genesys.url}/login", genesys.url), http, now_us=now_us)


@pytest.fixture
async def client(genesys: FakeGenesys) -> AsyncIterator[GenesysClient]:
    async with connecting(genesys, timeout_s=1.0) as made:
        yield made


def first(times: int, path: str, answer: Callable[[], Response]) -> Callable[[Request], Response | None]:
    """Answer a path so at first, then truly."""
    left = [times]

    def lie(request: Request) -> Response | None:
        if request.url.path != path or not left[0]:
            return None
        left[0] -= 1
        return answer()

    return lie


async def read_hour(client: GenesysClient) -> list[str]:
    reading = await read_audits(client.session, now_us() - HOUR_US, now_us(), now_us)
    return [f"{audit.action} {audit.entity_id}" for audit in reading.audits]


async def test_a_hundred_parallel_calls_stay_within_the_budget_of_one_token(
    genesys: FakeGenesys, client: GenesysClient
) -> None:
    counted = PlatformBudget(allowed=60, window_s=2)
    genesys.lie = lambda request: counted.spend(genesys, request)
    await asyncio.gather(*(client.integration(identity(number % 3)) for number in range(100)))
    assert (counted.refused, genesys.minted) == (0, 1)


async def test_audits_leave_the_listing_its_part_of_the_budget(genesys: FakeGenesys, client: GenesysClient) -> None:
    counted = PlatformBudget(allowed=50, window_s=3)
    genesys.lie = lambda request: counted.spend(genesys, request)
    polls = [asyncio.create_task(read_hour(client)) for _ in range(30)]
    await asyncio.gather(*(client.integration(identity(0)) for _ in range(30)))
    assert 0 < counted.audits <= 50 * AUDIT_SHARE
    await asyncio.gather(*polls)
    assert counted.refused == 0


async def test_a_refused_request_holds_back_its_neighbours_as_long_as_retry_after_says(
    genesys: FakeGenesys, client: GenesysClient
) -> None:
    await client.integration(identity(0))
    limited = JSONResponse(LIMITED, 429, headers={"retry-after": "1"})
    genesys.lie = first(1, f"/api/v2/integrations/{identity(0)}", lambda: limited)
    began = time.monotonic()
    refused = asyncio.create_task(client.integration(identity(0)))
    await asyncio.sleep(0.2)
    assert await client.integration(identity(1)) is not None
    assert time.monotonic() - began >= 1.0
    assert await refused is not None


async def test_a_budget_spent_for_long_is_no_information_at_once(genesys: FakeGenesys, client: GenesysClient) -> None:
    limited = JSONResponse(LIMITED, 429, headers={"retry-after": "3600"})
    genesys.lie = first(1, f"/api/v2/integrations/{identity(0)}", lambda: limited)
    with pytest.raises(ServerTrouble, match=f"HTTP 429 too.many.requests.retry.after .correlation {CORRELATION}"):
        await client.integration(identity(0))
    with pytest.raises(ServerTrouble, match="HTTP 429 before: no request for another 3"):
        await client.integration(identity(1))


async def test_over_minting_is_waited_for(genesys: FakeGenesys, client: GenesysClient) -> None:
    genesys.lie = first(2, TOKEN, lambda: JSONResponse(OVER_MINTED, 400, headers={"retry-after": "1"}))
    assert await client.integration(identity(0)) is not None
    assert genesys.calls.count(TOKEN) == 3


async def test_a_token_refused_for_good_is_asked_for_once_by_a_hundred_callers(
    genesys: FakeGenesys, client: GenesysClient
) -> None:
    body = {
        "error": "invalid_client",
        "description": "client not found: client",
        "error_description": "client not found",
    }
    genesys.lie = first(999, TOKEN, lambda: JSONResponse(body, 401, headers={"inin-correlation-id": CORRELATION}))
    asked = [client.integration(identity(0)) for _ in range(100)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert {str(result) for result in results} == {f"token: HTTP 401 (correlation {CORRELATION})"}
    assert {result.correlation_id for result in results if isinstance(result, NoInformation)} == {CORRELATION}
    assert genesys.calls.count(TOKEN) == 1


async def test_a_token_is_renewed_before_its_end_and_serves_on_while_the_renewal_fails(
    genesys: FakeGenesys, client: GenesysClient
) -> None:
    def short(request: Request) -> Response | None:
        if request.url.path != TOKEN:
            return None
        if genesys.minted:
            return JSONResponse({"error": "server_error"}, 500)
        genesys.minted += 1
        return JSONResponse({"access_token": "token-1", "token_type": "bearer", "expires_in": 2})

    genesys.lie = short
    await client.integration(identity(0))
    await asyncio.sleep(1.2)  # half of the short life is over, and the token still valid
    assert await client.integration(identity(0)) is not None
    assert await client.integration(identity(1)) is not None
    assert genesys.calls.count(TOKEN) == 2
    genesys.lie = lambda _: None
    await asyncio.sleep(0.8)
    assert await client.integration(identity(0)) is not None
    assert genesys.minted == 2, "the token ended, so a new one was needed"


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
async def test_a_temporary_refusal_is_repeated(genesys: FakeGenesys, client: GenesysClient, status: int) -> None:
    path = f"/api/v2/integrations/{identity(0)}"
    genesys.lie = first(2, path, lambda: JSONResponse({"status": status, "code": "x"}, status))
    assert await client.integration(identity(0)) is not None
    assert genesys.calls.count(path) == 3


@pytest.mark.parametrize("status", [400, 403, 405, 409, 415, 500, 501])
async def test_a_final_refusal_is_not_repeated(genesys: FakeGenesys, client: GenesysClient, status: int) -> None:
    path = f"/api/v2/integrations/{identity(0)}"
    genesys.lie = first(9, path, lambda: JSONResponse({**FORBIDDEN, "status": status}, status))
    with pytest.raises(NoInformation, match=f"HTTP {status} missing.permissions .correlation {CORRELATION}") as raised:
        await client.integration(identity(0))
    assert raised.value.correlation_id == CORRELATION
    assert isinstance(raised.value, NotPermitted) is (status == 403)
    assert genesys.calls.count(path) == 1


async def test_a_401_renews_the_token_once_also_after_an_outage(genesys: FakeGenesys, client: GenesysClient) -> None:
    await client.integration(identity(0))
    path = f"/api/v2/integrations/{identity(0)}"
    genesys.lie = first(1, path, lambda: JSONResponse({"code": "service.unavailable", "status": 503}, 503))
    genesys.minted = 7  # the server knows only the newest token
    assert await client.integration(identity(0)) is not None
    assert genesys.minted == 8


async def test_a_request_without_an_answer_is_repeated(genesys: FakeGenesys, client: GenesysClient) -> None:
    path = f"/api/v2/integrations/{identity(0)}"
    genesys.silent = lambda request: request.url.path == path and genesys.calls.count(path) == 1
    assert await client.integration(identity(0)) is not None
    assert genesys.calls.count(path) == 2
    genesys.silent = lambda request: request.url.path == path
    with pytest.raises(ServerTrouble, match="no answer: ReadTimeout"):
        await client.integration(identity(0))


@pytest.mark.parametrize("path", [TOKEN, "/api/v2/integrations"])
async def test_an_answer_of_a_byte_at_a_time_is_cut_off(genesys: FakeGenesys, path: str) -> None:
    async def drop_by_drop() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.1)

    genesys.lie = lambda request: StreamingResponse(drop_by_drop()) if request.url.path == path else None
    async with connecting(genesys, timeout_s=0.5) as client, asyncio.timeout(30):
        with pytest.raises(ServerTrouble, match="no answer: TimeoutError"):
            await client.listing()


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("path", [TOKEN, "/api/v2/organizations/me"])
async def test_an_answer_without_end_does_not_fill_the_memory(
    genesys: FakeGenesys, client: GenesysClient, path: str, coding: str
) -> None:
    sent = 0

    async def without_end() -> AsyncIterator[bytes]:
        nonlocal sent
        packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
        blank = b" " * (1 << 20)
        while sent < 200:
            sent += 1
            yield blank if coding == "identity" else packer.compress(blank) + packer.flush(zlib.Z_SYNC_FLUSH)
            await asyncio.sleep(0)

    def lie(request: Request) -> Response | None:
        return (
            StreamingResponse(without_end(), headers={"content-encoding": coding}) if request.url.path == path else None
        )

    genesys.lie = lie
    with pytest.raises(ServerTrouble, match="no answer: the answer is too long"):
        await client.listing()
    assert sent < 200


async def test_a_compressed_answer_is_read(genesys: FakeGenesys, client: GenesysClient) -> None:
    def packed(request: Request) -> Response:
        answer = genesys.truth(request)
        return Response(gzip.compress(bytes(answer.body)), answer.status_code, {"content-encoding": "gzip"})

    genesys.lie = packed
    assert len((await client.listing()).integrations) == 3


async def test_a_cookie_of_one_organisation_is_not_sent_by_another(genesys: FakeGenesys, client: GenesysClient) -> None:
    sent: list[str | None] = []

    def with_cookie(request: Request) -> Response:
        sent.append(request.headers.get("cookie"))
        answer = genesys.truth(request)
        answer.set_cookie("session", "of the first")
        return answer

    genesys.lie = with_cookie
    await client.listing()
    assert sent == [None] * len(sent)
    assert len(sent) > 2


async def test_a_listing_that_changes_between_two_pages_is_no_information(
    genesys: FakeGenesys, client: GenesysClient
) -> None:
    genesys.page_size = 2
    for number in range(3, 5):
        genesys.add(identity(number))

    def removed(request: Request) -> Response | None:
        if request.query_params.get("pageNumber") == "2":
            genesys.integrations.pop(identity(0), None)
        return None

    genesys.lie = removed
    # Found are 0, 1, 3 and 4, as many as the last page says: only the first page's total tells that 2 is missing.
    with pytest.raises(NoInformation, match="it changed while it was read, 5 to 4"):
        await client.listing()


async def test_audits_of_the_realtime_query_are_read_page_by_page(genesys: FakeGenesys, client: GenesysClient) -> None:
    messages = [audit(number) for number in range(150)]

    def pages(request: Request) -> Response | None:
        if request.url.path != f"{AUDITS}/realtime":
            return None
        number = genesys.calls.count(request.url.path)
        return page_of(messages[(number - 1) * 100 : number * 100], number, 150)

    genesys.lie = pages
    reading = await read_audits(client.session, now_us() - HOUR_US, now_us(), now_us)
    assert [found.entity_id for found in reading.audits] == [identity(number) for number in range(150)]
    assert abs(reading.read_at_us - now_us()) < 5_000_000
    assert genesys.calls.count(f"{AUDITS}/realtime") == 2


ODD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an unknown action": (audit(1, action="Hibernate"), [f"Hibernate {identity(1)}"]),
    "an unknown entity type": (audit(1, entityType="Widget"), [f"Update {identity(1)}"]),
    "no time": (audit(1, eventDate=None), [f"Update {identity(1)}"]),
    "a time without a zone": (audit(1, eventDate="2026-11-29T12:00:00"), [f"Update {identity(1)}"]),
    "an action that is a number": (audit(1, action=7), [f" {identity(1)}"]),
    "an entity that is no UUID": (audit(1, entity={"id": "custom-smtp-server"}), []),
    "no entity": (audit(1, entity=None), []),
    "an id that is a number": (audit(1, id=7), []),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
async def test_an_odd_audit_costs_no_other_audit(
    genesys: FakeGenesys, client: GenesysClient, odd: tuple[dict[str, Any], list[str]]
) -> None:
    genesys.lie = first(1, f"{AUDITS}/realtime", lambda: page_of([odd[0], audit(2)]))
    assert await read_hour(client) == [*odd[1], f"Update {identity(2)}"]


INCOMPLETE: dict[str, Response] = {
    "fewer than the total": page_of([audit(1)], total=2),
    "an audit twice": page_of([audit(1), audit(1)], total=2),
    "another page": page_of([audit(1)], number=2),
    "no total": JSONResponse({"entities": [audit(1)], "pageNumber": 1}),
    "entities that are no list": JSONResponse({"entities": {}, "pageNumber": 1, "total": 1}),
    "an empty body": Response(b""),
}


@pytest.mark.parametrize("answer", INCOMPLETE.values(), ids=INCOMPLETE.keys())
async def test_incomplete_audits_are_no_information(
    genesys: FakeGenesys, client: GenesysClient, answer: Response
) -> None:
    genesys.lie = first(9, f"{AUDITS}/realtime", lambda: answer)
    with pytest.raises(NoInformation):
        await read_hour(client)


async def test_no_audits_are_an_answer(genesys: FakeGenesys, client: GenesysClient) -> None:
    genesys.lie = first(1, f"{AUDITS}/realtime", lambda: JSONResponse({"pageNumber": 1, "pageSize": 100, "total": 0}))
    assert await read_hour(client) == []


async def test_audits_older_than_fourteen_days_come_from_a_transaction(
    genesys: FakeGenesys, client: GenesysClient
) -> None:
    states = iter(("Queued", "Paused", "Running", "Succeeded"))
    execution = {"id": "b3d1", "startDate": "2026-11-29T12:00:00.000Z", "serviceName": "Integrations", "filters": []}
    results = iter(
        (
            {"id": "b3d1", "pageSize": 100, "cursor": "next", "entities": [audit(1)]},
            {"id": "b3d1", "pageSize": 100, "entities": [audit(2)]},
        )
    )

    def asked(request: Request) -> Response | None:
        path = request.url.path
        if path == f"{AUDITS}/b3d1/results":
            return JSONResponse(next(results))
        return JSONResponse({**execution, "state": next(states)}) if path.startswith(AUDITS) else None

    genesys.lie = asked
    begin_us = now_us() - REALTIME_US - HOUR_US
    reading = await read_audits(client.session, begin_us, begin_us + HOUR_US, now_us)
    assert [found.entity_id for found in reading.audits] == [identity(1), identity(2)]


@pytest.mark.parametrize("size", [0, 1])
async def test_results_whose_cursors_do_not_end_are_no_information(
    genesys: FakeGenesys, client: GenesysClient, size: int
) -> None:
    asked = 0
    wide = {"inin-ratelimit-count": "1", "inin-ratelimit-allowed": "100000", "inin-ratelimit-reset": "60"}

    def lie(request: Request) -> Response | None:
        nonlocal asked
        if request.url.path == AUDITS:
            return JSONResponse({"id": "b3d1", "state": "Succeeded"}, headers=wide)
        if not request.url.path.startswith(AUDITS):
            return None
        asked += 1
        return JSONResponse({"entities": [audit(asked)] * size, "cursor": f"cursor-{asked}"}, headers=wide)

    genesys.lie = lie
    begin_us = now_us() - REALTIME_US - HOUR_US
    async with asyncio.timeout(60):
        with pytest.raises(NoInformation, match="the results do not end"):
            await read_audits(client.session, begin_us, begin_us + HOUR_US, now_us)
    assert asked < 1_000


async def test_a_long_span_with_many_results_is_to_be_read_in_parts(
    genesys: FakeGenesys, client: GenesysClient
) -> None:
    def crowded(request: Request) -> Response | None:
        if request.url.path == AUDITS:
            return JSONResponse({"id": "b3d1", "state": "Succeeded"})
        entities: list[dict[str, Any]] = [{}] * (MANY + 1)
        return JSONResponse({"entities": entities}) if request.url.path.startswith(AUDITS) else None

    genesys.lie = crowded
    begin_us = now_us() - 40 * 24 * HOUR_US
    with pytest.raises(TooMany):
        await read_audits(client.session, begin_us, begin_us + SHORTEST_US + 1, now_us)
    short = await read_audits(client.session, begin_us, begin_us + SHORTEST_US, now_us)
    assert short.odd == MANY + 1


@pytest.mark.parametrize("state", ["Failed", "Cancelled"])
async def test_a_failed_transaction_is_no_information(genesys: FakeGenesys, client: GenesysClient, state: str) -> None:
    genesys.lie = first(1, AUDITS, lambda: JSONResponse({"id": "b3d1", "state": state}))
    begin_us = now_us() - REALTIME_US - HOUR_US
    with pytest.raises(NoInformation, match=f"ended without results: {state.lower()}"):
        await read_audits(client.session, begin_us, begin_us + HOUR_US, now_us)


async def test_a_missing_permission_is_named_with_the_correlation_id(
    genesys: FakeGenesys, client: GenesysClient
) -> None:
    genesys.lie = first(1, f"{AUDITS}/realtime", lambda: JSONResponse(FORBIDDEN, 403))
    with pytest.raises(NotPermitted, match=f"audits: HTTP 403 missing.permissions .correlation {CORRELATION}"):
        await read_hour(client)
    assert await client.listing() is not None


def test_every_region_has_a_login_and_an_api_host() -> None:
    assert len(DOMAINS) == 17
    for region, domain in DOMAINS.items():
        assert hosts_of(region) == hosts_of(domain) == (f"https://login.{domain}", f"https://api.{domain}")
