"""Finds the ends of partitions: the next offset to be written, and the last record, which may stand much earlier.

Problem: an offset is not always a record. The mark at the end of a transaction takes an offset; records of aborted
transactions take offsets and are never read; compaction and retention leave gaps. So the offset before the end may hold
nothing, and a reader that waits for this offset waits for ever.

Rule: a reader has reached the end when Kafka reports the end (librdkafka's partition EOF), or when the reader has the
last record as found by `reader.TopicReader.last_records`. No reader computes the offset of the last record.

Open transactions: records behind the first offset of an open transaction cannot be read yet. A caller that needs a
whole partition asks `settled`, which raises if a transaction stays open. A part never counts as the whole.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, TopicPartition
from confluent_kafka import KafkaError as Code

from services.adapters.kafka import clients
from services.adapters.kafka.producer import Electing, KafkaError, fault, is_denial, rights_to_read

_POLL_S: Final = 0.2
_ELECTION_S: Final = 1.0
_ELECTING: Final = clients.LEADERLESS | {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"}
"""librdkafka's names of errors that are normal for a moment after a leader moved or a topic was made."""

PartitionId = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class OffsetSpan:
    """The offsets of one partition.

    Attributes:
        first: The first offset in the log.
        stable: Every record before this offset can be read: the end, or the first offset of an open transaction.
        end: The next offset to be written.
    """

    first: int
    stable: int
    end: int


class OffsetReader:
    """Asks for the first, stable and end offsets of partitions. Blocks. Use as a context, or close.

    The class has two consumers without a group, because librdkafka fixes the isolation level per client. The admin
    client is avoided: with time limits of milliseconds its `list_offsets` ended the process (librdkafka 2.16: SIGSEGV,
    SIGABRT).
    """

    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        """Prepares the consumers; the first question connects.

        Args:
            config: librdkafka's connection settings.
            topic: Full name of one topic of the later questions.

        Raises:
            Unusable: librdkafka does not accept the name or the value of a setting.
        """
        quiet = {**config, "log_level": 0}
        self._committed = clients.reader(quiet, topic)
        self._all = clients.reader(quiet, topic, isolation_level="read_uncommitted")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes both consumers."""
        try:
            self._committed.close()
        finally:
            self._all.close()

    def spans(self, partition_ids: Collection[PartitionId], timeout_s: float) -> dict[PartitionId, OffsetSpan]:
        """Returns the present offset spans of partitions.

        Args:
            partition_ids: The partitions.
            timeout_s: Time limit of the whole answer.

        Raises:
            Electing: A partition has no leader at this moment.
            KafkaError: No answer, or a refusal.
        """
        if not partition_ids:
            return {}
        deadline_s = time.monotonic() + timeout_s
        # The order matters: a record written meanwhile raises `end` only, so `first` and `stable` never exceed `end`.
        first = _offsets_at(self._all, partition_ids, OFFSET_BEGINNING, deadline_s)
        stable = _offsets_at(self._committed, partition_ids, OFFSET_END, deadline_s)
        end = _offsets_at(self._all, partition_ids, OFFSET_END, deadline_s)
        return {
            partition_id: OffsetSpan(
                first[partition_id], min(stable[partition_id], end[partition_id]), end[partition_id]
            )
            for partition_id in partition_ids
        }

    def since(self, partition_ids: Collection[PartitionId], at_us: int, timeout_s: float) -> dict[PartitionId, int]:
        """Returns the offset of the first record appended at or after a time; -1 for a partition without one.

        Args:
            partition_ids: The partitions.
            at_us: The time in microseconds UTC; Kafka counts in milliseconds.
            timeout_s: Time limit of the whole answer.

        Raises:
            Electing, KafkaError: As `spans`.
        """
        return (
            _offsets_at(self._all, partition_ids, at_us // 1000, time.monotonic() + timeout_s) if partition_ids else {}
        )

    def settled(self, partition_ids: Collection[PartitionId], timeout_s: float) -> dict[PartitionId, OffsetSpan]:
        """Returns the spans once every record before their ends can be read (`stable` equals `end`).

        A running copy with transactions always has an open transaction for a moment; a transaction that stays open
        raises.

        Raises:
            Electing, KafkaError: As `spans`, or an open transaction holds records back.
        """
        deadline_s = time.monotonic() + timeout_s
        # The first ends stay the target: a busy topic would otherwise never settle.
        now = wanted = self.spans(partition_ids, timeout_s)
        while unreadable := {
            partition_id: now[partition_id]
            for partition_id, span in wanted.items()
            if now[partition_id].stable < span.end
        }:
            if time.monotonic() > deadline_s:
                raise KafkaError(describe_open_transactions(unreadable))
            time.sleep(_POLL_S)
            now = self.spans(partition_ids, timeout_s)
        return {partition_id: OffsetSpan(span.first, span.end, span.end) for partition_id, span in wanted.items()}


def _offsets_at(
    consumer: Consumer, partition_ids: Collection[PartitionId], timestamp: int, deadline_s: float
) -> dict[PartitionId, int]:
    """Returns an offset of each partition; repeats the question for a moment while leaders are elected."""
    election_end_s = min(deadline_s, time.monotonic() + _ELECTION_S)
    while True:
        try:
            return _ask_once(consumer, partition_ids, timestamp, max(0.0, deadline_s - time.monotonic()))
        except Electing:
            _refresh_leaders(consumer, partition_ids, max(1.0, deadline_s - time.monotonic()))
            if time.monotonic() > election_end_s:
                raise
            time.sleep(_POLL_S)


def _refresh_leaders(consumer: Consumer, partition_ids: Collection[PartitionId], timeout_s: float) -> None:
    """Makes a client ask for the leaders again: librdkafka otherwise keeps a missing topic as missing for a long time.

    A missing topic stays missing in the client for as long as its metadata lives. librdkafka reports a topic as missing
    also if the principal may not see the topic; only the answer here tells the two cases apart.

    Raises:
        KafkaError: The principal may not see a topic, or no broker answers.
    """
    for topic in sorted({topic for topic, _ in partition_ids}):
        try:
            found = consumer.list_topics(topic, timeout=timeout_s).topics.get(topic)
        except KafkaException as error:
            raise _error_of(error.args[0], topic) from None
        if found is not None and is_denial(found.error):
            raise fault(found.error, *rights_to_read(topic))


def _ask_once(
    consumer: Consumer, partition_ids: Collection[PartitionId], timestamp: int, timeout_s: float
) -> dict[PartitionId, int]:
    topics = ", ".join(sorted({topic for topic, _ in partition_ids}))
    # `offsets_for_times` also accepts OFFSET_BEGINNING and OFFSET_END as the timestamp; the protocol has one request
    # for all three. For the end the isolation level of the client decides between `stable` and `end`.
    requests = [TopicPartition(topic, number, timestamp) for topic, number in partition_ids]
    try:
        results = consumer.offsets_for_times(requests, timeout=timeout_s)
    except KafkaException as error:
        raise _error_of(error.args[0], topics) from None
    for result in results:
        if result.error is not None:
            raise _error_of(result.error, result.topic)
    return {(result.topic, result.partition): int(result.offset) for result in results}


def _error_of(code: Code, topic: str) -> KafkaError:
    if code.name() in _ELECTING:
        return Electing(code.name())
    if code.code() == Code._TIMED_OUT:  # noqa: SLF001
        return KafkaError(f"{topic}: no answer in time")
    return fault(code, *rights_to_read(topic))


def describe_open_transactions(spans: Mapping[PartitionId, OffsetSpan]) -> str:
    """Returns the partitions held back by open transactions, and the remedy; an empty text for none."""
    return "; ".join(
        f"{topic}/{number}: an open transaction holds back what stands from offset {span.stable} on: wait for its end, "
        "or end it with `kafka-transactions abort`"
        for (topic, number), span in sorted(spans.items())
        if span.stable < span.end
    )


def committed(
    config: Mapping[str, Any], group: str, partition_ids: Collection[PartitionId], timeout_s: float
) -> dict[PartitionId, int]:
    """Returns the next offset of each partition with a committed offset of a group. Blocks.

    Asks with a consumer of the group; a consumer joins only when it subscribes. The admin client is avoided: librdkafka
    2.16 ends the process (issue 5040: SIGSEGV) while the coordinator loads the group.

    Raises:
        KafkaException: No answer, or a refusal. Kafka reports a missing right as a time-out too.
    """
    consumer = clients.consumer({**config, "log_level": 0}, group_id=group)
    try:
        found = consumer.committed([TopicPartition(*partition_id) for partition_id in partition_ids], timeout=timeout_s)
    finally:
        consumer.close()
    return {(one.topic, one.partition): one.offset for one in found if one.offset >= 0}
