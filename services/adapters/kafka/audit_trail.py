"""Reads the audit records of one key by a scan of the key's partition.

Rule: a scan ends at the end of the log at the time of the scan, so the result has every record acknowledged before the
request.

Requests that arrive during a scan wait and share the next scan. Five hundred teardowns at once read each partition a
few times instead of five hundred times.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from aiokafka.partitioner import murmur2

from services.adapters.kafka.producer import KafkaError
from services.adapters.kafka.reader import TopicReader

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

    async def records_of(self, key: str, since_us: int | None) -> list[bytes]:
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
        except KafkaError as error:
            return error
        except Exception as error:  # noqa: BLE001 - every waiting request must get an answer, or waits for ever
            return KafkaError(f"the audit trail could not be scanned: {type(error).__name__}: {error}")

    def _reader(self) -> TopicReader:
        # An error if retention removes the start meanwhile: a scan never skips records.
        return TopicReader(self._config, self._topic, reset="error")

    def _count(self) -> int:
        with self._reader() as reader:
            return len(reader.partition_ids([self._topic], self._timeout_s))

    def _scan(self, partition: int, since_us: int | None, keys: frozenset[bytes]) -> _Records:
        """Returns the time and value of each record of the keys. Blocks."""
        found: _Records = {key: [] for key in keys}
        partition_id = (self._topic, partition)
        with self._reader() as reader:
            span = reader.ends.settled([partition_id], self._timeout_s)[partition_id]
            first = span.first
            if since_us is not None:
                first = reader.ends.since([partition_id], max(0, since_us), self._timeout_s)[partition_id]
            # -1: no record was appended since then.
            for records in reader.read({partition_id: (first, span.end)} if first >= 0 else {}, self._timeout_s):
                for record in records:
                    key, value = record.key(), record.value()
                    if key in found and value is not None:
                        found[key].append((record.timestamp()[1] * 1000, value))
        return found


def _answer(requests: list[_Request], result: _Records | KafkaError) -> None:
    for request in requests:
        if request.answer.done():
            continue
        if isinstance(result, KafkaError):
            request.answer.set_exception(result)
        else:
            since_us = request.since_us or 0
            request.answer.set_result([value for at_us, value in result[request.key.encode()] if at_us >= since_us])
