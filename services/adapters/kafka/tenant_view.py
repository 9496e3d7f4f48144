"""Reads the public view of all tenants: topic `lifecycle.tenants` from the beginning to the end, one tenant per key.

Rules:
- Of several records of a key the greatest version counts, whatever their order in the log.
- `catch_up` returns a view only after the end that the topic had at the time of the call.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition

from schemas import codec
from schemas.tenant import Tenant
from schemas.topics import TENANTS, looks_group, named
from schemas.values import Key
from services.adapters.kafka import clients, offsets, reader
from services.adapters.kafka.producer import Electing, KafkaError, fault, to_read

_BATCH: Final = 1000
_PAUSE_S: Final = 0.1


class TenantView:
    """A growing view of all tenants. Blocks; any thread may close the view while a second thread reads."""

    def __init__(self, config: dict[str, Any], prefix: str) -> None:
        """Prepares the clients; the first `catch_up` connects.

        Args:
            config: librdkafka's connection settings.
            prefix: Prefix of the installation's topics.
        """
        self._topic = named(TENANTS, prefix)
        self._consumer = clients.consumer(
            config,
            group_id=looks_group(self._topic),
            auto_offset_reset="earliest",
            enable_partition_eof=True,
        )
        self._offset_reader = offsets.OffsetReader(config, self._topic)
        self._lock = threading.Lock()
        self._closed = False
        self._next: dict[int, int] = {}
        self._tenants: dict[Key, Tenant] = {}
        self.unreadable = 0
        """Number of records that this version of the program cannot read; the view leaves these records out."""

    def catch_up(self, timeout_s: float) -> dict[Key, Tenant]:
        """Reads to the present end and returns a copy of the view.

        Raises:
            KafkaError: No broker answers, the topic is missing, or the end was not reached in time.
        """
        deadline_s = time.monotonic() + timeout_s
        wanted: dict[int, int] | None = None
        while wanted is None or any(self._next[partition] < end for partition, end in wanted.items()):
            if time.monotonic() > deadline_s:
                raise KafkaError(f"{self._topic}: its end was not reached within {timeout_s:g} s")
            if wanted is None:
                wanted = self._ends(min(timeout_s, 10.0))
            else:
                self._read_batch(0.2)
        return dict(self._tenants)

    def follow(self, wait_s: float) -> Mapping[Key, Tenant]:
        """Reads for at most `wait_s` and returns a copy of the view, which may be behind. The first call catches up.

        Raises:
            KafkaError: As `catch_up`, or the broker refuses.
        """
        if not self._next:
            return self.catch_up(30.0)
        self._read_batch(wait_s)
        return dict(self._tenants)

    def close(self) -> None:
        """Closes the clients; a reading thread gets a KafkaError."""
        # Waits for a reading thread: librdkafka's consumer must not be closed during a call.
        with self._lock:
            if not self._closed:
                self._closed = True
                self._consumer.close()
                self._offset_reader.close()

    def _read_batch(self, wait_s: float) -> None:
        with self._lock:
            if self._closed:
                raise KafkaError("closed")
            messages = self._consumer.consume(_BATCH, wait_s)
        for message in messages:
            error, partition, offset = message.error(), message.partition(), message.offset()
            if error is not None and error.code() != offsets.END:
                if not clients.passes(error):
                    raise fault(error, *to_read(self._topic))
                continue
            if partition is None or offset is None:
                continue
            if error is None:
                self._store(message.value())
            # The EOF also raises the position, over marks of transactions behind the last record.
            self._next[partition] = offset if error is not None else offset + 1

    def _ends(self, timeout_s: float) -> dict[int, int] | None:
        """Returns the end of each partition; None while the cluster elects a leader."""
        try:
            with self._lock:
                if self._closed:
                    raise KafkaError("closed")
                if not self._next:
                    self._start(timeout_s)
                # A client of its own: on the consumer's connection each question would wait behind a long fetch.
                spans = self._offset_reader.settled([(self._topic, number) for number in self._next], timeout_s)
        except Electing:
            time.sleep(_PAUSE_S)
            return None
        except KafkaException as error:
            raise fault(error.args[0], *to_read(self._topic)) from None
        return {number: span.end for (_, number), span in spans.items()}

    def _start(self, timeout_s: float) -> None:
        self._next = dict.fromkeys(reader.partitions(self._consumer, self._topic, timeout_s), 0)
        self._consumer.assign([TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in self._next])

    def _store(self, value: bytes | None) -> None:
        try:
            tenant = codec.decode(Tenant, value)
        except codec.Unreadable:
            self.unreadable += 1
            return
        known = self._tenants.get(tenant.key)
        # `>=`, because a rewritten record repeats its version.
        if known is None or tenant.version >= known.version:
            self._tenants[tenant.key] = tenant


def read(config: dict[str, Any], prefix: str, timeout_s: float = 30.0) -> dict[Key, Tenant]:
    """Reads the whole view once. Blocks.

    Raises:
        KafkaError: No broker answers, the topic is missing, or the end was not reached in time.
    """
    with closing(TenantView(config, prefix)) as view:
        return view.catch_up(timeout_s)
