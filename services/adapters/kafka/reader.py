"""Reads topics from the beginning for programs and people that only look, without joining a group.

Rule: a reader of this module changes nothing on the cluster, and commits no offset.
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
_TRANSACTION_WAIT_S: Final = 5.0
"""Longest wait for an open transaction, in seconds. A running copy with transactions commits more often."""

_SMALL_FETCHES: Final = {
    "fetch_message_max_bytes": 65_536,
    "queued_max_messages_kbytes": 1_024,
    "fetch_wait_max_ms": 50,
}
"""Fetch settings of a reader that needs one record of a partition, without the records behind."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record as stored in the log.

    Attributes:
        topic: Full name, with the prefix of the installation.
        partition: Number of the partition.
        offset: Offset in the partition.
        at_us: The record's timestamp, microseconds UTC.
        key: As text; empty for a record without a key.
        value: The data; None is a tombstone.
        headers: As text; of several headers with one name the first.
    """

    topic: str
    partition: int
    offset: int
    at_us: int
    key: str
    value: bytes | None
    headers: dict[str, str]


class TopicReader:
    """Reads topics from their beginning. Use from one thread; close, or use as a context."""

    def __init__(self, config: dict[str, Any], topics: Sequence[str], *, timeout_s: float = 10.0) -> None:
        """Starts at the beginning of every partition. Blocks.

        Raises:
            KafkaError: No broker answers, or a topic does not exist.
        """
        self._consumer = clients.consumer(
            config, group_id=looks_group(topics[0]), enable_partition_eof=True, fetch_wait_max_ms=50
        )
        self._first_topic = topics[0]
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
        """Every partition of the topics."""
        return self._all

    @property
    def at_end(self) -> bool:
        """True if the end of every partition was reached at least once."""
        return self._ends >= self._all

    def poll(self, timeout_s: float) -> list[StoredRecord]:
        """Returns the next records; an empty list if none arrive within `timeout_s`.

        Raises:
            KafkaError: The broker refuses.
        """
        records = []
        for message in self._consumer.consume(_BATCH, timeout_s):
            error = message.error()
            if error is None:
                records.append(_stored(message))
            elif error.code() == offsets.END:
                self._ends.add((str(message.topic()), int(message.partition() or 0)))
            elif not clients.passes(error):
                raise fault(error, *to_read(str(message.topic() or self._first_topic)))
        return records

    def close(self) -> None:
        """Closes the consumer."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def partitions(consumer: Consumer, topic: str, timeout_s: float) -> list[int]:
    """Returns the partition numbers of a topic. Blocks.

    Raises:
        KafkaError: The topic does not exist, or the principal may not see the topic.
        KafkaException: No broker answers.
    """
    described = consumer.list_topics(topic, timeout=timeout_s).topics.get(topic)
    if described is not None and is_denial(described.error):
        raise fault(described.error, *to_read(topic))
    if described is None or described.error:
        raise KafkaError(f"{topic}: no such topic; make it with `lifecycle topics apply`")
    return list(described.partitions)


def present(config: dict[str, Any], topics: Sequence[str], *, timeout_s: float = 30.0) -> Iterator[StoredRecord]:
    """Yields every record in the topics up to their present ends; in order within a partition.

    Raises:
        KafkaError: No broker answers, a topic is missing, an open transaction holds records back, or no record arrived
            for `timeout_s` before the end.
    """
    deadline = time.monotonic() + timeout_s
    with TopicReader(config, topics) as reader:
        # Raises while a transaction is open: the reader would report the end although records are missing.
        with offsets.OffsetReader(config, topics[0]) as offset_reader:
            offset_reader.settled(reader.places, min(timeout_s, _TRANSACTION_WAIT_S))
        while not reader.at_end:
            records = reader.poll(0.2)
            yield from records
            if records:
                deadline = time.monotonic() + timeout_s
            elif time.monotonic() > deadline:
                raise KafkaError(f"the end of {', '.join(topics)} was not reached: nothing came for {timeout_s:g} s")


def last(config: dict[str, Any], topic: str, *, group: str | None = None, timeout_s: float = 5.0) -> list[StoredRecord]:
    """Returns the last record of each partition, or the last record that a group has committed. Blocks.

    Args:
        config: librdkafka's connection settings.
        topic: Full name of a topic that is not compacted.
        group: The group whose committed offsets count; None: the ends of the log count.
        timeout_s: Time limit of each question.

    Raises:
        KafkaError: No broker answers, the topic is missing, a record was not read in time, or an open transaction holds
            records back.
    """
    consumer = clients.consumer(
        config,
        group_id=group or looks_group(topic),
        enable_partition_eof=True,
        auto_offset_reset="earliest",
        **_SMALL_FETCHES,
    )
    try:
        places = [TopicPartition(topic, number) for number in partitions(consumer, topic, timeout_s)]
        with offsets.OffsetReader(config, topic) as offset_reader:
            spans = offset_reader.settled([(topic, place.partition) for place in places], timeout_s)
        committed = consumer.committed(places, timeout_s) if group else []
        group_offsets = {(topic, place.partition): place.offset for place in committed}
        ranges = {}
        for place, span in spans.items():
            end = group_offsets.get(place, span.end)
            # Otherwise the group has no offset in this log, or an offset of an earlier topic with the same name.
            if span.first < end <= span.end:
                ranges[place] = (span.first, end)
        records = offsets.last_records(consumer, ranges, timeout_s=timeout_s, group=group)
        return [_stored(message) for message in records.values()]
    except KafkaException as error:
        raise fault(error.args[0], *to_read(topic, group)) from None
    finally:
        consumer.close()


def _stored(message: Any) -> StoredRecord:
    return StoredRecord(
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        at_us=message.timestamp()[1] * 1000,
        key=(message.key() or b"").decode("utf-8", "replace"),
        value=message.value(),
        headers=texts(message.headers()),
    )
