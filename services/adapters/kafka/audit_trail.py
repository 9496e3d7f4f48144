"""Reads one key's audit records from Kafka by scanning the partition that holds them.

Rule: a scan ends where the log ended after it was asked for, so it holds everything acknowledged before. Scans of a
partition that wait are made one: five hundred teardowns at once read each partition a few times, not five hundred.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.partitioner import murmur2
from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.topics import looks_group
from services.adapters.kafka import clients, offsets
from services.adapters.kafka.producer import KafkaError, fault, is_denial, to_read

_BATCH: Final = 1_000
_POLL_S: Final = 1.0
_Found = dict[bytes, list[tuple[int, bytes]]]
"""Key to the time (µs) and value of each of its records."""


@dataclass(frozen=True, slots=True)
class _Wish:
    key: str
    since_us: int | None
    answer: "asyncio.Future[list[bytes]]"


class AuditTrail:
    """Answers from one event loop; nothing is open between scans."""

    def __init__(self, config: dict[str, Any], topic: str, *, timeout_s: float) -> None:
        """Prepare.

        Args:
            config: librdkafka's connection settings.
            topic: `lifecycle.audit` of this installation.
            timeout_s: Of one scan.
        """
        self._config = config
        self._topic = topic
        self._timeout_s = timeout_s
        self._partitions = 0
        self._counting = asyncio.Lock()
        self._waiting: defaultdict[int, list[_Wish]] = defaultdict(list)
        self._scanning: dict[int, asyncio.Task[None]] = {}

    async def of(self, key: str, since_us: int | None) -> list[bytes]:
        """The values of a key's records, in order.

        Args:
            key: `orgId:integrationId`.
            since_us: Records older than this are left out; None reads from the beginning.

        Raises:
            KafkaError: they could not be read whole.
        """
        async with self._counting:
            self._partitions = self._partitions or await asyncio.to_thread(self._count)
        partition = (murmur2(key.encode()) & 0x7FFFFFFF) % self._partitions
        wish = _Wish(key, since_us, asyncio.get_running_loop().create_future())
        self._waiting[partition].append(wish)
        if partition not in self._scanning:
            self._scanning[partition] = asyncio.create_task(self._serve(partition), name=f"audit-{partition}")
        return await wish.answer

    async def _serve(self, partition: int) -> None:
        try:
            while wishes := self._waiting.pop(partition, None):
                _settle(wishes, await self._found(partition, wishes))
        finally:
            del self._scanning[partition]

    async def _found(self, partition: int, wishes: list[_Wish]) -> _Found | KafkaError:
        since = [wish.since_us for wish in wishes]
        first = None if None in since else min(s for s in since if s is not None)
        keys = frozenset(wish.key.encode() for wish in wishes)
        try:
            return await asyncio.to_thread(self._scan, partition, first, keys)
        except KafkaException as error:
            return fault(error.args[0], *to_read(self._topic))
        except KafkaError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever it is, each of the wishes must hear of it, or waits for ever
            return KafkaError(f"the audit trail could not be scanned: {type(error).__name__}: {error}")

    def _count(self) -> int:
        consumer = self._consumer()
        try:
            found = consumer.list_topics(self._topic, timeout=self._timeout_s).topics.get(self._topic)
        except KafkaException as error:
            raise KafkaError(error.args[0].name()) from None
        finally:
            consumer.close()
        if found is not None and is_denial(found.error):
            raise fault(found.error, *to_read(self._topic))
        if found is None or found.error or not found.partitions:
            raise KafkaError(f"{self._topic}: no such topic")
        return len(found.partitions)

    def _consumer(self) -> Consumer:
        return clients.consumer(
            self._config,
            group_id=looks_group(self._topic),
            auto_offset_reset="error",  # records that retention took meanwhile are no reason to skip others
            enable_partition_eof=True,
            fetch_wait_max_ms=20,
        )

    def _scan(self, partition: int, since_us: int | None, keys: frozenset[bytes]) -> _Found:
        """Time (µs) and value of each record of the keys. Blocks."""
        found: _Found = {key: [] for key in keys}
        place = (self._topic, partition)
        with offsets.OffsetReader(self._config, self._topic) as asker:
            span = asker.spans([place], self._timeout_s)[place]
        consumer = self._consumer()
        try:
            position = span.first if since_us is None else _first_since(consumer, place, since_us, self._timeout_s)
            if position is None:
                return found
            consumer.assign([TopicPartition(self._topic, partition, position)])
            silent_s = 0.0
            while position < span.end:
                # No more than there are: `consume` waits for as many as it was asked for.
                messages = consumer.consume(min(_BATCH, span.end - position), _POLL_S)
                silent_s = 0.0 if messages else silent_s + _POLL_S
                if silent_s >= self._timeout_s:
                    raise KafkaError(offsets.held({place: span}) or "the end of the audit trail was not reached")
                for message in messages:
                    error, offset = message.error(), int(message.offset() or 0)
                    if error is not None and error.code() != offsets.END:
                        raise fault(error, *to_read(self._topic))
                    position = offset if error is not None else offset + 1
                    key, value = message.key(), message.value()
                    if error is None and key in found and value is not None and position <= span.end:
                        found[key].append((message.timestamp()[1] * 1000, value))
        finally:
            consumer.close()
        return found


def _first_since(consumer: Consumer, place: offsets.PartitionId, since_us: int, timeout_s: float) -> int | None:
    """The offset of the first record at or after an instant; None when there is none."""
    wanted = TopicPartition(*place, max(0, since_us // 1000))
    (found,) = consumer.offsets_for_times([wanted], timeout=timeout_s)
    return int(found.offset) if found.offset >= 0 else None


def _settle(wishes: list[_Wish], result: _Found | KafkaError) -> None:
    for wish in wishes:
        if wish.answer.done():
            continue
        if isinstance(result, KafkaError):
            wish.answer.set_exception(result)
        else:
            since_us = wish.since_us or 0
            wish.answer.set_result([value for at_us, value in result[wish.key.encode()] if at_us >= since_us])
