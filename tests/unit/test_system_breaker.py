"""An unreachable system gets one probe at a time, and no tenant's own trouble stops another tenant."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.core.saga.system_breaker import AWAY_S, FAILURES, PROBE_S, REFUSALS, SystemBreaker


def opened(at_s: float = 0.0) -> SystemBreaker:
    circuit = SystemBreaker()
    for number in range(FAILURES):
        circuit.failed(str(number), at_s)
    assert circuit.open
    return circuit


def test_the_breaker_opens_at_the_fifth_failing_tenant_in_a_row() -> None:
    circuit = SystemBreaker()
    for number in range(FAILURES - 1):
        circuit.failed(str(number), 0.0)
    assert circuit.wait_s("anyone", 0.0, 0.5) == 0.0
    circuit.failed("another", 0.0)
    assert circuit.wait_s("anyone", 0.0, 0.5) > 0.0


def test_failures_of_one_tenant_do_not_open_the_breaker() -> None:
    circuit = SystemBreaker()
    for at_s in range(100):
        circuit.failed("poison", float(at_s))
    assert circuit.wait_s("anyone", 100.0, 0.5) == 0.0


def test_refusals_of_the_operator_open_the_breaker_and_are_probed_once_a_minute() -> None:
    circuit = SystemBreaker()
    for number in range(REFUSALS):
        assert not circuit.open
        circuit.refused(str(number), 0.0)
    assert circuit.open
    assert circuit.operator_refused
    assert circuit.wait_s("anyone", PROBE_S, 0.5) == 0.0
    circuit.refused("probe", PROBE_S)
    assert circuit.wait_s("anyone", PROBE_S + AWAY_S - 1, 0.5) <= 1 + PROBE_S
    assert circuit.wait_s("anyone", PROBE_S + AWAY_S, 0.5) == 0.0
    circuit.answered()
    assert circuit.idle


def test_singly_refused_tenants_take_no_probe_from_others() -> None:
    circuit, now_s, waited_s = SystemBreaker(), 0.0, list[float]()
    due = {"poison 1": 0.0, "poison 2": 0.0, "healthy": 100.0}
    while now_s < 3_600.0:
        key = min(due, key=lambda one: due[one])
        now_s = due[key]
        if wait_s := circuit.wait_s(key, now_s, 0.5):
            waited_s += [wait_s] if key == "healthy" else []
            due[key] = now_s + wait_s
        elif key == "healthy":
            circuit.answered()
            due[key] = now_s + 97.0
        else:
            circuit.refused(key, now_s)
            due[key] = now_s + AWAY_S
    assert max(waited_s, default=0.0) <= AWAY_S + PROBE_S
    assert len(waited_s) <= 2 * 3_600 / 97


def test_refusals_in_flight_do_not_delay_the_first_probe() -> None:
    circuit = SystemBreaker()
    for number in range(10):
        circuit.refused(str(number), 0.1 * number)
    assert circuit.wait_s("anyone", PROBE_S + 0.2, 0.5) == 0.0


def test_a_refused_tenant_is_the_probe_if_no_other_calls() -> None:
    circuit = SystemBreaker()
    for key in ("a", "b"):
        circuit.refused(key, 0.0)
    assert circuit.wait_s("a", PROBE_S, 0.5) > 0.0
    assert circuit.wait_s("a", 2 * PROBE_S, 0.5) == 0.0


def test_refusals_of_one_tenant_do_not_open_the_breaker() -> None:
    circuit = SystemBreaker()
    for at_s in range(20):
        circuit.refused("poison", float(at_s))
    assert not circuit.open
    circuit.answered()
    circuit.refused("another", 20.0)
    assert not circuit.open


def test_an_answer_in_between_resets_the_count() -> None:
    circuit = SystemBreaker()
    for number in range(FAILURES - 1):
        circuit.failed(str(number), 0.0)
    circuit.answered()
    assert circuit.idle
    circuit.failed("another", 0.0)
    assert not circuit.open


def test_an_open_breaker_lets_one_probe_through_and_spreads_the_other_callers() -> None:
    circuit = opened(100.0)
    assert circuit.wait_s("anyone", 101.0, 0.0) == PROBE_S
    assert circuit.wait_s("anyone", 101.0, 1.0) == AWAY_S
    assert circuit.wait_s("anyone", 100.0 + PROBE_S, 0.5) == 0.0, "the probe"
    assert PROBE_S < circuit.wait_s("anyone", 100.0 + PROBE_S, 0.5) < AWAY_S


def test_any_answer_closes_the_breaker() -> None:
    circuit = opened()
    circuit.answered()
    assert not circuit.open
    assert circuit.wait_s("anyone", 0.0, 0.5) == 0.0


@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=200))
def test_an_open_breaker_lets_one_call_through_per_probe_time(steps: list[tuple[float, bool]]) -> None:
    circuit, now_s, through = opened(), 0.0, list[float]()
    for later_s, fails in steps:
        now_s += later_s
        wait_s = circuit.wait_s("anyone", now_s, 0.5)
        assert 0.0 <= wait_s <= AWAY_S
        if wait_s == 0.0:
            through.append(now_s)
        if fails:
            circuit.failed("x", now_s)
    assert all(b - a >= PROBE_S - 1e-6 for a, b in pairwise(through)), "but for rounding"
