"""Answers seen from systems in the field, each sent by a real server to the real kinds: the tenant's outcome.

The saga is driven through caller and kind; waits are jumped.
"""

import gzip
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest
from pydantic import SecretStr

from schemas.saga import Phase, StepState
from services.adapters.http_client import HttpClient, resolve
from services.adapters.process import logs
from services.adapters.secrets.sealing import Sealer
from services.core.saga.calls import Answer
from services.provisioner.caller import Caller
from services.provisioner.kinds import TRAITS
from services.provisioner.kinds.http import HttpKind
from services.provisioner.kinds.outbound import Outbound
from tests.support.http_thread import Written
from tests.support.saga_driver import Saga, plans
from tests.support.scripted_system import HTML, JSON, PAGE, TEXT, Says, System, answering, shows

KEY: Final = "11111111-1111-4111-8111-111111111111:22222222-2222-4222-8222-222222222222"
LONG_US: Final = 1_000 * 10**6
"""A little longer than it takes to become unwell."""


@pytest.fixture
def system() -> Iterator[System]:
    with answering() as running:
        yield running


async def _saga(system: System, origin: str) -> AsyncIterator[Saga]:
    plan = f'[[step]]\nname = "crm"\nkind = "http"\nundo = "reverse"\nurl_from = "{origin}"\n'
    url = system.url if origin == "operator" else "{configuration.crmEndpoint}"
    async with HttpClient(connections=4) as client:
        kind = HttpKind(
            Outbound(client, resolve, allow=("*.salesforce.com",), egress_map={"*.salesforce.com": system.url})
        )
        log = logs.configure("test", "critical")
        caller = Caller({"http": kind}, TRAITS, Sealer([SecretStr("x" * 40)]), b"k" * 32, log)
        yield Saga(KEY, caller, plans(f'{plan}url = "{url}"\n'), until_us=LONG_US)


@pytest.fixture(params=["event", "operator"])
async def anyones(system: System, request: pytest.FixtureRequest) -> AsyncIterator[Saga]:
    """A saga whose step is at either."""
    async for saga in _saga(system, request.param):
        yield saga


@pytest.fixture
async def customers(system: System) -> AsyncIterator[Saga]:
    """A saga whose step is at a system that the customer named."""
    async for saga in _saga(system, "event"):
        yield saga


@pytest.fixture
async def operators(system: System) -> AsyncIterator[Saga]:
    """A saga whose step is at the operator's own system."""
    async for saga in _saga(system, "operator"):
        yield saga


async def _install(saga: Saga, *, enabled: bool = True) -> None:
    await saga.installed("https://acme.salesforce.com", enabled=enabled)


async def _goes_on(saga: Saga, system: System) -> None:
    """The system is well again: the saga ends by itself as it is desired."""
    system.says.clear()
    system.deaf.clear()
    saga.until_us = saga.now_us + LONG_US
    await saga.go_on()


OUTAGES: Final[dict[str, Says]] = {
    "404 of an ingress without pods": lambda _: (404, TEXT, b"default backend - 404"),
    "404 of a router": lambda _: (404, HTML, PAGE),
    "405": lambda _: (405, HTML, PAGE),
    "502 with HTML": lambda _: (502, HTML, PAGE),
    "503": lambda _: (503, {}, b""),
    "504 with HTML": lambda _: (504, HTML, PAGE),
    "200 with a sign-in page": lambda _: (200, HTML, PAGE),
    "408": lambda _: (408, {}, b""),
    "423": lambda _: shows({"error": "locked"}, 423),
    "425": lambda _: (425, {}, b""),
    "429": lambda _: (429, {"Retry-After": "7"}, b""),
    "429 until yesterday": lambda _: (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, b""),
    "409 while an equal request is under way": lambda _: shows({"error": "request_in_progress"}, 409),
    "403 for a quota": lambda _: shows([{"errorCode": "REQUEST_LIMIT_EXCEEDED"}], 403),
}


@pytest.mark.parametrize("outage", OUTAGES, ids=str)
async def test_an_outage_rolls_no_tenant_back_and_is_shown(anyones: Saga, outage: str, system: System) -> None:
    saga = anyones
    for methods, wanted in (("PUT", {"enabled": True}), ("PUT", {"enabled": False}), ("DELETE GET", None)):
        system.says = dict.fromkeys(methods.split(), OUTAGES[outage])
        system.deaf = set(methods.split())
        before = list(system.enabled)
        await (_install(saga, **wanted) if wanted else saga.uninstalled())
        assert system.enabled == before
        assert saga.said[1:] == ("failed" if wanted is None else "working", "waiting_for:crm")
        await _goes_on(saga, system)
        assert saga.said[1:] == ("done", None)
        assert system.enabled == ([wanted["enabled"]] if wanted else [])
    assert {outcome.state.value for outcome in saga.outcomes} == {"working", "failed", "done"}


@pytest.mark.parametrize("status", [400, 401, 403, 422])
async def test_a_refusal_by_the_customers_system_is_compensated_at_once(
    customers: Saga, system: System, status: int
) -> None:
    system.says["PUT"] = lambda _: shows({"error": "no"}, status)
    system.deaf.add("PUT")
    await _install(customers)
    assert customers.said == ("up", "rolled_back", "crm_refused")
    assert customers.outcomes[-1].at < 10 * 10**6


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_of_the_operators_credentials_rolls_no_tenant_back(
    operators: Saga, system: System, status: int
) -> None:
    for methods, wanted in (("PUT", True), ("PUT", False), ("GET DELETE", None)):
        system.says = dict.fromkeys(methods.split(), lambda _: shows({"error": "unauthorized"}, status))
        system.deaf = set(methods.split())
        calls = len(system.calls)
        await (operators.uninstalled() if wanted is None else _install(operators, enabled=wanted))
        assert operators.said[1:] == ("failed" if wanted is None else "working", "waiting_for:crm")
        assert len(system.calls) - calls <= 2 * 18, "about once a minute"
        await _goes_on(operators, system)
        assert operators.said[1:] == ("done", None)
    assert system.there == {}


PROOFS: Final[dict[str, Says]] = {
    "204": lambda _: (204, {}, b""),
    "201 with a location alone": lambda _: (201, {"Location": "/x"}, b""),
    "200 without a body": lambda _: (200, {}, b""),
    "202": lambda _: shows({"job": 7}, 202),
    "an id alone": lambda _: shows({"id": "7"}),
}


@pytest.mark.parametrize("proof", PROOFS, ids=str)
async def test_a_success_without_the_resource_is_read_back_and_done(
    customers: Saga, system: System, proof: str
) -> None:
    system.says["PUT"] = PROOFS[proof]
    for enabled in (True, False, True):
        await _install(customers, enabled=enabled)
        assert customers.said == ("up", "done", None)
        assert system.enabled == [enabled]
    assert system.calls == ["PUT", "GET"] * 3


async def test_a_number_answered_as_text_equals_the_number(customers: Saga, system: System) -> None:
    def texts(row: dict[str, Any] | None) -> Written:
        return shows(row | {"generation": "1"}) if row else shows({"error": "not_found"}, 404)

    system.says = {"PUT": texts, "GET": texts}
    await _install(customers)
    await _install(customers, enabled=False)
    assert system.enabled == [False]
    await customers.uninstalled()
    assert customers.said == ("down", "done", None)
    assert system.there == {}, "the tenant is gone outside as well"


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP"])
async def test_an_unrequested_compressed_answer_is_read(customers: Saga, system: System, coding: str) -> None:
    def zipped(row: dict[str, Any] | None) -> Written:
        return 200, JSON | {"Content-Encoding": coding}, gzip.compress(json.dumps(row).encode())

    system.says["PUT"] = zipped
    await _install(customers)
    assert customers.said == ("up", "done", None)
    assert system.calls == ["PUT"]


async def test_a_compressed_answer_is_capped_by_its_decompressed_size(customers: Saga, system: System) -> None:
    bomb = gzip.compress(b'{"x": "' + b"0" * (64 << 20))
    system.says = dict.fromkeys(("PUT", "GET"), lambda _: (200, JSON | {"Content-Encoding": "gzip"}, bomb))
    await _install(customers)
    assert customers.said[1:] == ("working", "waiting_for:crm")
    await _goes_on(customers, system)
    assert customers.said[1:] == ("done", None)


async def test_a_change_accepted_but_not_made_is_contradicted_and_names_the_field(
    customers: Saga, system: System
) -> None:
    await _install(customers)
    system.says["PUT"], system.deaf = lambda _: (204, {}, b""), {"PUT"}
    await _install(customers, enabled=False)
    assert customers.journal.phase is Phase.UPDATING
    assert customers.said[1:] == ("working", "crm_contradicted")
    assert customers.journal.life is not None
    assert customers.journal.life.steps["crm"].reason == "enabled is not as it was asked"
    await _goes_on(customers, system)
    assert customers.said[1:] == ("done", None)
    assert system.enabled == [False]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"key": KEY, "generation": 2}, "generation is not ours"),
        ({"key": "another", "generation": 1}, "key is not ours"),
        ({"key": KEY}, "generation is not shown"),
        ({}, "key is not shown"),
        ([], "the answer shows no resource"),
    ],
    ids=str,
)
async def test_a_read_of_another_page_or_resource_is_never_absence(
    customers: Saga, system: System, body: Any, reason: str
) -> None:
    await _install(customers)
    # The answer to the removal is lost, so the resource is looked up.
    system.says = {"DELETE": lambda _: (200, HTML, PAGE), "GET": lambda _: shows(body)}
    system.deaf.add("DELETE")
    lost = []

    def once(answer: Answer) -> bool:
        lost.append(answer)
        return len(lost) == 1

    await customers.uninstalled(once)
    log = customers.journal.life.steps["crm"] if customers.journal.life else None
    assert log is not None
    life = customers.journal.life.model_copy(  # type: ignore[union-attr]
        update={"steps": {"crm": log.model_copy(update={"state": StepState.PENDING_PRESENT})}}
    )
    customers.journal = customers.journal.model_copy(update={"life": life})
    customers.until_us = customers.now_us + LONG_US
    await customers.go_on()
    assert customers.said[1:] == ("failed", "crm_contradicted")
    assert customers.journal.life is not None
    assert customers.journal.life.steps["crm"].reason == reason
    assert system.enabled == [True]
    await _goes_on(customers, system)
    assert customers.said[1:] == ("done", None)
    assert system.there == {}
