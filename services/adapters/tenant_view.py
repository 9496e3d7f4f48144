"""The public view of all tenants: `lifecycle.tenants` read from beginning to end, one tenant a key.

Rule: of several records of a key the greatest version counts, whatever their order; a view is given out only when it
has reached the end that the topic had when it was asked for.
"""

import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final

import confluent_kafka

from schemas import codec
from schemas.tenant import Tenant
from schemas.topics import TENANTS, named
from schemas.values import Key
from services.adapters.kafka import KafkaError

_BATCH: Final = 1000


class TenantView:
    """A growing view; blocking, for one thread at a time."""

    def __init__(self, config: dict[str, Any], prefix: str) -> None:
        """Prepare; the first `catch_up` connects.

        Args:
            config: librdkafka's connection settings.
            prefix: Of the installation's topics.
        """
        self._topic = named(TENANTS, prefix)
        self._consumer = confluent_kafka.Consumer(
            config
            | {
                # Assigned by hand and never committed: the name only satisfies the client.
                "group.id": f"{prefix}lifecycle-view",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
            }
        )
        self._next: dict[int, int] = {}
        self._tenants: dict[Key, Tenant] = {}
        self.unreadable = 0
        """Records that this version cannot read; they are left out."""

    @property
    def tenants(self) -> Mapping[Key, Tenant]:
        """What was read so far."""
        return self._tenants

    def catch_up(self, timeout_s: float) -> dict[Key, Tenant]:
        """Read to the present end and return a copy of the view.

        Raises:
            KafkaError: no broker answers, no such topic, or the end was not reached in time.
        """
        deadline_s = time.monotonic() + timeout_s
        try:
            ends = self._ends(timeout_s)
            while any(self._next[partition] < end for partition, end in ends.items()):
                if time.monotonic() > deadline_s:
                    raise KafkaError(f"{self._topic}: its end was not reached within {timeout_s:g} s")
                self.take(0.2)
        except confluent_kafka.KafkaException as error:
            raise KafkaError(error.args[0].name()) from None
        return dict(self._tenants)

    def take(self, wait_s: float) -> None:
        """Read what is there, waiting at most `wait_s` for the first record.

        Raises:
            KafkaError: the broker refuses.
        """
        for message in self._consumer.consume(_BATCH, wait_s):
            error = message.error()
            partition, offset = message.partition(), message.offset()
            if error is not None and error.code() != confluent_kafka.KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                raise KafkaError(error.name())
            if partition is None or offset is None:
                continue
            self._next[partition] = offset if error is not None else offset + 1
            if error is None:
                self._keep(message.value())

    def close(self) -> None:
        """Leave."""
        self._consumer.close()

    def _ends(self, timeout_s: float) -> dict[int, int]:
        if not self._next:
            found = self._consumer.list_topics(self._topic, timeout=timeout_s).topics.get(self._topic)
            if found is None or found.error:
                raise KafkaError(f"{self._topic}: no such topic")
            self._next = dict.fromkeys(found.partitions, 0)
            places = [
                confluent_kafka.TopicPartition(self._topic, p, confluent_kafka.OFFSET_BEGINNING) for p in self._next
            ]
            self._consumer.assign(places)
        ends = {}
        for partition in self._next:
            place = confluent_kafka.TopicPartition(self._topic, partition)
            marks = self._consumer.get_watermark_offsets(place, timeout=timeout_s)
            if marks is None:
                raise KafkaError(f"{self._topic}: no answer within {timeout_s:g} s")
            low, high = marks
            ends[partition] = high if high > low else 0
        return ends

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
