"""Random histories by the hundred thousand: `python -m tests.faults.histories`; those of `make test`, only many more.

Days of one key's deliveries, frozen and folded, against the rules said plainly (tests/property/model.py, and the
reference model beside the project where it lies there); a crash at any point; any order. Exit status 1 with the least
history that breaks one.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property import test_ledger_properties as ledger
from tests.property import test_merge_properties as merge
from tests.property.histories import arrivals, burst, topics

_ALL: Final[Mapping[Callable[..., None], tuple[float, tuple[st.SearchStrategy[Any], ...]]]] = {
    merge.test_days_of_history_end_as_the_model_says: (0.4, (arrivals(),)),
    merge.test_each_verdict_is_the_one_of_the_model: (0.2, (arrivals(),)),
    merge.test_neither_order_nor_repetition_changes_the_state: (0.1, (burst(), st.data())),
    ledger.test_revisions_are_1_2_3_without_gaps_and_belong_to_one_uid: (0.1, (topics(),)),
    ledger.test_after_a_crash_anywhere_the_same_records_are_sent_to_the_byte: (0.2, (topics(), st.data())),
}
"""Each with its share of the histories."""


def main(arguments: list[str]) -> int:
    """Run all; 0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="histories in all; default 100,000")
    count = parser.parse_args(arguments).count
    began_s = time.monotonic()
    quiet = list(HealthCheck)
    for test, (share, (first, *others)) in _ALL.items():
        tried: list[int] = []
        many = settings(max_examples=round(count * share), deadline=None, database=None, suppress_health_check=quiet)
        inner = test.hypothesis.inner_test  # type: ignore[attr-defined]  # hypothesis keeps it there
        many(given(first.map(partial(_noted, tried)), *others)(_plain(inner, len(others))))()
        print(f"{len(tried):,} histories, {time.monotonic() - began_s:.0f} s: {test.__name__}", flush=True)
    return 0


def _plain(inner: Callable[..., None], others: int) -> Callable[..., None]:
    """The test without the settings that it wears; hypothesis wants its arguments by name."""

    def judge(history: Any) -> None:
        inner(history)

    def judge_more(history: Any, data: st.DataObject) -> None:
        inner(history, data)

    return judge_more if others else judge


def _noted(tried: list[int], history: list[Any]) -> list[Any]:
    tried.append(len(history))
    return history


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
