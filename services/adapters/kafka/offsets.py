"""Finds where partitions end: behind the last offset, and at the last record, which need not stand right before it.

A transaction ends with a mark that takes an offset and is no record; records of an aborted transaction take offsets and
are never read; compaction and retention leave holes. So "one before the end" may be nothing at all, and a reader that
waits for it waits for ever. Rule: a reader has reached the end when Kafka says so (librdkafka's partition EOF), or when
it has read the last record as found here. Records behind the first offset of an open transaction cannot be read yet:
whoever needs all of a partition is told, and does not take a part for the whole.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, Message, TopicPartition
from confluent_kafka import KafkaError as Code

from schemas.topics import looks_group
from services.adapters.kafka import clients
from services.adapters.kafka.clients import passes
from services.adapters.kafka.producer import Electing, KafkaError, fault, is_denial, to_read

END: Final = Code._PARTITION_EOF  # noqa: SLF001 - librdkafka's own name
_BATCH: Final = 500
_LOOK_S: Final = 0.2
_ELECTED_S: Final = 1.0
_FURTHER: Final = 16
"""How much further back each next look for the last record begins."""

_ELECTING: Final = frozenset({
    Code.NOT_LEADER_FOR_PARTITION, Code.LEADER_NOT_AVAILABLE, Code.UNKNOWN_TOPIC_OR_PART, Code.FENCED_LEADER_EPOCH,
    Code.UNKNOWN_LEADER_EPOCH, Code.OFFSET_NOT_AVAILABLE, Code.REPLICA_NOT_AVAILABLE,
    Code._UNKNOWN_PARTITION, Code._UNKNOWN_TOPIC, Code._DESTROY_BROKER,  # noqa: SLF001
})  # fmt: skip
"""What is so for a moment after a topic was made or a leader moved."""

PartitionId = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class OffsetSpan:
    """The offsets of one partition.

    Attributes:
        first: The first offset that the log has.
        stable: Up to here everything can be read: the end, or the first offset of an open transaction.
        end: The next offset to be written.
    """

    first: int
    stable: int
    end: int


class OffsetReader:
    """Asks where partitions begin and end; blocking. Use it as a context, or close it.

    Two readers without a group, since a client of librdkafka asks for one isolation level. Not its admin client: with
    time-outs of milliseconds its `list_offsets` ended the process (librdkafka 2.16: SIGSEGV, SIGABRT), a reader not.
    """

    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        """Prepare; the first question connects.

        Args:
            config: librdkafka's connection settings.
            topic: Full name of one that is asked about.

        Raises:
            Unusable: librdkafka does not know a setting, or not its value.
        """
        quiet = {**config, "log_level": 0}
        self._committed = clients.consumer(quiet, group_id=looks_group(topic))
        self._all = clients.consumer(quiet, group_id=looks_group(topic), isolation_level="read_uncommitted")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the clients go; nobody asks any more."""
        try:
            self._committed.close()
        finally:
            self._all.close()

    def spans(self, places: Collection[PartitionId], timeout_s: float) -> dict[PartitionId, OffsetSpan]:
        """Returns where partitions begin and end now.

        Args:
            places: Whose offsets.
            timeout_s: For the whole answer.

        Raises:
            Electing: a partition has no leader at this moment.
            KafkaError: no answer, or a refusal.
        """
        if not places:
            return {}
        deadline_s = time.monotonic() + timeout_s
        # Asked in this order: what is written meanwhile makes the end later, and nothing else.
        first = _asked(self._all, places, OFFSET_BEGINNING, deadline_s)
        stable = _asked(self._committed, places, OFFSET_END, deadline_s)
        end = _asked(self._all, places, OFFSET_END, deadline_s)
        return {place: OffsetSpan(first[place], min(stable[place], end[place]), end[place]) for place in places}

    def since(self, places: Collection[PartitionId], at_us: int, timeout_s: float) -> dict[PartitionId, int]:
        """Returns the offset of the first record that was appended at a time or later; -1 where there is none.

        Args:
            places: Whose offsets.
            at_us: The time, in microseconds UTC; Kafka counts in milliseconds.
            timeout_s: For the whole answer.

        Raises:
            Electing, KafkaError: as `spans`.
        """
        return _asked(self._all, places, at_us // 1000, time.monotonic() + timeout_s) if places else {}

    def settled(self, places: Collection[PartitionId], timeout_s: float) -> dict[PartitionId, OffsetSpan]:
        """Returns the same once everything before the ends can be read: `stable` is `end`.

        A transaction is open for a moment in any copy at work; one that stays open is an error.

        Raises:
            Electing, KafkaError: as `spans`, or an open transaction holds records back.
        """
        deadline_s = time.monotonic() + timeout_s
        now = wanted = self.spans(places, timeout_s)
        while late := {place: now[place] for place, span in wanted.items() if now[place].stable < span.end}:
            if time.monotonic() > deadline_s:
                raise KafkaError(held(late))
            time.sleep(_LOOK_S)
            now = self.spans(places, timeout_s)
        return {place: OffsetSpan(span.first, span.end, span.end) for place, span in wanted.items()}


def _asked(
    consumer: Consumer, places: Collection[PartitionId], which: int, deadline_s: float
) -> dict[PartitionId, int]:
    """Returns an offset of each partition; for a moment a leader that has just changed is asked for again."""
    patience_s = min(deadline_s, time.monotonic() + _ELECTED_S)
    while True:
        try:
            return _answer(consumer, places, which, max(0.0, deadline_s - time.monotonic()))
        except Electing:
            _look_for_leaders(consumer, places, max(1.0, deadline_s - time.monotonic()))
            if time.monotonic() > patience_s:
                raise
            time.sleep(_LOOK_S)


def _look_for_leaders(consumer: Consumer, places: Collection[PartitionId], timeout_s: float) -> None:
    """Has a client learn the leaders anew: one that it knew as absent is absent to it for as long as metadata lives.

    It says the same of topics that it may not see; only here that is told apart.
    """
    for topic in sorted({topic for topic, _ in places}):
        try:
            found = consumer.list_topics(topic, timeout=timeout_s).topics.get(topic)
        except KafkaException as error:
            raise _failed(error.args[0], topic) from None
        if found is not None and is_denial(found.error):
            raise fault(found.error, *to_read(topic))


def _answer(
    consumer: Consumer, places: Collection[PartitionId], which: int, timeout_s: float
) -> dict[PartitionId, int]:
    topics = ", ".join(sorted({topic for topic, _ in places}))
    asked = [TopicPartition(topic, number, which) for topic, number in places]
    try:
        told = consumer.offsets_for_times(asked, timeout=timeout_s)
    except KafkaException as error:
        raise _failed(error.args[0], topics) from None
    for one in told:
        if one.error is not None:
            raise _failed(one.error, one.topic)
    return {(one.topic, one.partition): int(one.offset) for one in told}


def _failed(code: Code, topic: str) -> KafkaError:
    if code.code() in _ELECTING:
        return Electing(code.name())
    if code.code() == Code._TIMED_OUT:  # noqa: SLF001
        return KafkaError(f"{topic}: no answer in time")
    return fault(code, *to_read(topic))


def held(spans: Mapping[PartitionId, OffsetSpan]) -> str:
    """Returns which records open transactions hold back, and what to do; empty text where none does."""
    return "; ".join(
        f"{topic}/{number}: an open transaction holds back what stands from offset {span.stable} on: wait for its end, "
        "or end it with `kafka-transactions abort`"
        for (topic, number), span in sorted(spans.items())
        if span.stable < span.end
    )


def last_records(
    consumer: Consumer, ranges: Mapping[PartitionId, tuple[int, int]], *, timeout_s: float, group: str | None = None
) -> dict[PartitionId, Message]:
    """Returns the last record of each range of offsets; a range without any is absent. Blocks.

    Args:
        consumer: With `enable.partition.eof`; its assignment is replaced.
        ranges: First offset, and the one behind the last that counts; both inside what can be read.
        timeout_s: How long the broker may be silent.
        group: The consumer's group; None: it has none.

    Raises:
        KafkaError: the broker refuses, or was silent too long.
    """
    found: dict[PartitionId, Message] = {}
    back = 1
    left = {place: (first, end) for place, (first, end) in ranges.items() if first < end}
    while left:
        starts = {place: max(first, end - back) for place, (first, end) in left.items()}
        found |= _last_since(consumer, starts, {place: end for place, (_, end) in left.items()}, timeout_s, group)
        # Before `starts` nothing was looked at yet, where there is something before.
        left = {
            place: (first, starts[place])
            for place, (first, _) in left.items()
            if place not in found and first < starts[place]
        }
        back *= _FURTHER
    return found


def _last_since(
    consumer: Consumer,
    starts: Mapping[PartitionId, int],
    ends: Mapping[PartitionId, int],
    timeout_s: float,
    group: str | None,
) -> dict[PartitionId, Message]:
    """The last record before each end, of those that stand at the start or behind."""
    found: dict[PartitionId, Message] = {}
    left = set(starts)
    places = [TopicPartition(topic, number, start) for (topic, number), start in starts.items()]
    consumer.assign(places)
    consumer.resume(places)  # an assignment does not end the pause of a former look
    deadline_s = time.monotonic() + timeout_s
    while left:
        messages = consumer.consume(_BATCH, _LOOK_S)
        if messages:
            deadline_s = time.monotonic() + timeout_s
        elif time.monotonic() > deadline_s:
            names = ", ".join(sorted(f"{topic}/{number}" for topic, number in left))
            raise KafkaError(f"the last records of {names} were not read: nothing came for {timeout_s:g} s")
        for message in messages:
            place, offset, error = (str(message.topic()), message.partition() or 0), message.offset(), message.error()
            if error is not None and error.code() != END:
                if not passes(error):
                    raise fault(error, *to_read(message.topic() or next(iter(starts))[0], group))
                continue
            if place not in left or offset is None:
                continue
            if error is None and offset < ends[place]:
                found[place] = message
            if error is not None or offset + 1 >= ends[place]:
                left.discard(place)
                consumer.pause([TopicPartition(*place)])
    return found
