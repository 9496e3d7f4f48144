"""Odd fields in answers of Genesys: the odd key is named, and the other keys are compared all the same.

A real HTTP server answers as the API does, but for one field. The view agrees with what it would say, so a line of the
plan is either a key that could not be read, or a mistake.
"""

import json
import re
import time
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from schemas.genesys import Reading
from services.adapters.genesys.answers import NoInformation, Unanswered
from services.adapters.process.clock import now_us
from services.adapters.process.environment import read
from services.adapters.process.settings import ReconcilerSettings
from services.core.reconcile.reconcile import Action, Memory, ReconcilePlan, Sight, compare
from services.reconciler.reading import TROUBLES_MAX, Readers
from tests.support.genesys_oddities import (
    CASES,
    CONFIG,
    EVERYBODY,
    LISTING,
    ODD,
    UNLISTED,
    OddField,
    field,
    of_entities,
)
from tests.support.genesys_server import Answer, FakeGenesys, serving
from tests.support.genesys_worlds import CONFIGURATION, ORG, integration_id, key_of, organisation, rules, tenant, view

pytestmark = pytest.mark.asyncio(loop_scope="module")

_clients = count()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server() -> AsyncIterator[FakeGenesys]:
    world = FakeGenesys(ORG)
    for number in EVERYBODY:
        world.add(integration_id(number), **CONFIGURATION)
    world.unlisted = {integration_id(number) for number in UNLISTED}
    async with serving(world) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def readers(server: FakeGenesys) -> AsyncIterator[Readers]:
    environ = {"GENESYS_LOGIN_URL": f"{server.url}/login", "GENESYS_API_URL": server.url}
    made = Readers(read(environ, ReconcilerSettings), now_us)
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def _truthful_again(server: FakeGenesys) -> None:
    server.lie = lambda _: None
    server.date = None
    server.calls.clear()


async def ran(readers: Readers) -> ReconcilePlan | str:
    """Reads the organisation with a client of its own, and so with a token of its own, and compares."""
    ours = organisation(client_id=f"client-{next(_clients)}", integration_type="ours")
    tenants = view(*map(tenant, EVERYBODY))
    reading = await readers.read(ours, tenants, None)
    if isinstance(reading, NoInformation):
        return reading.reason
    memory: Memory = {key: Sight(ours.client_id) for key in tenants}
    plan = compare([(reading, ours)], tenants, memory, rules(now_us()))
    assert all(line.observed is None for line in plan.lines), plan.lines
    return plan


def altered(server: FakeGenesys, path: str, alter: Callable[[Any], Any]) -> Answer:
    def lie(request: Request) -> Response | None:
        if not re.fullmatch(path, request.url.path):
            return None
        body = alter(json.loads(bytes(server.truth(request).body)))
        # Not JSONResponse: a platform in another language writes NaN, Infinity and half a pair of surrogates.
        return Response(json.dumps(body), media_type="application/json")

    return lie


def unread(plan: ReconcilePlan | str) -> set[str]:
    assert isinstance(plan, ReconcilePlan), plan
    assert {line.action for line in plan.lines} <= {Action.UNREAD}
    return {line.key for line in plan.lines}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_an_odd_field_loses_only_the_key_it_belongs_to(
    server: FakeGenesys, readers: Readers, case: OddField
) -> None:
    server.lie = altered(server, case.path, case.alter)
    plan = await ran(readers)
    if case.whole:
        assert isinstance(plan, str)
        assert case.whole in plan
    else:
        # An entity without an id is found again by id: the key loses nothing.
        assert unread(plan) == {key_of(number) for number in case.unread}


async def test_an_entity_without_an_id_is_reported(server: FakeGenesys, readers: Readers) -> None:
    server.lie = altered(server, LISTING, of_entities(field("id", None)))
    reading = await readers.read(organisation(client_id="odd"), {}, None)
    assert isinstance(reading, Reading)
    assert reading.odd == ("integration.id: must be a UUID",) * 3
    assert len(reading.integrations) == 2


async def test_a_new_integration_without_a_type_is_unread_if_a_type_is_required(
    server: FakeGenesys, readers: Readers
) -> None:
    server.lie = altered(server, LISTING, of_entities(field("integrationType", None), (0,)))
    for only, found in (("ours", {Action.UNREAD}), (None, {Action.INSTALL})):
        ours = organisation(client_id="typeless", integration_type=only)
        reading = await readers.read(ours, {}, {key_of(0)})
        assert isinstance(reading, Reading)
        plan = compare([(reading, ours)], {}, {}, rules(now_us()), {key_of(0)})
        assert {line.action for line in plan.lines} == found


_OF_ONE_KEY = {400: "", 403: "", 404: "", 409: "", 410: "", 422: "", 204: ""}
_OF_THE_SERVER: dict[str, tuple[Response, str]] = {
    "a refused token": (JSONResponse({}, 401), "HTTP 401"),
    "an error": (JSONResponse({}, 500), "HTTP 500"),
    "a long pause": (JSONResponse({}, 429, headers={"retry-after": "3600"}), "HTTP 429"),
    "a long pause until a date": (
        JSONResponse({}, 503, headers={"retry-after": "Fri, 31 Dec 2999 23:59:59 GMT"}),
        "HTTP 503",
    ),
    "a way elsewhere": (Response(status_code=302, headers={"location": "/sign-in"}), "HTTP 302"),
    "a way nowhere": (Response(status_code=302, headers={"location": "http://["}), "HTTP 302"),
    "a page": (PlainTextResponse("<html>maintenance</html>"), "not JSON"),
    "nothing at all": (Response(b""), "not JSON"),
    "a broken coding": (Response(b"this is no gzip", headers={"content-encoding": "gzip"}), "no answer"),
}


@pytest.mark.parametrize("status", _OF_ONE_KEY)
async def test_an_error_status_for_one_request_leaves_the_other_keys_read(
    server: FakeGenesys, readers: Readers, status: int
) -> None:
    server.lie = lambda request: Response(status_code=status) if re.fullmatch(CONFIG, request.url.path) else None
    assert unread(await ran(readers)) == {key_of(number) for number in ODD}


@pytest.mark.parametrize("trouble", _OF_THE_SERVER.values(), ids=_OF_THE_SERVER.keys())
async def test_a_server_fault_stops_the_reading_and_every_unread_key_is_named(
    server: FakeGenesys, readers: Readers, trouble: tuple[Response, str]
) -> None:
    answer, reason = trouble
    server.lie = lambda request: answer if request.url.path.endswith("/config/current") else None
    plan = await ran(readers)
    assert unread(plan) == {key_of(number) for number in EVERYBODY}
    assert isinstance(plan, ReconcilePlan)
    assert all(reason in line.reason for line in plan.lines)
    assert sum("not asked" in line.reason for line in plan.lines) == len(EVERYBODY) - TROUBLES_MAX


@pytest.mark.parametrize(
    ("answer", "absent"),
    [
        (JSONResponse({"code": "not.found", "status": 404}, 404), True),
        (JSONResponse({"message": "gone", "status": "404"}, 404), True),
        (PlainTextResponse("default backend - 404", 404), False),
        (JSONResponse({"code": "route.unknown"}, 404), False),
        (JSONResponse(None, 404), False),
        (Response(status_code=410), False),
    ],
    ids=["its own", "status as text", "a proxy's text", "a gateway's JSON", "null", "410"],
)
async def test_only_a_404_in_the_form_of_genesys_is_absence(
    server: FakeGenesys, readers: Readers, answer: Response, *, absent: bool
) -> None:
    server.lie = lambda request: answer if request.url.path == f"{LISTING}/{integration_id(5)}" else None
    plan = await ran(readers)
    assert isinstance(plan, ReconcilePlan)
    (line,) = plan.lines
    assert line.key == key_of(5)
    assert line.action is (Action.WAIT if absent else Action.UNREAD)


def _at(zone: str, shift_s: int = 0) -> Callable[[], str]:
    return lambda: formatdate(now_us() / 1_000_000 + shift_s).replace("-0000", zone)


_DATES: dict[str, tuple[Callable[[], str | None], str]] = {
    "missing": (lambda: None, "no Date"),
    "empty": (lambda: "", "no Date"),
    "words": (lambda: "yesterday", "no Date"),
    "ISO 8601": (lambda: "2026-11-29T08:00:00Z", "no Date"),
    "beyond time": (lambda: "Fri, 31 Dec 9999 23:59:59 -2359", "Date"),
    "no such day": (lambda: "Fri, 31 Feb 2026 23:59:59 GMT", "no Date"),
    "tomorrow": (_at("GMT", 86_400), "90 s"),
    "yesterday": (_at("GMT", -86_400), "90 s"),
    "an hour's zone": (_at("+0100", 3_600), ""),
    "GMT": (_at("GMT"), ""),
    "minus zero": (_at("-0000"), ""),
}


@pytest.mark.parametrize("date", _DATES.values(), ids=_DATES.keys())
async def test_an_unusable_date_header_is_no_information(
    server: FakeGenesys, readers: Readers, date: tuple[Callable[[], str | None], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # "-0000" is UTC whatever the machine's own zone is.
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        server.date, reason = date
        plan = await ran(readers)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (reason in plan) if isinstance(plan, str) else (reason == "" and plan.lines == ())


@pytest.mark.parametrize(
    ("path", "status", "sort"),
    [
        ("/login/oauth/token", 400, Unanswered.REFUSED),
        ("/login/oauth/token", 401, Unanswered.REFUSED),
        ("/login/oauth/token", 429, Unanswered.RATE_LIMITED),
        (LISTING, 401, Unanswered.REFUSED),
        (LISTING, 403, Unanswered.REFUSED),
        (LISTING, 429, Unanswered.RATE_LIMITED),
        (LISTING, 500, Unanswered.NO_ANSWER),
        (LISTING, 302, Unanswered.NO_ANSWER),
        (LISTING, 410, Unanswered.INCOMPLETE),
    ],
)
async def test_an_organisation_without_an_answer_is_counted_by_the_sort_of_its_reason(
    server: FakeGenesys, readers: Readers, path: str, status: int, sort: Unanswered
) -> None:
    refusal = JSONResponse({}, status, headers={"retry-after": "3600"})
    server.lie = lambda request: refusal if re.fullmatch(path, request.url.path) else None
    found = await readers.read(organisation(client_id=f"client-{next(_clients)}"), {}, None)
    assert isinstance(found, NoInformation)
    assert found.sort is sort


async def test_a_client_that_asked_for_too_many_tokens_is_rate_limited_and_not_refused(
    server: FakeGenesys, readers: Readers
) -> None:
    refusal = JSONResponse({"description": "rate limit exceeded"}, 400, headers={"retry-after": "3600"})
    server.lie = lambda request: refusal if request.url.path == "/login/oauth/token" else None
    found = await readers.read(organisation(client_id=f"client-{next(_clients)}"), {}, None)
    assert isinstance(found, NoInformation)
    assert found.sort is Unanswered.RATE_LIMITED
