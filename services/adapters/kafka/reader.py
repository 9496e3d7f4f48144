"""Reads topics for people and programs that only look: from the beginning, without joining a group or committing.

Rule: a reader of this module changes nothing on the cluster, not even an offset.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from schemas.codec import texts
from schemas.topics import looks_group
from services.adapters.kafka import clients, offsets
from services.adapters.kafka.producer import KafkaError, fault, is_denial, to_read

_BATCH: Final = 500
_HELD_S: Final = 5.0
"""How long an open transaction is waited for: a copy at work commits more often."""

_SPARING: Final = {"fetch_message_max_bytes": 65_536, "queued_max_messages_kbytes": 1_024, "fetch_wait_max_ms": 50}
"""For who wants one record of a partition, and not the backlog behind it."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record as the log keeps it.

    Attributes:
        topic: With the prefix of the installation.
        partition: Of the topic.
        offset: Of the partition.
        at_us: The record's timestamp, microseconds UTC.
        key: As text; empty where it has none.
        value: The data; None is a tombstone.
        headers: As text, the first of each name.
    """

    topic: str
    partition: int
    offset: int
    at_us: int
    key: str
    value: bytes | None
    headers: dict[str, str]


class TopicReader:
    """Follows topics from their beginning. Use from one thread; close it, or use it as a context."""

    def __init__(self, config: dict[str, Any], topics: Sequence[str], *, timeout_s: float = 10.0) -> None:
        """Stand at the beginning of every partition. Blocks.

        Raises:
            KafkaError: no broker answers, or a topic does not exist.
        """
        self._consumer = clients.consumer(
            config, group_id=looks_group(topics[0]), enable_partition_eof=True, fetch_wait_max_ms=50
        )
        self._first = topics[0]
        self._ends: set[tuple[str, int]] = set()
        try:
            places = [
                TopicPartition(topic, number, OFFSET_BEGINNING)
                for topic in topics
                for number in partitions(self._consumer, topic, timeout_s)
            ]
        except KafkaException as error:
            self._consumer.close()
            raise KafkaError(error.args[0].name()) from None
        except KafkaError:
            self._consumer.close()
            raise
        self._all = {(place.topic, place.partition) for place in places}
        self._consumer.assign(places)

    @property
    def places(self) -> set[offsets.PartitionId]:
        """Every partition it follows."""
        return self._all

    @property
    def at_end(self) -> bool:
        """Whether the end of every partition was seen once."""
        return self._ends >= self._all

    def poll(self, timeout_s: float) -> list[StoredRecord]:
        """What came next; empty when nothing did within `timeout_s`.

        Raises:
            KafkaError: the broker refuses.
        """
        found = []
        for message in self._consumer.consume(_BATCH, timeout_s):
            error = message.error()
            if error is None:
                found.append(_kept(message))
            elif error.code() == offsets.END:
                self._ends.add((str(message.topic()), int(message.partition() or 0)))
            elif not clients.passes(error):
                raise fault(error, *to_read(str(message.topic() or self._first)))
        return found

    def close(self) -> None:
        """Leave."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def partitions(consumer: Consumer, topic: str, timeout_s: float) -> list[int]:
    """The numbers of a topic's partitions. Blocks.

    Raises:
        KafkaError: no such topic.
        KafkaException: no broker answers.
    """
    found = consumer.list_topics(topic, timeout=timeout_s).topics.get(topic)
    if found is not None and is_denial(found.error):
        raise fault(found.error, *to_read(topic))
    if found is None or found.error:
        raise KafkaError(f"{topic}: no such topic; make it with `lifecycle topics apply`")
    return list(found.partitions)


def present(config: dict[str, Any], topics: Sequence[str], *, timeout_s: float = 30.0) -> Iterator[StoredRecord]:
    """Everything the topics hold now, partition by partition in order.

    Raises:
        KafkaError: no broker answers, no such topic, an open transaction holds records back, or nothing came for
            `timeout_s` before the end.
    """
    deadline = time.monotonic() + timeout_s
    with TopicReader(config, topics) as follower:
        with offsets.OffsetReader(config, topics[0]) as asker:
            asker.settled(follower.places, min(timeout_s, _HELD_S))
        while not follower.at_end:
            found = follower.poll(0.2)
            yield from found
            if found:
                deadline = time.monotonic() + timeout_s
            elif time.monotonic() > deadline:
                raise KafkaError(f"the end of {', '.join(topics)} was not reached: nothing came for {timeout_s:g} s")


def last(config: dict[str, Any], topic: str, *, group: str | None = None, timeout_s: float = 5.0) -> list[StoredRecord]:
    """The last record of each partition that has any, or the last that a group has committed. Blocks.

    Args:
        config: librdkafka's connection settings.
        topic: One that is not compacted.
        group: Whose offsets count; None: the ends of the log.
        timeout_s: Of each question.

    Raises:
        KafkaError: no broker answers, no such topic, a record was not read in time, or an open transaction holds
            records back.
    """
    consumer = clients.consumer(
        config,
        group_id=group or looks_group(topic),
        enable_partition_eof=True,
        auto_offset_reset="earliest",
        **_SPARING,
    )
    try:
        places = [TopicPartition(topic, number) for number in partitions(consumer, topic, timeout_s)]
        with offsets.OffsetReader(config, topic) as asker:
            spans = asker.settled([(topic, place.partition) for place in places], timeout_s)
        committed = consumer.committed(places, timeout_s) if group else []
        stands = {(topic, place.partition): place.offset for place in committed}
        wanted = {}
        for place, span in spans.items():
            end = stands.get(place, span.end)
            if span.first < end <= span.end:  # else nobody has read of this log, or more than there is
                wanted[place] = (span.first, end)
        found = offsets.last_records(consumer, wanted, timeout_s=timeout_s, group=group)
        return [_kept(message) for message in found.values()]
    except KafkaException as error:
        raise fault(error.args[0], *to_read(topic, group)) from None
    finally:
        consumer.close()


def _kept(message: Any) -> StoredRecord:
    return StoredRecord(
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        at_us=message.timestamp()[1] * 1000,
        key=(message.key() or b"").decode("utf-8", "replace"),
        value=message.value(),
        headers=texts(message.headers()),
    )
