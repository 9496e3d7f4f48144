"""A system that hangs keeps few places, one that is away is left alone, and nobody waits for another's."""

import asyncio

import pytest

from services.core.calls import Answer, Call, Done, Refused, Retryable, Unknown, Verb
from services.core.circuit import FAILURES, PROBE_S
from services.provisioner import gates as module
from services.provisioner.gates import Gates, system_of

AWAY = Retryable("HTTP 503")


class Clock:
    """Seconds, by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gates(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Gates:
    monkeypatch.setattr(module, "_QUEUE_S", 0.05)
    return Gates(2, clock)


async def call(gates: Gates, system: str, key: str, answer: Answer) -> bool:
    """One call through a door that is open."""
    assert await gates.enter(system, key) == (0.0, False)
    well_again = gates.answered(system, key, answer)
    gates.leave(system, key)
    return well_again


async def test_who_finds_no_place_in_time_comes_again_and_the_places_come_back(gates: Gates) -> None:
    for org in "ab":
        assert await gates.enter("crm", f"{org}:1") == (0.0, False)
    stay_s, is_away = await gates.enter("crm", "c:1")
    assert stay_s > 0
    assert not is_away
    assert await gates.enter("tokens", "c:1") == (0.0, False), "another system is nobody's trouble"
    waiting = asyncio.create_task(gates.enter("crm", "c:1"))
    await asyncio.sleep(0)
    gates.leave("crm", "a:1")
    assert await waiting == (0.0, False)


async def test_one_organisation_has_half_of_the_places_at_most(gates: Gates) -> None:
    assert await gates.enter("crm", "a:1") == (0.0, False)
    assert (await gates.enter("crm", "a:2"))[0] > 0
    assert await gates.enter("crm", "b:1") == (0.0, False)
    gates.leave("crm", "a:1")
    gates.leave("crm", "b:1")
    assert await gates.enter("crm", "a:2") == (0.0, False)


async def test_five_tenants_in_a_row_that_get_no_answer_close_the_door_for_all_but_a_probe(
    gates: Gates, clock: Clock
) -> None:
    for number in range(FAILURES):
        await call(gates, "crm", str(number), AWAY if number % 2 else Unknown("lost"))
    assert gates.away == ["crm"]
    assert await gates.enter("crm", "x:1") == (PROBE_S, True)
    clock.now_s += PROBE_S
    assert not await call(gates, "crm", "x", AWAY)
    assert (await gates.enter("crm", "x:1"))[1], "still away"
    clock.now_s += PROBE_S
    assert await call(gates, "crm", "x", Done())
    assert gates.away == []


async def test_refusals_are_answers_however_many(gates: Gates) -> None:
    for number in range(20):
        await call(gates, "crm", str(number), Refused("credentials: HTTP 401"))
    assert gates.away == []


async def test_one_tenants_silences_close_no_door(gates: Gates) -> None:
    for _ in range(20):
        await call(gates, "crm", "poison", Unknown("lost"))
    assert gates.away == []


async def test_who_waited_for_a_place_learns_that_the_system_is_away(gates: Gates) -> None:
    for org in "ab":
        await gates.enter("crm", f"{org}:1")
    waiting = asyncio.create_task(gates.enter("crm", "c:1"))
    await asyncio.sleep(0)
    for number in range(FAILURES):
        gates.answered("crm", str(number), AWAY)
    gates.leave("crm", "a:1")
    assert (await waiting)[1]


async def test_nothing_is_remembered_of_a_system_that_is_well(gates: Gates) -> None:
    for number in range(1_000):
        await call(gates, f"crm {number}.salesforce.com", str(number), Done())
    assert gates._gates == {}


@pytest.mark.parametrize(
    ("settings", "system"),
    [
        ({"url": "https://acme.salesforce.com/x"}, "crm acme.salesforce.com"),
        ({"url": "https://ACME.salesforce.com"}, "crm acme.salesforce.com"),
        ({"url": "http://middleware:80/x", "url_from": "operator"}, "crm"),
        ({}, "crm"),
        ({"url": 7}, "crm"),
        ({"url": "https://[half"}, "crm"),
    ],
)
def test_a_system_is_a_step_and_where_the_event_names_it_its_host(settings: dict[str, object], system: str) -> None:
    call_of = Call("crm", "http", Verb.READ, "o:i", "t", 1, 1, "i", settings, {}, enabled=True, timeout_s=1)
    assert system_of(call_of) == system
