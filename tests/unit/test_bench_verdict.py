"""A gate of `make bench` holds, fails, or cannot be judged."""

from dataclasses import replace
from typing import Any

import pytest

from tests.bench.figures import BROKEN, UNANSWERED, Name, Slice, Stop, Storm
from tests.bench.latency_gates import P99_CASE, STOPPED_CASE, STORM_CASE, judge, lines
from tests.bench.verdict import (
    Gate,
    GateResult,
    Quartiles,
    Standing,
    Weight,
    exit_status,
    none,
    percentile,
    quartiles,
    ratios,
    refusals,
)
from tests.bench.verdict import judge as judge_ratio

GATE = Gate(Name.ACKED, Name.STARLETTE, 64, 0.6)


def a_slice(number: int, server: str, per_s: int, **changes: Any) -> Slice:
    usual = Slice(number, server, 64, per_s, 1.0, 0, 0, 0, 1.0, 2.0, 30.0, 0.0, 1 << 20, 0.01)
    return replace(usual, **changes)


def rounds(*speeds: tuple[int, int], **changes: Any) -> list[Slice]:
    """Slices of acked and bare Starlette, a pair a round."""
    return [
        a_slice(number, name, per_s, **changes)
        for number, pair in enumerate(speeds, 1)
        for name, per_s in zip((Name.ACKED, Name.STARLETTE), pair, strict=True)
    ]


def a_storm(case: str, server: str, number: int = 1, **changes: Any) -> Storm:
    usual = Storm(number, server, case, 100, 1.0, 2.0, 3.0, {"200 queued": 100}, 256, 0.1, 0.2, 100.0, 0.01)
    return replace(usual, **changes)


def judged(storms: list[Storm], stops: dict[Name, Stop]) -> dict[str, GateResult]:
    """The gates of `make bench-latency` by their words."""
    return {verdict.gate: verdict for verdict in judge(storms, stops, cores_shared=False)}


def test_quartiles_are_interpolated() -> None:
    assert quartiles([4, 1, 3, 2, 5]) == Quartiles(2, 3, 4)
    assert quartiles([1, 2]) == Quartiles(1.25, 1.5, 1.75)
    assert quartiles([7]) == Quartiles(7, 7, 7)


def test_the_spread_is_relative_to_the_median() -> None:
    assert Quartiles(0.9, 1.0, 1.2).spread == pytest.approx(0.3)
    assert Quartiles(0, 0, 0).spread == 0


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (1, 1)])
def test_a_percentile_is_a_measured_value(percent: int, value: int) -> None:
    assert percentile(range(100, 0, -1), percent) == value


def test_the_99th_percentile_of_few_is_the_slowest() -> None:
    assert percentile([1.0, 9.0, 2.0], 99) == 9.0


def test_ratios_compare_one_round_at_equal_connections() -> None:
    slices = [
        *rounds((50, 100), (90, 100)),
        a_slice(3, Name.ACKED, 1),
        a_slice(1, Name.STARLETTE, 7, connections=256),
    ]
    assert ratios(slices, Name.ACKED, Name.STARLETTE, 64) == [0.5, 0.9]


def test_a_gate_holds_by_its_median() -> None:
    verdict = judge_ratio(GATE, rounds((59, 100), (60, 100), (61, 100)), cores_shared=False)
    assert (verdict.standing, verdict.measured, verdict.why) == (Standing.HOLDS, "0.60 [0.59-0.60]", "")


def test_a_gate_fails_when_the_median_is_below() -> None:
    verdict = judge_ratio(GATE, rounds((58, 100), (59, 100), (70, 100)), cores_shared=False)
    assert verdict.standing is Standing.FAILS


def test_a_gate_for_information_never_fails() -> None:
    gate = replace(GATE, weight=Weight.PRINTED)
    verdict = judge_ratio(gate, rounds((58, 100), (59, 100), (70, 100)), cores_shared=False)
    assert verdict.standing is Standing.MISSED
    assert exit_status([verdict], []) == 0


@pytest.mark.parametrize(
    ("slices", "cores_shared", "why"),
    [
        (rounds((10, 100), (60, 100), (90, 100)), False, "quartiles 67% apart"),
        (rounds(*[(30, 100)] * 3, strangers_cores=0.16), False, "strangers took 0.16 core"),
        (rounds((30, 100), (30, 100)), False, "2 of at least 3 rounds"),
        (rounds(*[(30, 100)] * 3), True, "server and sender share the only core"),
    ],
)
def test_an_undecidable_gate_is_noisy_and_no_failure(slices: list[Slice], cores_shared: bool, why: str) -> None:  # noqa: FBT001
    verdict = judge_ratio(GATE, slices, cores_shared=cores_shared)
    assert (verdict.standing, verdict.why) == (Standing.NOISY, why)
    assert exit_status([verdict], []) == 0


def test_strangers_during_other_servers_do_not_make_a_gate_noisy() -> None:
    slices = [*rounds(*[(30, 100)] * 3), *(a_slice(n, Name.GUIDE, 10, strangers_cores=0.9) for n in (1, 2, 3))]
    assert judge_ratio(GATE, slices, cores_shared=False).standing is Standing.FAILS


def test_a_gate_against_a_missing_server_is_not_run() -> None:
    verdict = judge_ratio(replace(GATE, over=Name.GUIDE), rounds(*[(60, 100)] * 3), cores_shared=False)
    assert verdict.standing is Standing.NOT_RUN
    assert exit_status([verdict], []) == 0


def test_a_refused_or_unanswered_request_fails_the_run() -> None:
    slices = [a_slice(1, Name.ACKED, 10, refused=2), a_slice(1, Name.ASGI, 10, broken=1), a_slice(2, Name.ASGI, 10)]
    faults = refusals(slices)
    assert faults == [
        "round 1, ingress, acked, 64 connections: 2 not 2xx, 0 without an answer",
        "round 1, bare ASGI, 64 connections: 0 not 2xx, 1 without an answer",
    ]
    assert exit_status([], faults) == 1


def test_a_gate_on_zero_needs_at_least_one_count() -> None:
    assert none("lost", []).standing is Standing.NOT_RUN
    assert none("lost", [0, 0]).standing is Standing.HOLDS
    assert none("lost", [0, 2]).standing is Standing.FAILS


def pairs(*p99_ms: tuple[float, float]) -> list[Storm]:
    return [
        a_storm(P99_CASE, name, number, p99_ms=ms)
        for number, pair in enumerate(p99_ms, 1)
        for name, ms in zip((Name.ACKED, Name.STARLETTE), pair, strict=True)
    ]


@pytest.mark.parametrize(("acked_ms", "standing"), [(8.0, Standing.HOLDS), (8.1, Standing.FAILS)])
def test_the_p99_at_a_steady_rate_is_compared_with_the_bare_server(acked_ms: float, standing: Standing) -> None:
    verdict = judge(pairs(*[(acked_ms, 2.0)] * 3), {}, cores_shared=False)[0]
    assert verdict.standing is standing


def test_contradictory_p99s_are_noisy() -> None:
    verdict = judge(pairs((2.0, 2.0), (8.0, 2.0), (20.0, 2.0)), {}, cores_shared=False)[0]
    assert verdict.standing is Standing.NOISY


@pytest.mark.parametrize(
    ("slowest_ms", "strangers_cores", "standing"),
    [
        (3_000.0, 0.0, Standing.HOLDS),
        (3_000.0, 0.9, Standing.HOLDS),
        (3_001.0, 0.0, Standing.FAILS),
        (3_001.0, 0.9, Standing.NOISY),
    ],
)
def test_a_storm_answered_in_time_holds_despite_strangers(
    slowest_ms: float, strangers_cores: float, standing: Standing
) -> None:
    storms = [
        a_storm(STORM_CASE, Name.SPOOLED),
        a_storm(STORM_CASE, Name.SPOOLED, 2, max_ms=slowest_ms, strangers_cores=strangers_cores),
        a_storm(STORM_CASE, Name.STARLETTE, max_ms=9_000.0),
    ]
    assert judged(storms, {})[f"{STORM_CASE}, {Name.SPOOLED}: slowest answer"].standing is standing


@pytest.mark.parametrize("word", ["503", "401", UNANSWERED, BROKEN])
def test_a_storm_with_an_answer_other_than_2xx_fails(word: str) -> None:
    storm = a_storm(STORM_CASE, Name.SPOOLED, said={"200 queued": 60, "200 spooled": 39, word: 1}, strangers_cores=0.9)
    verdict = judged([storm], {})[f"{STORM_CASE}, {Name.SPOOLED}: answers that are not 2xx"]
    assert (verdict.standing, verdict.measured) == (Standing.FAILS, "1")


def test_a_503_in_a_storm_without_a_spool_is_reported_and_no_failure() -> None:
    storm = a_storm(STORM_CASE, Name.ACKED, said={"200 queued": 60, "503": 40}, max_ms=9_000.0)
    verdicts = judged([storm], {})
    own = [verdict for gate, verdict in verdicts.items() if gate.startswith(f"{STORM_CASE}, {Name.ACKED}")]
    assert [verdict.standing for verdict in own] == [Standing.MISSED, Standing.MISSED]
    assert exit_status(verdicts.values(), []) == 0


def test_a_stopped_broker_may_cause_503_but_no_lost_answer_or_delivery() -> None:
    case, name = STOPPED_CASE, Name.ACKED
    storm = a_storm(case, name, said={"200 queued": 50, "503": 50})
    held = judged([], {name: Stop(storm, 50, 0, 1.0)})
    assert {each.standing for gate, each in held.items() if gate.startswith(f"{case}, {name}")} == {Standing.HOLDS}
    storm = a_storm(case, name, said={"200 queued": 99, UNANSWERED: 1}, max_ms=2_701.0)
    failed = judged([], {name: Stop(storm, 99, 1, 1.0)})
    assert {each.standing for gate, each in failed.items() if gate.startswith(f"{case}, {name}")} == {Standing.FAILS}


def test_gates_that_did_not_run_are_listed_and_fail_no_run() -> None:
    verdicts = judge([], {}, cores_shared=False)
    assert {verdict.standing for verdict in verdicts} == {Standing.NOT_RUN}
    assert exit_status(verdicts, []) == 0


def test_the_limit_of_the_p99_follows_the_bare_server() -> None:
    assert lines(pairs((1.0, 2.0), (1.0, 3.0), (1.0, 9.0)))[0] == {"case": P99_CASE, "most_ms": 12.0}
    assert all(line["case"] != P99_CASE for line in lines([]))
