"""Adapts one librdkafka consumer group to asyncio: batches of records, and commits only on request.

Rule: no record is skipped in silence. A group without offsets starts at the beginning of the log. A committed offset
outside the log stops the consumer, and the error names the offset and the span of the log.

Errors on librdkafka's side: confluent_kafka's `KafkaError` is not an Exception. If a callback raises, `consume` may
raise this object. No `except Exception` catches the object, and the awaiting caller would wait for ever. So every call
goes through `guarded`, and `_on_assign` keeps its error for `batch`.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import confluent_kafka
from confluent_kafka import Consumer as LibrdkafkaConsumer
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka import Message as LibrdkafkaMessage

from schemas.codec import Headers
from schemas.rights import Right
from services.adapters.kafka import clients
from services.adapters.kafka import offsets as kafka_offsets
from services.adapters.kafka.producer import KafkaError, fault, rights_to_read

T = TypeVar("T")

_START_S: Final = 10.0
"""Time limit for all questions of one assignment; a stop of the process waits for these questions."""

_CLOSE_S: Final = 5.0
_OUTSIDE_LOG: Final = frozenset(
    {
        confluent_kafka.KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001 - librdkafka's own codes begin so
        confluent_kafka.KafkaError.OFFSET_OUT_OF_RANGE,
    }
)
_FATAL: Final = confluent_kafka.KafkaError._FATAL  # noqa: SLF001 - likewise
_TRANSIENT: Final = frozenset(
    getattr(confluent_kafka.KafkaError, name)
    for name in (
        # a broker is away, slow, or changing its role
        *("_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_TIMED_OUT", "_FAIL", "_WAIT_COORD", "_RETRY"),
        *("NETWORK_EXCEPTION", "REQUEST_TIMED_OUT", "BROKER_NOT_AVAILABLE", "REPLICA_NOT_AVAILABLE"),
        *("LEADER_NOT_AVAILABLE", "NOT_LEADER_FOR_PARTITION", "FENCED_LEADER_EPOCH", "UNKNOWN_LEADER_EPOCH"),
        *("COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR", "COORDINATOR_LOAD_IN_PROGRESS", "OFFSET_NOT_AVAILABLE"),
        *("KAFKA_STORAGE_ERROR", "THROTTLING_QUOTA_EXCEEDED"),
        # a rebalance; a member that was too slow joins again with its next poll
        *("REBALANCE_IN_PROGRESS", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "MEMBER_ID_REQUIRED"),
        *("_ASSIGNMENT_LOST", "_MAX_POLL_EXCEEDED", "_PARTITION_EOF"),
    )
)
"""Codes that librdkafka overcomes without help. All are listed by name: every other code (a missing right, a refused
login, a missing topic) is raised and never waited for."""


class OffsetLoss(Exception):
    """A committed offset is outside the log: records were lost, or the topic was made anew."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """One record as read from the log."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Consumer:
    """Reads one topic in one group. Every method blocks in a thread of its own; call one method at a time."""

    def __init__(
        self, config: dict[str, Any], *, topic: str, group: str, member: str | None, session_timeout_s: float
    ) -> None:
        """Joins the group.

        Args:
            config: librdkafka's connection settings.
            topic: Full name.
            group: Full name.
            member: Name of a static member (`group.instance.id`), unique in the group. A restarted process takes its
                partitions over at once under this name. None: an ordinary member.
            session_timeout_s: Seconds until the group gives the partitions of a silent member away.
        """
        self._topic = topic
        self._needed = rights_to_read(topic, group)
        self._assign_error: Exception | None = None
        self.has_joined = False
        """True after the group assigned partitions to this member, even if none."""
        self._offset_reader = kafka_offsets.OffsetReader(config, topic)
        self._consumer = clients.consumer(
            config,
            **({"group_instance_id": member} if member else {}),
            group_id=group,
            group_protocol="classic",
            # The eager protocol assigns all partitions at once, and `_on_assign` sets the start of each.
            partition_assignment_strategy="range,roundrobin",
            # librdkafka neither stores nor commits an offset by itself. With `error` an offset outside the log is
            # reported; every other value jumps to an end of the log in silence.
            enable_auto_offset_store=False,
            auto_offset_reset="error",
            session_timeout_ms=int(session_timeout_s * 1_000),
            # Three heartbeats per session: a single lost one does not cost the partitions.
            heartbeat_interval_ms=int(session_timeout_s * 300),
        )
        self._consumer.subscribe([topic], on_assign=self._on_assign)

    async def batch(self, limit: int, wait_s: float) -> list[Fetched]:
        """Returns at most `limit` records; an empty list if none arrive within `wait_s` seconds.

        Raises:
            OffsetLoss: A committed offset is outside the log.
            KafkaError: The broker refuses. A broker that is only away is waited for.
        """
        messages = await asyncio.to_thread(self._guarded, lambda: self._consumer.consume(limit, wait_s))
        if self._assign_error is not None:
            raise self._assign_error
        return [_fetched(message) for message in messages if _is_record(message, self._needed)]

    async def commit(self, records: Sequence[Fetched]) -> None:
        """Commits the offset behind the newest record of each partition.

        Raises:
            KafkaError: The commit failed; the records will be read again.
        """
        newest: dict[int, int] = {}
        for record in records:
            newest[record.partition] = max(newest.get(record.partition, 0), record.offset + 1)
        offsets = [TopicPartition(self._topic, partition, offset) for partition, offset in newest.items()]
        await asyncio.to_thread(self._guarded, lambda: self._consumer.commit(offsets=offsets, asynchronous=False))

    async def has_committed(self) -> bool:
        """True if the group has read a record of the topic: an offset above 0 is committed in any partition.

        An offset of 0 comes from a reset of the group, not from a read.

        Raises:
            KafkaError: No broker answers.
        """
        return await asyncio.to_thread(self._guarded, self._has_committed)

    async def close(self) -> None:
        """Leaves the group within 5 s; after that the broker notices the silent member by itself."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def close_clients() -> None:
            with suppress(Exception):  # an error while leaving changes nothing
                self._guarded(self._consumer.close)
            with suppress(Exception):
                self._offset_reader.close()
            with suppress(RuntimeError):  # the event loop has ended meanwhile
                loop.call_soon_threadsafe(closed.set)

        # A daemon thread, not `asyncio.to_thread`: asyncio waits for its own threads when the loop ends.
        threading.Thread(target=close_clients, name="leaves the group", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await closed.wait()

    def _guarded(self, call: Callable[[], T]) -> T:
        return call_librdkafka(call, *self._needed)

    def _has_committed(self) -> bool:
        found = self._consumer.list_topics(self._topic, timeout=_START_S / 2).topics.get(self._topic)
        partitions = [TopicPartition(self._topic, number) for number in found.partitions] if found else []
        committed = self._consumer.committed(partitions, timeout=_START_S / 2) if partitions else []
        return any(partition.offset > 0 for partition in committed)

    def _on_assign(self, consumer: LibrdkafkaConsumer, partitions: list[TopicPartition]) -> None:
        """Sets the start of each partition; runs inside `consume`, so an error is kept for `batch` to raise."""
        try:
            self._guarded(lambda: self._begin(consumer, partitions))
        except Exception as error:  # noqa: BLE001 - kept, and raised by `batch`
            self._assign_error = error

    def _begin(self, consumer: LibrdkafkaConsumer, partitions: list[TopicPartition]) -> None:
        deadline_s = time.monotonic() + _START_S
        committed = consumer.committed(partitions, timeout=_START_S) if partitions else []
        partition_ids = [(found.topic, found.partition) for found in committed]
        spans = self._offset_reader.spans(partition_ids, max(1.0, deadline_s - time.monotonic()))
        # Only after the answers: before `assign` the consumer reads nothing, so an error above leaves no record
        # skipped.
        consumer.assign([_start_position(found, spans[found.topic, found.partition]) for found in committed])
        self.has_joined = True


def _start_position(committed: TopicPartition, span: kafka_offsets.OffsetSpan) -> TopicPartition:
    # The group has no offset for this partition: start at the beginning, so that no record is skipped.
    if committed.offset < 0:
        return TopicPartition(committed.topic, committed.partition, span.first)
    if not span.first <= committed.offset <= span.end:
        raise OffsetLoss(
            f"{committed.topic}/{committed.partition}: the group stands at {committed.offset}, "
            f"the log has {span.first} to {span.end}"
        )
    return committed


def call_librdkafka(call: Callable[[], T], *needed: Right) -> T:
    """Returns the answer of librdkafka; raises an Exception for everything else that librdkafka raises.

    Args:
        call: Calls librdkafka.
        needed: The rights of the reader.

    Raises:
        AccessDenied: The cluster refuses the request.
        KafkaError: librdkafka or the broker reports an error.
        OffsetLoss: Passed on unchanged.
        RuntimeError: The raised object is not an Exception.
    """
    try:
        return call()
    except KafkaException as error:
        raise fault(error.args[0], *needed) from None
    except Exception:
        raise
    except:  # noqa: E722 - confluent_kafka raises its KafkaError, which is not an Exception, out of a callback
        raise RuntimeError(f"librdkafka: {sys.exc_info()[1]!r}") from None


def fault_of(error: confluent_kafka.KafkaError, *needed: Right) -> OffsetLoss | KafkaError | None:
    """Returns our error for a message that carries an error; None if librdkafka overcomes the error without help.

    Args:
        error: The error of the message.
        needed: The rights of the reader.
    """
    if error.code() in _OUTSIDE_LOG:
        return OffsetLoss(error.str())
    if error.code() in _TRANSIENT:
        return None
    # A fatal error has one code for all causes; only the text names the cause.
    return KafkaError(error.str(), error.name()) if error.code() == _FATAL else fault(error, *needed)


def _is_record(message: LibrdkafkaMessage, needed: Sequence[Right]) -> bool:
    """True if the message is a record; False for an error that librdkafka overcomes without help.

    Raises:
        OffsetLoss: The offset to read from is outside the log.
        KafkaError: The error stays.
    """
    error = message.error()
    if error is not None and (cause := fault_of(error, *needed)) is not None:
        raise cause
    return error is None


def _fetched(message: LibrdkafkaMessage) -> Fetched:
    # No deserialiser is set, so keys, values and headers are bytes; the type stubs allow for more.
    key, value, headers = (cast("Any", part) for part in (message.key(), message.value(), message.headers()))
    position = (message.topic() or "", message.partition() or 0, message.offset() or 0)
    return Fetched(*position, key, value, list(headers or []))
