"""The tables of the benchmarks, and the region of docs/performance.md that each command rewrites."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import report
from tests.bench.figures import Name, Slice, Storm
from tests.bench.verdict import GateResult, Standing

PAGE = """\
# Title

<!-- make a: begin -->
old
<!-- make a: end -->

by hand
<!-- make b: begin -->
<!-- make b: end -->
"""
SLICE = Slice(1, Name.ASGI, 64, 1_000, 1.0, 0, 0, 0, 1.0, 2.0, 20.4, 0.0, 50 << 20, 0.01)
STORM = Storm(1, Name.ACKED, "8/s", 10, 1.0, 2.0, 3.0, {"200 queued": 10}, 256, 0.1, 0.2, 8.0, 0.01)


def cells(table: str) -> list[list[str]]:
    """Its body."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_a_command_rewrites_its_own_region_only() -> None:
    assert report.replaced(PAGE, "make a", "new\n") == PAGE.replace("old", "new")


def test_a_region_can_be_rewritten_again() -> None:
    once = report.replaced(PAGE, "make b", "one")
    assert report.replaced(once, "make b", "two") == once.replace("one", "two")


@pytest.mark.parametrize("page", ["", "<!-- make a: begin -->\n", "<!-- make a: end -->\n<!-- make a: begin -->\n"])
def test_a_page_without_region_marks_is_refused(page: str) -> None:
    with pytest.raises(report.NoRegion):
        report.replaced(page, "make a", "new")


def test_docs_performance_has_a_region_for_each_command() -> None:
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    for command in ("make bench", "make bench-latency"):
        report.replaced(page, command, "")


def test_columns_are_aligned_and_numbers_right_aligned() -> None:
    assert report.table(("name", "n"), [("a", "1,000"), ("long name", "2")]).splitlines() == [
        "| name      |     n |",
        "| --------- | ----: |",
        "| a         | 1,000 |",
        "| long name |     2 |",
    ]


def test_the_fastest_contender_is_listed_first_with_its_ratio() -> None:
    slices = [
        replace(SLICE, server=Name.STARLETTE, requests=500, beside_us=3.0),
        SLICE,
        replace(SLICE, round=2, server=Name.STARLETTE, requests=500, beside_us=3.0),
        replace(SLICE, round=2, requests=2_000),
        replace(SLICE, connections=256, requests=7),
    ]
    assert cells(report.throughput(slices, 64, (Name.ASGI,))) == [
        ["bare ASGI", "1,500 [1,250-1,750]", "20", "-", "50", "1", "0", "0.01"],
        ["bare Starlette", "500 [500-500]", "20", "3", "50", "0.38 [0.31-0.44]", "0", "0.01"],
    ]


def test_answers_are_summed_over_rounds_and_the_slowest_is_the_overall_maximum() -> None:
    storms = [STORM, replace(STORM, round=2, p50_ms=2.0, max_ms=9.0, said={"200 queued": 8, "503": 2})]
    assert cells(report.latency(storms, ["8/s", "not run"])) == [
        ["8/s", "ingress, acked", "1.5", "2.0", "9.0", "18 x 200 queued, 2 x 503", "256", "0.01"]
    ]


def test_failed_and_noisy_gates_are_marked() -> None:
    verdicts = [
        GateResult("a", "1", "2", Standing.FAILS),
        GateResult("b", "1", "2", Standing.NOISY, "strangers"),
        GateResult("c", "", "2", Standing.NOT_RUN),
    ]
    assert [line[-1] for line in cells(report.gates(verdicts))] == ["**FAILS**", "**NOISY**: strangers", "not run"]
    assert report.summary(verdicts).startswith("Gates: 1 FAILS, 1 NOISY, 1 not run. What is noisy was NOT judged")
    assert report.summary(verdicts[2:]) == "Gates: 1 not run."
