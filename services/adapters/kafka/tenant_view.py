"""The public view of all tenants: `lifecycle.tenants` read from beginning to end, one tenant a key.

Rule: of several records of a key the greatest version counts, whatever their order; a view is given out only when it
has reached the end that the topic had when it was asked for.
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
    """A growing view; blocking. Any thread may close it while another reads."""

    def __init__(self, config: dict[str, Any], prefix: str) -> None:
        """Prepare; the first `catch_up` connects.

        Args:
            config: librdkafka's connection settings.
            prefix: Of the installation's topics.
        """
        self._topic = named(TENANTS, prefix)
        self._consumer = clients.consumer(
            config,
            group_id=looks_group(self._topic),
            auto_offset_reset="earliest",
            enable_partition_eof=True,
        )
        self._asker = offsets.OffsetReader(config, self._topic)
        self._lock = threading.Lock()
        self._closed = False
        self._next: dict[int, int] = {}
        self._tenants: dict[Key, Tenant] = {}
        self.unreadable = 0
        """Records that this version cannot read; they are left out."""

    def catch_up(self, timeout_s: float) -> dict[Key, Tenant]:
        """Read to the present end and return a copy of the view.

        Raises:
            KafkaError: no broker answers, no such topic, or the end was not reached in time.
        """
        deadline_s = time.monotonic() + timeout_s
        wanted: dict[int, int] | None = None
        while wanted is None or any(self._next[partition] < end for partition, end in wanted.items()):
            if time.monotonic() > deadline_s:
                raise KafkaError(f"{self._topic}: its end was not reached within {timeout_s:g} s")
            if wanted is None:
                wanted = self._ends(min(timeout_s, 10.0))
            else:
                self._take(0.2)
        return dict(self._tenants)

    def follow(self, wait_s: float) -> Mapping[Key, Tenant]:
        """Read on a little and return a copy of the view, which may be behind; the first call catches up.

        Raises:
            KafkaError: as `catch_up`, or the broker refuses.
        """
        if not self._next:
            return self.catch_up(30.0)
        self._take(wait_s)
        return dict(self._tenants)

    def close(self) -> None:
        """Leave; whoever reads now is told with a KafkaError."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._consumer.close()
                self._asker.close()

    def _take(self, wait_s: float) -> None:
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
                self._keep(message.value())
            self._next[partition] = offset if error is not None else offset + 1

    def _ends(self, timeout_s: float) -> dict[int, int] | None:
        """The end of each partition; None when the cluster is still finding its leaders."""
        try:
            with self._lock:
                if self._closed:
                    raise KafkaError("closed")
                if not self._next:
                    self._begin(timeout_s)
                # Asked on a connection of its own: on the consumer's, each question would wait behind a long fetch.
                spans = self._asker.settled([(self._topic, number) for number in self._next], timeout_s)
        except Electing:
            time.sleep(_PAUSE_S)
            return None
        except KafkaException as error:
            raise fault(error.args[0], *to_read(self._topic)) from None
        return {number: span.end for (_, number), span in spans.items()}

    def _begin(self, timeout_s: float) -> None:
        self._next = dict.fromkeys(reader.partitions(self._consumer, self._topic, timeout_s), 0)
        self._consumer.assign([TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in self._next])

    def _keep(self, value: bytes | None) -> None:
        try:
            tenant = codec.decode(Tenant, value)
        except codec.Unreadable:
            self.unreadable += 1
            return
        known = self._tenants.get(tenant.key)
        if known is None or tenant.version >= known.version:
            self._tenants[tenant.key] = tenant


def read(config: dict[str, Any], prefix: str, timeout_s: float = 30.0) -> dict[Key, Tenant]:
    """Read the whole view once. Blocks.

    Raises:
        KafkaError: no broker answers, no such topic, or the end was not reached in time.
    """
    with closing(TenantView(config, prefix)) as view:
        return view.catch_up(timeout_s)
