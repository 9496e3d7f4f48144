"""One librdkafka consumer group made fit for asyncio: batches in, offsets committed only when asked.

Rule: no record is skipped in silence. A group without offsets starts at the beginning; a committed offset that the log
no longer has, or does not have yet, stops the consumer and says from where to where. Nothing that goes wrong in a
thread of librdkafka is lost there: what a callback raises would leave `consume` as an object that no `except` of
asyncio's threads catches, and whoever awaits it would wait for ever.
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
from services.adapters.kafka.producer import KafkaError, fault, to_read

T = TypeVar("T")

_ASK_S: Final = 10.0
"""For all questions together that begin a reading: a stop waits for them."""

_CLOSE_S: Final = 5.0
_OUTSIDE: Final = frozenset(
    {
        confluent_kafka.KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001 - librdkafka's own codes begin so
        confluent_kafka.KafkaError.OFFSET_OUT_OF_RANGE,
    }
)
_FATAL: Final = confluent_kafka.KafkaError._FATAL  # noqa: SLF001 - likewise
_PASSING: Final = frozenset(
    getattr(confluent_kafka.KafkaError, name)
    for name in (
        # a broker is away, slow, or changing its part
        *("_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_TIMED_OUT", "_FAIL", "_WAIT_COORD", "_RETRY"),
        *("NETWORK_EXCEPTION", "REQUEST_TIMED_OUT", "BROKER_NOT_AVAILABLE", "REPLICA_NOT_AVAILABLE"),
        *("LEADER_NOT_AVAILABLE", "NOT_LEADER_FOR_PARTITION", "FENCED_LEADER_EPOCH", "UNKNOWN_LEADER_EPOCH"),
        *("COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR", "COORDINATOR_LOAD_IN_PROGRESS", "OFFSET_NOT_AVAILABLE"),
        *("KAFKA_STORAGE_ERROR", "THROTTLING_QUOTA_EXCEEDED"),
        # the group is being shared out anew; a member that was too slow joins again with its next poll
        *("REBALANCE_IN_PROGRESS", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "MEMBER_ID_REQUIRED"),
        *("_ASSIGNMENT_LOST", "_MAX_POLL_EXCEEDED", "_PARTITION_EOF"),
    )
)
"""Named one by one: what is not here (rights, identity, a topic that is not there) is said, never waited out."""


class OffsetLoss(Exception):
    """A committed offset is outside the log: records were lost, or the topic was made anew."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """One record as it was read."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Consumer:
    """Reads one topic in one group. Every method blocks in a thread of its own; call one at a time."""

    def __init__(
        self, config: dict[str, Any], *, topic: str, group: str, member: str | None, session_timeout_s: float
    ) -> None:
        """Join the group.

        Args:
            config: librdkafka's connection settings.
            topic: Full name.
            group: Full name.
            member: A name that a restarted process has again, and no other: it takes its own partitions over at once.
            session_timeout_s: How long a silent member keeps its partitions.
        """
        self._topic = topic
        self._needed = to_read(topic, group)
        self._fault: Exception | None = None
        self.has_joined = False
        """The group gave this member its partitions, be they none."""
        self._asker = kafka_offsets.OffsetReader(config, topic)
        self._consumer = clients.consumer(
            config,
            **({"group_instance_id": member} if member else {}),
            group_id=group,
            group_protocol="classic",
            # Eager: `_on_assign` says where each of all partitions begins.
            partition_assignment_strategy="range,roundrobin",
            enable_auto_offset_store=False,
            auto_offset_reset="error",
            session_timeout_ms=int(session_timeout_s * 1_000),
            heartbeat_interval_ms=int(session_timeout_s * 300),
        )
        self._consumer.subscribe([topic], on_assign=self._on_assign)

    async def batch(self, limit: int, wait_s: float) -> list[Fetched]:
        """The next records, at most `limit`; none when none come in `wait_s`.

        Raises:
            OffsetLoss: see the rule.
            KafkaError: the broker says no; a broker that is only away is waited for.
        """
        messages = await asyncio.to_thread(self._guarded, lambda: self._consumer.consume(limit, wait_s))
        if self._fault is not None:
            raise self._fault
        return [_fetched(message) for message in messages if _is_record(message, self._needed)]

    async def commit(self, records: Sequence[Fetched]) -> None:
        """Say that everything up to these records is dealt with.

        Raises:
            KafkaError: it was not said; they come again.
        """
        newest: dict[int, int] = {}
        for record in records:
            newest[record.partition] = max(newest.get(record.partition, 0), record.offset + 1)
        offsets = [TopicPartition(self._topic, partition, offset) for partition, offset in newest.items()]
        await asyncio.to_thread(self._guarded, lambda: self._consumer.commit(offsets=offsets, asynchronous=False))

    async def has_committed(self) -> bool:
        """True when the group has an offset for any partition of the topic.

        Raises:
            KafkaError: no broker answers.
        """
        return await asyncio.to_thread(self._guarded, self._has_committed)

    async def close(self) -> None:
        """Leave the group, or let it notice by itself that we are gone: nobody waits longer than 5 s for that."""
        loop, left = asyncio.get_running_loop(), asyncio.Event()

        def leave() -> None:
            with suppress(Exception):  # what is said on leaving changes nothing
                self._guarded(self._consumer.close)
            with suppress(Exception):
                self._asker.close()
            with suppress(RuntimeError):  # the loop ended meanwhile
                loop.call_soon_threadsafe(left.set)

        # A thread of its own: asyncio waits at its end for those that it lends.
        threading.Thread(target=leave, name="leaves the group", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await left.wait()

    def _guarded(self, ask: Callable[[], T]) -> T:
        return guarded(ask, *self._needed)

    def _has_committed(self) -> bool:
        found = self._consumer.list_topics(self._topic, timeout=_ASK_S / 2).topics.get(self._topic)
        partitions = [TopicPartition(self._topic, number) for number in found.partitions] if found else []
        committed = self._consumer.committed(partitions, timeout=_ASK_S / 2) if partitions else []
        return any(partition.offset > 0 for partition in committed)

    def _on_assign(self, consumer: LibrdkafkaConsumer, partitions: list[TopicPartition]) -> None:
        """Start where the group stands; runs inside `consume`, so a fault is kept for `batch` to raise."""
        try:
            self._guarded(lambda: self._begin(consumer, partitions))
        except Exception as error:  # noqa: BLE001 - kept, and raised by `batch`
            self._fault = error

    def _begin(self, consumer: LibrdkafkaConsumer, partitions: list[TopicPartition]) -> None:
        deadline_s = time.monotonic() + _ASK_S
        committed = consumer.committed(partitions, timeout=_ASK_S) if partitions else []
        places = [(place.topic, place.partition) for place in committed]
        spans = self._asker.spans(places, max(1.0, deadline_s - time.monotonic()))
        consumer.assign([_place(place, spans[place.topic, place.partition]) for place in committed])
        self.has_joined = True


def _place(committed: TopicPartition, span: kafka_offsets.OffsetSpan) -> TopicPartition:
    if committed.offset < 0:
        return TopicPartition(committed.topic, committed.partition, span.first)
    if not span.first <= committed.offset <= span.end:
        raise OffsetLoss(
            f"{committed.topic}/{committed.partition}: the group stands at {committed.offset}, "
            f"the log has {span.first} to {span.end}"
        )
    return committed


def guarded(ask: Callable[[], T], *needed: Right) -> T:
    """Returns what librdkafka answers; whatever else comes out of it is an exception, and one that Python knows.

    Args:
        ask: Of librdkafka.
        needed: The rights of the reader.

    Raises:
        Denied: the cluster does not allow it.
        KafkaError: librdkafka or the broker says no.
        OffsetLoss: as it was raised.
        RuntimeError: something that is no exception at all came out.
    """
    try:
        return ask()
    except KafkaException as error:
        raise fault(error.args[0], *needed) from None
    except Exception:
        raise
    except:  # noqa: E722 - confluent_kafka lets its KafkaError, which is no exception, out of a callback
        raise RuntimeError(f"librdkafka: {sys.exc_info()[1]!r}") from None


def fault_of(error: confluent_kafka.KafkaError, *needed: Right) -> OffsetLoss | KafkaError | None:
    """What is wrong when a note comes instead of a record; None when librdkafka mends it by itself.

    Args:
        error: The note.
        needed: The rights of the reader.
    """
    if error.code() in _OUTSIDE:
        return OffsetLoss(error.str())
    if error.code() in _PASSING:
        return None
    # A fatal error has one name for all causes; its text has the cause.
    return KafkaError(error.str(), error.name()) if error.code() == _FATAL else fault(error, *needed)


def _is_record(message: LibrdkafkaMessage, needed: Sequence[Right]) -> bool:
    """False for a note that passes by itself.

    Raises:
        OffsetLoss: the place to read from is gone.
        KafkaError: it does not pass.
    """
    error = message.error()
    if error is not None and (told := fault_of(error, *needed)) is not None:
        raise told
    return error is None


def _fetched(message: LibrdkafkaMessage) -> Fetched:
    # No deserialiser is set: keys, values and headers are bytes, whatever the stubs allow for.
    key, value, headers = (cast("Any", part) for part in (message.key(), message.value(), message.headers()))
    place = (message.topic() or "", message.partition() or 0, message.offset() or 0)
    return Fetched(*place, key, value, list(headers or []))
