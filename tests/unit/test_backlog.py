"""A question to a group's coordinator: asked again while the group has none, and answered once."""

import pytest
from confluent_kafka import KafkaError as Code
from confluent_kafka import KafkaException

from services.adapters.kafka.backlog import ask_coordinator
from services.adapters.kafka.producer import KafkaError


class Coordinator:
    """Answers 7 after a number of refusals; keeps the time limits of the questions in seconds."""

    def __init__(self, *refusals: int) -> None:
        self._refusals = list(refusals)
        self.limits: list[float] = []

    def ask(self, left_s: float) -> int:
        self.limits.append(left_s)
        if self._refusals:
            raise KafkaException(Code(self._refusals.pop(0)))
        return 7


def test_a_group_that_loses_its_coordinator_between_two_questions_is_asked_again() -> None:
    coordinator = Coordinator(Code.NOT_COORDINATOR, Code.COORDINATOR_NOT_AVAILABLE, Code.COORDINATOR_LOAD_IN_PROGRESS)
    assert ask_coordinator("ledger", coordinator.ask, 20) == 7
    assert len(coordinator.limits) == 4
    assert coordinator.limits == sorted(coordinator.limits, reverse=True), "the time limit is of all questions"


def test_a_group_that_stays_without_a_coordinator_ends_the_question_in_time() -> None:
    coordinator = Coordinator(*[Code.NOT_COORDINATOR] * 100)
    with pytest.raises(KafkaError, match=r"^Describe on group ledger: NOT_COORDINATOR$"):
        ask_coordinator("ledger", coordinator.ask, 0.5)
    assert 2 <= len(coordinator.limits) <= 5


def test_a_refusal_is_raised_at_once() -> None:
    coordinator = Coordinator(Code.GROUP_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaError, match="GROUP_AUTHORIZATION_FAILED"):
        ask_coordinator("ledger", coordinator.ask, 20)
    assert len(coordinator.limits) == 1


def test_a_silent_coordinator_is_named_with_the_time_limit() -> None:
    def silent(left_s: float) -> int:
        raise TimeoutError

    with pytest.raises(KafkaError, match=r"^Describe on group ledger: no answer within 0.5 s$"):
        ask_coordinator("ledger", silent, 0.5)
