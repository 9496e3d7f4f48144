"""A reader without a group and a batch that contains both records and a refusal."""

from dataclasses import dataclass
from typing import Any

import confluent_kafka
import pytest

from services.adapters.kafka.producer import AccessDenied
from services.adapters.kafka.reader import TopicReader

TOPIC = "lifecycle.tenants"


@dataclass
class Heard:
    """A message as librdkafka delivers it."""

    at: int
    refused: bool = False

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def error(self) -> confluent_kafka.KafkaError | None:
        code = confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED
        return confluent_kafka.KafkaError(code) if self.refused else None


class Batches:
    """librdkafka's consumer, which delivers these batches."""

    def __init__(self, *batches: list[Heard]) -> None:
        self._batches = iter(batches)

    def consume(self, _: int, __: float) -> list[Heard]:
        return next(self._batches)

    def close(self) -> None:
        """Nothing is open."""


def reader(*batches: list[Heard]) -> Any:
    made: Any = TopicReader({"bootstrap.servers": "127.0.0.1:9", "log_level": 0}, TOPIC)
    made.close()
    made._consumer = Batches(*batches)
    made.positions = {(TOPIC, 0): 5}
    return made


def test_records_around_a_refusal_are_returned_before_it_is_raised() -> None:
    made = reader([Heard(5), Heard(-1, refused=True), Heard(6)], [Heard(7)])
    assert [record.offset() for record in made.poll(0)] == [5, 6]
    with pytest.raises(AccessDenied):
        made.poll(0)
    assert [record.offset() for record in made.poll(0)] == [7]


def test_a_batch_with_a_refusal_only_raises_it_at_once() -> None:
    with pytest.raises(AccessDenied):
        reader([Heard(-1, refused=True)]).poll(0)
