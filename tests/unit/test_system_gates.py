"""A system that hangs keeps few slots, one that is away is left alone, and nobody waits for another's."""

import asyncio

import pytest
import structlog
from structlog.testing import LogCapture

from services.adapters import system_gates as module
from services.adapters.process import logs, metrics
from services.adapters.system_gates import Admission, SystemGates
from services.core.saga.calls import (
    Answer,
    Contradicted,
    Done,
    OperatorRefused,
    Refused,
    Retryable,
    Unknown,
)
from services.core.saga.system_breaker import AWAY_S, FAILURES, PROBE_S, SystemBreaker
from services.provisioner.call_reports import report_of
from services.provisioner.telemetry import show_circuits

AWAY = Retryable("HTTP 503")
DENIED = OperatorRefused("HTTP 401", "give it credentials")
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
    return SystemGates(2, SystemBreaker, clock, LOG)


async def enter(gates: SystemGates, system: str, key: str) -> Admission:
    """As the provisioner: an organisation shares the slots of a system with the others."""
    return await gates.enter(system, key.partition(":")[0], key)


def leave(gates: SystemGates, system: str, key: str) -> None:
    gates.leave(system, key.partition(":")[0])


async def call(gates: SystemGates, system: str, key: str, answer: Answer) -> bool:
    """One call that the gate admits."""
    assert await enter(gates, system, key) == Admission()
    well_again = gates.answered(system, key, report_of(answer))
    leave(gates, system, key)
    return well_again


async def test_a_caller_without_a_slot_waits_and_slots_are_returned(gates: SystemGates) -> None:
    for org in "ab":
        assert await enter(gates, "crm", f"{org}:1") == Admission()
    entry = await enter(gates, "crm", "c:1")
    assert entry.wait_s > 0
    assert not entry.circuit_open
    assert await enter(gates, "tokens", "c:1") == Admission(), "another system is nobody's trouble"
    waiting = asyncio.create_task(enter(gates, "crm", "c:1"))
    await asyncio.sleep(0)
    leave(gates, "crm", "a:1")
    assert await waiting == Admission()


async def test_one_organisation_has_a_quarter_of_the_slots_at_most(clock: Clock) -> None:
    gates = SystemGates(8, SystemBreaker, clock, LOG)
    for number in range(2):
        assert await enter(gates, "crm", f"a:{number}") == Admission()
    assert (await enter(gates, "crm", "a:2")).wait_s > 0
    assert await enter(gates, "crm", "b:1") == Admission()
    leave(gates, "crm", "a:1")
    assert await enter(gates, "crm", "a:2") == Admission()


async def test_five_tenants_in_a_row_that_get_no_answer_open_the_circuit_for_all_but_a_probe(
    gates: SystemGates, clock: Clock
) -> None:
    for number in range(FAILURES):
        await call(gates, "crm", str(number), AWAY if number % 2 else Unknown("lost"))
    assert gates.is_circuit_open("crm")
    entry = await enter(gates, "crm", "x:1")
    assert entry.circuit_open
    assert entry.wait_s >= PROBE_S
    clock.now_s += PROBE_S
    assert not await call(gates, "crm", "x", AWAY)
    assert (await enter(gates, "crm", "x:1")).circuit_open, "still"
    clock.now_s += PROBE_S
    assert not await call(gates, "crm", "x", Refused("url: not allowed", heard=False)), "nobody was asked"
    clock.now_s += PROBE_S
    assert await call(gates, "crm", "x", Done())
    assert not gates.is_circuit_open("crm")


async def test_two_tenants_in_a_row_that_are_refused_for_the_operators_credentials_open_the_circuit_for_all(
    gates: SystemGates, clock: Clock
) -> None:
    await call(gates, "middleware", "a:1", DENIED)
    assert gates.refusing() == ["middleware"]
    assert not gates.is_circuit_open("middleware"), "one may be refused alone"
    await call(gates, "middleware", "b:1", DENIED)
    entry = await enter(gates, "middleware", "c:1")
    assert (entry.circuit_open, entry.operator_refused) == (True, True)
    clock.now_s += PROBE_S
    assert not await call(gates, "middleware", "c:1", DENIED)
    for _ in range(11):
        clock.now_s += PROBE_S
        assert (await enter(gates, "middleware", "d:1")).operator_refused, "one probe a minute"
    clock.now_s += AWAY_S
    assert await call(gates, "middleware", "d:1", Done())
    assert gates.refusing() == []
    assert not gates.is_circuit_open("middleware")


async def test_an_old_refusal_without_new_calls_is_no_longer_shown(gates: SystemGates, clock: Clock) -> None:
    await call(gates, "subscriptions", "a:1", DENIED)
    assert (gates.away(), gates.refusing()) == ([], ["subscriptions"])
    clock.now_s += 10_000
    assert (gates.away(), gates.refusing()) == ([], [])


async def test_a_single_refused_tenant_opens_no_circuit(gates: SystemGates) -> None:
    for number in range(20):
        await call(gates, "middleware", "poison", DENIED)
        await call(gates, "middleware", str(number), Done())
    assert not gates.is_circuit_open("middleware")


async def test_the_remedy_is_in_the_log_once_an_hour_and_whenever_the_circuit_opens(clock: Clock) -> None:
    told = LogCapture()
    every = structlog.make_filtering_bound_logger("debug")
    gates = SystemGates(
        2, SystemBreaker, clock, structlog.wrap_logger(structlog.PrintLogger(), processors=[told], wrapper_class=every)
    )
    refusal = {
        "event": "system refuses the operator",
        "log_level": "error",
        "system": "crm",
        "why": "HTTP 401",
        "remedy": "give it credentials",
    }
    for answer in (DENIED, DENIED, Done(), DENIED, Done()):
        await call(gates, "crm", "a:1", answer)
    assert told.entries == [refusal]
    clock.now_s += 3_600
    await call(gates, "crm", "a:1", DENIED)
    assert told.entries == [refusal] * 2
    await call(gates, "crm", "b:1", DENIED)
    assert told.entries == [refusal] * 3, "the circuit is open"
    clock.now_s += PROBE_S
    await call(gates, "crm", "c:1", Done())
    assert told.entries[3:] == [
        {"event": "system does not refuse the operator any more", "log_level": "info", "system": "crm"}
    ]


async def test_a_share_is_any_name_and_not_a_part_of_the_key(clock: Clock) -> None:
    gates = SystemGates(8, SystemBreaker, clock, LOG)
    for number in range(2):
        assert await gates.enter("mail", "subscriber", f"notice {number}") == Admission()
    assert (await gates.enter("mail", "subscriber", "notice 2")).wait_s > 0
    assert await gates.enter("mail", "another subscriber", "notice 2") == Admission()


@pytest.mark.parametrize(
    "answer",
    [
        Refused("credentials: HTTP 401"),
        Retryable("HTTP 409 stale_epoch", well=True),
        Contradicted("generation is not ours"),
        Unknown("HTTP 202", succeeded=True),
    ],
)
async def test_refusals_of_tenants_open_no_circuit(gates: SystemGates, answer: Answer) -> None:
    for number in range(20):
        await call(gates, "crm", str(number), answer)
    assert not gates.is_circuit_open("crm")


async def test_one_tenants_silences_open_no_circuit(gates: SystemGates) -> None:
    for _ in range(20):
        await call(gates, "crm", "poison", Unknown("lost"))
    assert not gates.is_circuit_open("crm")


async def test_a_waiting_caller_is_told_when_the_system_goes_away(gates: SystemGates) -> None:
    for org in "ab":
        await enter(gates, "crm", f"{org}:1")
    waiting = asyncio.create_task(enter(gates, "crm", "c:1"))
    await asyncio.sleep(0)
    for number in range(FAILURES):
        gates.answered("crm", str(number), report_of(AWAY))
    leave(gates, "crm", "a:1")
    assert (await waiting).circuit_open


async def test_no_gate_is_kept_for_a_system_that_is_well(gates: SystemGates) -> None:
    for number in range(1_000):
        await call(gates, f"crm {number}.salesforce.com", str(number), Done())
    assert gates._gates == {}


async def test_an_unused_system_no_longer_counts_as_away(gates: SystemGates, clock: Clock) -> None:
    show_circuits(["crm"], gates.away, gates.refusing)
    clock.now_s = 10_000.0
    for number in range(FAILURES):
        await call(gates, "crm gone.example", f"{number}:1", AWAY)
    assert _circuits("open", "crm") == 1
    clock.now_s += 3_600
    assert (await enter(gates, "crm gone.example", "9:1")) == Admission(), "it is asked again after an hour"
    leave(gates, "crm gone.example", "9:1")
    clock.now_s += 3_600
    assert len(gates.away()) == 1
    clock.now_s += 3_600
    assert _circuits("open", "crm") == 0


def _circuits(what: str, step: str) -> float | None:
    return metrics.PROVISIONER.registry.get_sample_value(f"lifecycle_provisioner_circuits_{what}", {"step": step})
