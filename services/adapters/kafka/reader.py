"""Reads topics without joining a group: ranges of offsets, last records, or everything from a start on.

Rules:
- A reader changes nothing on the cluster, and commits no offset.
- A partition is read to its end when the position has reached the end. Each record raises the position, and so does
  Kafka's report of the end (librdkafka's partition EOF), over marks of transactions behind the last record. No reader
  computes the offset of the last record (`offsets`).
- The broker may be silent for a limited time. Errors that librdkafka overcomes without help count as silence; every
  other error is raised, and names the missing right.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any, Final, Self

from confluent_kafka import OFFSET_BEGINNING, KafkaException, Message, TopicPartition
from confluent_kafka import KafkaError as Code

from schemas.codec import texts
from schemas.stored import StoredRecord
from services.adapters.kafka import clients, offsets
from services.adapters.kafka.offsets import OffsetReader, PartitionId
from services.adapters.kafka.producer import KafkaError, fault, is_denial, rights_to_read

_END: Final = Code._PARTITION_EOF  # noqa: SLF001 - librdkafka's own name
_BATCH: Final = 1_000
_POLL_S: Final = 0.2
_STEP_FACTOR: Final = 16
"""Each further search for a last record begins this many times as far before the end."""

_TRANSACTION_WAIT_S: Final = 5.0
"""Longest wait for an open transaction, in seconds. A running copy with transactions commits more often."""

_SMALL_FETCHES: Final[Mapping[str, Any]] = {"fetch_message_max_bytes": 65_536, "queued_max_messages_kbytes": 1_024}
"""Fetch settings of a reader that needs one record of a partition, without the records behind."""


class TopicReader:
    """Reads topics of one installation. Blocks; use from one thread at a time. Close, or use as a context."""

    def __init__(
        self, config: Mapping[str, Any], topic: str, *, reset: str = "earliest", fetch_wait_ms: int = 50, **ours: Any
    ) -> None:
        """Prepares the client; the first question connects.

        Args:
            config: librdkafka's connection settings.
            topic: Full name of one topic of the later questions.
            reset: What an offset outside the log means: `earliest` continues at the first record that is left, `error`
                raises.
            fetch_wait_ms: Longest wait of a fetch at the broker. The report of an end is as late.
            ours: Further settings of librdkafka, with `_` for `.`.

        Raises:
            Unusable: librdkafka does not accept the name or the value of a setting.
        """
        self._config, self._topic = config, topic
        self._clients = ExitStack()
        self._consumer = clients.reader(
            config, topic, enable_partition_eof=True, auto_offset_reset=reset, fetch_wait_max_ms=fetch_wait_ms, **ours
        )
        self._clients.callback(self._consumer.close)
        self.positions: dict[PartitionId, int] = {}
        """The next offset to read of each started partition."""
        self._refusal: KafkaError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes all clients."""
        self._clients.close()

    @cached_property
    def ends(self) -> OffsetReader:
        """Finds ends, with clients of its own: on the reader's connection a question waits behind a long fetch."""
        return self._clients.enter_context(OffsetReader(self._config, self._topic))

    def partition_ids(self, topics: Iterable[str], timeout_s: float) -> list[PartitionId]:
        """Returns every partition of topics.

        Raises:
            KafkaError: No broker answers, a topic does not exist, or the principal may not see a topic.
        """
        return [(topic, number) for topic in topics for number in self._partitions(topic, timeout_s)]

    def start(self, positions: Mapping[PartitionId, int]) -> None:
        """Sets the partitions to read, and the offset at which each begins.

        Raises:
            KafkaError: librdkafka refuses.
        """
        self.positions, self._refusal = dict(positions), None
        assignment = [TopicPartition(*partition_id, position) for partition_id, position in positions.items()]
        with _faults(self._topic):
            self._consumer.assign(assignment)
            self._consumer.resume(assignment)  # a pause of an earlier reading survives the new assignment

    def poll(self, wait_s: float) -> list[Message]:
        """Returns the records that arrive within `wait_s`, or a full batch at once.

        Raises:
            KafkaError: The broker refuses.
        """
        return _records(self._heard(_BATCH, wait_s))

    def next(self, limit: int, timeout_s: float) -> list[Message]:
        """Returns the next records, at most `limit`; an empty list if the end of a partition comes first.

        Raises:
            KafkaError: The broker refuses, or was silent for `timeout_s`.
        """
        deadline_s = time.monotonic() + timeout_s
        while not (heard := self._heard(limit, _POLL_S)):
            if time.monotonic() > deadline_s:
                topics = ", ".join(sorted({topic for topic, _ in self.positions}))
                raise KafkaError(f"the end of {topics} was not reached: nothing came for {timeout_s:g} s")
        return _records(heard)

    def read(self, ranges: Mapping[PartitionId, tuple[int, int]], timeout_s: float) -> Iterator[list[Message]]:
        """Yields the records of ranges in batches, in order within a partition. A batch may be empty.

        Args:
            ranges: First offset or OFFSET_BEGINNING, and the offset behind the last one that counts; both inside the
                readable part.
            timeout_s: Longest silence of the broker.

        Raises:
            KafkaError: As `next`.
        """
        left = {partition_id: end for partition_id, (first, end) in ranges.items() if first < end}
        self.start({partition_id: ranges[partition_id][0] for partition_id in left})
        while left:
            # Asks for no more records than exist: `consume` waits for the full number or the time limit.
            limit = sum(end - self.positions[partition_id] for partition_id, end in left.items())
            records = self.next(min(_BATCH, limit), timeout_s)
            yield [record for record in records if int(record.offset() or 0) < ranges[_partition_id(record)][1]]
            done = [partition_id for partition_id, end in left.items() if self.positions[partition_id] >= end]
            with _faults(self._topic):
                self._consumer.pause([TopicPartition(*partition_id) for partition_id in done])
            for partition_id in done:
                del left[partition_id]

    def last_records(
        self,
        ranges: Mapping[PartitionId, tuple[int, int]],
        timeout_s: float,
        is_wanted: Callable[[Message], bool] = lambda _: True,
    ) -> dict[PartitionId, Message]:
        """Returns the last wanted record of each range; a range without such a record is absent.

        The search reads the last offset first, then repeatedly a part that begins 16 times as far before the end. So a
        long run of marks costs few requests, and the usual case costs one record.

        Args:
            ranges: As `read`.
            timeout_s: Longest silence of the broker.
            is_wanted: True for the records to find.

        Raises:
            KafkaError: As `next`.
        """
        found: dict[PartitionId, Message] = {}
        distance = 1
        left = {partition_id: (first, end) for partition_id, (first, end) in ranges.items() if first < end}
        while left:
            parts = {partition_id: (max(first, end - distance), end) for partition_id, (first, end) in left.items()}
            for records in self.read(parts, timeout_s):
                found |= {_partition_id(record): record for record in records if is_wanted(record)}
            # The next round searches the part before, if the range has such a part.
            left = {
                partition_id: (left[partition_id][0], start)
                for partition_id, (start, _) in parts.items()
                if partition_id not in found and left[partition_id][0] < start
            }
            distance *= _STEP_FACTOR
        return found

    def _partitions(self, topic: str, timeout_s: float) -> list[int]:
        with _faults(topic):
            described = self._consumer.list_topics(topic, timeout=timeout_s).topics.get(topic)
        if described is not None and is_denial(described.error):
            raise fault(described.error, *rights_to_read(topic))
        if described is None or described.error or not described.partitions:
            raise KafkaError(f"{topic}: no such topic; make it with `lifecycle topics apply`")
        return list(described.partitions)

    def _heard(self, limit: int, wait_s: float) -> list[Message]:
        """Returns records and reports of ends, at most `limit`, and raises the positions.

        Raises:
            KafkaError: A broker refuses. Records of the same batch are returned first; the refusal follows at the next
                call, because the positions have passed these records.
        """
        self._raise_refusal()
        with _faults(self._topic):
            messages = self._consumer.consume(limit, wait_s)
        heard = []
        for message in messages:
            error = message.error()
            if error is not None and error.code() != _END:
                if not clients.is_ignorable(error):
                    self._refusal = self._refusal or fault(error, *rights_to_read(message.topic() or self._topic))
                continue
            # The client may still deliver the end of a partition that was read before the last start.
            partition_id = _partition_id(message)
            if partition_id in self.positions:
                self.positions[partition_id] = int(message.offset() or 0) + (error is None)
                heard.append(message)
        if not heard:
            self._raise_refusal()
        return heard

    def _raise_refusal(self) -> None:
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise refusal


def follow(config: Mapping[str, Any], topics: Collection[str], *, timeout_s: float = 10.0) -> TopicReader:
    """Returns a reader at the beginning of every partition of topics. Blocks.

    Raises:
        KafkaError: No broker answers, or a topic does not exist.
    """
    with ExitStack() as on_error:
        reader = on_error.enter_context(TopicReader(config, next(iter(topics))))
        reader.start(dict.fromkeys(reader.partition_ids(topics, timeout_s), OFFSET_BEGINNING))
        on_error.pop_all()
    return reader


def present_records(
    config: Mapping[str, Any],
    topics: Collection[str],
    *,
    timeout_s: float = 30.0,
    on_progress: Callable[[int, int], object] = lambda _done, _of: None,
) -> Iterator[StoredRecord]:
    """Yields every record in the topics up to their present ends; in order within a partition.

    Args:
        config: librdkafka's connection settings.
        topics: Full names.
        timeout_s: Longest silence of the broker.
        on_progress: Called with the number of offsets passed and of all offsets.

    Raises:
        KafkaError: No broker answers, a topic is missing, an open transaction holds records back, or no record arrived
            for `timeout_s` before the end.
    """
    with TopicReader(config, next(iter(topics))) as reader:
        # Raises while a transaction is open: the reader would report the end although records are missing.
        spans = reader.ends.settled(reader.partition_ids(topics, timeout_s), min(timeout_s, _TRANSACTION_WAIT_S))
        # From before the first offset, so that empty partitions are asked too: the refusal of a topic must not pass for
        # an empty topic.
        ranges = {partition_id: (OFFSET_BEGINNING, span.end) for partition_id, span in spans.items()}
        of = sum(span.end - span.first for span in spans.values())
        for records in reader.read(ranges, timeout_s):
            yield from map(as_stored, records)
            passed = (reader.positions[one] - span.first for one, span in spans.items())
            # A position before the first offset is OFFSET_BEGINNING, and a record may have come behind the end.
            on_progress(min(of, sum(max(0, count) for count in passed)), of)


def last_per_partition(
    config: Mapping[str, Any], topic: str, *, group: str | None = None, timeout_s: float = 5.0
) -> list[StoredRecord]:
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
    with TopicReader(config, topic, **_SMALL_FETCHES) as reader:
        partition_ids = reader.partition_ids([topic], timeout_s)
        committed: dict[PartitionId, int] | None = None
        if group is not None:
            # Before the ends: a group at work may commit offsets behind ends that were asked earlier.
            with _faults(topic, group):
                committed = offsets.committed(config, group, partition_ids, timeout_s)
        spans = reader.ends.settled(partition_ids, timeout_s)
        ends = {partition_id: span.end for partition_id, span in spans.items()} if committed is None else committed
        # Otherwise the group has no offset in this log, or an offset of an earlier topic with the same name.
        ranges = {
            partition_id: (span.first, ends[partition_id])
            for partition_id, span in spans.items()
            if partition_id in ends and span.first < ends[partition_id] <= span.end
        }
        return [as_stored(record) for record in reader.last_records(ranges, timeout_s).values()]


def as_stored(message: Any) -> StoredRecord:
    """Converts a record of librdkafka."""
    return StoredRecord(
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        at_us=message.timestamp()[1] * 1000,
        key=(message.key() or b"").decode("utf-8", "replace"),
        value=message.value(),
        headers=texts(message.headers()),
    )


def _records(messages: Iterable[Message]) -> list[Message]:
    return [message for message in messages if message.error() is None]


def _partition_id(message: Message) -> PartitionId:
    return str(message.topic()), message.partition() or 0


@contextmanager
def _faults(topic: str, group: str | None = None) -> Iterator[None]:
    """Turns librdkafka's exception into a KafkaError that names the missing right."""
    try:
        yield
    except KafkaException as error:
        raise fault(error.args[0], *rights_to_read(topic, group)) from None
