"""Reads the audit records of one key by a scan of the key's partition.

Rule: a scan ends at the end of the log at the time of the scan, so the result has every record acknowledged before the
request.

Requests that arrive during a scan wait and share the next scan. Five hundred teardowns at once read each partition a
few times instead of five hundred times.
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
_Records = dict[bytes, list[tuple[int, bytes]]]
"""Key to the time (microseconds UTC) and the value of each record."""


@dataclass(frozen=True, slots=True)
class _Request:
    """One request for the records of a key.

    Attributes:
        key: `orgId:integrationId`.
        since_us: Older records are left out; None: all records count.
        answer: Set to the values, or to the error.
    """

    key: str
    since_us: int | None
    answer: "asyncio.Future[list[bytes]]"


class AuditTrail:
    """Reads audit records by key. Use from one event loop; no connection stays open between scans."""

    def __init__(self, config: dict[str, Any], topic: str, *, timeout_s: float) -> None:
        """Prepares the reader without connecting.

        Args:
            config: librdkafka's connection settings.
            topic: Full name of `lifecycle.audit`.
            timeout_s: Longest silence of the broker during a scan, and time limit of each question.
        """
        self._config = config
        self._topic = topic
        self._timeout_s = timeout_s
        self._partitions = 0
        self._count_lock = asyncio.Lock()
        self._requests: defaultdict[int, list[_Request]] = defaultdict(list)
        self._scanning: dict[int, asyncio.Task[None]] = {}

    async def of(self, key: str, since_us: int | None) -> list[bytes]:
        """Returns the values of a key's records, in the order of the log.

        Args:
            key: `orgId:integrationId`.
            since_us: Records older than this (microseconds UTC) are left out; None reads from the beginning.

        Raises:
            KafkaError: The records could not be read completely.
        """
        async with self._count_lock:
            # The count is asked once, because a partition count never changes (`topics`).
            self._partitions = self._partitions or await asyncio.to_thread(self._count)
        # The formula of the producers' partitioner (murmur2_random of librdkafka), for keys.
        partition = (murmur2(key.encode()) & 0x7FFFFFFF) % self._partitions
        request = _Request(key, since_us, asyncio.get_running_loop().create_future())
        self._requests[partition].append(request)
        if partition not in self._scanning:
            self._scanning[partition] = asyncio.create_task(self._serve_partition(partition), name=f"audit-{partition}")
        return await request.answer

    async def _serve_partition(self, partition: int) -> None:
        try:
            # The last `pop` and the `del` below have no `await` in between, so no request can slip in unserved.
            while requests := self._requests.pop(partition, None):
                _answer(requests, await self._scan_for(partition, requests))
        finally:
            del self._scanning[partition]

    async def _scan_for(self, partition: int, requests: list[_Request]) -> _Records | KafkaError:
        since = [request.since_us for request in requests]
        first = None if None in since else min(s for s in since if s is not None)
        keys = frozenset(request.key.encode() for request in requests)
        try:
            return await asyncio.to_thread(self._scan, partition, first, keys)
        except KafkaException as error:
            return fault(error.args[0], *to_read(self._topic))
        except KafkaError as error:
            return error
        except Exception as error:  # noqa: BLE001 - every waiting request must get an answer, or waits for ever
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
            auto_offset_reset="error",  # an error if retention removes the start meanwhile: never skip records
            enable_partition_eof=True,
            fetch_wait_max_ms=20,
        )

    def _scan(self, partition: int, since_us: int | None, keys: frozenset[bytes]) -> _Records:
        """Returns the time and value of each record of the keys. Blocks."""
        found: _Records = {key: [] for key in keys}
        place = (self._topic, partition)
        with offsets.OffsetReader(self._config, self._topic) as offset_reader:
            span = offset_reader.spans([place], self._timeout_s)[place]
        consumer = self._consumer()
        try:
            position = span.first if since_us is None else _first_since(consumer, place, since_us, self._timeout_s)
            if position is None:
                return found
            consumer.assign([TopicPartition(self._topic, partition, position)])
            silent_s = 0.0
            while position < span.end:
                # Asks for no more records than exist: `consume` waits for the full number or the time limit.
                messages = consumer.consume(min(_BATCH, span.end - position), _POLL_S)
                silent_s = 0.0 if messages else silent_s + _POLL_S
                if silent_s >= self._timeout_s:
                    raise KafkaError(
                        offsets.describe_open_transactions({place: span})
                        or "the end of the audit trail was not reached"
                    )
                for message in messages:
                    error, offset = message.error(), int(message.offset() or 0)
                    if error is not None and error.code() != offsets.END:
                        raise fault(error, *to_read(self._topic))
                    # The EOF also raises the position, over marks of transactions behind the last record.
                    position = offset if error is not None else offset + 1
                    key, value = message.key(), message.value()
                    # A batch may contain records behind the end of the scan; these are left out.
                    if error is None and key in found and value is not None and position <= span.end:
                        found[key].append((message.timestamp()[1] * 1000, value))
        finally:
            consumer.close()
        return found


def _first_since(consumer: Consumer, place: offsets.PartitionId, since_us: int, timeout_s: float) -> int | None:
    """Returns the offset of the first record at or after a time; None without a record."""
    wanted = TopicPartition(*place, max(0, since_us // 1000))
    (found,) = consumer.offsets_for_times([wanted], timeout=timeout_s)
    return int(found.offset) if found.offset >= 0 else None


def _answer(requests: list[_Request], result: _Records | KafkaError) -> None:
    for request in requests:
        if request.answer.done():
            continue
        if isinstance(result, KafkaError):
            request.answer.set_exception(result)
        else:
            since_us = request.since_us or 0
            request.answer.set_result([value for at_us, value in result[request.key.encode()] if at_us >= since_us])
