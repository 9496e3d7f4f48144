"""Questions about groups are spaced while a coordinator is silent, since each may abort the process."""

from services.adapters.kafka.rights import GroupQuestions

LOOK_S = 5.0
"""Seconds between two looks of a service at work."""


def asked_at(questions: GroupQuestions, from_s: float, until_s: float) -> list[float]:
    """The looks that ask about groups, while a coordinator is silent."""
    asked, now_s = list[float](), from_s
    while now_s <= until_s:
        if questions.due(now_s):
            asked.append(now_s)
            questions.asked(now_s, answered=False, lacking=False)
        now_s += LOOK_S
    return asked


def test_a_silent_coordinator_is_asked_about_after_twice_the_time_and_at_least_every_five_minutes() -> None:
    assert asked_at(GroupQuestions(), 0.0, 1_500.0) == [0, 5, 15, 35, 75, 155, 315, 615, 915, 1_215]


def test_groups_whose_coordinators_have_answered_are_not_asked_again() -> None:
    questions = GroupQuestions()
    questions.asked(0.0, answered=True, lacking=False)
    assert asked_at(questions, LOOK_S, 3_600.0) == []


def test_a_right_that_was_missing_begins_the_times_anew() -> None:
    questions = GroupQuestions()
    asked_at(questions, 0.0, 1_000.0)
    questions.asked(1_000.0, answered=False, lacking=True)
    assert asked_at(questions, 1_000.0, 1_100.0) == [1_005, 1_015, 1_035, 1_075]
