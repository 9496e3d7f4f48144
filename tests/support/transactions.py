"""Writes records as a restore or a copy with exactly-once does: in transactions, whose marks stay in the log."""

from collections.abc import Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.codec import Message

if TYPE_CHECKING:
    from collections.abc import Iterator

_WAIT_S = 30.0


class Copier:
    """One transactional producer."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "transactional.id": name, "log_level": 0, "partitioner": "murmur2_random"}
        )
        self._producer.init_transactions(_WAIT_S)

    def commit(self, topic: str, messages: Iterable[tuple[int, Message]]) -> None:
        """Write records, partition by partition, and a mark behind them in each."""
        with self.open(topic, messages):
            pass

    def abort(self, topic: str, messages: Iterable[tuple[int, Message]]) -> None:
        """Write records that count for nothing, and a mark behind them."""
        self._begin(topic, messages)
        self._producer.abort_transaction(_WAIT_S)

    @contextmanager
    def open(self, topic: str, messages: Iterable[tuple[int, Message]]) -> "Iterator[None]":
        """Write records whose transaction is committed at the end of the context."""
        self._begin(topic, messages)
        yield
        self._producer.commit_transaction(_WAIT_S)

    def _begin(self, topic: str, messages: Iterable[tuple[int, Message]]) -> None:
        self._producer.begin_transaction()
        for partition, message in messages:
            self._producer.produce(
                topic, message.value, message.key, partition=partition, headers=list(message.headers)
            )
        assert self._producer.flush(_WAIT_S) == 0


def delete_before(bootstrap: str, topic: str, partition: int, offset: int) -> None:
    """Remove the records of a partition before an offset, as retention does."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.delete_records([TopicPartition(topic, partition, offset)]).values():
        future.result(_WAIT_S)
