"""Each row of the time rule, on both sides of each of its edges, to the millisecond."""

from dataclasses import dataclass

import pytest

from services.core.delivery.timestamp_rule import HORIZON_US, RETRY_US, TABLE, WINDOW_US, TimeRule, judge

MS = 1_000
NOW = 1_790_000_000_000_000
W, HORIZON = WINDOW_US, HORIZON_US


@dataclass(frozen=True)
class Ages:
    """Ages: how long before now a time lies."""

    row: TimeRule
    header_age_us: int = 0
    signed_age_us: int = 0
    marked: bool = False
    known: bool = False


CASES = {
    "T2 signed ahead of W": Ages(TimeRule.FUTURE, signed_age_us=-W - MS),
    "T2 whatever vouches for it": Ages(TimeRule.FUTURE, signed_age_us=-W - MS, marked=True, known=True),
    "T2 edge: signed W ahead": Ages(TimeRule.FRESH, signed_age_us=-W),
    "T3 beyond the horizon, fresh header": Ages(TimeRule.STALE, signed_age_us=HORIZON + MS),
    "T3 whatever vouches for it": Ages(TimeRule.STALE, signed_age_us=HORIZON + MS, marked=True, known=True),
    "T3 edge: at the horizon, fresh header": Ages(TimeRule.FRESH, signed_age_us=HORIZON),
    "T3 edge: at the horizon, unmarked": Ages(TimeRule.UNMARKED, header_age_us=HORIZON, signed_age_us=HORIZON),
    "T4 old edge": Ages(TimeRule.FRESH, header_age_us=W),
    "T4 ahead edge": Ages(TimeRule.FRESH, header_age_us=-W),
    "T4 is not a duplicate's row": Ages(TimeRule.FRESH, header_age_us=W, known=True, marked=True),
    "T5 just old": Ages(TimeRule.RETRY, header_age_us=W + MS, marked=True),
    "T5 just ahead": Ages(TimeRule.RETRY, header_age_us=-W - MS, marked=True),
    "T5 before T6": Ages(TimeRule.RETRY, header_age_us=W + MS, marked=True, known=True),
    "T5 at the horizon": Ages(TimeRule.RETRY, header_age_us=HORIZON, signed_age_us=HORIZON, marked=True),
    "T6 just old": Ages(TimeRule.REDELIVERY, header_age_us=W + MS, known=True),
    "T6 just ahead": Ages(TimeRule.REDELIVERY, header_age_us=-W - MS, known=True),
    "T7 just old": Ages(TimeRule.UNMARKED, header_age_us=W + MS),
    "T7 just ahead": Ages(TimeRule.UNMARKED, header_age_us=-W - MS),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_delivery_falls_into_the_row_of_its_ages(case: Ages) -> None:
    verdict = judge(
        now_us=NOW,
        header_us=NOW - case.header_age_us,
        signed_us=NOW - case.signed_age_us,
        marked=case.marked,
        known=case.known,
    )
    assert verdict.row is case.row


def test_every_row_has_a_case_and_a_verdict() -> None:
    assert {case.row for case in CASES.values()} == set(TimeRule) == set(TABLE)


def test_stale_and_unmarked_deliveries_are_refused_and_rechecked() -> None:
    assert {row for row, verdict in TABLE.items() if verdict.recheck} == {TimeRule.STALE, TimeRule.UNMARKED}
    assert {row for row, verdict in TABLE.items() if verdict.accepted} == {
        TimeRule.FRESH,
        TimeRule.RETRY,
        TimeRule.REDELIVERY,
    }


def test_the_constants_match_the_guide() -> None:
    assert WINDOW_US == 90 * 1_000_000
    assert RETRY_US == 20 * 60 * 1_000_000
    assert HORIZON_US == 1_500 * 1_000_000


def test_s14_a_replay_ten_minutes_later_with_a_fresh_header_is_accepted_for_the_ledger_to_know() -> None:
    verdict = judge(now_us=NOW, header_us=NOW, signed_us=NOW - 600_000_000, marked=False, known=False)
    assert verdict.accepted


def test_s15_a_replay_thirty_minutes_later_with_a_fresh_header_is_refused_and_asked_about() -> None:
    verdict = judge(now_us=NOW, header_us=NOW, signed_us=NOW - 1_800_000_000, marked=False, known=True)
    assert not verdict.accepted
    assert verdict.recheck
