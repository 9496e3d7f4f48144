"""Pictures of the boards: nothing measured is left out, and nothing is drawn that was not measured."""

import math

import pytest

from deploy.boards import draw, ingress
from deploy.boards.__main__ import report
from deploy.boards.asked import Answered, Series, concrete
from deploy.boards.draw import Times
from deploy.boards.pictures import data
from deploy.boards.provisioning import BOARD
from deploy.boards.workload import Phase


def test_a_gap_of_samples_is_a_gap_of_the_line() -> None:
    xs, ys = draw.with_gaps([(10, 1), (12, 2), (20, 3), (30, 4)], 10, 2)
    assert xs == [0, 2, 2, 10, 10, 20]
    assert [y if not math.isnan(y) else None for y in ys] == [1, 2, None, 3, None, 4]


def test_a_lone_sample_is_drawn_as_a_point() -> None:
    assert draw.lone(*draw.with_gaps([(10, 1), (12, 2), (20, 3), (30, 4)], 10, 2)) == ([10, 20], [3, 4])
    assert draw.lone(*draw.with_gaps([(10, 7)], 10, 2)) == ([0], [7])
    assert draw.lone(*draw.with_gaps([(10, 1), (12, 2)], 10, 2)) == ([], [])


def test_a_panel_that_is_not_played_is_named_and_counts_once_it_has_samples(capsys: pytest.CaptureFixture[str]) -> None:
    panel = next(panel for row in ingress.BOARD.rows for panel in row.panels if panel.not_played)
    played = next(panel for row in ingress.BOARD.rows for panel in row.panels if not panel.not_played)
    empty: list[Series] = [[({}, [])]]
    full: list[Series] = [[({}, [(1.0, 1.0)])]]
    assert report([Answered(ingress.BOARD, panel, empty)], ()) == 0
    assert report([Answered(ingress.BOARD, panel, full)], ()) == 1
    assert report([Answered(ingress.BOARD, played, empty)], ()) == 1
    assert (
        "UNTRIED  Lifecycle / Ingress: Hints from a queue: the day reads no queue of Amazon" in capsys.readouterr().err
    )


def test_a_number_is_that_of_the_end_and_no_older_one() -> None:
    times = Times([("one", 10, 30.5)], 2, clock=False)
    assert draw.newest([[(10, 1), (30, 2)]], times) == 2
    assert draw.newest([[(10, 1), (20, 2)]], times) is None
    assert draw.newest([[(10, 1), (30, 2)], [(12, 3)], []], times) == 2
    assert draw.newest([], times) is None


@pytest.mark.parametrize(
    ("legend", "labels", "shown"),
    [
        ("{{stage}} {{reason}}", {"stage": "active", "reason": "grace"}, "active grace"),
        ("{{stage}} {{reason}}", {"stage": "active"}, "active"),
        ("{{reason}}", {}, "value"),
        ("p50", {}, "p50"),
    ],
)
def test_a_legend_shows_the_values_of_labels_and_never_their_names(
    legend: str, labels: dict[str, str], shown: str
) -> None:
    assert draw.label(legend, labels) == shown


def test_a_line_has_its_colour_in_every_picture_whatever_its_height() -> None:
    assert draw.colours_of(["p50", "p95"]) == draw.colours_of(["p95", "p50"])
    assert draw.colours_of(["active"])["active"] == draw.colours_of(["active", "p50"])["active"]


def test_lines_of_a_panel_have_different_colours() -> None:
    names = [f"step {number}" for number in range(10)]
    assert len(set(draw.colours_of(names).values())) == len(names)
    assert set(draw.colours_of([*names, "an eleventh"])) == {*names, "an eleventh"}


def test_the_axis_shows_the_time_of_day_or_the_time_since_the_begin() -> None:
    phases = [("one", 3_610.5, 3_675.5)]
    assert draw.ticks_of(Times(phases, 2, clock=True)) == [
        (9.5, "01:00:20"), (19.5, "01:00:30"), (29.5, "01:00:40"), (39.5, "01:00:50"), (49.5, "01:01:00"),
        (59.5, "01:01:10"),
    ]  # fmt: skip
    assert [text for _, text in draw.ticks_of(Times(phases, 2, clock=False))] == [
        "0:00", "0:10", "0:20", "0:30", "0:40", "0:50", "1:00",
    ]  # fmt: skip


def test_limits_of_hours_are_divided_as_the_settings_are_and_limits_of_answers_are_not() -> None:
    answers = [Answered(BOARD, panel) for panel in BOARD.panels()]
    told = data(answers, [Phase("one", 0, 1)], clock=True, scale=60)
    limits = {
        panel["title"]: [at for at, _ in panel["limits"]]
        for panel in told["boards"][BOARD.uid]["panels"]
        if "title" in panel
    }
    assert limits["Oldest saga by what it waits for"] == [None, 5, 15]
    assert limits["Delivery to converged"] == [None, 120]
    assert limits["Sagas driven now"] == [None, 64]


def test_windows_of_a_query_are_divided_but_hold_the_scrapes_of_a_rate() -> None:
    assert concrete("increase(a[1h]) + increase(b[1m]) + rate(c[$__rate_interval])", 6, 90, 60) == (
        "increase(a[60s]) + increase(b[6s]) + rate(c[6s])"
    )
    assert concrete("increase(a[1h]) + increase(b[$__range])", 6, 90) == "increase(a[1h]) + increase(b[90s])"
