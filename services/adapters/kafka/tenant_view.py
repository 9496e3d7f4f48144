"""Reads the public view of all tenants: topic `lifecycle.tenants` from the beginning to the end, one tenant per key.

Rules:
- Of several records of a key the greatest version counts, whatever their order in the log.
- `catch_up` returns a view only after the end that the topic had at the time of the call.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Final

from schemas import codec
from schemas.tenant import Tenant
from schemas.topics import TENANTS, named
from schemas.values import Key
from services.adapters.kafka.offsets import PartitionId
from services.adapters.kafka.producer import Electing, KafkaError
from services.adapters.kafka.reader import TopicReader

_PAUSE_S: Final = 0.1
_FETCH_WAIT_MS: Final = 500
"""librdkafka's default: a view of the reconciler follows a quiet topic for days."""

OnStored = Callable[[Tenant | None, Tenant], None]


class TenantView:
    """A growing view of all tenants. Blocks; any thread may close the view while a second thread reads."""

    def __init__(self, config: dict[str, Any], prefix: str, on_stored: OnStored | None = None) -> None:
        """Prepares the clients; the first `catch_up` connects.

        Args:
            config: librdkafka's connection settings.
            prefix: Prefix of the installation's topics.
            on_stored: Called in the reading thread with the former record of a tenant (None for a new tenant) and with
                the record that replaces the former one.
        """
        self._on_stored = on_stored
        self._topic = named(TENANTS, prefix)
        self._reader = TopicReader(config, self._topic, fetch_wait_ms=_FETCH_WAIT_MS)
        self._lock = threading.Lock()
        self._closed = False
        self._tenants: dict[Key, Tenant] = {}
        self.unreadable = 0
        """Number of records that this version of the program cannot read; the view leaves these records out."""

    def catch_up(self, timeout_s: float) -> dict[Key, Tenant]:
        """Reads to the present end and returns a copy of the view.

        Raises:
            KafkaError: No broker answers, the topic is missing, or the end was not reached in time.
        """
        deadline_s = time.monotonic() + timeout_s
        wanted: dict[PartitionId, int] | None = None
        while wanted is None or any(self._reader.positions[partition_id] < end for partition_id, end in wanted.items()):
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
        if not self._reader.positions:
            return self.catch_up(30.0)
        self._read_batch(wait_s)
        return dict(self._tenants)

    def close(self) -> None:
        """Closes the clients; a reading thread gets a KafkaError."""
        # Waits for a reading thread: librdkafka's consumer must not be closed during a call.
        with self._lock:
            if not self._closed:
                self._closed = True
                self._reader.close()

    @contextmanager
    def _open(self) -> Iterator[TopicReader]:
        with self._lock:
            if self._closed:
                raise KafkaError("closed")
            yield self._reader

    def _read_batch(self, wait_s: float) -> None:
        with self._open() as reader:
            records = reader.poll(wait_s)
        for record in records:
            self._store(record.value())

    def _ends(self, timeout_s: float) -> dict[PartitionId, int] | None:
        """Returns the end of each partition; None while the cluster elects a leader. The first call starts to read."""
        try:
            with self._open() as reader:
                partition_ids = reader.positions or reader.partition_ids([self._topic], timeout_s)
                spans = reader.ends.settled(partition_ids, timeout_s)
                if not reader.positions:
                    reader.start({partition_id: span.first for partition_id, span in spans.items()})
        except Electing:
            time.sleep(_PAUSE_S)
            return None
        return {partition_id: span.end for partition_id, span in spans.items()}

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
            if self._on_stored is not None:
                self._on_stored(known, tenant)


def read(config: dict[str, Any], prefix: str, timeout_s: float = 30.0) -> dict[Key, Tenant]:
    """Reads the whole view once. Blocks.

    Raises:
        KafkaError: No broker answers, the topic is missing, or the end was not reached in time.
    """
    with closing(TenantView(config, prefix)) as view:
        return view.catch_up(timeout_s)
