"""The measure of a timing leak: Welch's t is correct, finds a leak, and ignores outliers."""

import random

import pytest

from tests.faults.fuzz_timing import THRESHOLD, cropped, stopping, welch, wrong


def test_welchs_t_matches_the_textbook() -> None:
    one, other = [1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0, 10.0]  # means 2.5 and 6, variances 5/3 and 10
    assert welch(one, other) == pytest.approx((2.5 - 6) / (5 / 3 / 4 + 10 / 5) ** 0.5)


def test_equal_times_show_no_leak_and_a_leak_of_a_hundredth_shows() -> None:
    chance = random.Random(1)
    quiet = [[chance.gauss(1_000, 100) for _ in range(100_000)] for _ in range(2)]
    assert abs(welch(*quiet)) < THRESHOLD
    assert abs(welch(quiet[0], [t + 10 for t in quiet[1]])) > THRESHOLD


def test_outliers_are_cropped() -> None:
    one, other = [100.0] * 90 + [10_000.0] * 2, [101.0] * 100
    kept, kept_other = cropped(one, other)
    assert max(kept + kept_other) < 10_000
    assert len(kept_other) == 100


def test_the_two_wrong_claims_differ_in_one_byte_each() -> None:
    true = bytes(range(32))
    first, last = wrong(true, 0xFF)
    assert [first[1:], last[:-1]] == [true[1:], true[:-1]]
    assert not stopping(true)(first)
    assert not stopping(true)(last)
    assert stopping(true)(true)
