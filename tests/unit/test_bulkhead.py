"""A hanging system takes few places, an unreachable one is left alone, and no tenant waits for another's system."""

import asyncio

import pytest

from services.adapters.process import logs, metrics
from services.core.saga.calls import Answer, Call, Contradicted, Done, Refused, RefusedUs, Retryable, Unknown, Verb
from services.core.saga.system_breaker import AWAY_S, FAILURES, PROBE_S
from services.provisioner import bulkhead as module
from services.provisioner.bulkhead import Admission, SystemGates, system_of
from services.provisioner.kinds import TRAITS

AWAY = Retryable("HTTP 503")
DENIED = RefusedUs("HTTP 401", "give it credentials")
LOG = logs.configure("gates", "error")


class Clock:
    """Seconds, by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gates(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> SystemGates:
    monkeypatch.setattr(module, "_QUEUE_S", 0.05)
    return SystemGates(2, clock, LOG)


async def call(gates: SystemGates, system: str, key: str, answer: Answer) -> bool:
    """One call through a door that is open."""
    assert await gates.enter(system, key) == Admission()
    well_again = gates.answered(system, key, answer)
    gates.leave(system, key)
    return well_again


async def test_a_caller_without_a_place_waits_and_places_are_returned(gates: SystemGates) -> None:
    for org in "ab":
        assert await gates.enter("crm", f"{org}:1") == Admission()
    entry = await gates.enter("crm", "c:1")
    assert entry.wait_s > 0
    assert not entry.is_away
    assert await gates.enter("tokens", "c:1") == Admission(), "another system is nobody's trouble"
    waiting = asyncio.create_task(gates.enter("crm", "c:1"))
    await asyncio.sleep(0)
    gates.leave("crm", "a:1")
    assert await waiting == Admission()


async def test_one_organisation_has_a_quarter_of_the_places_at_most(clock: Clock) -> None:
    gates = SystemGates(8, clock, LOG)
    for number in range(2):
        assert await gates.enter("crm", f"a:{number}") == Admission()
    assert (await gates.enter("crm", "a:2")).wait_s > 0
    assert await gates.enter("crm", "b:1") == Admission()
    gates.leave("crm", "a:1")
    assert await gates.enter("crm", "a:2") == Admission()


async def test_five_unanswered_tenants_in_a_row_close_the_gate_except_for_a_probe(
    gates: SystemGates, clock: Clock
) -> None:
    for number in range(FAILURES):
        await call(gates, "crm", str(number), AWAY if number % 2 else Unknown("lost"))
    assert gates.is_away("crm")
    entry = await gates.enter("crm", "x:1")
    assert entry.is_away
    assert entry.wait_s >= PROBE_S
    clock.now_s += PROBE_S
    assert not await call(gates, "crm", "x", AWAY)
    assert (await gates.enter("crm", "x:1")).is_away, "still"
    clock.now_s += PROBE_S
    assert not await call(gates, "crm", "x", Refused("url: not allowed", heard=False)), "nobody was asked"
    clock.now_s += PROBE_S
    assert await call(gates, "crm", "x", Done())
    assert not gates.is_away("crm")


async def test_two_tenants_refused_for_the_operators_credentials_close_the_gate(
    gates: SystemGates, clock: Clock
) -> None:
    await call(gates, "middleware", "a:1", DENIED)
    assert metrics.SAGA_SYSTEM_REFUSES.labels("middleware")._value.get() == 1
    assert not gates.is_away("middleware"), "one may be refused alone"
    await call(gates, "middleware", "b:1", DENIED)
    entry = await gates.enter("middleware", "c:1")
    assert (entry.is_away, entry.refuses) == (True, True)
    clock.now_s += PROBE_S
    assert not await call(gates, "middleware", "c:1", DENIED)
    for _ in range(11):
        clock.now_s += PROBE_S
        assert (await gates.enter("middleware", "d:1")).refuses, "one probe a minute"
    clock.now_s += AWAY_S
    assert await call(gates, "middleware", "d:1", Done())
    assert metrics.SAGA_SYSTEM_REFUSES.labels("middleware")._value.get() == 0
    assert not gates.is_away("middleware")


async def test_an_old_refusal_without_new_calls_is_no_longer_shown(gates: SystemGates, clock: Clock) -> None:
    await call(gates, "subscriptions", "a:1", DENIED)
    shown = metrics.SAGA_SYSTEM_REFUSES.labels("subscriptions")._value
    assert (gates.away(), shown.get()) == (0, 1)
    clock.now_s += 10_000
    assert (gates.away(), shown.get()) == (0, 0)


async def test_a_single_refused_tenant_closes_no_gate(gates: SystemGates) -> None:
    for number in range(20):
        await call(gates, "middleware", "poison", DENIED)
        await call(gates, "middleware", str(number), Done())
    assert not gates.is_away("middleware")


@pytest.mark.parametrize(
    "answer",
    [
        Refused("credentials: HTTP 401"),
        Retryable("HTTP 409 stale_epoch", well=True),
        Contradicted("generation is not ours"),
        Unknown("HTTP 202", succeeded=True),
    ],
)
async def test_refusals_of_tenants_close_no_gate(gates: SystemGates, answer: Answer) -> None:
    for number in range(20):
        await call(gates, "crm", str(number), answer)
    assert not gates.is_away("crm")


async def test_unanswered_calls_of_one_tenant_close_no_gate(gates: SystemGates) -> None:
    for _ in range(20):
        await call(gates, "crm", "poison", Unknown("lost"))
    assert not gates.is_away("crm")


async def test_a_waiting_caller_is_told_when_the_system_goes_away(gates: SystemGates) -> None:
    for org in "ab":
        await gates.enter("crm", f"{org}:1")
    waiting = asyncio.create_task(gates.enter("crm", "c:1"))
    await asyncio.sleep(0)
    for number in range(FAILURES):
        gates.answered("crm", str(number), AWAY)
    gates.leave("crm", "a:1")
    assert (await waiting).is_away


async def test_no_gate_is_kept_for_a_system_that_is_well(gates: SystemGates) -> None:
    for number in range(1_000):
        await call(gates, f"crm {number}.salesforce.com", str(number), Done())
    assert gates._gates == {}


@pytest.mark.parametrize(
    ("kind", "verb", "settings", "places", "system"),
    [
        ("http", Verb.CREATE, {"url": "https://acme.salesforce.com/x"}, (), "step acme.salesforce.com"),
        ("http", Verb.READ, {"url": "https://ACME.salesforce.com"}, (), "step acme.salesforce.com"),
        ("http", Verb.CREATE, {"url": "http://middleware:80/x", "url_from": "operator"}, (), "step"),
        ("http", Verb.UPDATE, {}, ("https://former.salesforce.com",), "step former.salesforce.com"),
        ("http", Verb.UPDATE, {}, (), None),
        ("http", Verb.CREATE, {"url": 7}, (), None),
        ("http", Verb.CREATE, {"url": "https://[half"}, (), None),
        ("postgres", Verb.CREATE, {}, (), "step"),
        ("archive", Verb.CREATE, {}, (), None),
        ("archive", Verb.DELETE, {}, (), "step"),
        ("oauth", Verb.UPDATE, {"url": "http://oauth", "url_from": "operator"}, (), None),
        ("oauth", Verb.CREATE, {"url": "http://oauth", "url_from": "operator"}, (), "step"),
    ],
)
def test_the_gate_of_a_step_is_named_by_step_and_tenant_given_host(
    kind: str, verb: Verb, settings: dict[str, object], places: tuple[str, ...], system: str | None
) -> None:
    asked = Call("step", kind, verb, "o:i", "t", 1, 1, "i", settings, {}, enabled=True, timeout_s=1, places=places)
    assert system_of(asked, TRAITS[kind]) == system


async def test_an_unused_system_no_longer_counts_as_away(gates: SystemGates, clock: Clock) -> None:
    clock.now_s = 10_000.0
    for number in range(FAILURES):
        await call(gates, "crm gone.example", f"{number}:1", AWAY)
    assert metrics.REGISTRY.get_sample_value("lifecycle_saga_systems_away") == 1
    clock.now_s += 3_600
    assert (await gates.enter("crm gone.example", "9:1")) == Admission(), "it is asked again after an hour"
    gates.leave("crm gone.example", "9:1")
    clock.now_s += 3_600
    assert gates.away() == 1
    clock.now_s += 3_600
    assert metrics.REGISTRY.get_sample_value("lifecycle_saga_systems_away") == 0
