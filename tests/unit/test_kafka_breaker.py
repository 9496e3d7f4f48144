"""Transitions of the breaker between Kafka and spool, and the right to probe; each edge from both sides."""

from math import nextafter

import pytest

from services.core.delivery.kafka_breaker import (
    FAILURES,
    PROBE_S,
    SLOW_LEAST,
    SLOW_S,
    WINDOW_S,
    BreakerState,
    KafkaBreaker,
)

T = 1_000.0
"""Some moment of a clock that does not jump."""

TICK_S = 1 / 1024
FAST_S = 0.01
SLOWER_S = nextafter(SLOW_S, 2)


def failing(breaker: KafkaBreaker, times: int, now_s: float = T) -> KafkaBreaker:
    for _ in range(times):
        breaker.failed(now_s)
    return breaker


def acking(breaker: KafkaBreaker, times: int, took_s: float, now_s: float = T) -> KafkaBreaker:
    for _ in range(times):
        breaker.acked(now_s, took_s)
    return breaker


def opened() -> KafkaBreaker:
    return failing(KafkaBreaker(), FAILURES)


def probing() -> KafkaBreaker:
    breaker = opened()
    assert breaker.may_probe(T)
    return breaker


def test_a_new_breaker_is_closed_and_allows_no_probe() -> None:
    breaker = KafkaBreaker()
    assert breaker.state is BreakerState.CLOSED
    assert not breaker.may_probe(T)


def test_the_fifth_failure_in_a_row_opens_the_breaker() -> None:
    breaker = failing(KafkaBreaker(), FAILURES - 1)
    assert breaker.state is BreakerState.CLOSED
    assert failing(breaker, 1, T + 3_600).state is BreakerState.OPEN, "a row has no length in time"


@pytest.mark.parametrize("took_s", [FAST_S, SLOWER_S])
def test_any_acknowledgement_ends_a_row_of_failures(took_s: float) -> None:
    breaker = acking(failing(KafkaBreaker(), FAILURES - 1), 1, took_s)
    assert failing(breaker, FAILURES - 1).state is BreakerState.CLOSED
    assert failing(breaker, 1).state is BreakerState.OPEN


@pytest.mark.parametrize(("fast", "state"), [(494, BreakerState.OPEN), (495, BreakerState.CLOSED)])
def test_more_than_one_slow_acknowledgement_in_a_hundred_opens_the_breaker(fast: int, state: BreakerState) -> None:
    breaker = acking(acking(KafkaBreaker(), fast, FAST_S), SLOW_LEAST, SLOWER_S)
    assert breaker.state is state


def test_too_few_acknowledgements_do_not_open_the_breaker() -> None:
    breaker = acking(KafkaBreaker(), SLOW_LEAST - 1, 60.0)
    assert breaker.state is BreakerState.CLOSED
    assert acking(breaker, 1, 60.0).state is BreakerState.OPEN


def test_an_acknowledgement_at_the_limit_is_not_slow() -> None:
    assert acking(KafkaBreaker(), 1_000, SLOW_S).state is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("later_s", "state"),
    [
        (WINDOW_S / 2 - TICK_S, BreakerState.OPEN),
        (WINDOW_S / 2, BreakerState.OPEN),
        (WINDOW_S - TICK_S, BreakerState.OPEN),
        (WINDOW_S, BreakerState.CLOSED),
        (100 * WINDOW_S, BreakerState.CLOSED),
    ],
)
def test_slow_acknowledgements_of_the_window_count_and_older_ones_do_not(later_s: float, state: BreakerState) -> None:
    breaker = acking(KafkaBreaker(), SLOW_LEAST - 1, SLOWER_S)
    assert acking(breaker, 1, SLOWER_S, T + later_s).state is state


@pytest.mark.parametrize(
    ("age_s", "state"), [(WINDOW_S / 2, BreakerState.OPEN), (WINDOW_S / 2 + TICK_S, BreakerState.CLOSED)]
)
def test_acknowledgements_are_remembered_for_at_least_half_a_window(age_s: float, state: BreakerState) -> None:
    breaker = acking(KafkaBreaker(), 1, FAST_S)  # the halves begin with the first
    slow_s = T + WINDOW_S / 2 - TICK_S
    acking(breaker, SLOW_LEAST - 1, SLOWER_S, slow_s)
    acking(breaker, 1, FAST_S, T + WINDOW_S / 2)
    assert acking(breaker, 1, SLOWER_S, slow_s + age_s).state is state


def test_fast_acknowledgements_of_long_ago_do_not_hide_slow_ones() -> None:
    breaker = acking(KafkaBreaker(), 100_000, FAST_S)
    assert acking(breaker, SLOW_LEAST, SLOWER_S, T + WINDOW_S).state is BreakerState.OPEN


def test_an_open_breaker_allows_one_probe_at_once() -> None:
    breaker = opened()
    assert breaker.may_probe(T)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.may_probe(T + 100 * PROBE_S), "one is under way"


def test_a_failed_probe_is_followed_by_another_after_five_seconds() -> None:
    breaker = probing()
    breaker.probed(T + 1.5, well=False)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.may_probe(T + 1.5 + PROBE_S - TICK_S)
    assert breaker.may_probe(T + 1.5 + PROBE_S)
    breaker.probed(T + 3 + PROBE_S, well=False)
    assert not breaker.may_probe(T + 3 + 2 * PROBE_S - TICK_S)
    assert breaker.may_probe(T + 3 + 2 * PROBE_S)


def test_a_successful_probe_closes_the_breaker_and_resets_the_count() -> None:
    breaker = probing()
    breaker.probed(T + 1, well=True)
    assert breaker.state is BreakerState.CLOSED
    assert failing(breaker, FAILURES - 1, T + 1).state is BreakerState.CLOSED
    assert failing(breaker, 1, T + 1).state is BreakerState.OPEN
    assert breaker.may_probe(T + 1), "the wait of a former failure is over"


def test_slow_acknowledgements_from_before_a_good_probe_are_forgotten() -> None:
    breaker = acking(KafkaBreaker(), SLOW_LEAST, SLOWER_S)
    assert breaker.may_probe(T)
    acking(breaker, 100, SLOWER_S)  # late reports of what was sent before it opened
    breaker.probed(T + TICK_S, well=True)
    assert acking(breaker, SLOW_LEAST - 1, SLOWER_S, T + 2 * SLOW_S).state is BreakerState.CLOSED
    assert acking(breaker, 1, SLOWER_S, T + 2 * SLOW_S).state is BreakerState.OPEN


def test_late_reports_of_records_sent_before_closing_do_not_reopen_the_breaker() -> None:
    breaker = probing()
    breaker.probed(T + 1, well=True)
    assert acking(breaker, 10 * SLOW_LEAST, SLOWER_S, T + 1 + TICK_S).state is BreakerState.CLOSED
    assert acking(breaker, SLOW_LEAST, SLOWER_S, T + 1 + SLOWER_S).state is BreakerState.OPEN, "sent since, and slow"


def test_only_a_probe_closes_the_breaker() -> None:
    breaker = acking(opened(), 10_000, FAST_S)
    assert breaker.state is BreakerState.OPEN
    assert breaker.may_probe(T)
    assert acking(breaker, 10_000, FAST_S).state is BreakerState.HALF_OPEN


def test_further_failures_do_not_delay_the_next_probe() -> None:
    breaker = failing(probing(), 100)
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.probed(T, well=False)
    failing(breaker, 100, T + PROBE_S - TICK_S)
    acking(breaker, 100, SLOWER_S, T + PROBE_S - TICK_S)
    assert not breaker.may_probe(T + PROBE_S - TICK_S)
    assert breaker.may_probe(T + PROBE_S), "nor do they put the next probe off"
